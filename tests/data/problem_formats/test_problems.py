"""Problems are read as they are, or refused with the remedy."""

import gzip
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import foreign_rows
from tests import rows
from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.problem_formats import problems
from valley_jax.mini import world

DATA = pathlib.Path(__file__).parents[4] / 'shared/data'
ROW = foreign_rows.ROWS['humaneval']

_write_rows = foreign_rows.write_rows
every_format = pytest.mark.parametrize('name', foreign_rows.ROWS)


def test_our_own_problems_come_back_as_they_were_written(tmp_path):
  problem = records.Problem(problem_id='a', statement='Add.', tests=(records.TestCase(input='1'),))
  jsonl.write_rows(tmp_path / 'p.jsonl', [problem])
  assert problems.read_problems(f'jsonl:{tmp_path}/p.jsonl') == [problem]


def test_a_mini_world_is_read_by_its_directory_or_its_file(tmp_path):
  world.write_world(tmp_path / 'w', num_base=4, num_train=4, num_eval=4, num_careless=4, seed=0)
  read = problems.read_problems(f'mini:{tmp_path}/w')
  assert len(read) == 4
  assert read == problems.read_problems(f'jsonl:{tmp_path}/w/problems.jsonl')
  train = problems.read_problems(f'mini:{tmp_path}/w/train_problems.jsonl')
  assert train != read


def test_a_humaneval_row_is_tested_by_its_check_of_its_function(tmp_path):
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'humaneval')
  assert problem.problem_id == 'HumanEval/0'
  assert problem.statement == problem.starter_code == ROW['prompt']
  assert problem.mode is records.Mode.ASSERT


@every_format
def test_plain_gzip_and_parquet_files_are_the_same(tmp_path, name):
  row = foreign_rows.ROWS[name]
  plain = _write_rows(tmp_path / 'test.jsonl', row)
  packed = tmp_path / 'test.jsonl.gz'
  packed.write_bytes(gzip.compress(plain.read_bytes()))
  table = tmp_path / 'test.parquet'
  pq.write_table(pa.Table.from_pylist([row]), table)
  read = [problems.read_problems(f'{name}:{path}') for path in (plain, packed, table)]
  assert read[0] == read[1] == read[2] != []


@every_format
def test_what_is_read_is_written_and_read_again(tmp_path, name):
  read = foreign_rows.read_changed_row(tmp_path, name)
  jsonl.write_rows(tmp_path / 'own.jsonl', read)
  assert problems.read_problems(f'jsonl:{tmp_path}/own.jsonl') == read


def test_a_directory_is_read_by_the_names_of_its_files(tmp_path):
  for name in ('b.jsonl', 'c.jsonl', 'a.jsonl'):
    _write_rows(tmp_path / name, ROW | {'task_id': name})
  (tmp_path / 'README.md').write_text('of no matter')
  read = problems.read_problems(f'humaneval:{tmp_path}')
  assert [p.problem_id for p in read] == ['a.jsonl', 'b.jsonl', 'c.jsonl']


def test_a_directory_without_rows_is_refused(tmp_path):
  with pytest.raises(ValueError, match='holds no .jsonl'):
    problems.read_problems(f'humaneval:{tmp_path}')


@pytest.mark.parametrize('spec', ['', 'p.jsonl', 'parquet:p', ':p'])
def test_an_unknown_format_names_the_known_ones(spec):
  with pytest.raises(ValueError, match='humaneval, jsonl'):
    problems.read_problems(spec)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(ValueError, match='no file .*gone.jsonl'):
    problems.read_problems(f'jsonl:{tmp_path}/gone.jsonl')
  with pytest.raises(ValueError, match='no file'):
    problems.read_problems('jsonl:')


def test_a_file_without_problems_is_refused(tmp_path):
  path = _write_rows(tmp_path / 'p.jsonl')
  with pytest.raises(ValueError, match='no row'):
    problems.read_problems(f'jsonl:{path}')


def test_one_id_twice_is_refused(tmp_path):
  path = _write_rows(tmp_path / 'h.jsonl', ROW, ROW)
  with pytest.raises(ValueError, match="'HumanEval/0' occurs twice"):
    problems.read_problems(f'humaneval:{path}')


def test_a_row_of_another_format_is_refused_with_its_line(tmp_path):
  path = _write_rows(tmp_path / 'h.jsonl', ROW, {'task_id': 'x'})
  with pytest.raises(records.BadRowError, match='line 2.*prompt'):
    problems.read_problems(f'humaneval:{path}')


def test_a_bad_row_of_a_parquet_file_is_named(tmp_path):
  path = tmp_path / 'h.parquet'
  rows = [ROW, ROW | {'prompt': None}]
  pq.write_table(pa.Table.from_pylist(rows), path)
  with pytest.raises(records.BadRowError, match='line 2: .*prompt'):
    problems.read_problems(f'humaneval:{path}')


def test_a_missing_column_of_a_parquet_file_is_named(tmp_path):
  path = tmp_path / 'h.parquet'
  pq.write_table(pa.Table.from_pylist([{'prompt': 'x'}]), path)
  with pytest.raises(records.BadRowError, match='line 1: .*lack the column.*task_id'):
    problems.read_problems(f'humaneval:{path}')


@pytest.mark.parametrize('name', ['h.jsonl.gz', 'h.parquet'])
def test_a_file_that_is_cut_off_is_named(tmp_path, name):
  path = tmp_path / name
  if path.suffix == '.gz':
    rows = [ROW | {'task_id': str(i)} for i in range(99)]
    whole = gzip.compress(json.dumps(rows).encode())
  else:
    pq.write_table(pa.Table.from_pylist([ROW]), path)
    whole = path.read_bytes()
  path.write_bytes(whole[:-20])
  with pytest.raises(records.BadRowError, match=f'{name}, line 1: damaged.*fetch the file again'):
    problems.read_problems(f'humaneval:{path}')


def test_what_is_left_out_is_counted_and_named_in_one_warning(tmp_path):
  row = foreign_rows.ROWS['codeforces']
  odd = row | {'interaction_format': 'Ask.'}
  path = _write_rows(
      tmp_path / 'c.jsonl',
      row,
      *(odd | {'id': f'{i}/B'} for i in range(12)),
      row | {'id': '2/A', 'input_mode': 'file'},
  )
  with pytest.warns(UserWarning) as said:
    (problem,) = problems.read_problems(f'codeforces:{path}')
  assert problem.problem_id == '1/A'
  assert len(said) == 1
  text = str(said[0].message)
  assert '12 left out: interactive' in text
  assert '(0/B, 1/B, ' in text and '9/B and 2 more)' in text
  assert '1 left out: it reads or writes files (2/A)' in text


# --- The published sets, where a copy of them lies beside the project. --------


@pytest.mark.parametrize(
    ('spec', 'count'),
    [
        ('humaneval:HumanEval.jsonl.gz', 164),
        ('mbpp:mbpp.jsonl.gz', 974),
        ('leetcode:leetcode-20240121-Jul.jsonl.gz', 180),
    ],
)
def test_a_published_set_is_read_whole(spec, count):
  name, _, file = spec.partition(':')
  if not (DATA / file).exists():
    pytest.skip(f'no copy of {file}')
  read = problems.read_problems(f'{name}:{DATA / file}')
  assert len(read) == count
  assert read == problems.read_problems(f'{name}:{DATA / file}')


def test_the_entry_points_of_mbpp_are_what_its_solutions_define():
  path = DATA / 'mbpp.jsonl.gz'
  if not path.exists():
    pytest.skip('no copy of MBPP')
  solutions = [row['code'] for row in jsonl.read_rows(path, dict)]
  read = problems.read_problems(f'mbpp:{path}')
  for problem, code in zip(read, solutions, strict=True):
    assert f'def {problem.entry_point}' in code


def test_a_published_tree_of_packages_is_read_whole():
  if not (DATA / 'kattis').exists():
    pytest.skip('no copy of the packages')
  with pytest.warns(UserWarning, match='validator.*different.*; 3 kept: tests that are links'):
    read = problems.read_problems(f'kattis:{DATA}/kattis')
  assert [(p.problem_id, len(p.tests)) for p in read] == [
      ('different', 3),
      ('hello', 1),
      ('klippaprotein', 44),
      ('meddelande', 34),
      ('pianot', 29),
  ]
  assert read[1].limits.memory_mib == 512
  texts = [text for p in read for t in p.tests for text in (t.input, t.expected)]
  assert not [text for text in texts if text.startswith('../')]


@pytest.mark.parametrize(
    ('tolerance', 'sentence'),
    [
        ('1e-6', 'It is correct if its absolute or relative error does not exceed $$$10^{-6}$$$.'),
        ('1e-9', 'Allowed is an absolute or relative error of at most 10^-9.'),
        ('1e-6', 'The error is at most 10−6.'),
        ('1e-5', 'Answers within 10-5 of the correct answer will be accepted: absolute error.'),
        ('1e-4', 'The absolute error must not exceed 10 ^ { - 4 }.'),
        ('1e-6', 'Print it with 1e-6 relative error.'),
        ('1e-6', 'Your error must be less than 0.000001.'),
        ('1e-6', 'An error of 10⁻⁶ is allowed.'),
        ('1e-7', 'It is checked to a tolerance of 10**-7.'),
        ('', 'The plate is 10^-6 metres thick.'),
        ('', 'There is an error in the code. Steps are 0.01 metres long.'),
        ('', 'There are up to 10^5 numbers; print the absolute difference.'),
    ],
)
def test_the_error_that_a_statement_allows_is_granted(tmp_path, tolerance, sentence):
  written = rows.make_problem('a', statement=f'Divide two numbers.\n\n{sentence} Good luck!')
  jsonl.write_rows(tmp_path / 'p.jsonl', [written])
  (problem,) = problems.read_problems(f'jsonl:{tmp_path}/p.jsonl')
  flags = ('float_tolerance', tolerance) if tolerance else ()
  assert (problem.checker, problem.flags) == ('tokens', flags)


def test_a_checker_of_the_row_comes_before_its_statement(tmp_path):
  written = rows.make_problem('a', statement='Print with an error of 10^-6.', checker='exact')
  jsonl.write_rows(tmp_path / 'p.jsonl', [written])
  assert problems.read_problems(f'jsonl:{tmp_path}/p.jsonl') == [written]
