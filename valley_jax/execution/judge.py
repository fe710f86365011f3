"""Judges submissions: one sandbox each, one process a test, many at a time.

    for judgement in judge.judge_all(pairs, judge.Settings()):
      print(judgement.problem_id, judgement.verdict)

Before the first submission each worker proves that its sandbox confines (see
`probes.py`); a machine where it does not is an error, never a reason to go on
without one. The workers are threads that start processes by exec, never by
fork: the caller may hold JAX. Each has a core to itself.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import concurrent.futures
import functools
import itertools
import queue
import threading

from valley_jax import records
from valley_jax.execution import cores as cores_lib
from valley_jax.execution import settings as settings_lib
from valley_jax.execution import worker as worker_lib

Pair = tuple[records.Problem, records.Submission]
Settings = settings_lib.Settings
JudgeAll = Callable[[Iterable[Pair]], Iterator[records.Judgement]]
_LOOK_AHEAD = 32  # Pairs a worker that wait for a slow one before them.


def judge_all(
    pairs: Iterable[Pair], settings: Settings = Settings()  # noqa: B008
) -> Iterator[records.Judgement]:
  """Yields a judgement a pair, in the order of the pairs.

  Pairs are read lazily and results do not pile up, so that there may be any
  number of them.

  Raises:
    isolation.IsolationError: this machine cannot confine programs.
    ValueError: a problem that cannot be judged, like an unknown checker.
  """
  with Pool(settings) as pool:
    yield from pool.judge_all(pairs)


def choose_judge(settings: Settings, ray_address: str) -> JudgeAll:
  """Returns the function that judges: on this machine, or on the Ray cluster of an address."""
  if not ray_address:
    return functools.partial(judge_all, settings=settings)
  from valley_jax.execution import remote  # Imports this module.

  return functools.partial(remote.judge_all, settings=settings, address=ray_address)


class Pool:
  """Workers, one a thread and core, made when first used.

  Raises:
    IsolationError: this machine cannot confine programs.
  """

  def __init__(self, settings: Settings):
    self._shared = worker_lib.Shared(settings)
    self._cores = cores_lib.Cores(settings.num_workers)
    self._num_workers = len(self._cores.numbers)
    self._executor = concurrent.futures.ThreadPoolExecutor(self._num_workers)
    self._local = threading.local()
    self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in self._cores.numbers:
      self._free.put(core)
    self._made: list[worker_lib.Worker] = []

  def judge_all(self, pairs: Iterable[Pair]) -> Iterator[records.Judgement]:
    """Yields a judgement a pair, in the order of the pairs; reads lazily."""
    window: collections.deque = collections.deque()
    pairs = iter(pairs)
    while True:
      room = _LOOK_AHEAD * self._num_workers - len(window)
      for pair in itertools.islice(pairs, room):
        window.append(self._executor.submit(self._judge, pair))
      if not window:
        return
      yield window.popleft().result()

  def _judge(self, pair: Pair) -> records.Judgement:
    if not hasattr(self._local, 'worker'):
      core = self._free.get()
      try:
        self._local.worker = worker_lib.Worker(self._shared, core)
      except BaseException:
        self._free.put(core)
        raise
      self._made.append(self._local.worker)
    return self._local.worker.judge(*pair)

  def close(self) -> None:
    """Ends what is running, and removes what the workers have made."""
    self._shared.stopped.set()
    for worker in list(self._made):
      worker.kill()
    self._executor.shutdown(cancel_futures=True)
    for worker in self._made:
      worker.close()
    self._shared.isolation.close()
    self._shared.cache.close()
    self._cores.close()

  def __enter__(self) -> 'Pool':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()
