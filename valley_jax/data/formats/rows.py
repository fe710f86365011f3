"""Rows of foreign sets: their files, their places, and what is wrong in them.

A format is a row type and a function `(row, place) -> problems and remarks`
that raises ValueError; `read` finds the rows and puts file, line and remedy to
every error.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import math
import pathlib
import re
from typing import Any
import zlib

import msgspec

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records

SUFFIXES = ('.jsonl', '.jsonl.gz', '.parquet')
_BATCH = 64  # Rows of a Parquet file in memory at once.
_MAX_DEPTH = 1000  # What crosses into a sandbox may nest 2,000 deep.
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')
_MOST = 2.0**40  # Above any limit that a problem could mean.

# What decoding a row can raise that is the row's fault.
FAULTS = (msgspec.MsgspecError, ValueError, RecursionError, zlib.error)


@dataclasses.dataclass(frozen=True)
class Remark:
  """What a reader must not keep to itself: a problem left out or weakened."""

  problem_id: str
  text: str


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a row stands."""

  file: pathlib.Path
  line: int  # From 1; in a Parquet file the row.
  index: int  # How many rows come before it in the file.

  @property
  def stem(self) -> str:
    """The file's name without its endings: mostly the split."""
    return self.file.name.partition('.')[0]


Item = records.Problem | Remark
Convert = Callable[[Any, Place], Iterable[Item]]


def read(path: pathlib.Path, row_type: Any, convert: Convert) -> Iterator[Item]:
  """Yields what `convert` makes of every row of a file or a directory.

  Raises:
    records.BadRowError: a file or a row that is not of the format.
  """
  for file in _files(path):
    for index, (line, row) in enumerate(_rows(file, row_type)):
      try:
        yield from convert(row, Place(file, line, index))
      except FAULTS as e:
        raise records.BadRowError(
            f'{file}, line {line}: {str(e).rstrip(".")}. Mend or remove this' ' row.'
        ) from e


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  """The file itself, or the data files of a directory by name."""
  if not path.is_dir():
    return [path]
  found = [f for f in path.iterdir() if f.name.endswith(SUFFIXES)]
  if not found:
    raise errors.UserError(
        f'{path} holds no {", ".join(SUFFIXES)} file; set `problems` of the'
        ' config to a file, or to a directory of such files.'
    )
  return sorted(found)


def _rows(file: pathlib.Path, row_type: Any) -> Iterator[tuple[int, Any]]:
  is_parquet = file.suffix == '.parquet'
  rows = _parquet_rows if is_parquet else jsonl.read_numbered_rows
  try:
    yield from rows(file, row_type)
  except records.BadRowError:
    raise
  except (EOFError, OSError, *FAULTS) as e:
    raise records.BadRowError(f'{file}: cannot be read to its end: {e}. Fetch it again.') from e


def _parquet_rows(file: pathlib.Path, row_type: Any) -> Iterator[tuple[int, Any]]:
  import pyarrow.parquet as pq  # Half a second that JSONL need not wait for.

  wanted = {field.encode_name for field in msgspec.structs.fields(row_type)}
  with pq.ParquetFile(file) as table:
    # Only these: the solutions are most of such a file.
    columns = [name for name in table.schema_arrow.names if name in wanted]
    number = 0
    for batch in table.iter_batches(_BATCH, columns=columns):
      for row in batch.to_pylist():
        number += 1
        try:
          yield number, msgspec.convert(row, row_type)
        except msgspec.ValidationError as e:
          raise records.BadRowError(
              f'{file}, row {number}: not a valid {row_type.__name__}: {e}.'
              ' Mend or remove this row.'
          ) from e


@contextlib.contextmanager
def field(name: str) -> Iterator[None]:
  """Puts the column's name to what goes wrong with its value."""
  try:
    yield
  except FAULTS as e:
    raise errors.UserError(f'`{name}`: {e}') from e


def json_text(text: str) -> str:
  """Returns the JSON value that the text is, as it is written there.

  It is not parsed: Python refuses integers of over 4,300 digits.

  Raises:
    msgspec.DecodeError, ValueError, RecursionError: no JSON value, or too deep.
  """
  value = bytes(msgspec.json.decode(text, type=msgspec.Raw)).decode()
  return check_depth(value)


def check_depth(value: str) -> str:
  """Returns the JSON value; raises ValueError if it is nested too deep."""
  if value.count('[') + value.count('{') <= _MAX_DEPTH:
    return value
  depth = 0
  for token in _BRACKETS.finditer(value):
    depth += {'[': 1, '{': 1, ']': -1, '}': -1}.get(token[0], 0)
    if depth > _MAX_DEPTH:
      raise errors.UserError(f'its JSON is nested over {_MAX_DEPTH:,} deep')
  return value


def json_arguments(text: str) -> str:
  """Returns one JSON value a line as the JSON list of them.

  Example:
    >>> json_arguments('[1, 2]\\n"a"')
    '[[1, 2], "a"]'
  """
  lines = [line for line in text.split('\n') if line.strip()]
  return f'[{", ".join(map(json_text, lines))}]'


def ask_for(name: str, question: str, starter_code: str) -> tuple[str, str]:
  """Returns statement and stub of a problem that asks for a function."""
  if name not in starter_code:
    question = f'{question.rstrip()}\n\nThe function is called `{name}`.\n'
  return question, starter_code if starter_code.strip() else ''


def date(text: str) -> str:
  """Returns the day, YYYY-MM-DD, of an ISO time; '' stays ''."""
  return datetime.date.fromisoformat(text[:10]).isoformat() if text else ''


def day(timestamp: int | None) -> str:
  """Returns the day (UTC), YYYY-MM-DD, of seconds since 1970."""
  if timestamp is None:
    return ''
  try:
    since = datetime.timedelta(seconds=timestamp)
    return (datetime.date(1970, 1, 1) + since).isoformat()
  except OverflowError as e:
    raise errors.UserError(f'{timestamp} s since 1970 is no date') from e


def limits(
    cpu_seconds: float | None, memory_mib: float | None, output_mib: float | None = None
) -> records.Limits:
  """Returns limits; None and 0 mean that the set does not say."""
  said = {'time': cpu_seconds, 'memory': memory_mib, 'output': output_mib}
  for name, value in said.items():
    if value is not None and not 0 <= value < _MOST:
      raise errors.UserError(f'the {name} limit {value} is not one')
  changes: dict[str, Any] = {'cpu_seconds': cpu_seconds or None}
  if memory_mib:
    changes['memory_mib'] = math.ceil(memory_mib)
  if output_mib:
    changes['output_kib'] = math.ceil(output_mib * 1024)
  return records.Limits(**changes)


def check_hidden(problem: records.Problem) -> Item:
  """Returns the problem, or why not: its statement shows every test."""
  if any(not test.is_sample for test in problem.tests):
    return problem
  return Remark(problem.problem_id, 'left out: all tests stand in the statement')
