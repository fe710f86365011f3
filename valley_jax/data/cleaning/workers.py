"""A function of each item, in order, by this process or by several at once.

Who calls it, and when, changes nothing of what comes out. Items on their way
are few: one for each process, and one that waits.
"""

import collections
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import process
import itertools
import multiprocessing
from multiprocessing import connection
import os
import signal
import threading
from typing import Any, TypeVar

from valley_jax import errors

Item = TypeVar('Item')
Found = TypeVar('Found')


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
  """Yields `size` items at a time; the last time there may be fewer."""
  items = iter(items)
  while batch := list(itertools.islice(items, size)):
    yield batch


def each(
    make: Callable[[], Callable[[Item], Found]],
    items: Iterable[Item],
    num_workers: int,
    traces_per_item: int,
) -> Generator[tuple[Item, Found], None, None]:
  """Yields each item, and what was found of it.

  Close it where it may not be read to its end: what is worked at is given up
  then, at once. It is, too, if this process is killed.

  Args:
    make: Returns the function; is called once in each process. To be pickled.
    items: In their order. To be pickled, as is what is found.
    num_workers: Processes; 0 for this one.
    traces_per_item: At most; for what is said if a worker dies.

  Raises:
    RuntimeError: a worker died.
  """
  if not num_workers:
    work = make()
    yield from ((item, work(item)) for item in items)
    return
  try:
    yield from _each_by_workers(make, items, num_workers)
  except process.BrokenProcessPool as e:
    raise errors.UserError(
        f'One of the {num_workers} workers of shard died, most likely for lack'
        f' of memory: each holds {traces_per_item:,} traces. Lower'
        ' config.data.num_workers, or free memory, and run the same command'
        ' again: it goes on at what is unfinished.'
    ) from e


def _each_by_workers(
    make: Callable[[], Callable[[Item], Found]], items: Iterable[Item], num_workers: int
) -> Generator[tuple[Item, Found], None, None]:
  waiting: collections.deque[tuple[Item, futures.Future]] = collections.deque()
  watched, held = multiprocessing.Pipe(duplex=False)
  pool = futures.ProcessPoolExecutor(
      num_workers,
      # Not fork: the tokenizer's threads, and JAX's, would not survive it.
      multiprocessing.get_context('spawn'),
      initializer=_begin_worker,
      initargs=(make, watched),
  )
  with watched, held:
    try:
      for item in items:
        waiting.append((item, pool.submit(_work, item)))
        while len(waiting) > num_workers + 1:
          yield waiting[0][0], waiting[0][1].result()
          waiting.popleft()
      while waiting:
        yield waiting[0][0], waiting[0][1].result()
        waiting.popleft()
    finally:
      if waiting:  # Something went wrong.
        held.close()
      pool.shutdown(cancel_futures=True)


# A worker's own, made by `_begin_worker`; a pool has no other place for it.
_of_worker: Callable[[Any], Any] | None = None


def _begin_worker(make: Callable[[], Callable[[Any], Any]], watched: connection.Connection) -> None:
  """Makes the function, once; and sees to it that no worker is left over."""
  global _of_worker
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent sees to that.
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'  # The workers are parallel.
  # If the parent is killed, a worker would wait for it, or, which is worse, go
  # on writing beside the next run.
  threading.Thread(target=_end_with, args=(watched,), daemon=True).start()
  _of_worker = make()


def _end_with(watched: connection.Connection) -> None:
  """Ends this process when nobody holds the other end of the pipe any more."""
  watched.poll(None)
  os._exit(1)


def _work(item: Any) -> Any:
  assert _of_worker is not None
  return _of_worker(item)
