"""One sandbox: starts bubblewrap and talks to the supervisor inside."""

import dataclasses
import enum
import json
import marshal
import os
import select
import struct
import subprocess
import time
from typing import Any

from valley_jax import records
from valley_jax.execution import cgroups
from valley_jax.execution import isolation as isolation_lib

MAX_PROCESSES = 64  # Of one test, threads included.
_SLACK_MIB = 64  # What the supervisor and the files of a test weigh.
_GRACE_SECONDS = 20.0  # After which a silent supervisor is given up.
_ANSWER = struct.Struct('<10q')


class SandboxError(RuntimeError):
  """Our machinery failed: this says nothing about the program."""


class Stop(enum.Enum):
  """Why a test was stopped; the values are those of `watch.py`."""

  CPU = 1
  WALL = 2
  MEMORY = 3
  OUTPUT = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
  """What the processes of one test did; `verdicts` says what it means."""

  exit_code: int  # Negative: the signal.
  stopped: Stop | None
  cpu_seconds: float
  wall_seconds: float
  memory_mib: float
  report: bytes  # From the private descriptor.
  stdout: bytes
  stderr: bytes  # Its last 8 KB.


def wall_limit(cpu_seconds: float) -> float:
  """Returns the wall time after which a program counts as idling."""
  return max(3 * cpu_seconds, cpu_seconds + 5.0)


class Sandbox:
  """A running supervisor, into which one program is loaded.

  Args:
    isolation: What the sandbox is built of.
    cgroup: The worker's, or None.
    limits: With `cpu_seconds` set.
  """

  def __init__(
      self,
      isolation: isolation_lib.Isolation,
      cgroup: cgroups.Cgroup | None,
      limits: records.Limits,
  ):
    assert limits.cpu_seconds is not None
    self.is_dirty = False  # A test has written files: use a fresh sandbox.
    self._cgroup = cgroup
    self._kills = cgroup.kills() if cgroup else 0
    self._limits = {
        'cpu_us': int(limits.cpu_seconds * 1e6),
        'wall_us': int(wall_limit(limits.cpu_seconds) * 1e6),
        'memory': limits.memory_mib << 20,
        'output': limits.output_kib << 10,
        'processes': MAX_PROCESSES,
        'sum': cgroup is None,  # Memory is summed over /proc.
    }
    self._wait_seconds = wall_limit(limits.cpu_seconds) + _GRACE_SECONDS
    self._log = os.memfd_create('stderr', os.MFD_CLOEXEC)
    self._process: subprocess.Popen | None = None
    try:
      if cgroup:
        cgroup.limit(limits.memory_mib + _SLACK_MIB, MAX_PROCESSES + 8)
      self._start(isolation)
    except OSError as e:
      self.close()
      raise SandboxError(f'Could not start bubblewrap: {e}') from e
    except BaseException:
      self.close()
      raise

  def _start(self, isolation: isolation_lib.Isolation) -> None:
    reader, writer = os.pipe()
    os.write(writer, isolation.seccomp_filter)
    os.close(writer)
    info = os.pipe() if self._cgroup else None
    fds = [isolation.code_fd, reader] + ([info[1]] if info else [])
    user: dict[str, Any] = {}
    if isolation.uid is not None:
      user = {'user': isolation.uid, 'group': isolation.uid}
      user['extra_groups'] = []
    try:
      self._process = subprocess.Popen(
          isolation_lib.command(isolation, reader, info and info[1]),
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          stderr=self._log,
          bufsize=0,
          pass_fds=fds,
          **user,
      )
      assert self._process.stdin and self._process.stdout
      self._stdin, self._stdout = self._process.stdin, self._process.stdout
    except BaseException:
      if info:
        os.close(info[0])
      raise
    finally:
      for fd in [reader] + ([info[1]] if info else []):
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

  def compile(
      self, sources: tuple[str, ...], mode: records.Mode, entry_point: str
  ) -> Execution:
    """Loads a program; report b'code' says that it compiles."""
    return self._ask('compile', (sources, mode.value, entry_point), b'', b'')

  def run(self, stdin: bytes, private: bytes = b'') -> Execution:
    """Runs the loaded program on one test, in a process of its own."""
    return self._ask('test', (len(stdin), len(private)), stdin, private)

  def _ask(
      self, kind: str, rest: tuple, stdin: bytes, private: bytes
  ) -> Execution:
    head = marshal.dumps((kind, self._limits, rest))
    deadline = time.monotonic() + self._wait_seconds
    try:
      for part in (len(head).to_bytes(8, 'little') + head, stdin, private):
        self._send(part, deadline)
      numbers = _ANSWER.unpack(self._receive(_ANSWER.size, deadline))
      ready, code, cpu, wall, peak, stopped, dirty, *sizes = numbers
      limit = self._limits['output'] + 65536
      if not all(0 <= size <= limit for size in sizes):
        raise self._failure(f'the supervisor announced {sizes} bytes')
      texts = [self._receive(size, deadline) for size in sizes]
    except (OSError, EOFError) as e:
      if self._killed_for_memory():
        return self._memory_limit()
      raise self._failure(f'the supervisor is gone ({e})') from e
    self.is_dirty = bool(dirty)
    stop = Stop(stopped) if stopped else None
    if (code != 0 or stop) and self._killed_for_memory():
      stop = Stop.MEMORY
    if not ready and stop is not Stop.MEMORY:
      raise self._failure('a test process could not be set up')
    return Execution(
        exit_code=code,
        stopped=stop,
        cpu_seconds=cpu / 1e6,
        wall_seconds=wall / 1e6,
        memory_mib=peak / 2**20,
        report=texts[0],
        stdout=texts[1],
        stderr=texts[2],
    )

  def _send(self, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
      self._wait(self._stdin, select.POLLOUT, deadline)
      # At most what a pipe that is ready takes without blocking.
      view = view[os.write(self._stdin.fileno(), view[:4096]) :]

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

  def _wait(self, stream, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(stream, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
      raise self._failure(f'no answer in {self._wait_seconds:.0f} s')

  def _killed_for_memory(self) -> bool:
    if self._cgroup is None:
      return False
    kills, before = self._cgroup.kills(), self._kills
    self._kills = kills
    return kills > before

  def _memory_limit(self) -> Execution:
    """The kernel chose the supervisor, but the test had used the memory up."""
    self.is_dirty = True
    return Execution(
        exit_code=-9,
        stopped=Stop.MEMORY,
        cpu_seconds=0.0,
        wall_seconds=0.0,
        memory_mib=self._limits['memory'] / 2**20,
        report=b'',
        stdout=b'',
        stderr=b'',
    )

  def _failure(self, what: str) -> SandboxError:
    words = os.pread(self._log, 8192, 0).decode('utf-8', 'replace').strip()
    return SandboxError(f'Sandbox failure: {what}. {words}'.strip())

  def kill(self) -> None:
    """Ends the sandbox at once; may be called from another thread."""
    if self._process is not None:
      self._process.kill()

  def close(self) -> None:
    """Ends the sandbox and waits until none of its processes is left."""
    if self._process is not None:
      self._stdin.close()  # The supervisor leaves at end of file.
      try:
        self._process.wait(timeout=2.0)
      except subprocess.TimeoutExpired:
        self._process.kill()
        self._process.wait()
      self._stdout.close()
    os.close(self._log)

  def __enter__(self) -> 'Sandbox':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()
