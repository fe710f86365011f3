"""Which cores the workers of a pool run on: one each, and nobody else's first.

Two programs that share a core slow one another down, so pools of one machine
tell each other, by the names of abstract sockets, which cores they have. Such
a name is free again when its process ends, however it ends.
"""

import os
import socket

from valley_jax.execution.confinement import cgroups

_NAME = '\0valley_jax.core.'


class Cores:
  """The cores of a pool.

  Args:
    num_workers: How many to take, at most all that we may use; 0: all.
  """

  def __init__(self, num_workers: int):
    allowed = sorted(os.sched_getaffinity(0))
    num_cores = cgroups.whole_cores(len(allowed))
    num_cores = min(num_workers or num_cores, num_cores)
    self._names: list[socket.socket] = []
    self.numbers: list[int] = []
    for core in allowed:
      if len(self.numbers) < num_cores and self._claim(core):
        self.numbers.append(core)
    shared = [core for core in allowed if core not in self.numbers]
    self.numbers += shared[: num_cores - len(self.numbers)]

  def _claim(self, core: int) -> bool:
    name = socket.socket(socket.AF_UNIX)
    try:
      name.bind(f'{_NAME}{core}')
    except OSError:  # Another pool's.
      name.close()
      return False
    self._names.append(name)
    return True

  def close(self) -> None:
    """Gives the cores back."""
    while self._names:
      self._names.pop().close()
