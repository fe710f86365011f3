"""Writes a world to a directory, as the files that the flow begins with.

    base_traces.jsonl      what the base student was trained on: no thinking
    train_traces.jsonl     the careful teacher's traces
    careless_traces.jsonl  the careless teacher's, on the first train problems
    train_problems.jsonl   those problems with tests, to label both teachers
    problems.jsonl         the evaluation, equally many of every depth
    world.json             the settings; written last, so it seals the rest

    python -m valley_jax.mini.world /tmp/world --num_train 4096

Fewer problems are a prefix of more, so a data-scaling curve may be cut from
one world, or each of its points made by itself.
"""

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
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

# Fixed texts that a tokenizer for this world makes one token each. BPE stops at
# word boundaries and would spend half of a trace on them, but they carry no
# choice, and every token costs two cores their time. `<think>` is not among
# them: to the student it is ordinary text.
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


def _is_written(directory: pathlib.Path, settings: dict[str, Any]) -> bool:
  """Whether the directory already holds just this world."""
  seal = directory / SEAL
  if not seal.exists():
    return False
  if (found := jsonl.read_json(seal)) != settings:
    raise errors.UserError(
        f'{directory} holds another world: {found}, asked for {settings};'
        ' choose another directory or remove this one.'
    )
  return True


def _traces(
    teacher: teachers.Teacher,
    puzzles: Iterable[problems.Puzzle],
    seed: int = 0,
    mistake_rate: float = 0.0,
) -> Iterator[records.Trace]:
  for puzzle in puzzles:
    yield teachers.write_trace(teacher, puzzle, seed=seed, mistake_rate=mistake_rate)


def write_world(
    directory: str | os.PathLike,
    *,
    num_base: int,
    num_train: int,
    num_eval: int,
    seed: int,
    num_careless: int = 256,
    world: problems.World = problems.DEFAULT,
) -> None:
  """Writes the files of a world; a second call finds them and does nothing.

  Args:
    directory: Where to write; made if it is not there.
    num_base: Traces of the base student's training.
    num_train: Traces of the careful teacher.
    num_eval: Evaluation problems.
    seed: Of everything that is drawn.
    num_careless: Problems, the first of the train split, that come with tests
      and with a trace of either teacher; at most `num_train`.
    world: What the problems are like.

  Raises:
    ValueError: the directory holds a world of other settings, or the world is
      too small for so many distinct problems.
  """
  directory = pathlib.Path(directory)
  num_careless = min(num_careless, num_train)
  settings = {
      'num_base': num_base,
      'num_train': num_train,
      'num_eval': num_eval,
      'num_careless': num_careless,
      'seed': seed,
      'world': {
          name: list(value) if isinstance(value, tuple) else value
          for name, value in dataclasses.asdict(world).items()
      },
  }
  if _is_written(directory, settings):
    return
  draw = functools.partial(problems.generate, seed=seed, world=world)
  train = list(draw(problems.Split.TRAIN, num_train))
  slipping = train[:num_careless]
  rows = {
      'base_traces': _traces(teachers.Teacher.BASE, draw(problems.Split.BASE, num_base)),
      'train_traces': _traces(teachers.Teacher.CAREFUL, train),
      'careless_traces': _traces(teachers.Teacher.CARELESS, slipping, seed, world.mistake_rate),
      'train_problems': (judging.to_problem(p, seed=seed) for p in slipping),
      'problems': (judging.to_problem(p, seed=seed) for p in draw(problems.Split.EVAL, num_eval)),
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
