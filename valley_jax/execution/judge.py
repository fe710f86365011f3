"""Judges submissions: one sandbox each, one process per test, many at a time.

    for judgement in judge.judge_all(pairs, judge.Settings()):
      print(judgement.problem_id, judgement.verdict)

Before its first submission each worker proves that its sandbox confines (see `probe.py`); a
machine where it does not is an error, never a reason to go on without one. The workers are
threads that start processes by exec, never by fork: the caller may hold JAX. Each has a core to
itself.
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
from valley_jax.execution import settings as settings_lib
from valley_jax.execution import timing
from valley_jax.execution import worker as worker_lib

Pair = tuple[records.Problem, records.Submission]
Settings = settings_lib.Settings
JudgeAll = Callable[[Iterable[Pair]], Iterator[records.Judgement]]
_LOOK_AHEAD = 32  # Pairs per worker that are judged while the first of them is slow.


def judge_all(
    pairs: Iterable[Pair], settings: Settings = Settings()  # noqa: B008
) -> Iterator[records.Judgement]:
  """Yields a judgement for each pair, in the order of the pairs.

  Pairs are read lazily and results do not pile up, so there may be any number of them.

  Raises:
    isolation.IsolationError: this machine cannot confine programs.
    UserError: a problem cannot be judged, for instance because its checker is unknown.
  """
  with WorkerPool(settings) as pool:
    yield from pool.judge_all(pairs)


def choose_judge(settings: Settings, ray_address: str) -> JudgeAll:
  """Returns the function that judges: on this machine, or on the Ray cluster of an address."""
  if not ray_address:
    return functools.partial(judge_all, settings=settings)
  from valley_jax.execution import remote  # Imports this module.

  return functools.partial(remote.judge_on_cluster, settings=settings, address=ray_address)


class WorkerPool:
  """Workers, one per thread and core, created when first used.

  Raises:
    IsolationError: this machine cannot confine programs.
  """

  def __init__(self, settings: Settings):
    self._shared = worker_lib.SharedResources(settings)
    self._claims = timing.CoreClaims(settings.num_workers)
    self._num_workers = len(self._claims.cores)
    self._executor = concurrent.futures.ThreadPoolExecutor(self._num_workers)
    self._local = threading.local()
    self._free_cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in self._claims.cores:
      self._free_cores.put(core)
    self.workers: list[worker_lib.Worker] = []

  def judge_all(self, pairs: Iterable[Pair]) -> Iterator[records.Judgement]:
    """Yields a judgement for each pair, in the order of the pairs; reads them lazily."""
    window: collections.deque[concurrent.futures.Future] = collections.deque()
    pairs = iter(pairs)
    while True:
      room = _LOOK_AHEAD * self._num_workers - len(window)
      for pair in itertools.islice(pairs, room):
        window.append(self._executor.submit(self._judge_pair, pair))
      if not window:
        return
      # The oldest first: a slow program holds back results, but never more than the window.
      yield window.popleft().result()

  def _judge_pair(self, pair: Pair) -> records.Judgement:
    if not hasattr(self._local, 'worker'):
      core = self._free_cores.get()
      try:
        # Here, in its own thread, whose mounts and core it changes.
        self._local.worker = worker_lib.Worker(self._shared, core)
      except BaseException:
        self._free_cores.put(core)
        raise
      self.workers.append(self._local.worker)
    return self._local.worker.judge_submission(*pair)

  def close(self) -> None:
    """Ends what is running, and removes what the workers have created."""
    self._shared.is_closing.set()  # First, or a killed sandbox would be replaced.
    for worker in list(self.workers):
      worker.kill_sandbox()
    self._executor.shutdown(cancel_futures=True)
    for worker in self.workers:
      worker.close()
    self._shared.isolation.close()
    self._shared.cache.close()
    self._claims.close()

  def __enter__(self) -> 'WorkerPool':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()
