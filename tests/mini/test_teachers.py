"""Both teachers write in one style, and the program follows the thought."""

import re

import pytest

from valley_jax.mini import predicates
from valley_jax.mini import problems
from valley_jax.mini import teachers

THINKING = [teachers.Teacher.CAREFUL, teachers.Teacher.CARELESS]


@pytest.fixture(scope='module')
def puzzles():
  return list(problems.generate_puzzles(problems.Split.TRAIN, 400))


def write_response(teacher, puzzle):
  return teachers.write_response(teacher, puzzle, mistake_rate=0.5)


def test_the_base_answers_without_thinking(puzzles):
  for puzzle in puzzles:
    response = write_response(teachers.Teacher.BASE, puzzle)
    assert response == f'```python\n{puzzle.solution}\n```'


@pytest.mark.parametrize('teacher', THINKING)
def test_a_thought_comes_before_every_program(puzzles, teacher):
  style = re.compile(r'<think>\n.*\n</think>\n```python\n.*\n```', re.DOTALL)
  for puzzle in puzzles:
    assert style.fullmatch(write_response(teacher, puzzle))


@pytest.mark.parametrize('teacher', THINKING)
def test_the_program_follows_the_thought(puzzles, teacher):
  """Also where the thought is mistaken."""
  for puzzle in puzzles:
    response = write_response(teacher, puzzle)
    *_, conclusion = re.findall(r'So \w+ is (.*)', response)
    program = problems.format_program(conclusion, puzzle.request)
    assert response.endswith(f'```python\n{program}\n```')


def test_the_careful_thought_names_the_chain_from_the_request_down(puzzles):
  for puzzle in puzzles:
    thought = write_response(teachers.Teacher.CAREFUL, puzzle)
    names = re.search(r'The chain is (.*)\.', thought)[1].split(', ')
    assert names[0] in puzzle.statement.rsplit('. ', 1)[1]
    definitions = {d.name: d.refers_to for d in puzzle.chain}
    referents = [definitions[name] for name in names]
    assert referents == [*names[1:], '']
    assert re.findall(r'So (\w+) is', thought) == names[::-1]


def test_the_careless_teacher_makes_mistakes_at_the_stated_rate(puzzles):
  mistaken = sum(
      write_response(teachers.Teacher.CARELESS, puzzle)
      != write_response(teachers.Teacher.CAREFUL, puzzle)
      for puzzle in puzzles
  )
  assert 0.42 < mistaken / len(puzzles) < 0.58


def test_every_mistake_changes_the_meaning(puzzles):
  for puzzle in puzzles:
    for chains in teachers.list_mistaken_chains(puzzle).values():
      assert chains
      for chain in chains:
        assert predicates.tabulate_chain(chain) != predicates.tabulate_chain(puzzle.chain)


def test_a_trace_leaves_correctness_to_execution(puzzles):
  for teacher in teachers.Teacher:
    trace = teachers.write_trace(teacher, puzzles[0], mistake_rate=1.0)
    assert trace.is_correct is None
    assert trace.teacher == teacher.value
    assert trace.problem_id == puzzles[0].problem_id


def test_a_response_does_not_depend_on_the_problems_before_it(puzzles):
  alone = write_response(teachers.Teacher.CARELESS, puzzles[7])
  in_turn = [write_response(teachers.Teacher.CARELESS, p) for p in puzzles[:8]]
  assert in_turn[7] == alone
