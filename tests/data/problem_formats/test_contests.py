"""CodeContests and open-r1/codeforces: tests, limits, checkers, what is not."""

import pytest

from tests import foreign_rows
from valley_jax import records


def test_the_three_sets_of_codecontests_come_in_order(tmp_path):
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'codecontests')
  assert [(t.input, t.expected, t.is_sample) for t in problem.tests] == [
      ('1\n', '2\n', True),
      ('2\n', '3\n', False),
      ('3\n', '4\n', False),
  ]
  # 256,000,000 bytes are 244.1 MiB.
  assert problem.limits == records.Limits(cpu_seconds=1.5, memory_mib=245)
  assert (problem.platform, problem.difficulty) == ('codeforces', '800')


def test_a_problem_without_rating_has_its_letter(tmp_path):
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'codecontests', cf_rating=0)
  assert problem.difficulty == 'A'


def test_limits_that_codecontests_does_not_know_are_the_configs(tmp_path):
  (problem,) = foreign_rows.read_changed_row(
      tmp_path, 'codecontests', time_limit=None, memory_limit_bytes=0
  )
  assert problem.limits == records.Limits()


NONE = {'input': [], 'output': []}


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'input_file': 'in.txt'}, 'files'),
        ({'private_tests': NONE, 'generated_tests': NONE}, 'all tests stand in the statement'),
        (dict.fromkeys(('public_tests', 'private_tests', 'generated_tests'), NONE), 'no tests'),
    ],
)
def test_nothing_to_judge_in_codecontests_is_said(tmp_path, changes, reason):
  with pytest.raises(ValueError, match=f'no problem that can be judged: 1 left out: .*{reason}'):
    foreign_rows.read_changed_row(tmp_path, 'codecontests', **changes)


@pytest.mark.parametrize(
    ('changes', 'names'),
    [
        ({'private_tests': {'input': ['1'], 'output': []}}, 'private_tests'),
        ({'source': 7}, 'source'),
        ({'difficulty': -1}, 'difficulty'),
        ({'time_limit': {'seconds': -1}}, 'time_limit'),
        ({'memory_limit_bytes': 2**62}, 'memory_limit'),
        ({'name': ''}, 'problem_id'),
        ({'name': 5}, r'\$.name'),
    ],
)
def test_a_bad_column_of_codecontests_is_named(tmp_path, changes, names):
  with pytest.raises(records.BadRowError, match=f'line 1.*{names}'):
    foreign_rows.read_changed_row(tmp_path, 'codecontests', **changes)


def test_examples_of_codeforces_are_samples_and_not_repeated(tmp_path):
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'codeforces')
  assert [(t.input, t.expected, t.is_sample) for t in problem.tests] == [
      ('1', '2', True),
      ('2\n', '3\n', False),
  ]
  assert problem.problem_id == '1/A'
  assert problem.limits == records.Limits(cpu_seconds=2.0, memory_mib=256)
  assert (problem.difficulty, problem.date) == ('800', '2024-01-21')
  assert problem.checker == 'tokens'


def test_the_statement_has_all_parts_in_order(tmp_path):
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'codeforces', note='Easy.')
  parts = ['Add one.', 'A number.', 'One more.', '\n1\n', '\n2\n', 'Easy.']
  places = [problem.statement.index(part) for part in parts]
  assert places == sorted(places)


def test_a_generated_checker_judges(tmp_path):
  code = 'import sys\nprint(1)\n'
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'codeforces', generated_checker=code)
  assert problem.checker == 'program'
  assert problem.program == records.Program(
      language='python', files={'checker.py': code}, protocol=records.Protocol.PYTHON
  )


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'interaction_format': 'Ask.'}, 'interactive'),
        ({'input_mode': 'file'}, 'files'),
        ({'official_tests': []}, 'no official tests'),
        ({'official_tests': None}, 'no official tests'),
        ({'official_tests': [{'input': '1', 'output': '2'}]}, 'statement'),
    ],
)
def test_nothing_to_judge_in_codeforces_is_said(tmp_path, changes, reason):
  with pytest.raises(ValueError, match=f'1 left out: .*{reason}.*1/A'):
    foreign_rows.read_changed_row(tmp_path, 'codeforces', **changes)


def test_missing_tests_of_codeforces_are_said(tmp_path):
  with pytest.warns(UserWarning, match='1 kept, .* missing .1/A'):
    (problem,) = foreign_rows.read_changed_row(
        tmp_path, 'codeforces', official_tests_complete=False
    )
  assert len(problem.tests) == 2
