"""From traces to shards and their manifest, by this process or by several at once.

A block of traces makes one shard. It is a function of its traces alone, so which process builds it,
and when, changes no byte. Only a few blocks are in progress at a time, which bounds the memory.
Blocks that exist are left alone: a killed `shard` resumes at the first block that does not.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data import workers
from valley_jax.data.cleaning import decisions
from valley_jax.data.shards import shards
from valley_jax.data.tokens import encoding
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import metrics

# Examples of a block that are decoded and compared with their text.
_NUM_DECODED = 16


class _Block(NamedTuple):
  """Traces that go into one shard."""

  number: int
  size: int
  traces: list[records.Trace] | None  # None: the block exists.


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSettings:
  """How blocks are built.

  Attributes:
    directory: Directory of the shards, with the tokenizer in `tokenizer`.
    prompt: The texts in which a question is put.
    max_len: Longest trace that is kept, in tokens; longer ones are dropped, never cut.
    traces_per_shard: Traces of a block; the last block may have fewer.
    num_workers: Number of processes; 0 for this one.
    min_len: Shortest trace that is kept, in tokens.
  """

  directory: pathlib.Path
  prompt: prompts.Prompt
  max_len: int
  traces_per_shard: int
  num_workers: int = 0
  min_len: int = 0


def write_blocks(
    settings: BlockSettings, traces: Iterable[records.Trace], report_done: Callable[[int], object]
) -> None:
  """Writes the blocks of all traces, except those that exist.

  Args:
    settings: Settings that blocks are built with.
    traces: All traces, in the order of the rows.
    report_done: Called with the number of traces of each block, in order.

  Raises:
    UserError: a worker died.
  """
  blocks = workers.map_in_order(
      _BlockWriter(settings),
      _split_blocks(settings, traces),
      settings.num_workers,
      settings.traces_per_shard,
  )
  with contextlib.closing(blocks):
    for block, _ in blocks:
      report_done(block.size)


def _split_blocks(settings: BlockSettings, traces: Iterable[records.Trace]) -> Iterator[_Block]:
  batches = workers.make_batches(traces, settings.traces_per_shard)
  for number, batch in enumerate(batches):
    exists = (settings.directory / f'{number:05d}.json').exists()
    yield _Block(number, len(batch), None if exists else batch)


class _BlockWriter:
  """Writes blocks. It can be pickled: each process loads the tokenizer for its first block."""

  def __init__(self, settings: BlockSettings):
    self._settings = settings

  @functools.cached_property
  def _encoder(self) -> encoding.TurnEncoder:
    return encoding.TurnEncoder(tokenization.load_tokenizer(self._settings.directory / 'tokenizer'))

  def __call__(self, block: _Block) -> None:
    if block.traces is not None:
      write_block(self._settings, block.number, block.traces, self._encoder)


def write_block(
    settings: BlockSettings,
    number: int,
    traces: Iterable[records.Trace],
    encoder: encoding.TurnEncoder,
) -> None:
  """Writes one shard and its sidecar.

  Args:
    settings: Settings that blocks are built with.
    number: The block's number.
    traces: The block's traces.
    encoder: Tokenises rendered turns.
  """
  kept: list[tuple[records.Trace, templates.RenderedTurn]] = []
  dropped = collections.defaultdict(list)
  for trace in traces:
    turn, reason = _render_trace(encoder, trace, settings.prompt)
    if turn is None:
      dropped[reason].append(trace.trace_id)
    else:
      kept.append((trace, turn))
  examples = encoder.encode_stream(turn for _, turn in kept)

  def yield_short_enough() -> Iterator[tuple[records.Trace, tokenization.Example]]:
    for i, ((trace, turn), example) in enumerate(zip(kept, examples, strict=True)):
      decodes = i < _NUM_DECODED
      if len(example.tokens) > settings.max_len:
        dropped['too_long'].append(trace.trace_id)
      elif len(example.tokens) < settings.min_len:
        dropped['too_short'].append(trace.trace_id)
      elif fault := _find_trace_fault(encoder, example, turn, decodes=decodes):
        dropped[fault].append(trace.trace_id)
      else:
        yield trace, example

  shards.write_shard(settings.directory, number, yield_short_enough(), dropped)


def _render_trace(
    encoder: encoding.TurnEncoder, trace: records.Trace, prompt: prompts.Prompt
) -> tuple[templates.RenderedTurn | None, str]:
  """Returns the training text of a trace, or None and why there is none."""
  texts = prompts.render_question(prompt, trace.question), trace.response
  # Tokenised, such a text would become the control token: a turn would end in mid-text.
  if any(control in text for control in encoder.control_texts for text in texts):
    return None, 'special_token_in_text'
  try:
    return templates.render_turn(encoder.tokenizer, *texts, prompt.system), ''
  except ValueError:
    return None, 'changed_by_template'


def _find_trace_fault(
    encoder: encoding.TurnEncoder,
    example: tokenization.Example,
    turn: templates.RenderedTurn,
    *,
    decodes: bool,
) -> str:
  """Returns `changed_text`, a fault of the trace, or ''.

  Raises:
    UserError: any other fault, which is one of the tokenizer or of its template.
  """
  fault = tokenization.find_fault(encoder.tokenizer, example, turn, decodes=decodes)
  if fault not in ('', 'changed_text'):
    tokenization.check_example(encoder.tokenizer, example, turn)
  return fault


def build_manifest(
    directory: pathlib.Path,
    sources: Sequence[str],
    settings: dict[str, Any],
    tokenizer: tokenization.Tokenizer,
    prompt: prompts.Prompt,
) -> dict[str, Any]:
  """Returns the manifest of complete shards: everything about them except the traces themselves.

  Args:
    directory: Directory of the shards.
    sources: The sources of traces, each FORMAT:PATH.
    settings: Every setting that the shards depend on; the manifest begins with these.
    tokenizer: The tokenizer of the shards.
    prompt: The texts in which questions were put.
  """
  counts = decisions.count_decisions(directory, sources)
  dropped, examples = dict(counts.num_refused), dict(counts.refused)
  num_blocks = 0
  for sidecar in shards.read_sidecars(directory):
    num_blocks += 1
    for reason, ids in sidecar['dropped'].items():
      dropped[reason] = dropped.get(reason, 0) + len(ids)
      examples[reason] = (examples.get(reason, []) + ids)[: decisions.MAX_EXAMPLES]
  table = shards.read_table(directory)
  lengths = metrics.count_by_power_of_two(table.num_tokens)
  template_sha256 = tokenization.hash_chat_template(tokenizer)
  return {
      **settings,
      'sources': [
          {'source': source, 'sha256': sha256, 'read': counts.read[source]}
          for source, sha256 in zip(sources, settings['traces_sha256'], strict=True)
      ],
      'num_read': sum(counts.read.values()),
      'quarantined': _count_lines(directory / 'quarantine.jsonl'),
      'dropped': dict(sorted(dropped.items())),
      'examples': dict(sorted(examples.items())),
      'num_traces': len(table),
      'num_tokens': int(table.num_tokens.sum()),
      'num_supervised_tokens': int(table.num_supervised.sum()),
      'longest': int(table.num_tokens.max(initial=0)),
      'lengths': {str(power): count for power, count in lengths.items()},
      'ids_sha256': shards.hash_ids(table.ids),
      'prompt_sha256': prompts.hash_prompt(prompt, template_sha256),
      'template_sha256': template_sha256,
      'tokenizer_sha256': tokenization.hash_tokenizer(tokenizer),
      'vocab_size': len(tokenizer),
      'versions': jsonl.read_json(directory / 'versions.json'),
      'files': [f'{i:05d}.array_record' for i in range(num_blocks)],
  }


def _count_lines(path: pathlib.Path) -> int:
  with open(path, 'rb') as f:
    return sum(1 for _ in f)
