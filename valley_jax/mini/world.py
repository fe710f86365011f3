"""Writes a mini world to a directory: the files that the flow starts from.

    base_traces.jsonl      what the base student is trained on: no thinking
    train_traces.jsonl     the careful teacher's traces
    careless_traces.jsonl  the careless teacher's, on the first train problems
    train_problems.jsonl   those problems with tests, to label both teachers
    problems.jsonl         the evaluation, equally many problems of every depth
    world.json             the settings; written last, so it marks the world as complete

    python -m valley_jax.mini.world /tmp/world --num_train 4096

A smaller number of problems is a prefix of a larger one, so the points of a data-scaling curve may
be cut from one world or each have a world of their own.
"""

import argparse
import functools
import os
import pathlib
from typing import Any

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.mini import judging
from valley_jax.mini import problems
from valley_jax.mini import teachers

# Fixed texts that a tokenizer for this world turns into one token each. BPE stops at word
# boundaries and would spend half of a trace on them, but they carry no choice, and every token
# costs training time. `<think>` is not among them: to the student it is ordinary text.
PHRASES = (
    'Read a line of integers and print the ',
    ' ones, or 0 if none.',
    ' of the',
    '. A',
    ' number is',
    ' a multiple of',
    ' but not',
    'The chain is',
    '\nSo',
    '```python\nprint(',
    '([x for x in map(int, input().split()) if',
    ']))\n```',
    '], default=0))\n```',
)
SEAL = 'world.json'


def _is_world_written(directory: pathlib.Path, settings: dict[str, Any]) -> bool:
  """Returns whether the directory already holds this world."""
  if not (directory / SEAL).exists():
    return False
  if (recorded := jsonl.read_json(directory / SEAL)) != settings:
    raise errors.UserError(
        f'{directory} holds another world: {recorded}, wanted {settings}; choose another directory'
        ' or remove this one.'
    )
  return True


def write_world(
    directory: str | os.PathLike,
    *,
    num_base: int,
    num_train: int,
    num_eval: int,
    num_careless: int,
    seed: int,
    world: problems.WorldSettings = problems.DEFAULT_WORLD,
) -> None:
  """Writes the files of a world; does nothing if they exist.

  Args:
    directory: Output directory; created if absent.
    num_base: Number of traces that the base student is trained on.
    num_train: Number of the careful teacher's traces.
    num_eval: Number of evaluation problems.
    num_careless: Number of train problems, the first ones, that come with tests and with a trace of
      both teachers; at most `num_train`.
    seed: Seed of everything that is drawn.
    world: Sizes, seeds and kinds of the problems.

  Raises:
    UserError: the directory holds a world of other settings, or the world has too few distinct
      problems.
  """
  directory = pathlib.Path(directory)
  num_careless = min(num_careless, num_train)
  settings = {
      'num_base': num_base,
      'num_train': num_train,
      'num_eval': num_eval,
      'num_careless': num_careless,
      'seed': seed,
      'world': records.from_json(records.to_json(world), dict),  # With lists for tuples.
  }
  if _is_world_written(directory, settings):
    return
  draw = functools.partial(problems.generate_puzzles, seed=seed, world=world)
  base = draw(problems.Split.BASE, num_base)
  train = list(draw(problems.Split.TRAIN, num_train))
  labelled = train[:num_careless]  # They get tests and a trace of both teachers.
  write_careless = functools.partial(
      teachers.write_trace, teachers.Teacher.CARELESS, seed=seed, mistake_rate=world.mistake_rate
  )
  build_problem = functools.partial(judging.build_problem, seed=seed)
  rows = {
      'base_traces': (teachers.write_trace(teachers.Teacher.BASE, p) for p in base),
      'train_traces': (teachers.write_trace(teachers.Teacher.CAREFUL, p) for p in train),
      'careless_traces': map(write_careless, labelled),
      'train_problems': map(build_problem, labelled),
      'problems': map(build_problem, draw(problems.Split.EVAL, num_eval)),
  }
  for name in rows:
    jsonl.write_rows(directory / f'{name}.jsonl', rows[name])
  jsonl.write_json(directory / SEAL, settings)


def main() -> None:
  """Writes the world that the command line describes."""
  parser = argparse.ArgumentParser(
      description='Writes a mini world: traces and problems to run verbs on.'
  )
  parser.add_argument('directory', help='where to write it')
  parser.add_argument('--num_base', type=int, default=20_000)
  parser.add_argument('--num_train', type=int, default=4_096)
  parser.add_argument('--num_eval', type=int, default=256)
  parser.add_argument('--num_careless', type=int, default=256)
  parser.add_argument('--seed', type=int, default=0)
  write_world(**vars(parser.parse_args()))


if __name__ == '__main__':
  main()
