"""Keeps CPU times fair on a busy machine: a core per worker, quiet slots, a reference loop.

A CPU second is no fixed amount of work: a neighbour on the same physical core or a throttled host
can double the time that a loop takes, and `wait4` counts that as the program's. Each worker
therefore claims a core, a test whose verdict is in doubt is repeated while no other worker runs,
and a reference loop, timed now and at better moments, measures how slow the core is.
"""

import contextlib
import os
import socket
import statistics
import threading
import time

from valley_jax.execution.confinement import cgroups

CORE_SOCKET_PREFIX = '\0valley_jax.core.'
_MAX_SLOWDOWN = 4.0  # A larger measurement is not believed.
_NUM_LOOPS = 5


class CoreClaims:
  """The cores of a pool: one for each worker, and if possible of no other pool.

  Two programs that share a core slow each other down. The pools of a machine therefore announce by
  the names of abstract sockets which cores they use; such a name is free again when its process
  ends, however it ends.

  Args:
    num_workers: Number of cores, at most all that we may use; 0: all.
  """

  def __init__(self, num_workers: int):
    allowed = sorted(os.sched_getaffinity(0))
    num_cores = cgroups.count_whole_cores(len(allowed))
    num_cores = min(num_workers or num_cores, num_cores)
    self._sockets: list[socket.socket] = []
    self.cores: list[int] = []
    for core in allowed:
      if len(self.cores) < num_cores and self._claim_core(core):
        self.cores.append(core)
    shared = [core for core in allowed if core not in self.cores]
    self.cores += shared[: num_cores - len(self.cores)]

  def _claim_core(self, core: int) -> bool:
    name = socket.socket(socket.AF_UNIX)
    try:
      name.bind(f'{CORE_SOCKET_PREFIX}{core}')
    except OSError:  # Another pool uses it.
      name.close()
      return False
    self._sockets.append(name)
    return True

  def close(self) -> None:
    """Gives the cores back."""
    while self._sockets:
      self._sockets.pop().close()


class QuietSlots:
  """Lets many workers of a pool run at once, or one of them alone."""

  def __init__(self):
    self._condition = threading.Condition()
    self._num_running, self._is_quiet = 0, False

  @contextlib.contextmanager
  def run_with_others(self):
    """Waits until nobody runs alone; others may run meanwhile."""
    with self._condition:
      self._condition.wait_for(lambda: not self._is_quiet)
      self._num_running += 1
    try:
      yield
    finally:
      with self._condition:
        self._num_running -= 1
        self._condition.notify_all()

  @contextlib.contextmanager
  def run_alone(self):
    """Waits until all others of the pool have ended their test, and holds them back."""
    with self._condition:
      self._condition.wait_for(lambda: not self._is_quiet)
      self._is_quiet = True
      self._condition.wait_for(lambda: not self._num_running)
    try:
      yield
    finally:
      with self._condition:
        self._is_quiet = False
        self._condition.notify_all()


def _time_reference_loops() -> list[float]:
  """Returns the CPU seconds of a fixed loop of Python, a few times."""
  cpu_seconds = []
  for _ in range(_NUM_LOOPS):
    start = time.thread_time()
    total = 0
    for i in range(200_000):
      total += i * i % 7
    cpu_seconds.append(round(time.thread_time() - start, 6))
  return cpu_seconds


def time_reference_loop() -> float:
  """Returns the CPU seconds of the reference loop: the least, as noise only adds."""
  return min(_time_reference_loops())


class ReferenceClock:
  """Measures how slow this host is, compared with its best moment so far.

  Attributes:
    best_seconds: CPU seconds of the reference loop at the best moment so far.
  """

  def __init__(self):
    self._lock = threading.Lock()
    self.best_seconds = time_reference_loop()

  def measure_slowdown(self) -> float:
    """Returns by what factor, from 1 up, the calling thread's core is slower now."""
    cpu_seconds = _time_reference_loops()
    with self._lock:
      self.best_seconds = min(self.best_seconds, *cpu_seconds)
      return min(statistics.mean(cpu_seconds) / self.best_seconds, _MAX_SLOWDOWN)
