"""Blocks of traces into shards, by this process or by several at once.

A block is a function of its traces alone, so who makes it and when changes no
byte. Blocks on their way are few: so many texts are in memory and no more.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import process
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import threading

from valley_jax import records
from valley_jax.data import encoding
from valley_jax.data import prompts
from valley_jax.data import shards
from valley_jax.data import tokenization

Block = list[records.Trace]


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
    settings: Settings,
    traces: Iterable[records.Trace],
    done: Callable[[int], object],
) -> None:
  """Writes the blocks of all traces, those apart that are there already.

  Args:
    settings: How.
    traces: In their order.
    done: Is called with the number of traces of each block, in order.

  Raises:
    RuntimeError: a worker died.
  """
  blocks = _blocks(traces, settings.traces_per_shard)
  if settings.num_workers:
    _write_together(settings, blocks, done)
    return
  encoder = _encoder(settings)
  for number, block in blocks:
    if not _is_there(settings, number):
      _write(settings, encoder, number, block)
    done(len(block))


def _blocks(
    traces: Iterable[records.Trace], size: int
) -> Iterator[tuple[int, Block]]:
  traces = iter(traces)
  for number in itertools.count():
    block = list(itertools.islice(traces, size))
    if not block:
      return
    yield number, block


def _is_there(settings: Settings, number: int) -> bool:
  return (settings.directory / f'{number:05d}.json').exists()


def _encoder(settings: Settings) -> encoding.Encoder:
  tokenizer = tokenization.load(settings.directory / 'tokenizer')
  return encoding.Encoder(tokenizer)


def _write(
    settings: Settings, encoder: encoding.Encoder, number: int, block: Block
) -> None:
  shards.write_block(
      settings.directory,
      number,
      block,
      encoder=encoder,
      prompt=settings.prompt,
      max_len=settings.max_len,
      min_len=settings.min_len,
  )


def _write_together(
    settings: Settings,
    blocks: Iterable[tuple[int, Block]],
    done: Callable[[int], object],
) -> None:
  """Has workers write the blocks: one each, and one that waits."""
  waiting: collections.deque[tuple[int, futures.Future | None]]
  waiting = collections.deque()

  def finish_first() -> None:
    size, future = waiting.popleft()
    if future is not None:
      future.result()
    done(size)

  pool = futures.ProcessPoolExecutor(
      settings.num_workers,
      # Not fork: the tokenizer's threads, and JAX's, would not survive it.
      multiprocessing.get_context('spawn'),
      initializer=_begin_worker,
      initargs=(settings,),
  )
  try:
    for number, block in blocks:
      is_there = _is_there(settings, number)
      future = None if is_there else pool.submit(_work, number, block)
      waiting.append((len(block), future))
      while len(waiting) > settings.num_workers + 1:
        finish_first()
    while waiting:
      finish_first()
  except process.BrokenProcessPool as e:
    raise RuntimeError(
        f'One of the {settings.num_workers} workers of shard died, most likely'
        f' for lack of memory: each holds {settings.traces_per_shard:,} traces.'
        ' Lower config.data.num_workers, or free memory, and run the same'
        ' command again: it goes on at the first unfinished block.'
    ) from e
  finally:
    pool.shutdown(cancel_futures=True)


# A worker's own, made by `_begin_worker`; a pool has no other place for it.
_of_worker: tuple[Settings, encoding.Encoder] | None = None


def _begin_worker(settings: Settings) -> None:
  """Loads the tokenizer, once; and sees to it that no worker is left over."""
  global _of_worker
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'  # The workers are parallel.
  parent = multiprocessing.parent_process()
  assert parent is not None
  # If the parent is killed, a worker would wait for it, or, which is worse, go
  # on writing beside the next run.
  threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
  _of_worker = settings, _encoder(settings)


def _end_with(parent) -> None:
  parent.join()
  os._exit(1)


def _work(number: int, block: Block) -> None:
  assert _of_worker is not None
  _write(*_of_worker, number, block)
