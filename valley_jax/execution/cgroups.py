"""A control group for each worker, where root can make one (v1 or v2).

It bounds what rlimits cannot: the memory of a whole tree of processes with its
files in tmpfs, and the number of processes whatever their user. A worker makes
its group once; each sandbox that it starts is moved in before any line of a
submission runs.
"""

import contextlib
import os
import pathlib
import time

_ROOT = pathlib.Path('/sys/fs/cgroup')
_PREFIX = 'valley_jax'
# By hierarchy version: the file that sets the memory limit, the one that
# counts kills for want of memory.
_MEMORY = {1: 'memory.limit_in_bytes', 2: 'memory.max'}
_KILLS = {1: 'memory.oom_control', 2: 'memory.events'}


class Cgroup:
  """Limits on memory and processes for the sandboxes of one worker."""

  def __init__(self, memory: pathlib.Path, pids: pathlib.Path, version: int):
    self._memory, self._pids, self._version = memory, pids, version
    self._memory_mib = 0

  def limit(self, memory_mib: int, processes: int) -> None:
    """Sets what the group may use at most from now on."""
    deadline = time.monotonic() + 2.0
    while memory_mib != self._memory_mib:
      try:
        path = self._memory / _MEMORY[self._version]
        path.write_text(str(memory_mib << 20))
        self._memory_mib = memory_mib
      except OSError:  # The files of the last sandbox are still being freed.
        if time.monotonic() > deadline:
          raise
        time.sleep(0.01)
    (self._pids / 'pids.max').write_text(str(processes))

  def add(self, pid: int) -> None:
    """Moves a process in; those that it forks from now on are born there."""
    for directory in {self._memory, self._pids}:
      (directory / 'cgroup.procs').write_text(str(pid))

  def kills(self) -> int:
    """Returns how many processes the memory limit has killed so far."""
    text = (self._memory / _KILLS[self._version]).read_text()
    counts = dict(line.split() for line in text.splitlines())
    return int(counts['oom_kill'])

  def remove(self) -> None:
    """Removes the group, which must be empty."""
    for directory in {self._memory, self._pids}:
      with contextlib.suppress(OSError):
        directory.rmdir()


def _own_groups() -> dict[str, pathlib.Path]:
  """Returns the directory of our own group, by controller ('' is v2)."""
  groups = {}
  for line in pathlib.Path('/proc/self/cgroup').read_text().splitlines():
    _, controllers, path = line.split(':', 2)
    for name in controllers.split(','):
      mounted = _ROOT / (controllers or '')
      groups[name] = mounted / path.lstrip('/')
  return groups


def _remove_stale(parent: pathlib.Path) -> None:
  """Removes what a killed run has left: groups whose maker is gone."""
  for directory in parent.glob(f'{_PREFIX}.*'):
    pid = directory.name.split('.')[1]
    if not os.path.exists(f'/proc/{pid}'):
      with contextlib.suppress(OSError):
        directory.rmdir()


def create(worker: int) -> Cgroup | None:
  """Makes the group of a worker; None where this machine does not allow it."""
  try:
    groups = _own_groups()
  except OSError:
    return None
  version = 1 if 'memory' in groups and 'pids' in groups else 2
  parents = [groups.get(c if version == 1 else '') for c in ('memory', 'pids')]
  made = []
  for parent in parents:
    if parent is None:
      return None
    try:
      _remove_stale(parent)
      directory = parent / f'{_PREFIX}.{os.getpid()}.{worker}'
      directory.mkdir(exist_ok=True)
    except OSError:
      return None
    made.append(directory)
  group = Cgroup(made[0], made[1], version)
  needed = (made[0] / _MEMORY[version], made[1] / 'pids.max')
  try:
    group.kills()
    writable = all(os.access(path, os.W_OK) for path in needed)
  except (OSError, KeyError):
    writable = False
  if not writable:
    group.remove()
    return None
  return group
