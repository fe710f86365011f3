"""Seeded problems: a shuffled list of definitions, and one request.

    A proud number is calm and below 45. A calm number is even. A shy number is
    above 7 but not calm. Read a line of integers and print the sum of the proud
    ones, or 0 if none.

A problem's difficulty is its depth: how many definitions its answer unfolds.
One more definition (but in half of the base student's own problems) is a
distractor: half the time it stands alone and half the time it builds on the
chain, so that neither "the definition without a name" nor "the name that
occurs once" betrays the way. The program starts with the basic definition, the
last that one reaches from the request: who answers at once must follow the
whole chain before writing the first condition, who thinks first follows one
link at a time. That gap is what the world is for.

The splits are disjoint: no two share a definition graph (the definitions, and
which of them is asked for), for any seeds and sizes, because a problem's split
is a hash of its graph. From depth 2 on it is a
hash of the predicate's truth table, which is stronger: no two splits share
even a composed predicate, however it is worded. A basic definition alone is
vocabulary rather than a problem, so at depth 1 the hash is of the definition
together with the distractor. Within a split no two problems have the same
definitions and request (up to names and order), and no two evaluation problems
have the same composed predicate and request.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import enum
import functools
import hashlib
import itertools
import random

from valley_jax import errors
from valley_jax.mini import predicates

# Adjectives that mean nothing in arithmetic.
NAMES = (
    'calm proud wild shy bold keen loud warm brave quick gentle lucky merry'
    ' noble quiet sunny clever grumpy humble jolly lazy sleepy tidy witty'
).split()


class Split(enum.Enum):
  """Who sees a problem; the value is the prefix of its `problem_id`."""

  BASE = 'base'  # The base student's own training, without thinking.
  TRAIN = 'train'  # Teachers' traces.
  EVAL = 'eval'  # Never trained on.


class Request(enum.Enum):
  """What to print about the numbers that satisfy the predicate."""

  COUNT = 'count'
  SUM = 'sum'
  LARGEST = 'largest'
  SMALLEST = 'smallest'


_REDUCTION = {  # Function, and what follows the list of kept numbers.
    Request.COUNT: ('len', ''),
    Request.SUM: ('sum', ''),
    Request.LARGEST: ('max', ', default=0'),
    Request.SMALLEST: ('min', ', default=0'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
  """All that can be chosen about the world; nothing depends on a data size.

  Depths 1 to 4 straddle what a small student resolves in one pass: the first
  it can answer at once, the last it cannot. Few names, few templates and
  constants of two digits keep texts short, for every token costs training
  time. Connectives lean to `and`, the easiest to unfold; `but not` puts the
  name last, so that no place in a sentence betrays it. Bounds weigh most,
  being short to write and many. Weights are relative.

  The base student's own problems are easier than the evaluation's, as those of
  a general model are: mostly shallow, and half of them without a distractor.
  On these a million parameters learn within two minutes to look a definition
  up and to copy it, and hardly to compose. Train and evaluation are alike, with
  equally many problems of each depth and always a distractor.
  """

  depth_weights: tuple[float, ...] = (1, 1, 1, 1)  # Depth 1, 2, 3, 4; train.
  base_depth_weights: tuple[float, ...] = (4, 2, 1, 1)
  base_plain_rate: float = 0.5  # Base problems without a distractor.
  num_names: int = 12
  limit_step: int = 3
  max_limit: int = 99  # Bounds: the multiples of limit_step up to this.
  max_modulus: int = 9
  parity_weight: float = 2
  multiple_weight: float = 3
  bound_weight: float = 6
  and_weight: float = 5
  or_weight: float = 3
  not_weight: float = 2
  loose_distractor_rate: float = 0.5  # The distractor builds on nothing.
  min_effect: int = 4  # Numbers of DOMAIN that every link must decide.
  mistake_rate: float = 0.5  # Of the careless teacher, per trace.


DEFAULT = World()
_CONNECTIVES = tuple(predicates.Connective)


@dataclasses.dataclass(frozen=True)
class Puzzle:
  """A problem in structured form; `records.Problem` is its judge's form."""

  problem_id: str
  chain: tuple[predicates.Link, ...]  # Basic definition first.
  distractor: predicates.Link | None
  request: Request
  order: tuple[int, ...]  # Of the statement, over `links`.

  @property
  def difficulty(self) -> str:
    """The depth: how many definitions the answer unfolds."""
    return f'depth-{len(self.chain)}'

  @property
  def links(self) -> tuple[predicates.Link, ...]:
    """All definitions, the distractor last."""
    return self.chain + ((self.distractor,) if self.distractor else ())

  @property
  def statement(self) -> str:
    """What a student reads."""
    definitions = ' '.join(self.links[i].sentence for i in self.order)
    return (
        f'{definitions} Read a line of integers and print the'
        f' {self.request.value} of the {self.chain[-1].name} ones, or 0 if'
        ' none.'
    )

  @property
  def solution(self) -> str:
    """The reference program."""
    return program(predicates.unfold(self.chain)[-1], self.request)


def program(predicate: str, request: Request) -> str:
  """Returns the program that applies `request` to a predicate in Python."""
  function, rest = _REDUCTION[request]
  kept = f'[x for x in map(int, input().split()) if {predicate}]'
  return f'print({function}({kept}{rest}))'


def split_of(chain: tuple[predicates.Link, ...], distractor: predicates.Link | None) -> Split:
  """Returns the split of all problems of this graph: 60, 20, 20 %."""
  if len(chain) > 1:
    graph = str(predicates.truth(chain))
  elif distractor is None:
    return Split.BASE  # The others always have a distractor.
  else:
    graph = str(_graph(chain, distractor))
  digest = hashlib.blake2b(graph.encode(), digest_size=8).digest()
  tenth = int.from_bytes(digest, 'little') % 10
  if tenth < 6:
    return Split.BASE
  return Split.TRAIN if tenth < 8 else Split.EVAL


def _graph(chain: tuple[predicates.Link, ...], distractor: predicates.Link | None) -> tuple:
  """Returns the definitions without names and order."""
  place = {link.name: i for i, link in enumerate(chain)}
  links = chain + ((distractor,) if distractor else ())
  return tuple(
      (
          link.condition.code,
          link.connective.value if link.refers_to else '',
          place.get(link.refers_to),
      )
      for link in links
  )


@functools.cache
def _conditions(world: World) -> tuple[list[predicates.Condition], list[float]]:
  """Returns all conditions and their cumulative weights."""
  moduli = range(3, world.max_modulus + 1)
  families = [
      (world.parity_weight, [predicates.Remainder(2, r) for r in (0, 1)]),
      (world.multiple_weight, [predicates.Remainder(k, 0) for k in moduli]),
      (
          world.bound_weight,
          [
              predicates.Bound(sign, limit)
              for limit in range(world.limit_step, world.max_limit + 1, world.limit_step)
              for sign in '<>'
          ],
      ),
  ]
  weights = [w / len(family) for w, family in families for _ in family]
  conditions = [condition for _, family in families for condition in family]
  return conditions, list(itertools.accumulate(weights))


def _draw_links(
    rng: random.Random, world: World, names: Sequence[str], referents: Sequence[str]
) -> tuple[predicates.Link, ...]:
  """Draws a definition for each name, built on its referent if it has one."""
  conditions, weights = _conditions(world)
  connectives = rng.choices(
      _CONNECTIVES, (world.and_weight, world.or_weight, world.not_weight), k=len(names)
  )
  drawn = rng.choices(conditions, cum_weights=weights, k=len(names))
  return tuple(map(predicates.Link, names, drawn, connectives, referents))


def _draw_definitions(
    rng: random.Random, world: World, depth: int, split: Split
) -> tuple[tuple[predicates.Link, ...], predicates.Link | None]:
  """Draws chain and distractor, until they are of the split and all matter."""
  is_plain = split is Split.BASE and rng.random() < world.base_plain_rate
  names = rng.sample(NAMES[: world.num_names], depth)
  while True:
    chain = _draw_links(rng, world, names, ['', *names[:-1]])
    distractor = None if is_plain else _draw_distractor(rng, world, chain)
    if split_of(chain, distractor) is not split:
      continue
    if _is_live(chain, world.min_effect):
      return chain, distractor


def _is_live(chain: tuple[predicates.Link, ...], min_effect: int) -> bool:
  """Whether no definition is idle: always or never true, or of no effect."""
  truth = predicates.truth(chain)
  pairs = [
      (predicates.truth(chain[: i + 1]), constant)
      for i in range(len(chain))
      for constant in (0, predicates.EVERYTHING)
  ]
  if len(chain) > 1:
    pairs += [(truth, predicates.truth(predicates.without(chain, i))) for i in range(len(chain))]
  return all((one ^ other).bit_count() >= min_effect for one, other in pairs)


def _draw_distractor(
    rng: random.Random, world: World, chain: tuple[predicates.Link, ...]
) -> predicates.Link:
  """Draws a definition that the answer does not need."""
  used = {link.name for link in chain}
  free = [name for name in NAMES[: world.num_names] if name not in used]
  is_loose = rng.random() < world.loose_distractor_rate
  referent = '' if is_loose else rng.choice(chain).name
  return _draw_links(rng, world, [rng.choice(free)], [referent])[0]


def _identity(puzzle: Puzzle, split: Split) -> tuple:
  """Returns what no two problems of the split may have in common."""
  if split is Split.EVAL and len(puzzle.chain) > 1:
    return predicates.truth(puzzle.chain), puzzle.request
  return _graph(puzzle.chain, puzzle.distractor), puzzle.request


def generate(split: Split, num: int, *, seed: int = 0, world: World = DEFAULT) -> Iterator[Puzzle]:
  """Yields `num` distinct problems; fewer are a prefix of more.

  Raises:
    ValueError: the world is too small for so many distinct problems.
  """
  rng = random.Random(f'{seed}/{split.value}')
  is_base = split is Split.BASE
  weights = world.base_depth_weights if is_base else world.depth_weights
  depths = range(1, len(weights) + 1)
  requests = tuple(Request)
  seen = set()
  misses = 0
  while len(seen) < num:
    if split is Split.EVAL:
      depth = depths[len(seen) % len(depths)]
    else:
      depth = rng.choices(depths, weights)[0]
    chain, distractor = _draw_definitions(rng, world, depth, split)
    num_links = depth if distractor is None else depth + 1
    order = tuple(rng.sample(range(num_links), num_links))
    problem_id = f'{split.value}-{len(seen):05}'
    request = rng.choice(requests)
    puzzle = Puzzle(problem_id, chain, distractor, request, order)
    identity = _identity(puzzle, split)
    if identity in seen:
      misses += 1
      if misses > 1000:
        raise errors.UserError(
            f'Found only {len(seen):,} of {num:,} distinct {split.value}'
            f' problems (depth {depth}); ask for fewer, or raise'
            ' World.max_limit.'
        )
      continue
    misses = 0
    seen.add(identity)
    yield puzzle
