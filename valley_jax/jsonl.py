"""Reads and writes files of rows (JSONL) and single JSON documents.

Reading validates: a bad row raises `records.BadRowError` with file, line, field and remedy. No row
is dropped silently.

Writing is safe at any moment: `write_rows`, `write_json` and `write_atomically` replace whole
files, `Appender` adds rows. If a crash tears the last line of an append-only file, that line is cut
off when the file is next opened for appending.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import filecmp
import gzip
import json
import os
import pathlib
from typing import Any, BinaryIO

import msgspec

from valley_jax import records


def read_rows(path: str | os.PathLike, record_type: Any) -> Iterator[Any]:
  """Yields the records of a JSONL (or .jsonl.gz) file of our own, validated.

  Files of others, whose bad rows may be quarantined, are read by `data/sources/rows.py`.

  Args:
    path: The file. Blank lines are skipped.
    record_type: A record class, or any type that msgspec can decode to (`dict` for any row).

  Raises:
    BadRowError: a row does not fit `record_type`; names file, line, field and remedy.
  """
  decoder = msgspec.json.Decoder(record_type)
  for number, line in enumerate(_read_lines(pathlib.Path(path)), start=1):
    if not line.strip():
      continue
    try:
      row = decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
      name = getattr(record_type, '__name__', str(record_type))
      raise records.BadRowError(
          f'{path}, line {number}: not a valid {name}: {e}. Correct or remove this row.'
      ) from e
    else:  # Outside `try`: an error in the caller's loop body is not a bad row.
      yield row


def _read_lines(path: pathlib.Path) -> Iterator[bytes]:
  open_file = gzip.open if path.suffix == '.gz' else open
  with open_file(path, 'rb') as f:
    yield from f


@contextlib.contextmanager
def open_atomically(path: str | os.PathLike, keep_if_equal: bool = False) -> Iterator[BinaryIO]:
  """Opens a file for writing that replaces `path` only when the context ends without error.

  A reader sees the whole old file or the whole new one, also after a crash.

  Args:
    path: The file to write.
    keep_if_equal: Whether a file with the same bytes is left alone, with its time of modification.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # All writers use the same name, so the next run overwrites what a killed one left.
  scratch = path.with_name(f'.{path.name}.tmp')
  try:
    with open(scratch, 'wb') as f:
      yield f
      f.flush()
      os.fsync(f.fileno())
    if keep_if_equal and path.exists() and filecmp.cmp(path, scratch, shallow=False):
      scratch.unlink()
    else:
      os.replace(scratch, path)
  except OSError:
    scratch.unlink(missing_ok=True)  # Frees the space if the disk is full.
    raise


def write_atomically(path: str | os.PathLike, data: bytes | str) -> None:
  """Replaces a file by `data`; a reader sees the old content or the new."""
  with open_atomically(path) as f:
    f.write(data.encode() if isinstance(data, str) else data)


def write_rows(path: str | os.PathLike, rows: Iterable[Any]) -> None:
  """Writes a whole JSONL file atomically, row by row."""
  with open_atomically(path) as f:
    f.writelines(records.to_json(row) + b'\n' for row in rows)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes one indented JSON document atomically."""
  text = json.dumps(msgspec.to_builtins(value), indent=2, sort_keys=False)
  write_atomically(path, text + '\n')


def read_json(path: str | os.PathLike) -> Any:
  """Reads one JSON document."""
  return json.loads(pathlib.Path(path).read_bytes())


def repair_torn_tail(path: str | os.PathLike) -> int:
  """Cuts an incomplete last line off an append-only file; returns the number of bytes cut."""
  path = pathlib.Path(path)
  if not path.exists() or path.stat().st_size == 0:
    return 0
  with open(path, 'rb+') as f:
    end = position = f.seek(0, os.SEEK_END)
    while position > 0:  # Search backwards for the last newline, a block at a time.
      start = max(0, position - 65536)
      f.seek(start)
      newline = f.read(position - start).rfind(b'\n')
      if newline >= 0:
        position = start + newline + 1
        break
      position = start
    if position < end:
      f.truncate(position)
  return end - position


class Appender:
  """Appends records to a JSONL file; the rows of one `append` call are written without a break."""

  def __init__(self, path: str | os.PathLike):
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    repair_torn_tail(self._path)
    self._file = open(self._path, 'ab', buffering=0)

  def __enter__(self) -> 'Appender':
    return self

  def __exit__(self, *unused_exception) -> None:
    self._file.close()

  def append(self, *rows: Any) -> None:
    """Writes the rows; once it returns, they survive a kill of this process."""
    data = memoryview(b''.join(records.to_json(row) + b'\n' for row in rows))
    while data:  # An unbuffered file may accept only a part; a full disk raises.
      data = data[self._file.write(data) :]
