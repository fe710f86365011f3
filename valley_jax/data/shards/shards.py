"""Shards: tokenised traces in ArrayRecord files, and a table of what is known about each trace.

A block of traces makes one shard with a sidecar: a JSON file of ids, labels and lengths, and of the
traces that were dropped. The sidecar is written after its shard, so a block is done exactly if its
sidecar exists. `building` makes shards of traces; here is their format, and how they are read.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import enum
import hashlib
import math
import os
import pathlib
import tempfile
from typing import Any

from array_record.python import array_record_module  # pyright: ignore
import msgspec
import numpy as np

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import storage

# 2 has `answer_start`; 3 the hashes of the prompt; 4 labels and decisions.
FORMAT = 4
_LABELS = (
    'trace_id',
    'problem_id',
    'difficulty',
    'is_correct',
    'pass_rate',
    'language',
    'source',
    'teacher',
)
_COLUMNS = (*_LABELS, 'num_tokens', 'num_supervised')  # Columns of a sidecar.


class TokenKind(enum.IntEnum):
  """The part of a trace that a token belongs to."""

  PROMPT = 0
  THINK = 1
  ANSWER = 2


class ShardRow(records.Record):
  """One tokenised trace as it is stored in a shard (MessagePack)."""

  trace_id: str
  problem_id: str
  tokens: bytes  # int32, little endian.
  weights: bytes  # uint8.
  answer_start: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(ShardRow)


def classify_tokens(example: tokenization.Example) -> np.ndarray:
  """Returns the `TokenKind` of each token, uint8.

  Prompt, thinking and answer follow one another, so a row keeps them as two numbers. A trace
  without thinking has no THINK tokens; one whose thinking never ends has no ANSWER tokens.

  Example: weights [0, 0, 1, 1, 1] and answer_start 3 give [0, 0, 1, 2, 2].
  """
  is_answer = np.arange(len(example.tokens)) >= example.answer_start
  supervised = np.where(is_answer, TokenKind.ANSWER, TokenKind.THINK)
  return np.where(example.weights > 0, supervised, TokenKind.PROMPT).astype(np.uint8)


def hash_ids(ids: Iterable[str]) -> str:
  """Returns the SHA-256 of trace ids in their order, one a line."""
  digest = hashlib.sha256()
  for trace_id in ids:
    digest.update(f'{trace_id}\n'.encode())
  return digest.hexdigest()


def decode_row(data: bytes) -> tokenization.Example:
  """Returns the example of a shard's record."""
  row = _DECODER.decode(data)
  return tokenization.Example(
      np.frombuffer(row.tokens, '<i4'), np.frombuffer(row.weights, np.uint8), row.answer_start
  )


def _encode_row(trace: records.Trace, example: tokenization.Example) -> bytes:
  row = ShardRow(
      trace_id=trace.trace_id,
      problem_id=trace.problem_id,
      tokens=example.tokens.astype('<i4').tobytes(),
      weights=example.weights.tobytes(),
      answer_start=example.answer_start,
  )
  return _ENCODER.encode(row)


def write_shard(
    directory: pathlib.Path,
    number: int,
    rows: Iterable[tuple[records.Trace, tokenization.Example]],
    dropped: Mapping[str, Sequence[str]],
) -> None:
  """Streams rows into a shard, and then writes its sidecar.

  Args:
    directory: The directory of the shards.
    number: The block's number.
    rows: Traces with their tokens.
    dropped: Trace ids by reason; iterating over `rows` may add to it.
  """
  columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
  path = directory / f'{number:05d}.array_record'
  with _open_shard(path) as writer:
    for trace, example in rows:
      writer.write(_encode_row(trace, example))
      for name in _LABELS:
        columns[name].append(getattr(trace, name))
      columns['num_tokens'].append(len(example.tokens))
      columns['num_supervised'].append(int(example.weights.sum()))
  # After its shard: the sidecar says that the block is done.
  jsonl.write_json(path.with_suffix('.json'), {**columns, 'dropped': dropped})


@contextlib.contextmanager
def _open_shard(path: pathlib.Path) -> Iterator[Any]:
  """Opens a shard under another name and renames it at the end, so that it is whole or absent."""
  scratch = path.with_suffix('.tmp')
  writer = array_record_module.ArrayRecordWriter(str(scratch), 'group_size:1')
  try:
    yield writer
  finally:
    writer.close()
  os.replace(scratch, path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TraceTable:
  """What is known about each trace of the shards: columns of equal length, row i for trace i.

  Subsets are selected from it: for a million traces it is small enough to hold in memory, where the
  traces themselves are not. '' and None mean that a label is not known.
  """

  ids: Sequence[str]  # Trace ids, all different.
  problem_ids: Sequence[str]
  num_tokens: np.ndarray  # Length of the whole example, prompt included.
  num_supervised: np.ndarray  # Tokens of the response, its end included.
  difficulty: Sequence[str]
  is_correct: Sequence[bool | None]
  pass_rate: Sequence[float | None]
  language: Sequence[str]
  source: Sequence[str]
  teacher: Sequence[str]

  def __post_init__(self):
    lengths = {name: len(getattr(self, name)) for name in TABLE_FIELDS}
    if len(set(lengths.values())) > 1:
      raise errors.UserError(f'The columns of a table differ in length: {lengths}.')
    if len(set(self.ids)) < len(self.ids):
      trace_id, n = collections.Counter(self.ids).most_common(1)[0]
      raise errors.UserError(
          f'Trace id {trace_id!r} occurs {n} times in the table; give each trace an id of its own.'
      )

  def __len__(self) -> int:
    return len(self.ids)

  def list_column(self, name: str) -> list[Any]:
    """Returns a column as Python values, None where a label is not known.

    Raises:
      UserError: there is no such column.
    """
    if name not in TABLE_FIELDS:
      raise errors.UserError(f'Traces have no {name!r}; they have {[*TABLE_FIELDS]}.')
    values = np.asarray(getattr(self, name), object).tolist()
    return [None if _is_unknown(value) else value for value in values]


TABLE_FIELDS = tuple(field.name for field in dataclasses.fields(TraceTable))
NUMBER_FIELDS = ('num_tokens', 'num_supervised', 'pass_rate')


def _is_unknown(value: Any) -> bool:
  return value == '' or (isinstance(value, float) and math.isnan(value))


def read_sidecars(directory: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the sidecars of all finished blocks, in order."""
  for path in sorted(directory.glob('[0-9]*.json')):
    yield jsonl.read_json(path)


def read_table(directory: pathlib.Path) -> TraceTable:
  """Returns the columns of all sidecars as one table."""
  columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
  interned: dict[str, str] = {}  # A label is one object, however often it occurs.
  for sidecar in read_sidecars(directory):
    for name in _COLUMNS:
      values = sidecar[name]
      if name in ('difficulty', 'language', 'source', 'teacher'):
        values = [interned.setdefault(value, value) for value in values]
      columns[name] += values
  return TraceTable(
      ids=columns.pop('trace_id'),
      problem_ids=columns.pop('problem_id'),
      num_tokens=np.asarray(columns.pop('num_tokens'), np.int64),
      num_supervised=np.asarray(columns.pop('num_supervised'), np.int64),
      **columns,
  )


class Shards:
  """Random access to the rows of a directory of shards.

  Attributes:
    directory: The directory, a copy if the shards are in a bucket.
    manifest: The contents of manifest.json.
    ids: Trace id of each row.
    lengths: Tokens of each row, prompt included.
  """

  def __init__(self, directory: str | os.PathLike):
    """Opens the shards; those of a bucket are copied to this machine first."""
    if storage.is_remote(directory):
      self._copy = tempfile.TemporaryDirectory(prefix='valley_jax_shards_')
      storage.download_path(directory, pathlib.Path(self._copy.name))
      directory = self._copy.name
    directory = pathlib.Path(directory)
    if not (directory / 'manifest.json').exists():
      raise errors.UserError(
          f'{directory} has no manifest.json; run `python -m valley_jax.shard` to its end first.'
      )
    self.directory = directory
    self.manifest = jsonl.read_json(directory / 'manifest.json')
    if (version := self.manifest.get('format')) != FORMAT:
      raise errors.UserError(
          f'{directory} holds shards of format {version}, this version reads {FORMAT}; delete it'
          ' and run `python -m valley_jax.shard` again.'
      )
    self.ids: list[str] = []
    lengths: list[int] = []
    sizes = [0]
    for sidecar in read_sidecars(directory):
      self.ids += sidecar['trace_id']
      lengths += sidecar['num_tokens']
      sizes.append(len(sidecar['trace_id']))
    self.lengths = np.asarray(lengths, np.int64)
    self._starts = np.cumsum(sizes)  # First row of each file.
    paths = sorted(str(p) for p in directory.glob('*.array_record'))
    self._readers = [
        array_record_module.ArrayRecordReader(path, 'readahead_buffer_size:0') for path in paths
    ]

  def __len__(self) -> int:
    return len(self.ids)

  def read_table(self) -> TraceTable:
    """Returns ids, labels and lengths of all rows."""
    return read_table(self.directory)

  def read_examples(self, indices: Sequence[int] | np.ndarray) -> list[tokenization.Example]:
    """Returns the examples at the given rows, in the given order."""
    files = np.searchsorted(self._starts, indices, side='right') - 1
    return [
        decode_row(self._readers[f].read([int(i - self._starts[f])])[0])
        for f, i in zip(files, indices, strict=True)
    ]
