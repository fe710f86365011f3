"""HumanEval, MBPP, LeetCode: asserts that a right program passes."""

import pytest

from tests import foreign_rows
from valley_jax import records
from valley_jax.data.problem_formats import asserts

CORRECT = {
    'humaneval': 'def f(x): return x + 1',
    'mbpp': 'def f(x): return x + 1',
    'leetcode': ('class Solution:\n  def addOne(self, x: int) -> int: return x + 1'),
}


def _run_submission(problem: records.Problem, submission: str) -> None:
  for test in problem.tests:
    namespace = {}
    for code in (problem.starter_code, submission, test.input):
      exec(code, namespace)


@pytest.mark.parametrize('name', CORRECT)
def test_a_right_program_passes_and_a_wrong_one_fails(tmp_path, name):
  (problem,) = foreign_rows.read_changed_row(tmp_path, name)
  assert problem.mode is records.Mode.ASSERT
  _run_submission(problem, CORRECT[name])
  with pytest.raises(AssertionError):
    _run_submission(problem, CORRECT[name].replace('x + 1', 'x'))


@pytest.mark.parametrize('name', CORRECT)
def test_a_solution_is_not_part_of_the_problem(tmp_path, name):
  (problem,) = foreign_rows.read_changed_row(tmp_path, name)
  assert b'return x + 1' not in records.to_json(problem)


def test_every_assert_of_mbpp_is_a_test_and_the_first_is_shown(tmp_path):
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'mbpp')
  assert problem.problem_id == 'mbpp/7'
  assert [t.is_sample for t in problem.tests] == [True, False]
  assert 'assert f(a) == 2' in problem.statement
  assert 'assert f(2) == 3' not in problem.statement


def test_the_sanitized_mbpp_has_a_prompt_and_imports(tmp_path):
  (problem,) = foreign_rows.read_changed_row(
      tmp_path,
      'mbpp',
      text='',
      prompt='Add one, please.',
      test_setup_code='',
      test_imports=['import math'],
      test_list=['assert math.isclose(f(0.5), 1.5)'],
  )
  assert problem.statement.startswith('Add one, please.')
  assert problem.entry_point == 'f'
  _run_submission(problem, CORRECT['mbpp'])


@pytest.mark.parametrize(
    ('test', 'name'),
    [
        ('assert f(1) == 2', 'f'),
        ('assert (f_2(1)) == 3', 'f_2'),
        ('assert not f("g(x)")', 'f'),
        ('assert set(f([1])) == set([2])', 'f'),
        ('assert math.isclose(f(1), 2)', 'f'),
        ('assert sum(1, 2) == 3', 'sum'),
        ('assert 1 == 1', ''),
    ],
)
def test_the_entry_point_is_what_an_assert_calls(test, name):
  assert asserts.find_entry_point(test) == name


def test_a_leetcode_problem_knows_its_method_and_its_day(tmp_path):
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'leetcode')
  assert problem.entry_point == 'addOne'
  assert problem.date == '2024-01-21'
  assert (problem.difficulty, problem.platform) == ('easy', 'leetcode')
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'leetcode', start_time=None)
  assert problem.date == ''


def test_a_node_class_ahead_of_the_solution_is_not_its_method(tmp_path):
  node = 'class ListNode:\n    def __init__(self, val=0):\n        pass\n'
  prompt = node + foreign_rows.ROWS['leetcode']['prompt']
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'leetcode', prompt=prompt)
  assert problem.entry_point == 'addOne'


def test_leetcode_provides_its_node_and_the_imports(tmp_path):
  (problem,) = foreign_rows.read_changed_row(
      tmp_path, 'leetcode', test='assert Solution().last(ListNode(1, ListNode(2))) == 2'
  )
  _run_submission(
      problem,
      'class Solution:\n'
      '  def last(self, node: Optional[ListNode]) -> int:\n'
      '    return reduce(lambda a, b: b, self.values(node), -inf)\n'
      '  def values(self, node):\n'
      '    while node:\n'
      '      yield node.val\n'
      '      node = node.next\n',
  )


@pytest.mark.parametrize(
    ('name', 'changes', 'names'),
    [
        ('mbpp', {'test_list': ['assert 1']}, 'test_list'),
        ('mbpp', {'text': ''}, 'text'),
        ('mbpp', {'task_id': 'x'}, 'task_id'),
        ('leetcode', {'prompt': 'def f(x):'}, 'prompt'),
        ('leetcode', {'start_time': 10**18}, 'start_time'),
        ('humaneval', {'entry_point': ''}, 'entry_point'),
    ],
)
def test_a_bad_column_is_named(tmp_path, name, changes, names):
  with pytest.raises(records.BadRowError, match=f'line 1.*`?{names}.*[Mm]end'):
    foreign_rows.read_changed_row(tmp_path, name, **changes)


def test_a_row_of_mbpp_without_tests_is_said(tmp_path):
  with pytest.raises(ValueError, match='1 left out: no tests .mbpp/7'):
    foreign_rows.read_changed_row(tmp_path, 'mbpp', test_list=[])
