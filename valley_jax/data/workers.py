"""A function of each item, in order, by this process or by a pool of processes.

The number of processes changes nothing in the results.
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
Result = TypeVar('Result')


def make_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
  """Yields `size` items at a time; the last batch may have fewer."""
  items = iter(items)
  while batch := list(itertools.islice(items, size)):
    yield batch


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_workers: int,
    traces_per_item: int,
) -> Generator[tuple[Item, Result], None, None]:
  """Yields each item and its result, with at most `num_workers` + 2 items in memory.

  Close the generator if it may not be read to its end: unfinished work is then given up at once.

  Args:
    function: The function of one item. It is pickled once for each process and stays there, so it
      may keep what is slow to load.
    items: Items in order. They are pickled, and so are the results.
    num_workers: Number of processes; 0 for this one.
    traces_per_item: The most traces that an item has, for the message when a worker dies.

  Raises:
    UserError: a worker died.
  """
  if not num_workers:
    yield from ((item, function(item)) for item in items)
    return
  try:
    yield from _map_by_processes(function, items, num_workers)
  except process.BrokenProcessPool as e:
    raise errors.UserError(
        f'One of the {num_workers} workers of shard died, probably for lack of memory: each holds'
        f' {traces_per_item:,} traces. Lower config.data.num_workers, or free memory, and run the'
        ' same command again: it continues with what is unfinished.'
    ) from e


def _map_by_processes(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Generator[tuple[Item, Result], None, None]:
  # Not executor.map, which would take all of `items` at once.
  in_flight: collections.deque[tuple[Item, futures.Future]] = collections.deque()
  watched, held = multiprocessing.Pipe(duplex=False)
  pool = futures.ProcessPoolExecutor(
      num_workers,
      # Not fork: the threads of the tokenizer and of JAX would not survive it.
      multiprocessing.get_context('spawn'),
      initializer=_start_worker,
      initargs=(function, watched),
  )
  with watched, held:
    try:
      for item in items:
        in_flight.append((item, pool.submit(_apply_function, item)))
        while len(in_flight) > num_workers + 1:
          yield in_flight[0][0], in_flight[0][1].result()
          in_flight.popleft()
      while in_flight:
        yield in_flight[0][0], in_flight[0][1].result()
        in_flight.popleft()
    finally:
      if in_flight:  # An error, or nobody reads on: closing our end of the pipe ends the workers.
        held.close()
      pool.shutdown(cancel_futures=True)


# The function of a worker process; a pool has no other place for it.
_function: Callable[[Any], Any] | None = None


def _start_worker(function: Callable[[Any], Any], watched: connection.Connection) -> None:
  """Keeps the function; and sees to it that this process does not outlive its parent."""
  global _function
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent handles it.
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'  # The workers are parallel.
  # If the parent were killed, a worker would wait for it, or, which is worse, go on writing
  # beside the next run.
  threading.Thread(target=_exit_with_parent, args=(watched,), daemon=True).start()
  _function = function


def _exit_with_parent(watched: connection.Connection) -> None:
  """Ends this process when no process holds the other end of the pipe any more."""
  watched.poll(None)
  os._exit(1)


def _apply_function(item: Any) -> Any:
  assert _function is not None
  return _function(item)
