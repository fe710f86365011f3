"""Shards: tokenised traces in ArrayRecord files, and their manifest.

A block of source rows makes one shard with a sidecar of counts; the sidecar is
written after its shard, so a block is done exactly if its sidecar exists, and
a killed `shard` goes on at the first block that is not.
"""

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import os
import pathlib
import tempfile
from typing import Any

from array_record.python import array_record_module  # pyright: ignore
import msgspec
import numpy as np

from valley_jax import buckets
from valley_jax import records
from valley_jax.data import prompts
from valley_jax.data import table as table_lib
from valley_jax.data import tokenization

FORMAT = 3  # 2 has `answer_start`; 3 the hashes of the prompt.


class Row(records.Record):
  """One tokenised trace as it lies in a shard (MessagePack)."""

  trace_id: str
  problem_id: str
  tokens: bytes  # int32, little endian.
  weights: bytes  # uint8.
  answer_start: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Row)


def decode(data: bytes) -> tokenization.Example:
  """Returns the example of a shard's record."""
  row = _DECODER.decode(data)
  return tokenization.Example(
      np.frombuffer(row.tokens, '<i4'),
      np.frombuffer(row.weights, np.uint8),
      row.answer_start,
  )


def _check(
    trace: records.Trace,
    asked: str,
    seen: set[str],
    special_texts: Sequence[str],
) -> str:
  """Returns why a trace, asked for in these words, cannot be used, or ''."""
  if trace.trace_id in seen:
    return 'duplicate_trace_id'
  if not trace.question.strip():
    return 'empty_question'
  if not trace.response.strip():
    return 'empty_response'
  # Tokenised, it would be the token: a turn would end in mid-text.
  if any(s in asked or s in trace.response for s in special_texts):
    return 'special_token_in_text'
  return ''


def write_block(
    directory: pathlib.Path,
    number: int,
    traces: Iterable[records.Trace],
    *,
    tokenizer: tokenization.Tokenizer,
    prompt: prompts.Prompt,
    max_len: int,
    seen: set[str],
    quarantine: Sequence[dict[str, Any]],
) -> None:
  """Writes one shard and its sidecar.

  Args:
    directory: Where to.
    number: The block's number.
    traces: The block's traces.
    tokenizer: Tokenises, and renders the conversation.
    prompt: How a question is put.
    max_len: Longer traces (in tokens) are dropped and counted, never cut.
    seen: Trace ids of earlier blocks; extended.
    quarantine: Rows of this block that could not be read.
  """
  kept, dropped = [], collections.defaultdict(list)
  special_texts = tokenization.special_texts(tokenizer)
  for trace in traces:
    asked = prompts.ask(prompt, trace.question)
    reason = _check(trace, asked, seen, special_texts)
    if not reason and not tokenization.is_kept(
        tokenizer, asked, trace.response, prompt.system
    ):
      reason = 'changed_by_template'
    seen.add(trace.trace_id)
    (dropped[reason] if reason else kept).append(trace)
  turns = [(prompts.ask(prompt, t.question), t.response) for t in kept]
  examples = tokenization.encode(tokenizer, turns, prompt.system)
  path = directory / f'{number:05d}.array_record'
  index = []
  rows = []
  for trace, example in zip(kept, examples, strict=True):
    if len(example.tokens) > max_len:
      dropped['too_long'].append(trace)
      continue
    rows.append(_encode(trace, example))
    supervised = int(example.weights.sum())
    index.append((trace.trace_id, len(example.tokens), supervised))
  _write_records(path, rows)
  records.write_json(
      path.with_suffix('.json'),
      {
          'ids': [row[0] for row in index],
          'lengths': [row[1] for row in index],
          'supervised': [row[2] for row in index],
          'dropped': {k: [t.trace_id for t in v] for k, v in dropped.items()},
          'quarantine': list(quarantine),
      },
  )


def _encode(trace: records.Trace, example: tokenization.Example) -> bytes:
  row = Row(
      trace_id=trace.trace_id,
      problem_id=trace.problem_id,
      tokens=example.tokens.astype('<i4').tobytes(),
      weights=example.weights.tobytes(),
      answer_start=example.answer_start,
  )
  return _ENCODER.encode(row)


def _write_records(path: pathlib.Path, rows: list[bytes]) -> None:
  """Writes a shard aside and renames it: it is there whole or not at all."""
  scratch = path.with_suffix('.tmp')
  writer = array_record_module.ArrayRecordWriter(str(scratch), 'group_size:1')
  for row in rows:
    writer.write(row)
  writer.close()
  os.replace(scratch, path)


def sidecars(directory: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the counts of all finished blocks, in order."""
  paths = sorted(directory.glob('[0-9]*.json'))
  return [records.read_json(path) for path in paths]


class Shards:
  """Random access to the rows of a directory of shards."""

  def __init__(self, directory: str | os.PathLike):
    """Opens them; those of a bucket are copied to this machine first."""
    if buckets.is_remote(directory):
      self._copy = tempfile.TemporaryDirectory(prefix='valley_jax_shards_')
      buckets.download(directory, pathlib.Path(self._copy.name))
      directory = self._copy.name
    directory = pathlib.Path(directory)
    if not (directory / 'manifest.json').exists():
      raise ValueError(
          f'{directory} has no manifest.json; run `python -m valley_jax.shard`'
          ' to its end first.'
      )
    self.directory = directory
    self.manifest = records.read_json(directory / 'manifest.json')
    if (found := self.manifest.get('format')) != FORMAT:
      raise ValueError(
          f'{directory} holds shards of format {found}, this version reads'
          f' {FORMAT}; delete it and run `python -m valley_jax.shard` again.'
      )
    tables = sidecars(directory)
    self.ids: list[str] = [i for t in tables for i in t['ids']]
    self.lengths = np.asarray([n for t in tables for n in t['lengths']])
    paths = sorted(str(p) for p in directory.glob('*.array_record'))
    self._starts = np.cumsum([0] + [len(t['ids']) for t in tables])
    self._readers = [
        array_record_module.ArrayRecordReader(path, 'readahead_buffer_size:0')
        for path in paths
    ]

  def __len__(self) -> int:
    return len(self.ids)

  def table(self) -> table_lib.Table:
    """Returns ids and lengths of all rows; no label is known."""
    unknown = [None] * len(self)
    supervised = [n for t in sidecars(self.directory) for n in t['supervised']]
    return table_lib.Table(
        ids=self.ids,
        problem_ids=[
            _DECODER.decode(reader.read([i])[0]).problem_id
            for reader in self._readers
            for i in range(reader.num_records())
        ],
        num_tokens=self.lengths,
        num_supervised=np.asarray(supervised, np.int64),
        difficulty=[''] * len(self),
        is_correct=unknown,
        pass_rate=unknown,
        language=[''] * len(self),
        source=[''] * len(self),
        teacher=[''] * len(self),
    )

  def read(self, indices: Sequence[int]) -> list[tokenization.Example]:
    """Returns the examples at the given rows, in the given order."""
    files = np.searchsorted(self._starts, indices, side='right') - 1
    return [
        decode(self._readers[f].read([int(i - self._starts[f])])[0])
        for f, i in zip(files, indices, strict=True)
    ]
