"""What the conversions of foreign rows to problems share: reading, errors, JSON, dates, limits.

A format is a row type and a function `(row, place) -> problems and remarks` that raises ValueError;
`read_items` reads the rows and adds file, line and remedy to every error.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import math
import os
import re
from typing import Any

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.sources import files
from valley_jax.data.sources import rows

_MAX_DEPTH = 1000  # What crosses into a sandbox may nest 2,000 deep.
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')
_MAX_LIMIT = 2.0**40  # Above any limit that a problem could mean.
_REMEDY = 'Mend or remove this row, or fetch the file again.'

FAULTS = rows.FAULTS


class UnjudgeableError(Exception):
  """Why a well-formed row or package makes no problem."""


@dataclasses.dataclass(frozen=True)
class Remark:
  """What a reader must report: a problem that was left out or weakened."""

  problem_id: str
  text: str


@dataclasses.dataclass(frozen=True)
class Place:
  """The place of a row."""

  file: str
  line: int  # From 1; in a Parquet file the row.
  index: int  # How many rows come before it in the file.

  @property
  def stem(self) -> str:
    """The file's name without its endings: usually the split."""
    return os.path.basename(self.file).partition('.')[0]


Item = records.Problem | Remark
Convert = Callable[[Any, Place], Iterable[Item]]


def read_items(path: str, row_type: Any, convert: Convert) -> Iterator[Item]:
  """Yields what `convert` makes of every row of a file, or of the files of a directory.

  Raises:
    records.BadRowError: a file or a row that is not of the format.
  """
  names = files.find_files(path)
  if not names:
    raise errors.UserError(
        f'{path} holds no {", ".join(files.SUFFIXES)} file; set `problems` of the config to a'
        ' file, or to a directory of such files.'
    )
  # Unlike a lost trace, a lost problem would change every score: nothing is skipped.
  strict = rows.StrictQuarantine(_REMEDY)
  for name in names:
    # No limit of bytes: some rows hold a hundred megabytes of tests.
    numbered = rows.read_rows(name, row_type, strict, max_bytes=None)
    for index, (line, row) in enumerate(numbered):
      try:
        yield from convert(row, Place(name, line, index))
      except FAULTS as e:
        rows.quarantine_row(strict, name, line, str(e))


@contextlib.contextmanager
def naming_column(name: str) -> Iterator[None]:
  """Adds the column's name to errors that its value causes."""
  try:
    yield
  except FAULTS as e:
    raise errors.UserError(f'`{name}`: {e}') from e


def check_json(text: str) -> str:
  """Returns the JSON value that a text is, as it is written there.

  It is not parsed to Python, which refuses integers of over 4,300 digits.

  Raises:
    msgspec.DecodeError, ValueError, RecursionError: no JSON value, or nested too deep.
  """
  value = bytes(msgspec.json.decode(text, type=msgspec.Raw)).decode()
  return check_json_depth(value)


def check_json_depth(value: str) -> str:
  """Returns the JSON value; raises UserError if it is nested too deep."""
  # Cheap, and true for almost all values. Brackets in strings only make it count too many.
  if value.count('[') + value.count('{') <= _MAX_DEPTH:
    return value
  depth = 0
  for token in _BRACKETS.finditer(value):
    depth += {'[': 1, '{': 1, ']': -1, '}': -1}.get(token[0], 0)
    if depth > _MAX_DEPTH:
      raise errors.UserError(f'its JSON is nested over {_MAX_DEPTH:,} deep')
  return value


def join_json_lines(text: str) -> str:
  """Returns one JSON value a line as the JSON list of them.

  Example:
    >>> join_json_lines('[1, 2]\\n"a"')
    '[[1, 2], "a"]'
  """
  lines = [line for line in text.split('\n') if line.strip()]
  return f'[{", ".join(map(check_json, lines))}]'


def ask_for_function(name: str, question: str, starter_code: str) -> tuple[str, str]:
  """Returns statement and stub of a problem that asks for a function of this name."""
  if name not in starter_code:  # Otherwise nobody could know the name.
    question = f'{question.rstrip()}\n\nThe function is called `{name}`.\n'
  return question, starter_code if starter_code.strip() else ''


def format_iso_day(text: str) -> str:
  """Returns the day, YYYY-MM-DD, of an ISO time; '' stays ''."""
  return datetime.date.fromisoformat(text[:10]).isoformat() if text else ''


def format_timestamp_day(timestamp: int | None) -> str:
  """Returns the day (UTC), YYYY-MM-DD, of seconds since 1970; '' for None."""
  if timestamp is None:
    return ''
  try:
    since = datetime.timedelta(seconds=timestamp)
    return (datetime.date(1970, 1, 1) + since).isoformat()
  except OverflowError as e:
    raise errors.UserError(f'{timestamp} s since 1970 is no date') from e


def build_limits(
    cpu_seconds: float | None, memory_mib: float | None, output_mib: float | None = None
) -> records.Limits:
  """Returns limits; None and 0 mean that the set does not state one."""
  values = {'time': cpu_seconds, 'memory': memory_mib, 'output': output_mib}
  for name, value in values.items():
    if value is not None and not 0 <= value < _MAX_LIMIT:
      raise errors.UserError(f'the {name} limit {value} is not one')
  # Rounded up: a limit in MiB must not be below the set's, which may be in bytes.
  changes: dict[str, Any] = {'cpu_seconds': cpu_seconds or None}
  if memory_mib:
    changes['memory_mib'] = math.ceil(memory_mib)
  if output_mib:
    changes['output_kib'] = math.ceil(output_mib * 1024)
  return records.Limits(**changes)


def require_hidden_test(problem: records.Problem) -> Item:
  """Returns the problem, or a remark if its statement shows every test."""
  if any(not test.is_sample for test in problem.tests):
    return problem
  return Remark(problem.problem_id, 'left out: all tests stand in the statement')
