"""How fast a host is, and how fast it is at this moment.

A CPU second is no fixed amount of work: a neighbour on the same physical core
or a throttled host make a loop take up to twice its time, and `wait4` counts
that as the program's. A reference loop, timed now and at better moments, shows
it.
"""

import statistics
import threading
import time

_MOST = 4.0  # A host that is slower yet is not believed.
_LOOPS = 5


def _measure() -> list[float]:
  """Returns the CPU seconds of a fixed loop of Python, a few times."""
  seconds = []
  for _ in range(_LOOPS):
    start = time.thread_time()
    total = 0
    for i in range(200_000):
      total += i * i % 7
    seconds.append(round(time.thread_time() - start, 6))
  return seconds


def measure() -> float:
  """Returns the CPU seconds of the reference loop: the best, as noise adds."""
  return min(_measure())


class Clock:
  """Compares moments of one host.

  Attributes:
    best: CPU seconds of the reference loop at the best moment so far.
  """

  def __init__(self):
    self._lock = threading.Lock()
    self.best = measure()

  def slowdown(self) -> float:
    """Returns how much slower the calling thread's core is now, from 1 up."""
    now = _measure()
    with self._lock:
      self.best = min(self.best, *now)
      return min(statistics.mean(now) / self.best, _MOST)
