"""One sandbox: starts it, and talks to the supervisor inside."""

import dataclasses
import enum
import json
import marshal
import os
import pathlib
import select
import struct
import subprocess
import time

from valley_jax import errors
from valley_jax import records
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import cgroups
from valley_jax.execution.confinement import container
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import place as place_lib
from valley_jax.execution.confinement import seccomp
from valley_jax.execution.inside import watch

# A test may run this much over its CPU limit, so that a program which a busy
# machine has slowed down can be told from one that never ends.
BORDERLINE = 1.5
_SLACK_MIB = 64  # What the supervisor and the files of a test weigh.
_GRACE_SECONDS = 20.0  # After which a silent supervisor is given up.
_UNSEEN_SECONDS = 0.1  # Less than that in the cgroup alone is noise.
_HOST_SECONDS = 1.0  # CPU time that the supervisor may need for large files.
_ANSWER = struct.Struct('<13q')


class SandboxError(errors.UserError):
  """Our machinery failed: this says nothing about the program."""


class Stop(enum.Enum):
  """Why a test was stopped."""

  CPU = watch.CPU
  WALL = watch.WALL
  MEMORY = watch.MEMORY
  OUTPUT = watch.OUTPUT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
  """What the processes of one test did; `verdicts` says what it means."""

  exit_code: int = -9  # Negative: the signal.
  stopped: Stop | None
  cpu_seconds: float = 0.0
  wall_seconds: float = 0.0
  end_seconds: float = 0.0  # By the clock of the machine since its start.
  waited_seconds: float = 0.0  # For a core.
  memory_mib: float = 0.0
  report: bytes = b''  # From the private descriptor.
  stdout: bytes = b''
  stderr: bytes = b''  # Its last 8 KB.


def wall_limit(cpu_seconds: float) -> float:
  """Returns the wall time after which a program counts as idling."""
  return max(3 * cpu_seconds, cpu_seconds + 5.0)


def _poll(stream, event: int, seconds: float) -> bool:
  """Waits for an event; returns whether it has come."""
  poller = select.poll()
  poller.register(stream, event)
  return bool(poller.poll(max(0.0, seconds) * 1000))


class Sandbox:
  """A running supervisor, into which one program is loaded.

  Args:
    place: Where it stands.
    limits: With `cpu_seconds` set.
    ends: Descriptors for the standard input and output of a dialogue.
    writes: Whether the program may write files where that has to be granted.
  """

  def __init__(
      self,
      place: place_lib.Place,
      limits: records.Limits,
      ends: tuple[int, ...] = (),
      writes: bool = False,
  ):
    assert limits.cpu_seconds is not None
    self.is_dirty = False  # A test has written files: use a fresh sandbox.
    self._place, self._ends = place, ends
    self._cgroup = cgroup = place.cgroup
    self._kills = cgroup.kills() if cgroup else 0
    self._cpu_at_start = cgroup.cpu_seconds() if cgroup else 0.0
    self._seen = 0.0  # CPU seconds since then that are accounted for.
    self._memory_mib = limits.memory_mib + _SLACK_MIB
    self._limits = {
        'cpu_us': int(BORDERLINE * limits.cpu_seconds * 1e6),
        'wall_us': int(wall_limit(limits.cpu_seconds) * 1e6),
        'memory': limits.memory_mib << 20,
        'output': limits.output_kib << 10,
        'processes': cgroups.MAX_PROCESSES,
        'sum': cgroup is None,  # Memory is summed over /proc.
        'writes': writes,
        'talks': bool(ends),
    }
    longest = watch.MAX_STARVED * wall_limit(limits.cpu_seconds)
    self._wait_seconds = longest + _GRACE_SECONDS
    self._log = os.memfd_create('stderr', os.MFD_CLOEXEC)
    self._scratch = ''
    self._process: subprocess.Popen | None = None
    try:
      if cgroup:
        cgroup.limit(self._memory_mib)
      if place.user:
        self._start_in_container(place.isolation, place.user.uid)
      else:
        self._start_in_namespaces(place.isolation)
    except OSError as e:
      self.close()
      raise SandboxError(f'Could not start a sandbox: {e}') from e
    except BaseException:
      self.close()
      raise

  def _popen(self, command: list[str], fds: tuple, uid: int | None, **more):
    if uid is not None:
      command = isolation_lib.as_user(uid) + command
    self._process = process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._log,
        bufsize=0,
        pass_fds=(*fds, *self._ends),
        **more,
    )
    assert process.stdin and process.stdout
    self._stdin, self._stdout = process.stdin, process.stdout

  def _start_in_namespaces(self, isolation: isolation_lib.Isolation) -> None:
    reader, writer = os.pipe()
    os.write(writer, isolation.seccomp_filter)
    os.close(writer)
    info = os.pipe() if self._cgroup else ()
    command = bubblewrap.command(isolation, reader, info[1] if info else None)
    try:
      fds = (isolation.code_fd, reader, *info[1:])
      self._popen(command, fds, isolation.uid)
    except BaseException:
      for fd in info[:1]:
        os.close(fd)
      raise
    finally:
      for fd in (reader, *info[1:]):
        os.close(fd)
    if info:
      self._confine(info[0])

  def _confine(self, info_fd: int) -> None:
    """Moves the supervisor into the cgroup while it boots."""
    assert self._cgroup is not None
    with open(info_fd, 'rb') as f:
      text = f.read()
    try:
      self._cgroup.add(json.loads(text)['child-pid'])
    except (OSError, ValueError, KeyError) as e:
      raise self._failure(f'no supervisor to confine ({e})') from e

  def _start_in_container(self, isolation: isolation_lib.Isolation, uid: int) -> None:
    self._scratch = container.make_scratch(isolation.public, uid)
    packages = container.link_packages(isolation)
    own = {'HOME': self._scratch, 'TMPDIR': self._scratch}
    environment = {**isolation_lib.ENVIRONMENT, **own}
    if isolation.libraries:
      environment['LD_LIBRARY_PATH'] = isolation.libraries
    command = isolation_lib.boot(isolation)
    more = {'cwd': self._scratch, 'env': environment, 'start_new_session': True}
    self._popen(command, (isolation.code_fd,), uid, **more)
    assert self._process is not None
    guard = seccomp.compile_guard(self._process.pid)
    walls = (container.rules(isolation), packages)
    filters = (isolation.seccomp_filter, guard)
    # Where Landlock is missing this decides; where it is there it is used.
    is_required = not {'files', 'writes'} & set(isolation.waivers)
    self._tell('enter', (self._scratch, *walls, filters, is_required))

  def compile(self, sources: tuple[str, ...], mode: str, entry_point: str) -> Execution:
    """Loads a Python program; report b'code' says that it compiles."""
    return self._ask('compile', (sources, mode, entry_point))

  def build(self, argv: tuple[str, ...], files: dict[str, bytes]) -> Execution:
    """Runs a compiler; the report is what it has made."""
    return self._ask('build', (argv, files))

  def load(self, binary: bytes) -> None:
    """Loads a binary."""
    self._memory_mib += 2 * (len(binary) >> 20)  # It, and a test's copy.
    try:
      if self._cgroup:
        self._cgroup.limit(self._memory_mib)
      self._tell('take_binary', (len(binary),), binary)
    except OSError as e:
      raise self._failure(f'the supervisor is gone ({e})') from e

  def run(
      self,
      stdin: bytes,
      private: bytes = b'',
      argv: tuple[str, ...] = (),
      files: dict[str, bytes] | None = None,
  ) -> Execution:
    """Runs the loaded program on one test, in a process of its own."""
    if self._cgroup:  # The input lies in the sandbox's memory.
      extra_mib = (len(stdin) + len(private)) >> 20
      self._cgroup.limit(self._memory_mib + extra_mib)
    sizes = (len(stdin), len(private))
    rest = (sizes, argv, files or {}, self._ends)
    return self._ask('test', rest, stdin, private)

  def _tell(self, kind: str, rest: tuple, *files: bytes) -> None:
    head = marshal.dumps((kind, self._limits, rest))
    deadline = time.monotonic() + self._wait_seconds
    for part in (len(head).to_bytes(8, 'little') + head, *files):
      view = memoryview(part)
      while view:
        self._wait(self._stdin, select.POLLOUT, deadline)
        # At most what a pipe that is ready takes without blocking.
        view = view[os.write(self._stdin.fileno(), view[:4096]) :]

  def _ask(self, kind: str, rest: tuple, *files: bytes) -> Execution:
    deadline = time.monotonic() + self._wait_seconds
    before = self._cgroup.cpu_seconds() if self._cgroup else 0.0
    try:
      self._tell(kind, rest, *files)
      while self._cgroup and not self._answers_within(0.1):
        used = self._cgroup.cpu_seconds() - before
        if used > self._limits['cpu_us'] / 1e6 + _HOST_SECONDS:
          self.kill()  # Children that nobody waited for are in no /proc.
          self.is_dirty = True
          return Execution(stopped=Stop.CPU, cpu_seconds=used)
        if time.monotonic() > deadline:
          break
      numbers = _ANSWER.unpack(self._receive(_ANSWER.size, deadline))
      limit = self._limits['output'] + 65536
      if not all(0 <= size <= limit for size in numbers[-3:]):
        raise self._failure(f'the supervisor announced {numbers[-3:]} bytes')
      texts = [self._receive(size, deadline) for size in numbers[-3:]]
    except (OSError, EOFError) as e:
      if self._killed_for_memory():  # It chose the supervisor.
        self.is_dirty = True
        return Execution(stopped=Stop.MEMORY)
      raise self._failure(f'the supervisor is gone ({e})') from e
    return self._understand(numbers, texts)

  def _unseen(self, seen: float, own: float) -> float:
    """Returns the CPU seconds of this test that only the cgroup has seen."""
    if self._cgroup is None:
      return 0.0
    self._seen += seen
    total = self._cgroup.cpu_seconds() - self._cpu_at_start - own - self._seen
    self._seen += max(0.0, total)
    return total if total > _UNSEEN_SECONDS else 0.0

  def _understand(self, numbers, texts) -> Execution:
    ready, code, cpu, own, wall, end, waited, peak, stopped, dirty, *_ = numbers
    self.is_dirty = bool(dirty)
    stop = Stop(stopped) if stopped else None
    if self._killed_for_memory():  # Any process of it.
      stop = Stop.MEMORY
    if not ready and stop is not Stop.MEMORY:
      words = texts[2].decode('utf-8', 'replace')
      raise self._failure(f'a test process could not be set up: {words}')
    used = cpu / 1e6 + self._unseen(cpu / 1e6, own / 1e6)
    if stop is Stop.WALL and used * 1e6 > self._limits['cpu_us']:
      stop = Stop.CPU  # It has not idled: its children were not seen.
    return Execution(
        exit_code=code,
        stopped=stop,
        cpu_seconds=used,
        wall_seconds=wall / 1e6,
        end_seconds=end / 1e6,
        waited_seconds=waited / 1e6,
        memory_mib=peak / 2**20,
        report=texts[0],
        stdout=texts[1],
        stderr=texts[2],
    )

  def _receive(self, size: int, deadline: float) -> bytes:
    chunks = []
    while size:
      self._wait(self._stdout, select.POLLIN, deadline)
      chunk = os.read(self._stdout.fileno(), min(size, 1 << 20))
      if not chunk:
        raise EOFError('end of file')
      chunks.append(chunk)
      size -= len(chunk)
    return b''.join(chunks)

  def _answers_within(self, seconds: float) -> bool:
    return _poll(self._stdout, select.POLLIN, seconds)

  def _wait(self, stream, event: int, deadline: float) -> None:
    if not _poll(stream, event, deadline - time.monotonic()):
      raise self._failure(f'no answer in {self._wait_seconds:.0f} s')

  def _killed_for_memory(self) -> bool:
    if self._cgroup is None:
      return False
    kills, before = self._cgroup.kills(), self._kills
    self._kills = kills
    return kills > before

  def _failure(self, what: str) -> SandboxError:
    words = os.pread(self._log, 8192, 0).decode('utf-8', 'replace').strip()
    return SandboxError(f'Sandbox failure: {what}. {words}'.strip())

  def count_processes(self) -> int:
    """Returns how many processes live below the one that we started."""
    assert self._process is not None
    parents = {}
    for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
      try:
        fields = stat.read_text().rpartition(')')[2].split()
      except OSError:
        continue  # It has just ended.
      parents[int(stat.parent.name)] = int(fields[1])
    found, level = 0, {self._process.pid}
    while level := {pid for pid, parent in parents.items() if parent in level}:
      found += len(level)
    return found

  def kill(self) -> None:
    """Ends the sandbox at once; may be called from another thread."""
    if self._process is not None:
      self._process.kill()
      if self._place.user:
        self._place.user.end_all()

  def close(self) -> None:
    """Ends the sandbox and waits until none of its processes is left."""
    if self._process is not None:
      self._stdin.close()  # The supervisor leaves at end of file.
      self._answers_within(2.0)  # It has: `wait` alone would sleep and look.
      try:
        self._process.wait(timeout=2.0)
      except subprocess.TimeoutExpired:
        self.kill()
        self._process.wait()
      self._stdout.close()
    if self._scratch:
      container.remove_scratch(self._scratch)
    os.close(self._log)

  def __enter__(self) -> 'Sandbox':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()
