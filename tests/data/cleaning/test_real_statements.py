"""Published problems are told apart, and found again.

Needs VALLEY_JAX_DATA, a directory with HumanEval.jsonl.gz, mbpp.jsonl.gz and
LeetCode's weekly contests; skipped without.
"""

import os
import pathlib
import re
import warnings

import pytest

from valley_jax import records
from valley_jax.data.cleaning import contamination
from valley_jax.data.cleaning import duplicates
from valley_jax.data.problem_formats import problems
from valley_jax.runtime import config_groups

DATA = pathlib.Path(os.environ.get('VALLEY_JAX_DATA', ''))
SPECS = (
    f'humaneval:{DATA}/HumanEval.jsonl.gz',
    f'mbpp:{DATA}/mbpp.jsonl.gz',
    f'leetcode:{DATA}/leetcode-20240121-Jul.jsonl.gz',
)

pytestmark = pytest.mark.skipif(
    not (DATA / 'HumanEval.jsonl.gz').exists(),
    reason='VALLEY_JAX_DATA names no directory with HumanEval.jsonl.gz',
)

# Two problems that a person calls one, or nearly: the same task in other words
# or with other limits. HumanEval's pair differs in the kind of its brackets.
ALIKE = re.compile(r'(weekly|biweekly)-contest-\d+-(.*)-(i|ii)$')
SAME = {
    ('HumanEval/56', 'HumanEval/61'),
    ('mbpp/76', 'mbpp/347'),
    ('mbpp/758', 'mbpp/779'),
    ('mbpp/49', 'mbpp/154'),
    ('mbpp/217', 'mbpp/602'),
    ('mbpp/130', 'mbpp/658'),
    ('mbpp/427', 'mbpp/928'),
}


def _are_versions(one: str, other: str) -> bool:
  a, b = ALIKE.match(one), ALIKE.match(other)
  return bool(a and b and a[2] == b[2])


@pytest.fixture(scope='module')
def published():
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', UserWarning)  # Flaws of the sets.
    return [p for spec in SPECS for p in problems.read_problems(spec)]


def _index_problems(published):
  settings = contamination.Settings.from_config(config_groups.get_contamination_group())
  return contamination.Contamination([(p.problem_id, p.statement) for p in published], settings)


def _find_same_questions(published):
  group = config_groups.get_duplicates_group() | {'traces': 'keep'}
  index = duplicates.Duplicates(duplicates.Settings.from_config(group))
  for problem in published:
    duplicate = index.check_trace(
        records.Trace(
            trace_id=problem.problem_id,
            problem_id=problem.problem_id,
            question=problem.statement,
            response='',
        )
    )
    if duplicate:
      yield duplicate.trace_id, problem.problem_id, duplicate.similarity


def test_different_problems_are_not_one_question(published):
  pairs = list(_find_same_questions(published))
  for pair in pairs:
    print(*pair)
  wrong = [p for p in pairs if p[:2] not in SAME and not _are_versions(*p[:2])]
  assert len(pairs) <= 25 and not wrong


def test_every_problem_is_found_again_as_itself(published):
  index = _index_problems(published)
  others = []
  for problem in published:
    match = index.find_problem(f'Solve this.\n\n{problem.statement}\n\nIn Python.')
    assert match and match.score > 0.9, problem.problem_id
    if match.problem_id != problem.problem_id:
      others.append((problem.problem_id, match.problem_id))
  assert len(others) <= 3 and {tuple(sorted(o)) for o in others} <= {
      tuple(sorted(pair)) for pair in SAME
  }


def test_one_evaluation_is_not_contaminated_by_another(published):
  sets = {'HumanEval': [], 'mbpp': [], 'contest': []}
  for problem in published:
    name = problem.problem_id.split('/')[0]
    sets.get(name, sets['contest']).append(problem)
  matches = []
  for name, own in sets.items():
    index = _index_problems(own)
    for problem in published:
      if problem not in own and (match := index.find_problem(problem.statement)):
        matches.append((name, problem.problem_id, match))
        print(problem.problem_id, match)
  assert len(matches) <= 3
