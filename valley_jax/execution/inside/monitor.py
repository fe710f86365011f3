"""Follows the processes of one test; part of the supervisor.

CPU time is that of the whole tree: of ended processes by `wait4` to the microsecond, of living
ones by /proc to the tick. Wall time only catches idling. Memory is summed over the tree only
where no cgroup does it better.
"""

import _signal  # pyright: ignore[reportMissingImports]
import os
import select
import time

CPU, WALL, MEMORY, OUTPUT = 1, 2, 3, 4  # Reasons for stopping a test.
MAX_STARVED = 4  # Multiple of the wall limit at which even a starved program is ended.
_INTERVAL_SECONDS = 0.02  # Between two looks at the processes.
_STDERR_BYTES_KEPT = 8192
_TICKS_PER_SECOND = os.sysconf('SC_CLK_TCK')
_PAGE_BYTES = os.sysconf('SC_PAGE_SIZE')


def read_living(name: str):
  """Yields /proc/PID/name of every living process but this one."""
  own = os.getpid()
  for pid in os.listdir('/proc'):
    if not pid.isdigit() or int(pid) == own:
      continue
    try:
      if own != 1 and os.stat(f'/proc/{pid}').st_uid != os.getuid():
        continue  # Without a namespace the processes of others are there too.
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
    # A process can put parentheses and spaces into its own name.
    fields = stat[stat.rindex(b')') + 2 :].split()
    ticks += sum(map(int, fields[11:15]))  # Its own, and those of children it has waited for.
    pages += int(fields[21])
  return ticks / _TICKS_PER_SECOND, pages * _PAGE_BYTES


def measure_proportional_bytes(resident: int) -> int:
  """Returns the memory of the tree with shared pages counted once.

  This costs more than `sample_tree`, so it is called only in case of doubt. A program that hides
  its maps is taken at its resident size.
  """
  kib = 0
  try:
    for rollup in read_living('smaps_rollup'):
      _, label, rest = rollup.partition(b'\nPss:')
      kib += int(rest.split()[0]) if label else 0
  except PermissionError:
    return resident
  return kib << 10


def measure_waiting_seconds() -> float:
  """Returns how long a living process has waited for a core, at most."""
  delays = (int(line.split()[1]) for line in read_living('schedstat'))
  return max(delays, default=0) / 1e9


def count_written_bytes() -> int:
  """Returns what the living processes have written, to pipes as well."""
  counts = (io.partition(b'wchar: ')[2].split() for io in read_living('io'))
  try:
    return sum(int(words[0]) for words in counts if words)
  except PermissionError:
    return 0  # A program that hides; the limits of its partner remain.


class ProcessMonitor:
  """Follows one test until its first process ends or a limit is passed.

  Attributes:
    is_ready: Whether the process was set up; from then on failures are the program's.
    report, output: What it has written, once it has ended.
    stderr_tail: The last bytes of its standard error.
  """

  is_ready = False
  report = output = b''

  def __init__(self, pid: int, limits: dict, stdout: int, stderr: int):
    self.pid, self.limits, self.stdout = pid, limits, stdout
    self.stderr, self.stderr_tail = stderr, b''
    self.cpu_seconds, self.waited_seconds, self.peak_bytes = 0.0, 0.0, 0
    self.stopped = 0
    self.status: int | None = None
    self.start = self.end = time.monotonic()

  def count_reaped(self, pid: int, status: int, usage) -> None:
    """Adds a process that has been reaped."""
    self.cpu_seconds += usage.ru_utime + usage.ru_stime
    self.peak_bytes = max(self.peak_bytes, usage.ru_maxrss << 10)
    if pid == self.pid:
      self.status = os.waitstatus_to_exitcode(status)

  def drain_stderr(self) -> None:
    """Reads what there is; a full pipe would block the program."""
    try:
      while data := os.read(self.stderr, 65536):
        self.stderr_tail = (self.stderr_tail + data)[-_STDERR_BYTES_KEPT:]
        if len(data) < 65536:
          break
    except BlockingIOError:
      pass

  def find_passed_limit(self) -> int:
    """Returns the reason for stopping the test, 0 if there is none."""
    living_cpu, resident = sample_tree()
    if self.limits['sum_memory']:
      if resident > self.limits['memory_bytes']:
        resident = measure_proportional_bytes(resident)
      self.peak_bytes = max(self.peak_bytes, resident)
    written = os.fstat(self.stdout).st_size
    if self.limits['is_dialogue']:  # Its output is a pipe.
      written = count_written_bytes()
    if written > self.limits['output_bytes']:
      return OUTPUT
    if self.limits['sum_memory'] and resident > self.limits['memory_bytes']:
      return MEMORY
    if (self.cpu_seconds + living_cpu) * 1e6 > self.limits['cpu_us']:
      return CPU
    wall = time.monotonic() - self.start
    limit = self.limits['wall_us'] / 1e6
    if wall > limit:  # Waiting for a core is not idling, up to a point.
      self.waited_seconds = measure_waiting_seconds()
      if wall - self.waited_seconds > limit or wall > MAX_STARVED * limit:
        return WALL
    return 0

  def follow_until_end(self) -> None:
    """Returns when the first process has ended or has been stopped."""
    pidfd = os.pidfd_open(self.pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(self.stderr, select.POLLIN)
    poller.register(0, 0)  # Reports nothing but that the host has hung up.
    next_sample = self.start + _INTERVAL_SECONDS
    while self.status is None and not self.stopped:
      delay = max(0.0, next_sample - time.monotonic())
      events = dict(poller.poll(delay * 1000 + 1))
      if self.stderr in events:
        self.drain_stderr()
        if events[self.stderr] & select.POLLHUP:
          poller.unregister(self.stderr)
      if 0 in events:
        self.kill_all()
        os._exit(0)
      if pidfd in events:
        self.count_reaped(*os.wait4(self.pid, 0))
      elif time.monotonic() >= next_sample:
        self.reap_orphans()
        self.stopped = self.stopped or self.find_passed_limit()
        next_sample = time.monotonic() + _INTERVAL_SECONDS
    self.end = time.monotonic()
    os.close(pidfd)

  def reap_orphans(self) -> None:
    """Reaps what has ended, or zombies would fill the process limit."""
    while self.status is None:
      pid, status, usage = os.wait4(-1, os.WNOHANG)
      if pid == 0:
        return
      self.count_reaped(pid, status, usage)

  def kill_all(self) -> None:
    """Leaves no process but this one in the namespace."""
    while True:
      try:
        os.kill(-1, _signal.SIGKILL)
      except ProcessLookupError:
        pass
      try:
        self.count_reaped(*os.wait4(-1, 0))
      except ChildProcessError:
        return
