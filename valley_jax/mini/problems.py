"""Seeded problems: definitions in random order, and one request.

    A proud number is calm and below 45. A calm number is even. A shy number is above 7 but not
    calm. Read a line of integers and print the sum of the proud ones, or 0 if none.

The difficulty of a problem is its depth: how many definitions its answer unfolds. Every problem
(except half of the base student's own) has one more definition, a distractor. Half of the
distractors stand alone and half build on the chain, so that neither "the definition without a name"
nor "the name that occurs once" gives the answer away. The program starts with the basic definition,
the last that is reached from the request: who answers at once must follow the whole chain before
writing the first condition, who thinks first follows one definition at a time. This gap is what
this world is for.

The splits are disjoint for any seeds and sizes: no two share a definition graph (the definitions,
and which of them is asked for), because a hash of the graph decides the split. From depth 2 on it
is a hash of the predicate's truth table, which is stronger: no two splits share even a predicate,
however it is worded. At depth 1 the hash is of the definition together with the distractor, because
a basic definition alone is vocabulary rather than a problem. Within a split no two problems have
the same definitions and request (up to names and order), and no two evaluation problems of depth 2
or more have the same predicate and request.
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


_REDUCTIONS = {  # Function, and the code after the list of numbers.
    Request.COUNT: ('len', ''),
    Request.SUM: ('sum', ''),
    Request.LARGEST: ('max', ', default=0'),
    Request.SMALLEST: ('min', ', default=0'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldSettings:
  """What the problems of a world are like, whatever their number; weights are relative.

  Depths 1 to 4 straddle what a small student resolves in one pass: it can answer the first at once,
  and the last it cannot. Few names, few templates and constants of two digits keep texts short,
  because every token costs training time. `and` is the most frequent connective, being the easiest
  to unfold; `but not` puts the name last, so that no place in a sentence gives it away. Bounds are
  the most frequent condition, being short to write and many.

  The base student's own problems are easier than the evaluation's, like those of a general model:
  mostly shallow, and half of them without a distractor. On these, a million parameters learn within
  two minutes to look up a definition and copy it, and hardly to compose. Train and evaluation
  problems are alike, with equally many of each depth and always a distractor.
  """

  depth_weights: tuple[float, ...] = (1, 1, 1, 1)  # Depths 1, 2, 3, 4 of train problems.
  base_depth_weights: tuple[float, ...] = (4, 2, 1, 1)
  base_plain_rate: float = 0.5  # Share of base problems without a distractor.
  num_names: int = 12
  limit_step: int = 3
  max_limit: int = 99  # Bounds are the multiples of limit_step up to this.
  max_modulus: int = 9
  parity_weight: float = 2
  multiple_weight: float = 3
  bound_weight: float = 6
  and_weight: float = 5
  or_weight: float = 3
  not_weight: float = 2
  loose_distractor_rate: float = 0.5  # Share of distractors that refer to no definition.
  min_effect: int = 4  # Numbers of DOMAIN that every definition must decide.
  mistake_rate: float = 0.5  # Share of the careless teacher's traces with a mistake.


DEFAULT_WORLD = WorldSettings()


@dataclasses.dataclass(frozen=True)
class Puzzle:
  """A problem in structured form; `judging.build_problem` turns it into a row."""

  problem_id: str
  chain: predicates.Chain  # Basic definition first.
  distractor: predicates.Definition | None
  request: Request
  order: tuple[int, ...]  # Indices into `definitions`, as the statement lists them.

  @property
  def difficulty(self) -> str:
    """The depth: how many definitions the answer unfolds."""
    return f'depth-{len(self.chain)}'

  @property
  def definitions(self) -> predicates.Chain:
    """All definitions, the distractor last."""
    return self.chain + ((self.distractor,) if self.distractor else ())

  @property
  def statement(self) -> str:
    """The text that a student reads."""
    sentences = ' '.join(self.definitions[i].sentence for i in self.order)
    name = self.chain[-1].name
    return (
        f'{sentences} Read a line of integers and print the {self.request.value} of the {name}'
        ' ones, or 0 if none.'
    )

  @property
  def solution(self) -> str:
    """The reference program."""
    return format_program(predicates.unfold_chain(self.chain)[-1], self.request)


def format_program(predicate: str, request: Request) -> str:
  """Returns the program that applies `request` to the numbers that satisfy a Python predicate."""
  function, rest = _REDUCTIONS[request]
  kept = f'[x for x in map(int, input().split()) if {predicate}]'
  return f'print({function}({kept}{rest}))'


def assign_split(chain: predicates.Chain, distractor: predicates.Definition | None) -> Split:
  """Returns the split of all problems of this graph: 60, 20 and 20 % of the hashes."""
  if len(chain) > 1:
    graph = str(predicates.tabulate_chain(chain))
  elif distractor is None:
    return Split.BASE  # The other splits always have a distractor.
  else:
    graph = str(_describe_graph(chain, distractor))
  digest = hashlib.blake2b(graph.encode(), digest_size=8).digest()
  tenth = int.from_bytes(digest, 'little') % 10
  if tenth < 6:
    return Split.BASE
  return Split.TRAIN if tenth < 8 else Split.EVAL


def _describe_graph(chain: predicates.Chain, distractor: predicates.Definition | None) -> tuple:
  """Returns the definitions without names and order."""
  places = {definition.name: i for i, definition in enumerate(chain)}
  return tuple(
      (
          definition.condition.code,
          definition.connective.value if definition.refers_to else '',
          places.get(definition.refers_to),
      )
      for definition in chain + ((distractor,) if distractor else ())
  )


@functools.cache
def _weigh_conditions(world: WorldSettings) -> tuple[list[predicates.Condition], list[float]]:
  """Returns all conditions and their cumulative weights."""
  limits = range(world.limit_step, world.max_limit + 1, world.limit_step)
  families = [
      (world.parity_weight, [predicates.Remainder(2, r) for r in (0, 1)]),
      (
          world.multiple_weight,
          [predicates.Remainder(modulus, 0) for modulus in range(3, world.max_modulus + 1)],
      ),
      (world.bound_weight, [predicates.Bound(sign, limit) for limit in limits for sign in '<>']),
  ]
  weights = [w / len(family) for w, family in families for _ in family]
  conditions = [condition for _, family in families for condition in family]
  return conditions, list(itertools.accumulate(weights))


def _draw_definitions(
    rng: random.Random, world: WorldSettings, names: Sequence[str], referents: Sequence[str]
) -> predicates.Chain:
  """Draws a definition for each name; it refers to the referent unless that is empty."""
  conditions, weights = _weigh_conditions(world)
  connective_weights = (world.and_weight, world.or_weight, world.not_weight)
  connectives = rng.choices(tuple(predicates.Connective), connective_weights, k=len(names))
  drawn = rng.choices(conditions, cum_weights=weights, k=len(names))
  return tuple(map(predicates.Definition, names, drawn, connectives, referents))


def _draw_chain_and_distractor(
    rng: random.Random, world: WorldSettings, depth: int, split: Split
) -> tuple[predicates.Chain, predicates.Definition | None]:
  """Draws until the graph is of the split and every definition has an effect."""
  is_plain = split is Split.BASE and rng.random() < world.base_plain_rate
  names = rng.sample(NAMES[: world.num_names], depth)
  while True:
    chain = _draw_definitions(rng, world, names, ['', *names[:-1]])
    distractor = None if is_plain else _draw_distractor(rng, world, chain)
    if assign_split(chain, distractor) is split and _has_effect(chain, world.min_effect):
      return chain, distractor


def _has_effect(chain: predicates.Chain, min_effect: int) -> bool:
  """Returns whether no definition is idle: always true, never true, or without consequence."""
  truth = predicates.tabulate_chain(chain)
  pairs = [
      (predicates.tabulate_chain(chain[: i + 1]), constant)
      for i in range(len(chain))
      for constant in (0, predicates.EVERYTHING)
  ]
  if len(chain) > 1:
    shorter = [predicates.drop_definition(chain, i) for i in range(len(chain))]
    pairs += [(truth, predicates.tabulate_chain(rest)) for rest in shorter]
  return all((one ^ other).bit_count() >= min_effect for one, other in pairs)


def _draw_distractor(
    rng: random.Random, world: WorldSettings, chain: predicates.Chain
) -> predicates.Definition:
  """Draws a definition that the answer does not need."""
  used = {definition.name for definition in chain}
  free = [name for name in NAMES[: world.num_names] if name not in used]
  is_loose = rng.random() < world.loose_distractor_rate
  referent = '' if is_loose else rng.choice(chain).name
  return _draw_definitions(rng, world, [rng.choice(free)], [referent])[0]


def _compute_identity(puzzle: Puzzle, split: Split) -> tuple:
  """Returns what no two problems of the split may have in common."""
  if split is Split.EVAL and len(puzzle.chain) > 1:
    return predicates.tabulate_chain(puzzle.chain), puzzle.request
  return _describe_graph(puzzle.chain, puzzle.distractor), puzzle.request


def generate_puzzles(
    split: Split, num: int, *, seed: int = 0, world: WorldSettings = DEFAULT_WORLD
) -> Iterator[Puzzle]:
  """Yields `num` distinct problems; a smaller number is a prefix of a larger one.

  Raises:
    UserError: the world has too few distinct problems.
  """
  rng = random.Random(f'{seed}/{split.value}')
  weights = world.base_depth_weights if split is Split.BASE else world.depth_weights
  depths = range(1, len(weights) + 1)
  seen = set()
  misses = 0  # Since the last new problem.
  while len(seen) < num:
    if split is Split.EVAL:
      depth = depths[len(seen) % len(depths)]  # Equally many problems of every depth.
    else:
      depth = rng.choices(depths, weights)[0]
    chain, distractor = _draw_chain_and_distractor(rng, world, depth, split)
    num_definitions = depth if distractor is None else depth + 1
    order = tuple(rng.sample(range(num_definitions), num_definitions))
    request = rng.choice(tuple(Request))
    puzzle = Puzzle(f'{split.value}-{len(seen):05}', chain, distractor, request, order)
    identity = _compute_identity(puzzle, split)
    if identity not in seen:
      misses = 0
      seen.add(identity)
      yield puzzle
      continue
    misses += 1
    if misses > 1000:
      raise errors.UserError(
          f'Found only {len(seen):,} of {num:,} distinct {split.value} problems (depth {depth});'
          ' ask for fewer, or raise WorldSettings.max_limit.'
      )
