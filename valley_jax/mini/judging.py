"""Test cases that separate the right program from nearly right ones.

Few tests keep judging cheap; well chosen ones keep it honest. Drawn lists are
taken one by one for the rivals that they unmask: every single slip in a link
(`teachers.slips`), the predicate that accepts everything, and the same
predicate under another request. Rivals that survive get a list made for them.
Edge cases follow: the empty line, one number, none or all that satisfy,
the neighbours of every constant, negative numbers, zero and duplicates. The
most revealing tests come first, so that a wrong program ends early.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import random

from valley_jax import records
from valley_jax.mini import predicates
from valley_jax.mini import problems
from valley_jax.mini import teachers

NUM_DRAWN = 6  # Tests chosen from a pool of drawn lists.
NUM_POOL = 14
MAX_TESTS = 14
_Rival = tuple[int, problems.Request]  # A truth table and what is asked of it.


def evaluate(truth: int, request: problems.Request, numbers: Iterable[int]) -> int:
  """Returns what the reference prints for these numbers of DOMAIN."""
  kept = [x for x in numbers if predicates.satisfies(x, truth)]
  match request:
    case problems.Request.COUNT:
      return len(kept)
    case problems.Request.SUM:
      return sum(kept)
    case problems.Request.LARGEST:
      return max(kept, default=0)
    case problems.Request.SMALLEST:
      return min(kept, default=0)


def rivals(puzzle: problems.Puzzle) -> list[_Rival]:
  """Returns the wrong readings of a problem that its tests shall unmask."""
  truth = predicates.truth(puzzle.chain)
  wrong = {
      predicates.truth(chain) for chains in teachers.slips(puzzle).values() for chain in chains
  }
  tables = sorted(wrong | {predicates.EVERYTHING})
  found = [(table, puzzle.request) for table in tables]
  return found + [(truth, r) for r in problems.Request if r != puzzle.request]


def _unmasked(
    truth: int, request: problems.Request, numbers: Sequence[int], candidates: Iterable[_Rival]
) -> set[_Rival]:
  expected = evaluate(truth, request, numbers)
  return {r for r in candidates if evaluate(*r, numbers) != expected}


def _draw_list(rng: random.Random, telling: Sequence[int], num: int) -> list[int]:
  """Draws half from `telling` numbers, half from all of DOMAIN."""
  return [rng.choice(telling if rng.random() < 0.5 else predicates.DOMAIN) for _ in range(num)]


def _revealing_lists(
    rng: random.Random, puzzle: problems.Puzzle, num_extra: int
) -> list[list[int]]:
  """Returns NUM_DRAWN lists and at most `num_extra` made for survivors."""
  truth, request = predicates.truth(puzzle.chain), puzzle.request
  alive = set(rivals(puzzle))
  # A number for each rival: a bound that moved by one shows in one alone.
  telling = [
      rng.choice(predicates.members(truth ^ table))
      for table, _ in sorted(alive, key=lambda rival: rival[0])
      if table != truth
  ]
  pool = [_draw_list(rng, telling, rng.randint(3, 10)) for _ in range(NUM_POOL)]
  chosen = []
  for _ in range(NUM_DRAWN):
    caught = [_unmasked(truth, request, numbers, alive) for numbers in pool]
    best = max(range(len(pool)), key=lambda i: len(caught[i]))
    chosen.append(pool.pop(best))
    alive -= caught[best]
  for table, asked in sorted(alive, key=lambda rival: rival[0]):
    if (table, asked) in alive and num_extra and table != truth:
      # One telling number among numbers that both readings ignore.
      witness = rng.choice(predicates.members(truth ^ table))
      ignored = predicates.members(predicates.EVERYTHING & ~(truth | table))
      numbers = [witness, *rng.sample(ignored, min(4, len(ignored)))]
      rng.shuffle(numbers)
      chosen.append(numbers)
      num_extra -= 1
      alive -= _unmasked(truth, request, numbers, alive)
  return chosen


def _edge_lists(rng: random.Random, puzzle: problems.Puzzle) -> list[list[int]]:
  truth = predicates.truth(puzzle.chain)
  inside = predicates.members(truth)
  outside = predicates.members(predicates.EVERYTHING & ~truth)
  borders = []
  for link in puzzle.chain:
    condition = link.condition
    constant = condition.limit if isinstance(condition, predicates.Bound) else condition.modulus
    borders += [constant - 1, constant, constant + 1]
  rng.shuffle(borders)
  satisfying = rng.sample(inside, min(4, len(inside)))
  return [
      [],
      [rng.choice(inside)],
      rng.sample(outside, min(5, len(outside))),
      satisfying + satisfying[:2],  # All satisfy, two of them twice.
      borders,
      [0, *(-x for x in borders[:4])],
  ]


def make_tests(puzzle: problems.Puzzle, *, seed: int = 0) -> tuple[records.TestCase, ...]:
  """Returns the hidden tests; each is one line of integers, then the answer."""
  rng = random.Random(f'{seed}/{puzzle.problem_id}/tests')
  edges = _edge_lists(rng, puzzle)
  num_extra = MAX_TESTS - NUM_DRAWN - len(edges)
  lists = _revealing_lists(rng, puzzle, num_extra) + edges
  truth = predicates.truth(puzzle.chain)
  return tuple(
      records.TestCase(
          input=' '.join(map(str, numbers)) + '\n',
          expected=f'{evaluate(truth, puzzle.request, numbers)}\n',
      )
      for numbers in lists
  )


def to_problem(puzzle: problems.Puzzle, *, seed: int = 0) -> records.Problem:
  """Returns the problem as a judge holds it."""
  return records.Problem(
      problem_id=puzzle.problem_id,
      statement=puzzle.statement,
      tests=make_tests(puzzle, seed=seed),
      difficulty=puzzle.difficulty,
      source='mini',
  )
