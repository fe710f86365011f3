"""Reads problems with their tests: `read_problems('humaneval:PATH')`."""

from collections.abc import Callable
from collections.abc import Iterator
import pathlib

import msgspec

from valley_jax import records


class _HumanEvalRow(msgspec.Struct):
  """The columns of HumanEval (2107.03374); others are ignored."""

  task_id: str
  prompt: str
  entry_point: str
  test: str


def _read_own(path: pathlib.Path) -> Iterator[records.Problem]:
  """Our own rows: `records.Problem`, one a line."""
  yield from records.read_rows(path, records.Problem)


def _read_humaneval(path: pathlib.Path) -> Iterator[records.Problem]:
  """HumanEval's rows, as .jsonl or .jsonl.gz.

  A submission is a complete program. The prompt runs ahead of it only for the
  imports and helper functions that it defines (`poly` of HumanEval/32); its
  unfinished function is then defined anew by the submission.
  """
  for row in records.read_rows(path, _HumanEvalRow):
    code = f'{row.test}\ncheck({row.entry_point})\n'
    yield records.Problem(
        problem_id=row.task_id,
        statement=row.prompt,
        tests=(records.TestCase(input=code),),
        mode=records.Mode.ASSERT,
        entry_point=row.entry_point,
        starter_code=row.prompt,
        source='humaneval',
    )


_READERS: dict[str, Callable[[pathlib.Path], Iterator[records.Problem]]] = {
    'humaneval': _read_humaneval,
    'jsonl': _read_own,
}


def read_problems(spec: str) -> list[records.Problem]:
  """Returns the problems of `FORMAT:PATH`, in the file's order.

  Raises:
    ValueError: an unknown format, no file, no problem, or one id twice.
    records.BadRowError: a row that is not of the format.
  """
  name, colon, path = spec.partition(':')
  if not colon or name not in _READERS:
    raise ValueError(
        f'Problems {spec!r} are not FORMAT:PATH with a known format; formats:'
        f' {", ".join(sorted(_READERS))}, as in jsonl:problems.jsonl.'
    )
  if not pathlib.Path(path).is_file():
    raise ValueError(
        f'Problems {spec!r}: there is no file {path}; set `problems` of the'
        ' config to one that exists.'
    )
  problems = list(_READERS[name](pathlib.Path(path)))
  if not problems:
    raise ValueError(f'Problems {spec!r}: {path} has no row.')
  seen = set()
  for problem in problems:
    if problem.problem_id in seen:
      raise ValueError(
          f'Problems {spec!r}: {problem.problem_id!r} occurs twice; give each'
          ' problem an id of its own.'
      )
    seen.add(problem.problem_id)
  return problems
