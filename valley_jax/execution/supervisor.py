"""PID 1 of a sandbox: forks a child for each test, watches it, reaps all.

It runs no line of a submission and knows no expected output. The host talks
to it over descriptors 0 and 1: a request is 8 bytes of length, a marshalled
tuple and two files; an answer is ten 8-byte integers and three byte strings
(`sandbox.py` holds the other end). It imports C modules only, since each
Python module of the standard library would cost every submission its import.

PID 1 cannot be signalled from inside its namespace, except for signals that it
handles: it handles none. It is not dumpable, so that a child of the same user
can open neither its memory nor its descriptors.
"""

import _ctypes
import _signal  # pyright: ignore[reportMissingImports]
import _sitebuiltins
import builtins
import gc
import marshal
import os
import resource
import sys
import time

import harness
import watch

_PR_SET_DUMPABLE = 4
_SCRATCH = ('/tmp', '/dev/shm')
# Imported before the fork if the program names them: once, not at each test.
_PRELOADED = (
    'numpy', 'array', 'bisect', 'collections', 'copy', 'dataclasses',
    'datetime', 'decimal', 'enum', 'fractions', 'functools', 'heapq', 'io',
    'itertools', 'json', 'math', 'operator', 'queue', 'random', 're',
    'statistics', 'string', 'threading', 'typing',
)  # fmt: skip


def harden() -> None:
  """Makes this process untouchable for its children."""
  for number in range(1, _signal.NSIG):
    if _signal.getsignal(number) not in (None, _signal.SIG_IGN):
      if number not in (_signal.SIGKILL, _signal.SIGSTOP):
        _signal.signal(number, _signal.SIG_DFL)
  while os.open('/dev/null', os.O_RDONLY) < harness.REPORT:
    pass  # Reserve the descriptors that a test will use.
  set_dumpable(0)
  builtins.quit = _sitebuiltins.Quitter('quit', 'Ctrl-D (i.e. EOF)')
  builtins.exit = _sitebuiltins.Quitter('exit', 'Ctrl-D (i.e. EOF)')
  builtins.help = _sitebuiltins._Helper()
  sys.argv[:] = [harness.PATH]
  if os.path.isdir('/packages'):  # numpy, where the host has it.
    sys.path.append('/packages')
  sys.set_int_max_str_digits(0)  # Time is what limits here.
  gc.disable()


def set_dumpable(value: int) -> None:
  """Lets processes of the same user look into this one (1) or not (0)."""
  library = _ctypes.dlopen(None, 0)  # pyright: ignore[reportArgumentType]
  prctl = _ctypes.dlsym(library, 'prctl')
  if _ctypes.call_function(prctl, (_PR_SET_DUMPABLE, value, 0, 0, 0)) != 0:
    raise OSError('prctl(PR_SET_DUMPABLE) failed.')


def read_exactly(size: int) -> bytes:
  """Reads from the host; at its end of file the sandbox has no purpose."""
  chunks = []
  while size:
    chunk = os.read(0, min(size, 1 << 20))
    if not chunk:
      os._exit(0)
    chunks.append(chunk)
    size -= len(chunk)
  return b''.join(chunks)


def write_all(fd: int, data: bytes) -> None:
  """Writes everything."""
  view = memoryview(data)
  while view:
    view = view[os.write(fd, view) :]


def scratch_state() -> list:
  """What changes when a test has touched a writable directory."""
  states = (os.stat(path) for path in _SCRATCH)
  return [(s.st_mode, s.st_nlink, s.st_ctime_ns) for s in states]


def unnamed_file(size: int = 0) -> int:
  """A file that no path leads to, with the next `size` bytes from the host.

  They are spliced: a child, which inherits our memory, must not find there
  what it may only read when its time has come.
  """
  fd = os.open('/tmp', os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
  while size:
    moved = os.splice(0, fd, size)
    if not moved:
      os._exit(0)
    size -= moved
  os.lseek(fd, 0, os.SEEK_SET)
  return fd


def limit_child(limits: dict) -> None:
  """Sets the limits that the kernel itself holds a process to."""
  cpu = limits['cpu_us'] // 1_000_000 + 2  # The watch is exact; this is not.
  stack = min(limits['memory'], 256 << 20)
  for name, value in (
      (resource.RLIMIT_CPU, cpu),
      # Address space is not memory: threads and numpy reserve plenty of it.
      (resource.RLIMIT_AS, 2 * limits['memory'] + (512 << 20)),
      (resource.RLIMIT_FSIZE, limits['output'] + 1),
      (resource.RLIMIT_STACK, stack),
      (resource.RLIMIT_NPROC, limits['processes']),
      (resource.RLIMIT_NOFILE, 256),
      (resource.RLIMIT_CORE, 0),
      (resource.RLIMIT_MEMLOCK, 0),
  ):
    hard = resource.getrlimit(name)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(name, (value, value))


def become_test(limits: dict, fds: tuple, ready: int, action, args) -> None:
  """Turns the forked child into the test's process; never returns."""
  try:
    for target, fd in enumerate(fds):  # `harden` keeps 0 to 4 reserved.
      os.dup2(fd, target)
    os.closerange(5, ready)
    os.closerange(ready + 1, 1024)
    limit_child(limits)
    set_dumpable(1)  # So that the watch sees what it shares.
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    harness.open_standard_streams()
    for name in ('harness', 'watch', 'supervisor'):
      del sys.modules[name]
    os.eventfd_write(ready, 1)  # From here on failures are the program's.
    os.close(ready)
    gc.enable()
    action(*args)
  finally:
    os._exit(1)


def run_limited(limits: dict, sizes: tuple[int, int], action, args):
  """Runs `action(*args)` in a child; returns what the host will be told."""
  stdin, private = unnamed_file(sizes[0]), unnamed_file(sizes[1])
  stdout, report = unnamed_file(), unnamed_file()
  reader, writer = os.pipe2(os.O_CLOEXEC)
  os.set_blocking(reader, False)
  ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
  pid = os.fork()
  if pid == 0:
    fds = (stdin, stdout, writer, private, report)
    become_test(limits, fds, ready, action, args)
  os.close(writer)
  following = watch.Watch(pid, limits, stdout, reader)
  following.until_end()
  wall = time.monotonic() - following.start
  following.kill_all()
  following.drain()
  try:
    is_ready = os.eventfd_read(ready) == 1
  except BlockingIOError:
    is_ready = False
  contents = [os.pread(fd, limits['output'] + 1, 0) for fd in (report, stdout)]
  for fd in (stdin, stdout, private, report, reader, ready):
    os.close(fd)
  return following, is_ready, wall, contents


def answer(following, is_ready, wall, contents, is_dirty: bool) -> None:
  """Sends the host what the process did."""
  report, stdout = contents
  numbers = (
      int(is_ready),
      -_signal.SIGKILL if following.status is None else following.status,
      int(following.cpu * 1e6),
      int(wall * 1e6),
      following.peak,
      following.stopped,
      int(is_dirty),
      len(report),
      len(stdout),
      len(following.tail),
  )
  head = b''.join(n.to_bytes(8, 'little', signed=True) for n in numbers)
  write_all(1, head + report + stdout + following.tail)


def preload(codes: tuple) -> None:
  """Imports the standard modules that the program imports at its top."""
  for name in _PRELOADED:
    if any(name in code.co_names for code in codes):
      try:
        __import__(name)
      except ImportError:
        pass  # No numpy here: the program will say so itself.


def compile_program(limits, sources: tuple[str, ...]):
  """Returns what the host will be told, and the code objects if any."""
  action = harness.compile_sources
  *result, (report, stdout) = run_limited(limits, (0, 0), action, (sources,))
  codes = ()
  if report.startswith(b'code'):
    codes = marshal.loads(report[4:])
    report = b'code'
    preload(codes)
    gc.freeze()
  return (*result, (report, stdout)), codes


def main() -> None:
  """Serves requests until the host hangs up."""
  harden()
  pristine = scratch_state()
  actions = {
      'stdin': harness.run_stdin,
      'function': harness.run_function,
      'assert': harness.run_assert,
  }
  action, args = None, ()
  while True:
    size = int.from_bytes(read_exactly(8), 'little')
    kind, limits, rest = marshal.loads(read_exactly(size))
    if kind == 'test':
      result = run_limited(limits, rest, action, args)
    else:
      sources, mode, entry_point = rest
      result, codes = compile_program(limits, sources)
      action = actions[mode]
      args = (codes, entry_point) if mode == 'function' else (codes,)
    dirty = scratch_state() != pristine
    answer(*result, dirty)  # pyright: ignore[reportCallIssue]


if __name__ == 'supervisor':
  main()
