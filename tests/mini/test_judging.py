"""Claims about the hidden tests: right programs pass, nearly right ones fail.

Programs run here as text, in this process, and are compared with the truth tables.
"""

import io
import re

import pytest

from valley_jax.mini import judging
from valley_jax.mini import predicates
from valley_jax.mini import problems
from valley_jax.mini import teachers


def run_program(code, text):
  """Returns what a program prints when `text` is its standard input."""
  out = io.StringIO()
  lines = io.StringIO(text)
  exec(
      code,
      {
          'input': lambda: lines.readline().rstrip('\n'),
          'print': lambda *values: print(*values, file=out),
      },
  )
  return out.getvalue()


def passes_tests(source, tests):
  code = compile(source, '', 'exec')
  return all(run_program(code, test.input) == test.expected for test in tests)


def extract_program(response):
  return re.search(r'```python\n(.*)\n```$', response, re.DOTALL)[1]


def list_edited_programs(source):
  """Yields programs that are one small edit of the text away."""
  start = source.index(' if ')
  for match in re.finditer(r'(?<=[<>] )\d+', source):
    for wrong in (int(match[0]) - 1, int(match[0]) + 1):
      yield source[: match.start()] + str(wrong) + source[match.end() :]
  edits = [
      (r'==', '!='),
      (r'<', '<='),
      (r'>', '>='),
      (r'<', '>'),
      (r'>', '<'),
      (r'\band\b', 'or'),
      (r'\bor\b', 'and'),
      (r'\bnot \(', '('),
      (r'x % \d+ == \d+', 'True'),
      (r'x [<>] \d+', 'True'),
      (r'x % \d+ == \d+', 'False'),
      (r'x [<>] \d+', 'False'),
  ]
  for pattern, wrong in edits:
    for match in re.compile(pattern).finditer(source, start):
      yield source[: match.start()] + wrong + source[match.end() :]


def has_same_meaning(source, puzzle):
  predicate = re.search(r' if (.*?)\](, default=0)?\)\)$', source)[1]
  code = compile(predicate, '', 'eval')
  kept = [x for x in predicates.DOMAIN if eval(code, {'x': x})]
  return kept == predicates.list_members(predicates.tabulate_chain(puzzle.chain))


@pytest.fixture(scope='module')
def judged_puzzles():
  puzzles = problems.generate_puzzles(problems.Split.EVAL, 120)
  return [(puzzle, judging.make_tests(puzzle)) for puzzle in puzzles]


def test_the_reference_program_passes_as_text(judged_puzzles):
  for puzzle, tests in judged_puzzles:
    assert passes_tests(puzzle.solution, tests)


def test_at_least_95_percent_of_edited_programs_fail(judged_puzzles):
  caught = num = 0
  for puzzle, tests in judged_puzzles:
    for source in set(list_edited_programs(puzzle.solution)):
      if not has_same_meaning(source, puzzle):
        num += 1
        caught += not passes_tests(source, tests)
  assert num > 1000
  assert caught / num >= 0.95


@pytest.mark.parametrize('mistake', teachers.Mistake)
def test_at_least_95_percent_of_mistakes_fail(judged_puzzles, mistake):
  caught = num = 0
  for puzzle, tests in judged_puzzles:
    for chain in teachers.list_mistaken_chains(puzzle).get(mistake, []):
      predicate = predicates.unfold_chain(chain)[-1]
      source = problems.format_program(predicate, puzzle.request)
      num += 1
      caught += not passes_tests(source, tests)
  assert num >= 100
  assert caught / num >= 0.95


def test_at_least_95_percent_of_other_requests_fail(judged_puzzles):
  caught = num = 0
  for puzzle, tests in judged_puzzles:
    predicate = predicates.unfold_chain(puzzle.chain)[-1]
    for request in problems.Request:
      if request is not puzzle.request:
        num += 1
        source = problems.format_program(predicate, request)
        caught += not passes_tests(source, tests)
  assert caught / num >= 0.95


def test_no_constant_program_passes(judged_puzzles):
  for _, tests in judged_puzzles:
    answers = {test.expected for test in tests}
    assert len(answers) > 1


def test_there_are_few_tests_and_edge_cases_among_them(judged_puzzles):
  for puzzle, tests in judged_puzzles:
    assert 8 <= len(tests) <= judging.MAX_TESTS
    lists = [list(map(int, test.input.split())) for test in tests]
    truth = predicates.tabulate_chain(puzzle.chain)
    kept = [[predicates.is_member(x, truth) for x in xs] for xs in lists]
    assert '\n' in [test.input for test in tests]
    assert any(len(xs) == 1 for xs in lists)
    assert any(xs and not any(flags) for xs, flags in zip(lists, kept))
    assert any(len(xs) > 1 and all(flags) for xs, flags in zip(lists, kept))
    assert any(len(set(xs)) < len(xs) for xs in lists)
    assert any(0 in xs for xs in lists)
    assert any(min(xs, default=0) < 0 for xs in lists)


def test_no_test_shows_in_the_statement(judged_puzzles):
  for puzzle, tests in judged_puzzles:
    problem = judging.build_problem(puzzle)
    assert problem.statement == puzzle.statement
    assert not any(test.is_sample for test in problem.tests)
    long = [test.input.strip() for test in tests if len(test.input) > 5]
    assert not any(text in problem.statement for text in long)


def test_tests_are_drawn_by_seed(judged_puzzles):
  puzzle, tests = judged_puzzles[0]
  assert judging.make_tests(puzzle, seed=0) == tests
  assert judging.make_tests(puzzle, seed=1) != tests


def test_a_careful_program_passes_and_a_mistaken_one_fails(judged_puzzles):
  failed = 0
  for puzzle, tests in judged_puzzles:
    careful = teachers.write_response(teachers.Teacher.CAREFUL, puzzle)
    assert passes_tests(extract_program(careful), tests)
    careless = teachers.write_response(teachers.Teacher.CARELESS, puzzle, mistake_rate=1.0)
    failed += not passes_tests(extract_program(careless), tests)
  assert failed / len(judged_puzzles) >= 0.95
