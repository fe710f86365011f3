"""Two teachers, and the base student's habit of answering at once.

Both teachers write the same style: the chain by name, from the request down,
then one line a link from the basic definition up, each the line before plus
one definition; then the program. The careless one slips in a stated share of
its traces, and its program follows the mistaken thought. Every slip changes
the meaning, so whether a trace is correct shows when its program is judged;
the records themselves leave `is_correct` unknown.
"""

import dataclasses
import enum
import random

from valley_jax import records
from valley_jax.mini import predicates
from valley_jax.mini import problems

Chain = tuple[predicates.Link, ...]


class Teacher(enum.Enum):
  """Who wrote a trace; the value is `Trace.teacher`."""

  BASE = 'base'  # The program alone.
  CAREFUL = 'careful'
  CARELESS = 'careless'


class Slip(enum.Enum):
  """What a careless teacher gets wrong."""

  DROPPED = 'dropped'  # Passes over a definition.
  SWAPPED = 'swapped'  # Takes and for or, or misses a not.
  DISTRACTED = 'distracted'  # Reads the distractor for a definition.
  MISREAD = 'misread'  # Takes another constant, or the other side.


_SWAPPED = {
    predicates.Connective.AND: predicates.Connective.OR,
    predicates.Connective.OR: predicates.Connective.AND,
    predicates.Connective.NOT: predicates.Connective.AND,
}


def _replaced(chain: Chain, index: int, **changes) -> Chain:
  link = dataclasses.replace(chain[index], **changes)
  return (*chain[:index], link, *chain[index + 1 :])


def slips(puzzle: problems.Puzzle) -> dict[Slip, list[Chain]]:
  """Returns every chain that is one slip away and means something else."""
  chain, distractor = puzzle.chain, puzzle.distractor
  indices = range(len(chain))
  # The distractor stands where it is most easily taken for a definition: in
  # place of the one that builds on the same name.
  names = [link.name for link in chain]
  distracted = []
  if distractor is not None:
    referent = distractor.refers_to
    place = names.index(referent) + 1 if referent else 0
    distracted = [(*chain[:place], distractor, *chain[place + 1 :])]
  found = {
      Slip.DROPPED: [predicates.without(chain, i) for i in indices if len(chain) > 1],
      Slip.SWAPPED: [
          _replaced(chain, i, connective=_SWAPPED[chain[i].connective]) for i in indices[1:]
      ],
      Slip.DISTRACTED: distracted,
      Slip.MISREAD: [
          _replaced(chain, i, condition=condition)
          for i in indices
          for condition in chain[i].condition.misread()
      ],
  }
  truth = predicates.truth(chain)
  return {
      slip: wrong
      for slip, chains in found.items()
      if (wrong := [c for c in chains if predicates.truth(c) != truth])
  }


def answer(chain: Chain, request: problems.Request) -> str:
  """Returns the program in its fence."""
  predicate = predicates.unfold(chain)[-1]
  return f'```python\n{problems.program(predicate, request)}\n```'


def think(chain: Chain) -> str:
  """Returns the think text that leads to the chain's predicate."""
  names = ', '.join(link.name for link in reversed(chain))
  lines = [f'The chain is {names}.']
  for link, code in zip(chain, predicates.unfold(chain)):
    lines.append(f'So {link.name} is {code}')
  return '<think>\n' + '\n'.join(lines) + '\n</think>\n'


def respond(
    teacher: Teacher, puzzle: problems.Puzzle, *, seed: int = 0, mistake_rate: float = 0.0
) -> str:
  """Returns what the teacher writes; randomness is of (seed, problem)."""
  chain = puzzle.chain
  if teacher is Teacher.BASE:
    return answer(chain, puzzle.request)
  if teacher is Teacher.CARELESS:
    rng = random.Random(f'{seed}/{puzzle.problem_id}/slip')
    if rng.random() < mistake_rate:
      chain = rng.choice(rng.choice(list(slips(puzzle).values())))
  return think(chain) + answer(chain, puzzle.request)


def write_trace(
    teacher: Teacher, puzzle: problems.Puzzle, *, seed: int = 0, mistake_rate: float = 0.0
) -> records.Trace:
  """Returns the teacher's trace as a record."""
  return records.Trace(
      trace_id=f'{puzzle.problem_id}-{teacher.value}',
      problem_id=puzzle.problem_id,
      question=puzzle.statement,
      response=respond(teacher, puzzle, seed=seed, mistake_rate=mistake_rate),
      teacher=teacher.value,
      difficulty=puzzle.difficulty,
      source='mini',
  )
