"""Follows the processes of one test; part of the supervisor.

CPU time is that of the whole tree: what has been reaped, by `wait4` to the
microsecond, plus what lives, by /proc to the tick. Wall time only catches
idling. Memory is summed over the tree only where no cgroup does it better.
"""

import _signal  # pyright: ignore[reportMissingImports]
import os
import select
import time

CPU, WALL, MEMORY, OUTPUT = 1, 2, 3, 4  # Why a test was stopped.
MAX_STARVED = 4  # Times the wall limit: then even a starved program ends.
_INTERVAL = 0.02  # Seconds between two looks.
_STDERR_KEPT = 8192
_TICKS = os.sysconf('SC_CLK_TCK')
_PAGE = os.sysconf('SC_PAGE_SIZE')


def read_living(name: str):
  """Yields /proc/PID/name of every living process but this one."""
  own = os.getpid()
  for pid in os.listdir('/proc'):
    if not pid.isdigit() or int(pid) == own:
      continue
    try:
      if own != 1 and os.stat(f'/proc/{pid}').st_uid != os.getuid():
        continue  # Without a namespace others are there too.
      fd = os.open(f'/proc/{pid}/{name}', os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
      continue  # It has just ended.
    try:
      yield os.read(fd, 4096)
    except ProcessLookupError:
      continue
    finally:
      os.close(fd)


def sample_tree() -> tuple[float, int]:
  """Returns CPU seconds and resident bytes of all living processes."""
  ticks = pages = 0
  for stat in read_living('stat'):
    fields = stat[stat.rindex(b')') + 2 :].split()
    ticks += sum(map(int, fields[11:15]))  # Own and waited-for children's.
    pages += int(fields[21])
  return ticks / _TICKS, pages * _PAGE


def proportional_size(resident: int) -> int:
  """Returns the bytes of the tree with shared pages counted once.

  It costs more than `sample_tree`, so it is asked only in case of doubt. A
  program that hides its maps is taken at its resident size.
  """
  kib = 0
  try:
    for rollup in read_living('smaps_rollup'):
      _, found, rest = rollup.partition(b'\nPss:')
      kib += int(rest.split()[0]) if found else 0
  except PermissionError:
    return resident
  return kib << 10


def waiting_seconds() -> float:
  """Returns how long a living process has waited for a core, at most."""
  delays = (int(line.split()[1]) for line in read_living('schedstat'))
  return max(delays, default=0) / 1e9


def written_bytes() -> int:
  """Returns what the living processes have written, to pipes as well."""
  found = (io.partition(b'wchar: ')[2].split() for io in read_living('io'))
  try:
    return sum(int(words[0]) for words in found if words)
  except PermissionError:
    return 0  # A program that hides; its partner's limits remain.


class Watch:
  """Follows one test until its first process ends or a limit is passed.

  Attributes:
    is_ready: Whether the process was set up; from there failures are its own.
    report, output: What it has written, once it has ended.
  """

  is_ready = False
  report = output = b''

  def __init__(self, pid: int, limits: dict, stdout: int, stderr: int):
    self.pid, self.limits, self.stdout = pid, limits, stdout
    self.stderr, self.tail = stderr, b''
    self.cpu, self.waited, self.peak, self.stopped = 0.0, 0.0, 0, 0
    self.status: int | None = None
    self.start = self.end = time.monotonic()

  def note(self, pid: int, status: int, usage) -> None:
    """Adds a process that has been reaped."""
    self.cpu += usage.ru_utime + usage.ru_stime
    self.peak = max(self.peak, usage.ru_maxrss << 10)
    if pid == self.pid:
      self.status = os.waitstatus_to_exitcode(status)

  def drain(self) -> None:
    """Keeps the last words of stderr."""
    try:
      while data := os.read(self.stderr, 65536):
        self.tail = (self.tail + data)[-_STDERR_KEPT:]
        if len(data) < 65536:
          break
    except BlockingIOError:
      pass

  def over_limit(self) -> int:
    """Returns which limit is passed, 0 if none."""
    living_cpu, resident = sample_tree()
    if self.limits['sum']:
      if resident > self.limits['memory']:
        resident = proportional_size(resident)
      self.peak = max(self.peak, resident)
    written = os.fstat(self.stdout).st_size
    if self.limits['talks']:  # Its output is a pipe.
      written = written_bytes()
    if written > self.limits['output']:
      return OUTPUT
    if self.limits['sum'] and resident > self.limits['memory']:
      return MEMORY
    if (self.cpu + living_cpu) * 1e6 > self.limits['cpu_us']:
      return CPU
    wall = time.monotonic() - self.start
    limit = self.limits['wall_us'] / 1e6
    if wall > limit:  # Waiting for a core is not idling, up to a point.
      self.waited = waiting_seconds()
      if wall - self.waited > limit or wall > MAX_STARVED * limit:
        return WALL
    return 0

  def until_end(self) -> None:
    """Returns when the first process has ended or has been stopped."""
    pidfd = os.pidfd_open(self.pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(self.stderr, select.POLLIN)
    poller.register(0, 0)  # Told of nothing but the host's end.
    next_sample = self.start + _INTERVAL
    while self.status is None and not self.stopped:
      delay = max(0.0, next_sample - time.monotonic())
      events = dict(poller.poll(delay * 1000 + 1))
      if self.stderr in events:
        self.drain()
        if events[self.stderr] & select.POLLHUP:
          poller.unregister(self.stderr)
      if 0 in events:
        self.kill_all()
        os._exit(0)
      if pidfd in events:
        self.note(*os.wait4(self.pid, 0))
      elif time.monotonic() >= next_sample:
        self.reap_orphans()
        self.stopped = self.stopped or self.over_limit()
        next_sample = time.monotonic() + _INTERVAL
    self.end = time.monotonic()
    os.close(pidfd)

  def reap_orphans(self) -> None:
    """Reaps what has ended, lest zombies fill the process limit."""
    while self.status is None:
      pid, status, usage = os.wait4(-1, os.WNOHANG)
      if pid == 0:
        return
      self.note(pid, status, usage)

  def kill_all(self) -> None:
    """Leaves no process but this one in the namespace."""
    while True:
      try:
        os.kill(-1, _signal.SIGKILL)
      except ProcessLookupError:
        pass
      try:
        self.note(*os.wait4(-1, 0))
      except ChildProcessError:
        return
