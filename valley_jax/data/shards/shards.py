"""Shards: tokenised traces in ArrayRecord files, and their manifest.

A block of traces makes one shard with a sidecar: a table of ids, labels and
lengths, and what was dropped. The sidecar is written after its shard, so a
block is done exactly if its sidecar exists, and a killed `shard` goes on at the
first block that is not.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import enum
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
from valley_jax.data.shards import table as table_lib
from valley_jax.data.tokens import encoding
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import buckets

# 2 has `answer_start`; 3 the hashes of the prompt; 4 labels and decisions.
FORMAT = 4
LABELS = (
    'trace_id',
    'problem_id',
    'difficulty',
    'is_correct',
    'pass_rate',
    'language',
    'source',
    'teacher',
)
COLUMNS = (*LABELS, 'num_tokens', 'num_supervised')  # Of a sidecar.


class Kind(enum.IntEnum):
  """Which part of a trace a token is of."""

  PROMPT = 0
  THINK = 1
  ANSWER = 2


class Row(records.Record):
  """One tokenised trace as it lies in a shard (MessagePack)."""

  trace_id: str
  problem_id: str
  tokens: bytes  # int32, little endian.
  weights: bytes  # uint8.
  answer_start: int


# Of a block, whose tokens are decoded and compared with their text.
_NUM_DECODED = 16

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Row)


def kinds(example: tokenization.Example) -> np.ndarray:
  """Returns the `Kind` of each token, uint8.

  A row keeps them as two numbers: prompt, thinking and answer follow one
  another. A trace without thinking has none; one whose thinking never ends has
  no answer.

  Example: weights [0, 0, 1, 1, 1] and answer_start 3 give [0, 0, 1, 2, 2].
  """
  at = np.arange(len(example.tokens))
  is_answer = at >= example.answer_start
  supervised = np.where(is_answer, Kind.ANSWER, Kind.THINK)
  return np.where(example.weights > 0, supervised, Kind.PROMPT).astype(np.uint8)


def decode(data: bytes) -> tokenization.Example:
  """Returns the example of a shard's record."""
  row = _DECODER.decode(data)
  return tokenization.Example(
      np.frombuffer(row.tokens, '<i4'), np.frombuffer(row.weights, np.uint8), row.answer_start
  )


def _turn(
    encoder: encoding.TurnEncoder, trace: records.Trace, prompt: prompts.Prompt
) -> tuple[templates.RenderedTurn | None, str]:
  """Returns what is taught of a trace; or None, and why nothing is."""
  asked = prompts.render_question(prompt, trace.question)
  texts = asked, trace.response
  # Tokenised, it would be the token: a turn would end in mid-text.
  if any(s in text for s in encoder.control_texts for text in texts):
    return None, 'special_token_in_text'
  try:
    return templates.render_turn(encoder.tokenizer, *texts, prompt.system), ''
  except ValueError:
    return None, 'changed_by_template'


def _fault(
    encoder: encoding.TurnEncoder,
    example: tokenization.Example,
    turn: templates.RenderedTurn,
    *,
    decodes: bool,
) -> str:
  """Returns `changed_text`, a fault of the trace, or ''.

  Raises:
    ValueError: a fault of the tokenizer or of its template.
  """
  tokenizer = encoder.tokenizer
  fault = tokenization.find_fault(tokenizer, example, turn, decodes=decodes)
  if fault not in ('', 'changed_text'):
    tokenization.check_example(tokenizer, example, turn)
  return fault


def write_block(
    directory: pathlib.Path,
    number: int,
    traces: Iterable[records.Trace],
    *,
    encoder: encoding.TurnEncoder,
    prompt: prompts.Prompt,
    max_len: int,
    min_len: int = 0,
) -> None:
  """Writes one shard and its sidecar.

  Args:
    directory: Where to.
    number: The block's number.
    traces: The block's traces.
    encoder: Tokenises, and renders the conversation.
    prompt: How a question is put.
    max_len: Longer traces (in tokens) are dropped and counted, never cut.
    min_len: And shorter ones.
  """
  kept: list[tuple[records.Trace, templates.RenderedTurn]] = []
  dropped = collections.defaultdict(list)
  for trace in traces:
    turn, reason = _turn(encoder, trace, prompt)
    if turn is None:
      dropped[reason].append(trace.trace_id)
    else:
      kept.append((trace, turn))
  examples = encoder.encode_stream(turn for _, turn in kept)

  def fitting() -> Iterator[tuple[records.Trace, tokenization.Example]]:
    for i, ((trace, turn), example) in enumerate(zip(kept, examples, strict=True)):
      decodes = i < _NUM_DECODED
      if len(example.tokens) > max_len:
        dropped['too_long'].append(trace.trace_id)
      elif len(example.tokens) < min_len:
        dropped['too_short'].append(trace.trace_id)
      elif reason := _fault(encoder, example, turn, decodes=decodes):
        dropped[reason].append(trace.trace_id)
      else:
        yield trace, example

  write(directory, number, fitting(), dropped)


def write(
    directory: pathlib.Path,
    number: int,
    rows: Iterable[tuple[records.Trace, tokenization.Example]],
    dropped: Mapping[str, Sequence[str]],
) -> None:
  """Writes rows as they come to a shard, and then its sidecar.

  Args:
    directory: Where to.
    number: The block's number.
    rows: Traces with their tokens.
    dropped: Ids by reason; `rows` may add to it.
  """
  columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
  path = directory / f'{number:05d}.array_record'
  with _writer(path) as writer:
    for trace, example in rows:
      writer.write(_encode(trace, example))
      for name, value in _entry(trace, example).items():
        columns[name].append(value)
  # Behind its shard: it says that the block is done.
  jsonl.write_json(path.with_suffix('.json'), {**columns, 'dropped': dropped})


def _entry(trace: records.Trace, example: tokenization.Example) -> dict[str, Any]:
  """Returns the trace's line of the table."""
  entry = {name: getattr(trace, name) for name in LABELS}
  entry['num_tokens'] = len(example.tokens)
  entry['num_supervised'] = int(example.weights.sum())
  return entry


def _encode(trace: records.Trace, example: tokenization.Example) -> bytes:
  row = Row(
      trace_id=trace.trace_id,
      problem_id=trace.problem_id,
      tokens=example.tokens.astype('<i4').tobytes(),
      weights=example.weights.tobytes(),
      answer_start=example.answer_start,
  )
  return _ENCODER.encode(row)


@contextlib.contextmanager
def _writer(path: pathlib.Path) -> Iterator[Any]:
  """Writes a shard aside and renames it: it is there whole or not at all."""
  scratch = path.with_suffix('.tmp')
  writer = array_record_module.ArrayRecordWriter(str(scratch), 'group_size:1')
  try:
    yield writer
  finally:
    writer.close()
  os.replace(scratch, path)


def sidecars(directory: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the sidecars of all finished blocks, in order."""
  for path in sorted(directory.glob('[0-9]*.json')):
    yield jsonl.read_json(path)


def table(directory: pathlib.Path) -> table_lib.Table:
  """Returns the columns of all sidecars as one table."""
  columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
  known: dict[str, str] = {}  # A label is one object, however often it stands.
  for sidecar in sidecars(directory):
    for name in COLUMNS:
      values = sidecar[name]
      if name in ('difficulty', 'language', 'source', 'teacher'):
        values = [known.setdefault(value, value) for value in values]
      columns[name] += values
  return table_lib.Table(
      ids=columns['trace_id'],
      problem_ids=columns['problem_id'],
      num_tokens=np.asarray(columns['num_tokens'], np.int64),
      num_supervised=np.asarray(columns['num_supervised'], np.int64),
      difficulty=columns['difficulty'],
      is_correct=columns['is_correct'],
      pass_rate=columns['pass_rate'],
      language=columns['language'],
      source=columns['source'],
      teacher=columns['teacher'],
  )


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
      raise errors.UserError(
          f'{directory} has no manifest.json; run `python -m valley_jax.shard`' ' to its end first.'
      )
    self.directory = directory
    self.manifest = jsonl.read_json(directory / 'manifest.json')
    if (found := self.manifest.get('format')) != FORMAT:
      raise errors.UserError(
          f'{directory} holds shards of format {found}, this version reads'
          f' {FORMAT}; delete it and run `python -m valley_jax.shard` again.'
      )
    self.ids: list[str] = []
    lengths: list[int] = []
    sizes = [0]
    for sidecar in sidecars(directory):
      self.ids += sidecar['trace_id']
      lengths += sidecar['num_tokens']
      sizes.append(len(sidecar['trace_id']))
    self.lengths = np.asarray(lengths, np.int64)
    self._starts = np.cumsum(sizes)
    paths = sorted(str(p) for p in directory.glob('*.array_record'))
    self._readers = [
        array_record_module.ArrayRecordReader(path, 'readahead_buffer_size:0') for path in paths
    ]

  def __len__(self) -> int:
    return len(self.ids)

  def read_table(self) -> table_lib.Table:
    """Returns ids, labels and lengths of all rows."""
    return table(self.directory)

  def read_examples(self, indices: Sequence[int]) -> list[tokenization.Example]:
    """Returns the examples at the given rows, in the given order."""
    files = np.searchsorted(self._starts, indices, side='right') - 1
    return [
        decode(self._readers[f].read([int(i - self._starts[f])])[0])
        for f, i in zip(files, indices, strict=True)
    ]
