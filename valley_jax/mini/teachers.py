"""Two teachers, and the base student's habit of answering at once.

Both teachers write in one style: the names of the chain, from the request down; then one line per
definition from the basic one up, each line the one before plus one condition; then the program. The
careless teacher makes a mistake in a given share of its traces, and its program follows the
mistaken thought. Every mistake changes the meaning, so judging the program shows whether a trace is
correct; the records themselves leave `is_correct` unknown.
"""

import dataclasses
import enum
import random

from valley_jax import records
from valley_jax.mini import predicates
from valley_jax.mini import problems


class Teacher(enum.Enum):
  """Who wrote a trace; the value is `Trace.teacher`."""

  BASE = 'base'  # Writes the program without thinking.
  CAREFUL = 'careful'
  CARELESS = 'careless'


class Mistake(enum.Enum):
  """What a careless teacher gets wrong."""

  DROPPED = 'dropped'  # Skips a definition.
  SWAPPED = 'swapped'  # Confuses `and` with `or`, or misses a `not`.
  DISTRACTED = 'distracted'  # Takes the distractor for a definition of the chain.
  MISREAD = 'misread'  # Uses another constant, or the other side of a bound.


_SWAPPED_CONNECTIVES = {
    predicates.Connective.AND: predicates.Connective.OR,
    predicates.Connective.OR: predicates.Connective.AND,
    predicates.Connective.NOT: predicates.Connective.AND,
}


def _replace_definition(chain: predicates.Chain, index: int, **changes) -> predicates.Chain:
  definition = dataclasses.replace(chain[index], **changes)
  return (*chain[:index], definition, *chain[index + 1 :])


def list_mistaken_chains(puzzle: problems.Puzzle) -> dict[Mistake, list[predicates.Chain]]:
  """Returns every chain that is one mistake away and means something else."""
  chain, distractor = puzzle.chain, puzzle.distractor
  indices = range(len(chain))
  distracted = []
  if distractor is not None:
    # The distractor replaces the definition that builds on the same name as it does: there it is
    # most easily confused.
    names = [definition.name for definition in chain]
    place = names.index(distractor.refers_to) + 1 if distractor.refers_to else 0
    distracted = [(*chain[:place], distractor, *chain[place + 1 :])]
  candidates = {
      Mistake.DROPPED: [predicates.drop_definition(chain, i) for i in indices if len(chain) > 1],
      Mistake.SWAPPED: [
          _replace_definition(chain, i, connective=_SWAPPED_CONNECTIVES[chain[i].connective])
          for i in indices[1:]
      ],
      Mistake.DISTRACTED: distracted,
      Mistake.MISREAD: [
          _replace_definition(chain, i, condition=condition)
          for i in indices
          for condition in chain[i].condition.list_misreadings()
      ],
  }
  truth = predicates.tabulate_chain(chain)
  return {
      mistake: wrong
      for mistake, chains in candidates.items()
      if (wrong := [c for c in chains if predicates.tabulate_chain(c) != truth])
  }


def write_answer(chain: predicates.Chain, request: problems.Request) -> str:
  """Returns the program in its code block."""
  predicate = predicates.unfold_chain(chain)[-1]
  return f'```python\n{problems.format_program(predicate, request)}\n```'


def write_thought(chain: predicates.Chain) -> str:
  """Returns the think text that leads to the chain's predicate."""
  names = ', '.join(definition.name for definition in reversed(chain))
  lines = [f'The chain is {names}.']
  for definition, code in zip(chain, predicates.unfold_chain(chain)):
    lines.append(f'So {definition.name} is {code}')
  return '<think>\n' + '\n'.join(lines) + '\n</think>\n'


def write_response(
    teacher: Teacher, puzzle: problems.Puzzle, *, seed: int = 0, mistake_rate: float = 0.0
) -> str:
  """Returns the teacher's response; it depends on seed and problem, not on other problems."""
  chain = puzzle.chain
  if teacher is Teacher.BASE:
    return write_answer(chain, puzzle.request)
  if teacher is Teacher.CARELESS:
    rng = random.Random(f'{seed}/{puzzle.problem_id}/slip')
    if rng.random() < mistake_rate:
      # The kind of mistake is drawn first: one kind may have far more chains than another.
      chain = rng.choice(rng.choice(list(list_mistaken_chains(puzzle).values())))
  return write_thought(chain) + write_answer(chain, puzzle.request)


def write_trace(
    teacher: Teacher, puzzle: problems.Puzzle, *, seed: int = 0, mistake_rate: float = 0.0
) -> records.Trace:
  """Returns the teacher's trace as a record."""
  return records.Trace(
      trace_id=f'{puzzle.problem_id}-{teacher.value}',
      problem_id=puzzle.problem_id,
      question=puzzle.statement,
      response=write_response(teacher, puzzle, seed=seed, mistake_rate=mistake_rate),
      teacher=teacher.value,
      difficulty=puzzle.difficulty,
      source='mini',
  )
