"""Rows of JSONL and Parquet files, and the names of those that are bad.

Both are streamed: a line, or `_BATCH` rows of a Parquet file, is in memory at
a time. What is wrong with a row is quarantined as {file, line, reason, row};
so is, once, what is wrong with a file.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import msgspec

from valley_jax import records
from valley_jax.data.sources import files


class Quarantine(Protocol):
  """Where bad rows go: a list, or what keeps none of them in memory."""

  def append(self, row: dict[str, Any], /) -> object:
    ...


class Written:
  """A quarantine that is a file of JSONL."""

  def __init__(self, file: BinaryIO, done: Callable[[int], object] = lambda number: None):
    self._file = file
    self._done = done
    self.num_rows = 0

  def append(self, row: dict[str, Any], /) -> None:
    self._file.write(records.to_json(row) + b'\n')
    self.num_rows += 1
    self._done(1)


MAX_BYTES = 1 << 26  # Of a line: far above any trace, far below the memory.
_BATCH = 32  # Rows of a Parquet file.
_BUFFER = 1 << 20  # Bytes that are read of a Parquet file at once.
_SHOWN = 1000  # Bytes of a bad row that are kept.

# What decoding a row can raise that is the row's fault.
FAULTS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


class UnusableError(Exception):
  """Why a well-formed row cannot become a trace."""


def refuse(quarantine: Quarantine, file: str, line: int, reason: str, row: Any = b'') -> None:
  """Writes down a bad row, or damage to a file from this row on."""
  if not isinstance(row, bytes):
    row = repr(row).encode() if isinstance(row, dict) else records.to_json(row)
  quarantine.append(
      {'file': file, 'line': line, 'reason': reason, 'row': row[:_SHOWN].decode('utf-8', 'replace')}
  )


def read(
    file: str, row_type: Any, quarantine: Quarantine, max_bytes: int | None = MAX_BYTES
) -> Iterator[tuple[int, Any]]:
  """Yields (number, row) of a file, validated; blank lines are skipped.

  Args:
    file: .parquet, or else JSONL, also .gz or .zst.
    row_type: A msgspec struct. Columns that it does not have are not read.
    quarantine: Receives what is bad; all other rows are yielded.
    max_bytes: Of a line of JSONL.
  """
  if file.endswith('.parquet'):
    return _parquet_rows(file, row_type, quarantine)
  return _json_rows(file, row_type, quarantine, max_bytes)


def count(file: str) -> int | None:
  """Returns about how many rows a file has; None: only reading it would tell.

  Bad and blank ones count; a damaged file has none.
  """
  if file.endswith('.parquet'):
    with files.open_binary(file) as f:
      table = _open_table(file, f, [])
      return table.metadata.num_rows if table else 0
  if file.endswith(('.gz', '.zst')) or '://' in file:
    return None
  return sum(chunk.count(b'\n') for chunk in files.chunks(file))


def _lines(chunks: Iterable[bytes], max_bytes: int | None) -> Iterator[bytes | None]:
  """Yields the lines, without their ends; None is one over `max_bytes`."""
  parts: list[bytes] = []
  size = 0
  for chunk in chunks:
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
      parts.clear()
  if size:
    is_kept = max_bytes is None or size <= max_bytes
    yield b''.join(parts) if is_kept else None


def _json_rows(
    file: str, row_type: Any, quarantine: Quarantine, max_bytes: int | None
) -> Iterator[tuple[int, Any]]:
  decoder = msgspec.json.Decoder(row_type)
  number = 0
  try:
    lines = _lines(files.chunks(file), max_bytes)
    for number, line in enumerate(lines, start=1):
      if line is None:
        reason = f'the line has over {max_bytes:,} bytes'
        refuse(quarantine, file, number, reason)
        continue
      if number == 1:
        line = line.removeprefix(b'\xef\xbb\xbf')  # A byte order mark.
      if not line or line.isspace():
        continue
      try:
        row = decoder.decode(line)
      except FAULTS as e:
        refuse(quarantine, file, number, str(e), line)
      else:
        yield number, row
  except files.DamagedError as e:
    reason = f'damaged from this row on, the rest is lost: {e}'
    refuse(quarantine, file, number + 1, reason)


def _parquet_rows(file: str, row_type: Any, quarantine: Quarantine) -> Iterator[tuple[int, Any]]:
  fields = msgspec.structs.fields(row_type)
  optional = {f.encode_name for f in fields if not f.required}
  wanted = [field.encode_name for field in fields]
  with files.open_binary(file) as f:
    table = _open_table(file, f, quarantine)
    if table is None:
      return
    names = table.schema_arrow.names
    if lacking := sorted({*wanted} - {*names} - optional):
      reason = f'all rows lack the column {", ".join(lacking)}'
      refuse(quarantine, file, 1, reason)
      return
    columns = [name for name in wanted if name in names]
    for number, row, fault in _group_rows(file, table, columns, quarantine):
      try:
        if fault is not None:
          raise fault
        # Parquet has no other way to leave a column out.
        given = {
            name: value for name, value in row.items() if value is not None or name not in optional
        }
        value = msgspec.convert(given, row_type)
      except FAULTS as e:
        refuse(quarantine, file, number, str(e), row)
      else:
        yield number, value


def _open_table(file: str, f: BinaryIO, quarantine: Quarantine) -> Any:
  """Returns the ParquetFile, or None if it is damaged."""
  import pyarrow as pa  # Half a second that JSONL need not wait for.
  import pyarrow.parquet as pq

  try:
    table = pq.ParquetFile(
        f,
        buffer_size=_BUFFER,
        pre_buffer=False,  # True reads a row group as a whole.
        page_checksum_verification=True,
    )
    _ = table.schema_arrow  # Which is decoded only now.
  except (pa.ArrowException, OSError, ValueError) as e:
    _raise_unless_damage(e)
    refuse(quarantine, file, 1, f'damaged, all rows are lost: {e}')
    return None
  return table


def _raise_unless_damage(error: Exception) -> None:
  """Raises what is of the disk or the network, and not of the file.

  Arrow tells of most damage by an OSError, which then has no errno.
  """
  if isinstance(error, OSError) and not (type(error) is OSError and error.errno is None):
    raise error


def _group_rows(
    file: str, table: Any, columns: list[str], quarantine: Quarantine
) -> Iterator[tuple[int, dict[str, Any], Exception | None]]:
  """Yields (number, row, what is wrong with it) of each undamaged row group."""
  import pyarrow as pa

  number = end = 0
  for group in range(table.num_row_groups):
    number, end = end, end + table.metadata.row_group(group).num_rows
    try:
      for batch in table.iter_batches(_BATCH, row_groups=[group], columns=columns):
        for row, fault in _batch_rows(batch):
          number += 1
          yield number, row, fault
      why = 'fewer rows than it says'
    except (pa.ArrowException, OSError) as e:
      _raise_unless_damage(e)
      why = str(e)
    if number < end:
      reason = f'damaged, rows {number + 1:,} to {end:,} are lost: {why}'
      refuse(quarantine, file, number + 1, reason)
  if end != table.metadata.num_rows:
    said = f'{table.metadata.num_rows:,} rows, its row groups {end:,}'
    refuse(quarantine, file, end + 1, f'damaged: the file has {said}')


def _batch_rows(batch: Any) -> Iterator[tuple[dict[str, Any], Exception | None]]:
  """Yields the rows; one that is not UTF-8 shall not spoil the others."""
  try:
    rows = batch.to_pylist()
  except FAULTS as e:
    if batch.num_rows == 1:
      yield {}, e
      return
    for i in range(batch.num_rows):
      yield from _batch_rows(batch.slice(i, 1))
  else:
    yield from ((row, None) for row in rows)
