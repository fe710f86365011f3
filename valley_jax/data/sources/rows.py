"""The reader of rows: JSONL (also .gz, .zst) and Parquet files, validated, bad rows quarantined.

Files are streamed: one line, or `_BATCH` rows of a Parquet file, is in memory at a time. Whatever
is wrong with a row is appended to a quarantine as {file, line, reason, row}, and reading goes on;
a damaged file is one such row. The quarantine decides what a bad row means: `shard` writes it
down, and readers of problems raise it, since a lost problem would change every score.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import hashlib
from typing import Any, BinaryIO, Protocol
import zlib

import msgspec

from valley_jax import records
from valley_jax.data.sources import files

MAX_BYTES = 1 << 26  # Longest line: far above any trace, far below the memory.
_BATCH = 32  # Rows of a Parquet file.
_BUFFER = 1 << 20  # Bytes that are read from a Parquet file at once.
_MAX_SHOWN = 1000  # Bytes of a bad row that go into the quarantine.

# Errors of decoding that are the row's fault.
FAULTS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, zlib.error)


class UnusableRowError(Exception):
  """Why a well-formed row cannot become a trace."""


class Quarantine(Protocol):
  """Where bad rows go: a list, or something that keeps none of them in memory."""

  def append(self, row: dict[str, Any], /) -> object:
    ...


class QuarantineFile:
  """A quarantine that writes bad rows to a JSONL file.

  Args:
    file: The open file.
    report: Function that is called with 1 for each bad row.
  """

  def __init__(self, file: BinaryIO, report: Callable[[int], object] = lambda number: None):
    self._file = file
    self._report = report
    self.num_rows = 0

  def append(self, row: dict[str, Any], /) -> None:
    self._file.write(records.to_json(row) + b'\n')
    self.num_rows += 1
    self._report(1)


class StrictQuarantine:
  """A quarantine that raises the first bad row.

  Args:
    remedy: Advice to the user, at the end of the message.
  """

  def __init__(self, remedy: str):
    self._remedy = remedy

  def append(self, row: dict[str, Any], /) -> None:
    reason = row['reason'].rstrip('.')
    raise records.BadRowError(f'{row["file"]}, line {row["line"]}: {reason}. {self._remedy}')


def quarantine_row(
    quarantine: Quarantine, file: str, line: int, reason: str, row: Any = b''
) -> None:
  """Quarantines a bad row, or a file that is damaged from this row on."""
  # A row of Parquet is a dict that may hold values that JSON has not; a line of JSONL is bytes.
  if not isinstance(row, bytes):
    row = repr(row).encode() if isinstance(row, dict) else records.to_json(row)
  shown = row[:_MAX_SHOWN].decode('utf-8', 'replace')
  quarantine.append({'file': file, 'line': line, 'reason': reason, 'row': shown})


def read_rows(
    file: str, row_type: Any, quarantine: Quarantine, max_bytes: int | None = MAX_BYTES
) -> Iterator[tuple[int, Any]]:
  """Yields (line, row) for each good row of a file; blank lines are skipped.

  Args:
    file: Parquet if its name ends in .parquet, else JSONL, which may end in .gz or .zst.
    row_type: A msgspec struct. Columns that it does not declare are not read.
    quarantine: Receives the bad rows.
    max_bytes: Limit of a line of JSONL; None for no limit.
  """
  if file.endswith('.parquet'):
    return _read_parquet_rows(file, row_type, quarantine)
  return _read_json_rows(file, row_type, quarantine, max_bytes)


def estimate_num_rows(file: str) -> int | None:
  """Returns about how many rows a file has; None if only reading it would tell.

  Bad and blank rows count; a damaged file has none.
  """
  if file.endswith('.parquet'):
    with files.open_binary(file) as f:
      table = _open_parquet_table(file, f, [])
      return table.metadata.num_rows if table else 0
  if file.endswith(('.gz', '.zst')) or '://' in file:
    return None
  return sum(chunk.count(b'\n') for chunk in files.read_chunks(file))


def split_lines(chunks: Iterable[bytes], max_bytes: int | None) -> Iterator[bytes | None]:
  """Yields the lines of a file without their ends; None for a line over `max_bytes`.

  Example: split_lines([b'a', b'b\\nc'], None) yields b'ab' and b'c'.
  """
  parts: list[bytes] = []
  size = 0
  for chunk in chunks:
    # `parts` holds the beginning of a line that goes on in this chunk.
    *whole, rest = chunk.split(b'\n')
    for piece in whole:
      size += len(piece)
      is_kept = max_bytes is None or size <= max_bytes
      yield b''.join((*parts, piece)) if is_kept else None
      parts, size = [], 0
    size += len(rest)
    if max_bytes is None or size <= max_bytes:
      parts.append(rest)
    else:
      parts.clear()  # An endless line must not fill the memory.
  if size:  # The last line may lack its end.
    is_kept = max_bytes is None or size <= max_bytes
    yield b''.join(parts) if is_kept else None


def _read_json_rows(
    file: str, row_type: Any, quarantine: Quarantine, max_bytes: int | None
) -> Iterator[tuple[int, Any]]:
  decoder = msgspec.json.Decoder(row_type)
  number = 0
  try:
    lines = split_lines(files.read_chunks(file), max_bytes)
    for number, line in enumerate(lines, start=1):
      if line is None:
        quarantine_row(quarantine, file, number, f'the line has over {max_bytes:,} bytes')
        continue
      if number == 1:
        line = line.removeprefix(b'\xef\xbb\xbf')  # A byte order mark.
      if not line or line.isspace():
        continue
      try:
        row = decoder.decode(line)
      except FAULTS as e:
        quarantine_row(quarantine, file, number, str(e), line)
      else:  # Outside of `try`: an error of the caller is no fault of the row.
        yield number, row
  except files.DamagedError as e:  # All rows before the damage were yielded.
    reason = f'damaged from this row on, the rest is lost: {e}'
    quarantine_row(quarantine, file, number + 1, reason)


def _read_parquet_rows(
    file: str, row_type: Any, quarantine: Quarantine
) -> Iterator[tuple[int, Any]]:
  fields = msgspec.structs.fields(row_type)
  optional = {field.encode_name for field in fields if not field.required}
  wanted = [field.encode_name for field in fields]
  with files.open_binary(file) as f:
    table = _open_parquet_table(file, f, quarantine)
    if table is None:
      return
    names = table.schema_arrow.names
    if lacking := sorted({*wanted} - {*names} - optional):
      reason = f'all rows lack the column {", ".join(lacking)}'
      quarantine_row(quarantine, file, 1, reason)
      return
    # Only these: solutions and tests, which nobody asked for, are most of such a file.
    columns = [name for name in wanted if name in names]
    for number, row, fault in _read_row_groups(file, table, columns, quarantine):
      try:
        if fault is not None:
          raise fault
        # Parquet has no other way than null to leave a column out.
        given = {
            name: value for name, value in row.items() if value is not None or name not in optional
        }
        value = msgspec.convert(given, row_type)
      except FAULTS as e:
        quarantine_row(quarantine, file, number, str(e), row)
      else:
        yield number, value


def _open_parquet_table(file: str, f: BinaryIO, quarantine: Quarantine) -> Any:
  """Returns the ParquetFile, or None if it is damaged."""
  import pyarrow as pa  # Half a second, which JSONL need not wait for.
  import pyarrow.parquet as pq

  try:
    table = pq.ParquetFile(
        f,
        buffer_size=_BUFFER,
        pre_buffer=False,  # True would read a row group as a whole.
        page_checksum_verification=True,
    )
    _ = table.schema_arrow  # It is decoded only when it is asked for.
  except (pa.ArrowException, OSError, ValueError) as e:
    _raise_if_not_damage(e)
    quarantine_row(quarantine, file, 1, f'damaged, all rows are lost: {e}')
    return None
  return table


def _raise_if_not_damage(error: Exception) -> None:
  """Raises an error of the disk or the network; returns for one of the file's content.

  Arrow reports most damage as an OSError, which then has no errno.
  """
  if isinstance(error, OSError) and not (type(error) is OSError and error.errno is None):
    raise error


def _read_row_groups(
    file: str, table: Any, columns: list[str], quarantine: Quarantine
) -> Iterator[tuple[int, dict[str, Any], Exception | None]]:
  """Yields (number, row, the row's fault or None) of each undamaged row group."""
  import pyarrow as pa

  number = end = 0
  for group in range(table.num_row_groups):
    # Taken from the metadata, so that the numbers after a damaged group stay right.
    number, end = end, end + table.metadata.row_group(group).num_rows
    try:
      for batch in table.iter_batches(_BATCH, row_groups=[group], columns=columns):
        for row, fault in _convert_batch(batch):
          number += 1
          yield number, row, fault
      why = 'fewer rows than it says'
    except (pa.ArrowException, OSError) as e:
      _raise_if_not_damage(e)
      why = str(e)
    if number < end:
      reason = f'damaged, rows {number + 1:,} to {end:,} are lost: {why}'
      quarantine_row(quarantine, file, number + 1, reason)
  if end != table.metadata.num_rows:
    counts = f'{table.metadata.num_rows:,} rows, its row groups {end:,}'
    quarantine_row(quarantine, file, end + 1, f'damaged: the file has {counts}')


def _convert_batch(batch: Any) -> Iterator[tuple[dict[str, Any], Exception | None]]:
  """Yields (row, fault or None); a row that is not UTF-8 does not spoil the others."""
  try:
    rows = batch.to_pylist()
  except FAULTS as e:
    if batch.num_rows == 1:
      yield {}, e
      return
    for i in range(batch.num_rows):  # One row at a time, to find the bad ones.
      yield from _convert_batch(batch.slice(i, 1))
  else:
    yield from ((row, None) for row in rows)


def join_thought(thought: str | None, answer: str | None) -> str:
  """Returns a thought and an answer, which a source keeps apart, as one response."""
  thought, answer = (thought or '').strip(), (answer or '').strip()
  return f'<think>\n{thought}\n</think>\n\n{answer}' if thought else answer


def parse_language(name: str | None) -> str:
  """Returns the language under the name that submissions use; '' if it is unknown."""
  language = records.canonical_language(name or '')
  return language if language in records.LANGUAGES else ''


def hash_texts(*texts: str) -> str:
  """Returns 16 hex digits that identify the texts.

  Every byte counts, since these are ids. Where *similar* texts are one, see cleaning/texts.py.
  """
  return hashlib.sha256('\0'.join(texts).encode()).hexdigest()[:16]
