"""Test cases that separate the right program from nearly right ones.

Few tests keep judging cheap; well-chosen ones keep it honest. Random lists are chosen one by one
for the rivals that they expose: every chain that is one mistake away (see `teachers.py`), the
predicate that accepts everything, and the same predicate under another request. A rival that
survives gets a list made for it. Edge cases follow: the empty line, one number, none or all that
satisfy the predicate, the neighbours of every constant, negative numbers, zero and duplicates. The
most revealing tests come first, so that a wrong program is stopped early.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import random

from valley_jax import records
from valley_jax.mini import predicates
from valley_jax.mini import problems
from valley_jax.mini import teachers

NUM_DRAWN = 6  # Tests chosen from a pool of random lists.
NUM_POOL = 14
MAX_TESTS = 14
_Rival = tuple[int, problems.Request]  # Truth table and request of a wrong program.


def evaluate_request(truth: int, request: problems.Request, numbers: Iterable[int]) -> int:
  """Returns what the reference program prints for numbers of DOMAIN."""
  kept = [x for x in numbers if predicates.is_member(x, truth)]
  match request:
    case problems.Request.COUNT:
      return len(kept)
    case problems.Request.SUM:
      return sum(kept)
    case problems.Request.LARGEST:
      return max(kept, default=0)
    case problems.Request.SMALLEST:
      return min(kept, default=0)


def list_rivals(puzzle: problems.Puzzle) -> list[_Rival]:
  """Returns the wrong programs that a problem's tests must expose."""
  truth = predicates.tabulate_chain(puzzle.chain)
  wrong_tables = {
      predicates.tabulate_chain(chain)
      for chains in teachers.list_mistaken_chains(puzzle).values()
      for chain in chains
  }
  tables = sorted(wrong_tables | {predicates.EVERYTHING})
  other_requests = [request for request in problems.Request if request != puzzle.request]
  return [(table, puzzle.request) for table in tables] + [(truth, r) for r in other_requests]


def _find_exposed_rivals(
    truth: int, request: problems.Request, numbers: Sequence[int], candidates: Iterable[_Rival]
) -> set[_Rival]:
  expected = evaluate_request(truth, request, numbers)
  return {rival for rival in candidates if evaluate_request(*rival, numbers) != expected}


def _draw_list(rng: random.Random, telling: Sequence[int], num: int) -> list[int]:
  """Draws half of the numbers from `telling`, half from all of DOMAIN."""
  return [rng.choice(telling if rng.random() < 0.5 else predicates.DOMAIN) for _ in range(num)]


def _choose_revealing_lists(
    rng: random.Random, puzzle: problems.Puzzle, num_extra: int
) -> list[list[int]]:
  """Returns NUM_DRAWN lists, and at most `num_extra` made for rivals that survive these."""
  truth, request = predicates.tabulate_chain(puzzle.chain), puzzle.request
  alive = set(list_rivals(puzzle))
  # One number per rival: a bound that moved by one differs in a single number of DOMAIN.
  telling = [
      rng.choice(predicates.list_members(truth ^ table))
      for table, _ in sorted(alive, key=lambda rival: rival[0])
      if table != truth
  ]
  pool = [_draw_list(rng, telling, rng.randint(3, 10)) for _ in range(NUM_POOL)]
  chosen = []
  for _ in range(NUM_DRAWN):
    exposed = [_find_exposed_rivals(truth, request, numbers, alive) for numbers in pool]
    best = max(range(len(pool)), key=lambda i: len(exposed[i]))
    chosen.append(pool.pop(best))
    alive -= exposed[best]
  for rival in sorted(alive, key=lambda rival: rival[0]):
    table = rival[0]
    if rival in alive and num_extra and table != truth:
      # One telling number among numbers that both programs ignore.
      witness = rng.choice(predicates.list_members(truth ^ table))
      ignored = predicates.list_members(predicates.EVERYTHING & ~(truth | table))
      numbers = [witness, *rng.sample(ignored, min(4, len(ignored)))]
      rng.shuffle(numbers)
      chosen.append(numbers)
      num_extra -= 1
      alive -= _find_exposed_rivals(truth, request, numbers, alive)
  return chosen


def _make_edge_lists(rng: random.Random, puzzle: problems.Puzzle) -> list[list[int]]:
  truth = predicates.tabulate_chain(puzzle.chain)
  inside = predicates.list_members(truth)
  outside = predicates.list_members(predicates.EVERYTHING & ~truth)
  borders = []
  for definition in puzzle.chain:
    condition = definition.condition
    constant = condition.limit if isinstance(condition, predicates.Bound) else condition.modulus
    borders += [constant - 1, constant, constant + 1]
  rng.shuffle(borders)
  satisfying = rng.sample(inside, min(4, len(inside)))
  return [
      [],
      [rng.choice(inside)],
      rng.sample(outside, min(5, len(outside))),
      satisfying + satisfying[:2],  # All satisfy the predicate, two of them twice.
      borders,
      [0, *(-x for x in borders[:4])],
  ]


def make_tests(puzzle: problems.Puzzle, *, seed: int = 0) -> tuple[records.TestCase, ...]:
  """Returns the hidden tests; the input is one line of integers, the output the answer."""
  rng = random.Random(f'{seed}/{puzzle.problem_id}/tests')
  edge_lists = _make_edge_lists(rng, puzzle)  # Drawn first, listed last.
  num_extra = MAX_TESTS - NUM_DRAWN - len(edge_lists)
  lists = _choose_revealing_lists(rng, puzzle, num_extra) + edge_lists
  truth = predicates.tabulate_chain(puzzle.chain)
  return tuple(
      records.TestCase(
          input=' '.join(map(str, numbers)) + '\n',
          expected=f'{evaluate_request(truth, puzzle.request, numbers)}\n',
      )
      for numbers in lists
  )


def build_problem(puzzle: problems.Puzzle, *, seed: int = 0) -> records.Problem:
  """Returns the problem with its hidden tests, as a judge needs it."""
  return records.Problem(
      problem_id=puzzle.problem_id,
      statement=puzzle.statement,
      tests=make_tests(puzzle, seed=seed),
      difficulty=puzzle.difficulty,
      source='mini',
  )
