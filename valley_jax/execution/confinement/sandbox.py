"""One sandbox: starts it, and talks to the supervisor inside."""

import dataclasses
import enum
import json
import marshal
import os
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
from valley_jax.execution.confinement import seccomp
from valley_jax.execution.inside import monitor

# A test may run this much over its CPU limit, so that a program which a busy machine has slowed
# down can be told from one that never ends.
BORDERLINE_FACTOR = 1.5
_SLACK_MIB = 64  # Memory of the supervisor and of the files of a test.
_GRACE_SECONDS = 20.0  # How much later than any limit a silent supervisor is given up.
_MIN_UNSEEN_SECONDS = 0.1  # CPU time in the cgroup alone, below this, is noise.
_SUPERVISOR_SECONDS = 1.0  # CPU time that the supervisor may need for large files.
_ANSWER = struct.Struct('<13q')  # The numbers of `supervisor.send_answer`.


class SandboxError(errors.UserError):
  """Our machinery failed: this says nothing about the program."""


class StopReason(enum.Enum):
  """Which limit a test was stopped for."""

  CPU = monitor.CPU
  WALL = monitor.WALL
  MEMORY = monitor.MEMORY
  OUTPUT = monitor.OUTPUT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
  """What the processes of one test did; `verdicts` says what it means."""

  exit_code: int = -9  # Negative: the signal.
  stopped: StopReason | None
  cpu_seconds: float = 0.0
  wall_seconds: float = 0.0
  end_seconds: float = 0.0  # When it ended, by the machine's monotonic clock.
  waited_seconds: float = 0.0  # Time spent waiting for a core.
  memory_mib: float = 0.0
  report: bytes = b''  # What was written to the private descriptor.
  stdout: bytes = b''
  stderr: bytes = b''  # Its last 8 KB.


def compute_wall_limit(cpu_seconds: float) -> float:
  """Returns the wall time after which a program counts as idling."""
  return max(3 * cpu_seconds, cpu_seconds + 5.0)


def _build_request_limits(limits: records.Limits, wall_seconds: float) -> dict[str, int]:
  assert limits.cpu_seconds is not None
  return {
      'cpu_us': int(BORDERLINE_FACTOR * limits.cpu_seconds * 1e6),
      'wall_us': int(wall_seconds * 1e6),
      'memory_bytes': limits.memory_mib << 20,
      'output_bytes': limits.output_kib << 10,
      'max_processes': cgroups.MAX_PROCESSES,
  }


def _poll_stream(stream, event: int, seconds: float) -> bool:
  """Waits for an event; returns whether it has come."""
  poller = select.poll()
  poller.register(stream, event)
  return bool(poller.poll(max(0.0, seconds) * 1000))


class Sandbox:
  """A running supervisor, into which one program is loaded.

  Args:
    confinement: Confinement of the worker.
    limits: Limits of a test, with `cpu_seconds` set.
    ends: Descriptors of the standard input and output of a dialogue.
    may_write: Whether the program may write files where that has to be granted (T2).
  """

  def __init__(
      self,
      confinement: isolation_lib.Confinement,
      limits: records.Limits,
      ends: tuple[int, ...] = (),
      may_write: bool = False,
  ):
    assert limits.cpu_seconds is not None
    self.is_dirty = False  # A test has written files: the next one needs a new sandbox.
    self._confinement, self._ends = confinement, ends
    self._cgroup = cgroup = confinement.cgroup
    self._num_kills = cgroup.count_memory_kills() if cgroup else 0
    self._cpu_at_start = cgroup.read_cpu_seconds() if cgroup else 0.0
    self._counted_seconds = 0.0  # CPU seconds since then that belong to tests so far.
    self._memory_mib = limits.memory_mib + _SLACK_MIB
    wall_seconds = compute_wall_limit(limits.cpu_seconds)
    self._limits = _build_request_limits(limits, wall_seconds) | {
        'sum_memory': cgroup is None,  # Over /proc, as no cgroup counts it.
        'may_write': may_write,
        'is_dialogue': bool(ends),
    }
    self._wait_seconds = monitor.MAX_STARVED * wall_seconds + _GRACE_SECONDS
    self._log = os.memfd_create('stderr', os.MFD_CLOEXEC)
    self._scratch = ''
    self._process: subprocess.Popen | None = None
    try:
      if cgroup:
        cgroup.set_memory_limit(self._memory_mib)
      if confinement.user:
        self._start_in_container(confinement.isolation, confinement.user.uid)
      else:
        self._start_in_namespaces(confinement.isolation)
    except OSError as e:
      self.close()
      raise SandboxError(f'Could not start a sandbox: {e}') from e
    except BaseException:
      self.close()
      raise

  @property
  def pid(self) -> int:
    """The process that we started, of which all others of the sandbox descend."""
    assert self._process is not None
    return self._process.pid

  def _start_process(self, command: list[str], fds: tuple, uid: int | None, **options) -> None:
    if uid is not None:
      command = isolation_lib.build_user_switch(uid) + command
    self._process = process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._log,
        bufsize=0,
        pass_fds=(*fds, *self._ends),
        **options,
    )
    assert process.stdin and process.stdout
    self._stdin, self._stdout = process.stdin, process.stdout

  def _start_in_namespaces(self, isolation: isolation_lib.Isolation) -> None:
    reader, writer = os.pipe()
    os.write(writer, isolation.seccomp_filter)
    os.close(writer)
    info = os.pipe() if self._cgroup else ()
    command = bubblewrap.build_bubblewrap_command(isolation, reader, info[1] if info else None)
    try:
      self._start_process(command, (isolation.code_fd, reader, *info[1:]), isolation.uid)
    except BaseException:
      for fd in info[:1]:
        os.close(fd)
      raise
    finally:
      for fd in (reader, *info[1:]):
        os.close(fd)
    if self._cgroup:  # The supervisor is moved in while it boots, before it forks.
      with open(info[0], 'rb') as f:
        text = f.read()
      try:
        self._cgroup.add_process(json.loads(text)['child-pid'])
      except (OSError, ValueError, KeyError) as e:
        raise self._build_error(f'no supervisor to confine ({e})') from e

  def _start_in_container(self, isolation: isolation_lib.Isolation, uid: int) -> None:
    self._scratch = container.make_scratch_dir(isolation.public, uid)
    packages = container.link_packages(isolation.public, isolation.binds)
    environment = {**isolation_lib.ENVIRONMENT, 'HOME': self._scratch, 'TMPDIR': self._scratch}
    if isolation.libraries:
      environment['LD_LIBRARY_PATH'] = isolation.libraries
    command = isolation_lib.build_boot_command(isolation)
    options = {'cwd': self._scratch, 'env': environment, 'start_new_session': True}
    self._start_process(command, (isolation.code_fd,), uid, **options)
    paths = container.list_allowed_paths(isolation.public, isolation.binds)
    filters = (isolation.seccomp_filter, seccomp.compile_guard(self.pid))
    # Landlock is used wherever there is one; this says whether a kernel without it is an error.
    is_required = not {'files', 'writes'} & set(isolation.waivers)
    self._send_request('enter_walls', (self._scratch, paths, packages, filters, is_required))

  def compile_python(self, sources: tuple[str, ...], mode: str, entry_point: str) -> Execution:
    """Loads a Python program; the report b'code' means that it compiles."""
    return self._request('compile_python', (sources, mode, entry_point))

  def run_compiler(self, argv: tuple[str, ...], files: dict[str, bytes]) -> Execution:
    """Runs a compiler; the report is the file `program`."""
    return self._request('run_compiler', (argv, files))

  def load_binary(self, binary: bytes) -> None:
    self._memory_mib += 2 * (len(binary) >> 20)  # The binary, and the copy of a test.
    try:
      if self._cgroup:
        self._cgroup.set_memory_limit(self._memory_mib)
      self._send_request('load_binary', (len(binary),), binary)
    except OSError as e:
      raise self._build_error(f'the supervisor is gone ({e})') from e

  def run_test(
      self,
      stdin: bytes,
      private: bytes = b'',
      argv: tuple[str, ...] = (),
      files: dict[str, bytes] | None = None,
  ) -> Execution:
    """Runs the loaded program on one test, in a process of its own."""
    if self._cgroup:  # The input is stored in the sandbox's memory.
      extra_mib = (len(stdin) + len(private)) >> 20
      self._cgroup.set_memory_limit(self._memory_mib + extra_mib)
    sizes = (len(stdin), len(private))
    return self._request('run_test', (sizes, argv, files or {}, self._ends), stdin, private)

  def _send_request(self, kind: str, arguments: tuple, *files: bytes) -> None:
    head = marshal.dumps((kind, self._limits, arguments))
    deadline = time.monotonic() + self._wait_seconds
    for part in (len(head).to_bytes(8, 'little') + head, *files):
      view = memoryview(part)
      while view:
        self._wait_for(self._stdin, select.POLLOUT, deadline)
        # At most what a pipe that is ready accepts without blocking.
        view = view[os.write(self._stdin.fileno(), view[:4096]) :]

  def _request(self, kind: str, arguments: tuple, *files: bytes) -> Execution:
    deadline = time.monotonic() + self._wait_seconds
    before = self._cgroup.read_cpu_seconds() if self._cgroup else 0.0
    try:
      self._send_request(kind, arguments, *files)
      while self._cgroup and not _poll_stream(self._stdout, select.POLLIN, 0.1):
        cpu_seconds = self._cgroup.read_cpu_seconds() - before
        if cpu_seconds > self._limits['cpu_us'] / 1e6 + _SUPERVISOR_SECONDS:
          self.kill()  # Children that nobody waited for passed it: they are in no /proc.
          self.is_dirty = True
          return Execution(stopped=StopReason.CPU, cpu_seconds=cpu_seconds)
        if time.monotonic() > deadline:
          break
      numbers = _ANSWER.unpack(self._receive(_ANSWER.size, deadline))
      limit = self._limits['output_bytes'] + 65536
      if not all(0 <= size <= limit for size in numbers[-3:]):
        raise self._build_error(f'the supervisor announced {numbers[-3:]} bytes')
      texts = [self._receive(size, deadline) for size in numbers[-3:]]
    except (OSError, EOFError) as e:
      if self._was_killed_for_memory():  # The kernel chose the supervisor.
        self.is_dirty = True
        return Execution(stopped=StopReason.MEMORY)
      raise self._build_error(f'the supervisor is gone ({e})') from e
    return self._parse_answer(numbers, texts)

  def _measure_unseen(self, seen: float, own: float) -> float:
    """Returns the CPU seconds of this test that only the cgroup has counted."""
    if self._cgroup is None:
      return 0.0
    self._counted_seconds += seen
    total = self._cgroup.read_cpu_seconds() - self._cpu_at_start
    unseen = total - own - self._counted_seconds
    self._counted_seconds += max(0.0, unseen)
    return unseen if unseen > _MIN_UNSEEN_SECONDS else 0.0

  def _parse_answer(self, numbers, texts) -> Execution:
    ready, code, cpu, own, wall, end, waited, peak, stopped, dirty, *_ = numbers
    self.is_dirty = bool(dirty)
    reason = StopReason(stopped) if stopped else None
    if self._was_killed_for_memory():  # Any process of the sandbox.
      reason = StopReason.MEMORY
    if not ready and reason is not StopReason.MEMORY:
      stderr = texts[2].decode('utf-8', 'replace')
      raise self._build_error(f'a test process could not be set up: {stderr}')
    cpu_seconds = cpu / 1e6 + self._measure_unseen(cpu / 1e6, own / 1e6)
    if reason is StopReason.WALL and cpu_seconds * 1e6 > self._limits['cpu_us']:
      reason = StopReason.CPU  # It was not idle: the monitor did not see its children.
    return Execution(
        exit_code=code,
        stopped=reason,
        cpu_seconds=cpu_seconds,
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
      self._wait_for(self._stdout, select.POLLIN, deadline)
      chunk = os.read(self._stdout.fileno(), min(size, 1 << 20))
      if not chunk:
        raise EOFError('end of file')
      chunks.append(chunk)
      size -= len(chunk)
    return b''.join(chunks)

  def _wait_for(self, stream, event: int, deadline: float) -> None:
    if not _poll_stream(stream, event, deadline - time.monotonic()):
      raise self._build_error(f'no answer in {self._wait_seconds:.0f} s')

  def _was_killed_for_memory(self) -> bool:
    if self._cgroup is None:
      return False
    before, self._num_kills = self._num_kills, self._cgroup.count_memory_kills()
    return self._num_kills > before

  def _build_error(self, cause: str) -> SandboxError:
    log = os.pread(self._log, 8192, 0).decode('utf-8', 'replace').strip()
    return SandboxError(f'Sandbox failure: {cause}. {log}'.strip())

  def kill(self) -> None:
    """Ends the sandbox at once; may be called from another thread."""
    if self._process is not None:
      self._process.kill()
      if self._confinement.user:
        self._confinement.user.kill_processes()

  def close(self) -> None:
    """Ends the sandbox and waits until none of its processes is left."""
    if self._process is not None:
      self._stdin.close()  # The supervisor exits at end of file.
      _poll_stream(
          self._stdout, select.POLLIN, 2.0
      )  # Sooner than `wait`, which sleeps between looks.
      try:
        self._process.wait(timeout=2.0)
      except subprocess.TimeoutExpired:
        self.kill()
        self._process.wait()
      self._stdout.close()
    if self._scratch:
      container.remove_scratch_dir(self._scratch)
    os.close(self._log)

  def __enter__(self) -> 'Sandbox':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()
