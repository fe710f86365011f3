"""Problems are read as they are, or refused with the remedy."""

import gzip
import json

import pytest

from valley_jax import records
from valley_jax.data import problems

ROW = {
    'task_id': 'HumanEval/0',
    'prompt': 'def f(x):\n  """One more."""\n',
    'entry_point': 'f',
    'canonical_solution': '  return x + 1\n',
    'test': 'def check(candidate):\n  assert candidate(1) == 2\n',
}


def _write(path, *rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def test_our_own_problems_come_back_as_they_were_written(tmp_path):
  problem = records.Problem(
      problem_id='a', statement='Add.', tests=(records.TestCase(input='1'),)
  )
  records.write_rows(tmp_path / 'p.jsonl', [problem])
  assert problems.read_problems(f'jsonl:{tmp_path}/p.jsonl') == [problem]


def test_a_humaneval_row_is_tested_by_its_check_of_its_function(tmp_path):
  path = _write(tmp_path / 'h.jsonl', ROW)
  (problem,) = problems.read_problems(f'humaneval:{path}')
  assert problem.problem_id == 'HumanEval/0'
  assert problem.statement == problem.starter_code == ROW['prompt']
  assert problem.mode is records.Mode.ASSERT
  namespace = {'f': lambda x: x + 1}
  exec(problem.tests[0].input, namespace)
  namespace['f'] = lambda x: x
  with pytest.raises(AssertionError):
    exec(problem.tests[0].input, namespace)


def test_a_solution_is_not_part_of_the_problem(tmp_path):
  path = _write(tmp_path / 'h.jsonl', ROW)
  (problem,) = problems.read_problems(f'humaneval:{path}')
  assert b'return x + 1' not in records.to_json(problem)


def test_gzip_and_plain_files_are_the_same(tmp_path):
  plain = _write(tmp_path / 'h.jsonl', ROW)
  packed = tmp_path / 'h.jsonl.gz'
  packed.write_bytes(gzip.compress(plain.read_bytes()))
  assert problems.read_problems(f'humaneval:{plain}') == problems.read_problems(
      f'humaneval:{packed}'
  )


@pytest.mark.parametrize('spec', ['', 'p.jsonl', 'parquet:p', ':p'])
def test_an_unknown_format_names_the_known_ones(spec):
  with pytest.raises(ValueError, match='humaneval, jsonl'):
    problems.read_problems(spec)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(ValueError, match='no file .*gone.jsonl'):
    problems.read_problems(f'jsonl:{tmp_path}/gone.jsonl')


def test_a_file_without_problems_is_refused(tmp_path):
  path = _write(tmp_path / 'p.jsonl')
  with pytest.raises(ValueError, match='no row'):
    problems.read_problems(f'jsonl:{path}')


def test_one_id_twice_is_refused(tmp_path):
  path = _write(tmp_path / 'h.jsonl', ROW, ROW)
  with pytest.raises(ValueError, match="'HumanEval/0' occurs twice"):
    problems.read_problems(f'humaneval:{path}')


def test_a_row_of_another_format_is_refused_with_its_line(tmp_path):
  path = _write(tmp_path / 'h.jsonl', ROW, {'task_id': 'x'})
  with pytest.raises(records.BadRowError, match='line 2.*prompt'):
    problems.read_problems(f'humaneval:{path}')
