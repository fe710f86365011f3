"""Blocks of traces into shards, by this process or by several at once.

A block is a function of its traces alone, so who makes it and when changes no
byte. Blocks on their way are few: so many texts are in memory and no more.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import pathlib
from typing import NamedTuple

from valley_jax import records
from valley_jax.data import workers
from valley_jax.data.shards import shards
from valley_jax.data.tokens import encoding
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization


class _Block(NamedTuple):
  """Traces that go into one shard."""

  number: int
  size: int
  traces: list[records.Trace] | None  # None: it is written already.


@dataclasses.dataclass(frozen=True)
class Settings:
  """How blocks are made.

  Attributes:
    directory: Of the shards; the tokenizer is in it.
    prompt: How a question is put.
    max_len: Of a trace, in tokens.
    traces_per_shard: Of a block; the last may have fewer.
    num_workers: Processes; 0 for this one.
    min_len: Of a trace, in tokens.
  """

  directory: pathlib.Path
  prompt: prompts.Prompt
  max_len: int
  traces_per_shard: int
  num_workers: int = 0
  min_len: int = 0


def write(
    settings: Settings, traces: Iterable[records.Trace], done: Callable[[int], object]
) -> None:
  """Writes the blocks of all traces, those apart that are there already.

  Args:
    settings: How.
    traces: In their order.
    done: Is called with the number of traces of each block, in order.

  Raises:
    RuntimeError: a worker died.
  """
  written = workers.map_in_order(
      _BlockWriter(settings),
      _blocks(settings, traces),
      settings.num_workers,
      settings.traces_per_shard,
  )
  with contextlib.closing(written):
    for block, _ in written:
      done(block.size)


def _blocks(settings: Settings, traces: Iterable[records.Trace]) -> Iterator[_Block]:
  batches = workers.make_batches(traces, settings.traces_per_shard)
  for number, batch in enumerate(batches):
    is_there = (settings.directory / f'{number:05d}.json').exists()
    yield _Block(number, len(batch), None if is_there else batch)


class _BlockWriter:
  """Writes blocks; can be pickled. Each process loads the tokenizer once, for its first block."""

  def __init__(self, settings: Settings):
    self._settings = settings

  @functools.cached_property
  def _encoder(self) -> encoding.TurnEncoder:
    return encoding.TurnEncoder(tokenization.load_tokenizer(self._settings.directory / 'tokenizer'))

  def __call__(self, block: _Block) -> None:
    if block.traces is None:
      return
    settings = self._settings
    shards.write_block(
        settings.directory,
        block.number,
        block.traces,
        encoder=self._encoder,
        prompt=settings.prompt,
        max_len=settings.max_len,
        min_len=settings.min_len,
    )
