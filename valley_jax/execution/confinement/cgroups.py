"""A control group for each worker, where root can make one (v1 or v2).

It bounds what rlimits cannot: the memory of a whole tree of processes with its files in tmpfs,
and the number of processes whatever their user. A worker makes its group once; each sandbox that
it starts is moved in before any line of a submission runs.
"""

from collections.abc import Iterable
import contextlib
import itertools
import os
import pathlib
import time

ROOT = pathlib.Path('/sys/fs/cgroup')
_PREFIX = 'valley_jax'
MAX_PROCESSES = 64  # Per test, threads included.
_OWN_PROCESSES = 8  # Room for bubblewrap and the supervisor.
_REMOVE_SECONDS = 2.0  # How long a group of a killed sandbox may take to become empty.
_CONTROLLERS = ('memory', 'pids', 'cpuacct')
# For each hierarchy version, the files that set the memory limit, count kills for lack of memory,
# and tell the CPU time of all processes.
_MEMORY = {1: 'memory.limit_in_bytes', 2: 'memory.max'}
_KILLS = {1: 'memory.oom_control', 2: 'memory.events'}
_USAGE = {1: 'cpuacct.usage', 2: 'cpu.stat'}


class Cgroup:
  """Limits on memory and processes for the sandboxes of one worker.

  Attributes:
    directories: Those of the memory, pids and CPU controllers; all the same in v2.
  """

  def __init__(self, directories: list[pathlib.Path], version: int):
    self.directories = directories
    self._memory, _, cpu = directories
    self._version = version
    self._memory_mib = 0
    # Held open: they are read several times a test.
    self._files: list[int] = []
    for path in (self._memory / _KILLS[version], cpu / _USAGE[version]):
      self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

  def set_memory_limit(self, memory_mib: int) -> None:
    """Limits the memory of the group from now on."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while memory_mib != self._memory_mib:
      try:
        path = self._memory / _MEMORY[self._version]
        path.write_text(str(memory_mib << 20))
        self._memory_mib = memory_mib
      except OSError:  # The files of the last sandbox are still being freed.
        if time.monotonic() > deadline:
          raise
        time.sleep(0.01)

  def add_process(self, pid: int) -> None:
    """Moves a process in; those that it forks from now on start there."""
    for directory in set(self.directories):
      (directory / 'cgroup.procs').write_text(str(pid))

  def count_memory_kills(self) -> int:
    """Returns how many processes the memory limit has killed so far."""
    lines = os.pread(self._files[0], 4096, 0).splitlines()
    return int(dict(map(bytes.split, lines))[b'oom_kill'])

  def read_cpu_seconds(self) -> float:
    """Returns the CPU time of all processes that ever ran in it."""
    text = os.pread(self._files[1], 4096, 0)
    if self._version == 1:
      return int(text) / 1e9
    return int(dict(map(bytes.split, text.splitlines()))[b'usage_usec']) / 1e6

  def remove(self) -> None:
    """Removes the group, which must be empty."""
    while self._files:
      os.close(self._files.pop())
    _remove_directories(self.directories)


def _remove_directories(directories: Iterable[pathlib.Path]) -> None:
  deadline = time.monotonic() + _REMOVE_SECONDS
  for directory in set(directories):
    while directory.exists():
      try:
        directory.rmdir()
      except OSError:  # Processes of a killed sandbox are still ending.
        if time.monotonic() > deadline:
          break
        time.sleep(0.01)


def find_own_groups() -> dict[str, pathlib.Path]:
  """Returns the directory of our own group, by controller ('' is v2)."""
  groups = {}
  for line in pathlib.Path('/proc/self/cgroup').read_text().splitlines():
    _, controllers, path = line.split(':', 2)
    for name in controllers.split(','):
      mounted = ROOT / (controllers or '')
      groups[name] = mounted / path.lstrip('/')
  return groups


def _remove_stale_groups(parent: pathlib.Path) -> None:
  """Removes the groups that killed runs have left."""
  for directory in parent.glob(f'{_PREFIX}.*'):
    pid = directory.name.split('.')[1]
    if not os.path.exists(f'/proc/{pid}'):
      with contextlib.suppress(OSError):
        directory.rmdir()


def count_whole_cores(limit: int) -> int:
  """Returns how many cores the CPU quotas above us leave whole, up to `limit`.

  A container may see 64 cores and get the CPU time of 2.
  """
  try:
    groups = find_own_groups()
  except OSError:
    return limit
  for name in ('', 'cpu'):
    group = groups.get(name, ROOT)
    for directory in (group, *group.parents):
      if directory.is_relative_to(ROOT):
        limit = min(limit, _read_quota(directory, limit))
  return max(1, limit)


def _read_quota(directory: pathlib.Path, default: int) -> int:
  try:
    if (directory / 'cpu.max').exists():
      quota, period = (directory / 'cpu.max').read_text().split()
    else:
      quota = (directory / 'cpu.cfs_quota_us').read_text()
      period = (directory / 'cpu.cfs_period_us').read_text()
    # Rounded down: a part of a core would be taken away in the middle of a test.
    return int(quota) // int(period) if int(quota) > 0 else default
  except (OSError, ValueError):  # No such file, or `max`.
    return default


def _list_parents(groups: dict[str, pathlib.Path]):
  """Yields (version, parent directories) in which a worker's groups may be made."""
  if all(name in groups for name in _CONTROLLERS):
    yield 1, [groups[name] for name in _CONTROLLERS]
  elif '' in groups:
    # A v2 group that holds processes, like our own, gives its children no controllers; one
    # further up may.
    for parent in (groups[''], *groups[''].parents):
      if parent.is_relative_to(ROOT):
        yield 2, [parent] * len(_CONTROLLERS)


def create_cgroup(number: int = 0) -> Cgroup | None:
  """Makes a group; None where this machine does not allow it.

  Args:
    number: The first number to try for its name; another pool of this process may use it.
  """
  try:
    groups = find_own_groups()
  except OSError:
    return None
  for version, parents in _list_parents(groups):
    if group := _create_in(parents, version, number):
      return group
  return None


def _make_directories(parents: list, number: int) -> list[pathlib.Path]:
  """Makes directories of the first free name, one in each parent."""
  for free in itertools.count(number):
    name = f'{_PREFIX}.{os.getpid()}.{free}'
    directories, created = [parent / name for parent in parents], []
    try:
      for directory in set(directories):
        directory.mkdir()
        created.append(directory)
      return directories
    except OSError as e:
      _remove_directories(created)
      if not isinstance(e, FileExistsError):
        raise
  raise AssertionError


def _create_in(parents, version: int, number: int) -> Cgroup | None:
  try:
    for parent in set(parents):
      _remove_stale_groups(parent)
    directories = _make_directories(parents, number)
  except OSError:
    return None
  memory, pids, cpu = directories
  writable = memory / _MEMORY[version], pids / 'pids.max'
  readable = memory / _KILLS[version], cpu / _USAGE[version]
  if all(os.access(path, os.W_OK) for path in writable):
    if all(os.access(path, os.R_OK) for path in readable):
      (pids / 'pids.max').write_text(str(MAX_PROCESSES + _OWN_PROCESSES))
      return Cgroup(directories, version)
  _remove_directories(directories)
  return None
