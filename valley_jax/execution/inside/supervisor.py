"""The first process of a sandbox: forks a child per test, monitors it, reaps everything.

It runs no line of a submission and knows no expected output. The host talks to it over
descriptors 0 and 1: a request is 8 bytes of length, a marshalled tuple and the files that it
announces; an answer is integers and three byte strings (`sandbox.py` is the other end). It
imports C modules only, since each Python module of the standard library would cost every
submission its import.

It is PID 1 (in T2, a subreaper) and cannot be signalled from inside, except for signals that it
handles: it handles none. It is not dumpable, so that a child of the same user can open neither
its memory nor its descriptors.
"""

import _signal  # pyright: ignore[reportMissingImports]
import _sitebuiltins
import builtins
import gc
import marshal
import os
import sys
import time

import harness
import monitor
import plain_values

_MAX_CODE_BYTES, _MAX_ERROR_BYTES = 64 << 20, 4096  # Compiled Python, a syntax error.
# Imported before the fork if the program names them: once, not at each test.
_PRELOADED = (
    'numpy', 'array', 'bisect', 'collections', 'copy', 'dataclasses',
    'datetime', 'decimal', 'enum', 'fractions', 'functools', 'heapq', 'io',
    'itertools', 'json', 'math', 'operator', 'queue', 'random', 're',
    'statistics', 'string', 'threading', 'typing',
)  # fmt: skip


def harden_process() -> None:
  """Makes this process untouchable for its children."""
  # Also resets what our caller ignores, as a shell's background job does SIGINT. What Python
  # itself ignores stays.
  kept = {_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGPIPE, _signal.SIGXFSZ}
  for number in _signal.valid_signals() - kept:
    _signal.signal(number, _signal.SIG_DFL)
  while os.open('/dev/null', os.O_RDONLY) < harness.PROGRAM:
    pass  # Reserve the descriptors that a test will use.
  harness.set_dumpable(0)
  builtins.quit = _sitebuiltins.Quitter('quit', 'Ctrl-D (i.e. EOF)')
  builtins.exit = _sitebuiltins.Quitter('exit', 'Ctrl-D (i.e. EOF)')
  builtins.help = _sitebuiltins._Helper()
  sys.argv[:] = [harness.PATH]
  if os.path.isdir('/packages'):  # numpy, where the host has it.
    sys.path.append('/packages')
  sys.set_int_max_str_digits(0)  # The CPU limit bounds conversions.
  gc.disable()  # A collection would copy the pages that children share.


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


class Supervisor:
  """Serves the requests: holds the program, and the directories and walls of its tests.

  Attributes:
    scratch: The writable directories; unnamed files are created in the first.
    confine: The module of that name, in T2 only.
    paths, guard, is_required: Allowed paths, seccomp filter, and whether Landlock is required.
    is_dirty: Whether a test has changed a writable directory.
    action, args: What the child of a test does.
    own_file: The program's source, if it names `__file__`.
    binary: Descriptor of the loaded binary; tests get copies. -1: there is none.
  """

  def __init__(self):
    self.scratch = ('/tmp', '/dev/shm')
    self.confine = None
    self.paths, self.guard, self.is_required = [], b'', True
    self.is_dirty = False
    self.action, self.args = harness.run_stdin, ()
    self.own_file: dict[str, bytes] = {}
    self.binary = -1

  def enter_walls(self, limits, scratch: str, paths, packages, filters, is_required: bool) -> None:
    """Builds the walls of T2 around this process."""
    import confine  # Only in T2: it imports ctypes, which takes long.

    base_filter, self.guard = filters
    self.scratch, self.paths = (scratch,), paths
    sys.argv[0] = harness.file_path = f'{scratch}/solution.py'
    self.is_required = is_required
    confine.adopt_orphans()
    own_paths = [(scratch, confine.WRITE), ('/proc', confine.READ)]
    confine.restrict_files(paths + own_paths, is_required)
    confine.install_filter(base_filter)
    sys.path += packages
    harness.set_dumpable(0)
    self.confine = confine

  def stat_scratch(self) -> list:
    """Returns what changes when a test has touched a writable directory."""
    states = (os.stat(path) for path in self.scratch)
    return [(s.st_mode, s.st_nlink, s.st_ctime_ns) for s in states]

  def create_unnamed_file(self, size: int = 0) -> int:
    """Opens a file that no path leads to, with the next `size` bytes from the host.

    They are spliced: a child inherits our memory, and must not find there what it may only read
    when its time has come.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
      fd = os.open(self.scratch[0], flags | os.O_TMPFILE, 0o700)
    except OSError:  # Overlayfs before Linux 6.1.
      path = f'{self.scratch[0]}/unnamed'
      fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o700)
      os.unlink(path)
    while size:
      moved = os.splice(0, fd, size)
      if not moved:
        os._exit(0)
      size -= moved
    os.lseek(fd, 0, os.SEEK_SET)
    return fd

  def load_binary(self, limits, size: int) -> None:
    self.binary = self.create_unnamed_file(size)
    self.action, self.args = harness.run_binary, (('solution',),)

  def open_program(self) -> int:
    """Opens a copy of the binary: a test can rewrite and lock what it runs."""
    if self.binary < 0:
      return os.open('/dev/null', os.O_RDONLY | os.O_CLOEXEC)
    fd, offset = self.create_unnamed_file(), 0
    while sent := os.sendfile(fd, self.binary, offset, 1 << 30):
      offset += sent
    # Opened again, as a file that is open for writing cannot be run.
    program = os.open(f'/proc/self/fd/{fd}', os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    return program

  def write_files(self, files: dict[str, bytes]) -> None:
    """Writes a test's files; a name that ends in / is a directory."""
    self.is_dirty = self.is_dirty or bool(files)
    for name, data in files.items():
      path = f'{self.scratch[0]}/{name}'
      os.makedirs(os.path.dirname(path.rstrip('/')), exist_ok=True)
      if name.endswith('/'):
        os.mkdir(path, 0o700)
        continue
      fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
      harness.write_all(fd, data)
      os.close(fd)

  def become_test(self, limits, fds, ready: int, action, args) -> None:
    """Turns the forked child into the test's process; never returns."""
    try:
      for target, fd in enumerate(fds):  # `harden_process` has reserved 0 to 5.
        os.dup2(fd, target)
      os.closerange(len(fds), ready)
      os.closerange(ready + 1, 1024)
      os.setsid()
      os.chdir(self.scratch[0])
      harness.set_kernel_limits(limits, action is harness.run_binary)
      harness.set_dumpable(1)  # Lets the monitor see what its processes share.
      if self.confine:
        rights = self.confine.WRITE if limits['may_write'] else self.confine.READ
        self.confine.restrict_files([*self.paths, (self.scratch[0], rights)], self.is_required)
        self.confine.install_filter(self.guard)
      _signal.signal(_signal.SIGINT, _signal.default_int_handler)
      harness.open_standard_streams()
      for name in ('confine', 'harness', 'monitor', 'plain_values', 'supervisor'):
        sys.modules.pop(name, None)
      os.eventfd_write(ready, 1)  # From here on failures are the program's.
      gc.enable()
      if action is not harness.run_binary:
        os.close(ready)
      action(*args)
    finally:
      if action is harness.run_binary:
        os.eventfd_write(ready, 1)  # It has not become the program: our fault.
      os._exit(1)

  def run_child(self, limits, sizes, action, args, ends=()) -> monitor.ProcessMonitor:
    """Runs `action(*args)` in a child; returns what it did."""
    stdin, private = map(self.create_unnamed_file, sizes)
    stdout, report = self.create_unnamed_file(), self.create_unnamed_file()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    program = self.open_program()
    before = self.stat_scratch()
    pid = os.fork()
    if pid == 0:
      source, sink = ends or (stdin, stdout)
      fds = (source, sink, writer, private, report, program)
      self.become_test(limits, fds, ready, action, args)
    for fd in (writer, program):
      os.close(fd)
    child = monitor.ProcessMonitor(pid, limits, stdout, reader)
    child.follow_until_end()
    child.kill_all()
    for fd in ends:  # Only now: the partner, which ends upon this, must be seen to end later.
      os.close(fd)
    child.drain_stderr()
    self.is_dirty = self.is_dirty or self.stat_scratch() != before
    try:
      child.is_ready = os.eventfd_read(ready) == 1
    except BlockingIOError:
      pass
    max_bytes = limits['output_bytes'] + 1
    child.report, child.output = (
        os.pread(fd, min(os.fstat(fd).st_size, max_bytes), 0) for fd in (report, stdout)
    )
    for fd in (stdin, stdout, private, report, reader, ready):
      os.close(fd)
    return child

  def compile_python(self, limits, sources, mode: str, entry_point: str):
    """Compiles Python and makes it what the tests run."""
    limits = {**limits, 'output_bytes': _MAX_CODE_BYTES}  # Code is no output.
    child = self.run_child(limits, (0, 0), harness.compile_sources, (sources,))
    if not child.report.startswith(b'code') or child.status != 0:
      child.report = child.report.removeprefix(b'code')[:_MAX_ERROR_BYTES]
      return child
    if '__file__' in sources[-1] and not limits['may_write']:  # A checker has its own files.
      self.own_file = {'solution.py': sources[-1].encode('utf-8', 'replace')}
    codes = marshal.loads(child.report[4:])
    if any('inspect' in code.co_names for code in codes):
      import linecache

      lines = sources[-1].splitlines(keepends=True)
      linecache.cache[harness.PATH] = len(sources[-1]), None, lines, harness.PATH
    child.report = b'code'
    preload_modules(codes)
    gc.freeze()
    if mode.startswith('lcb_'):
      import lcb_inside

      self.action = getattr(lcb_inside, mode.replace('lcb', 'run'))
      codes = sources
    else:
      self.action = harness.ACTIONS[mode]
    self.args = (codes,)
    if mode.endswith('function'):
      self.args = codes, entry_point
    elif mode == 'assert':
      self.args = codes, entry_point, plain_values.build_test_namespace
    return child

  def run_compiler(self, limits, argv, files):
    """Runs a compiler; its report is the file `program` that it has made."""
    self.write_files(files)
    child = self.run_child(limits, (0, 0), harness.run_binary, (argv,))
    child.report = b''
    if child.status == 0 and not child.stopped:
      with open(f'{self.scratch[0]}/program', 'rb') as f:
        child.report = f.read(limits['output_bytes'] + 1)
    return child

  def run_test(self, limits, sizes, argv, files, ends):
    """Runs the loaded program on one test."""
    # Its own file, too, is new in each test: the last one may have changed it.
    self.write_files({**self.own_file, **files})
    args = self.args
    if self.action is harness.run_binary:
      args = ((*args[0], *argv),)
    elif argv:
      sys.argv[1:] = argv
      sys.path.insert(0, self.scratch[0])
    return self.run_child(limits, sizes, self.action, args, ends)


def preload_modules(codes: tuple) -> None:
  """Imports the standard modules that the program imports at its top."""
  for name in _PRELOADED:
    if any(name in code.co_names for code in codes):
      try:
        __import__(name)
      except ImportError:
        pass  # No numpy here: the program will report it itself.


def send_answer(child: monitor.ProcessMonitor, is_dirty: bool) -> None:
  """Sends the host what the process did."""
  texts = child.report, child.output, child.stderr_tail
  numbers = (
      int(child.is_ready),
      -_signal.SIGKILL if child.status is None else child.status,
      int(child.cpu_seconds * 1e6),
      int(time.process_time() * 1e6),
      int((child.end - child.start) * 1e6),
      int(child.end * 1e6),
      int(child.waited_seconds * 1e6),
      child.peak_bytes,
      child.stopped,
      int(is_dirty),
      *map(len, texts),
  )
  head = b''.join(n.to_bytes(8, 'little', signed=True) for n in numbers)
  harness.write_all(1, head + b''.join(texts))


def serve_requests() -> None:
  """Serves requests until the host hangs up."""
  harden_process()
  supervisor = Supervisor()
  while True:
    size = int.from_bytes(read_exactly(8), 'little')
    kind, limits, arguments = marshal.loads(read_exactly(size))
    child = getattr(supervisor, kind)(limits, *arguments)
    if child is not None:
      send_answer(child, supervisor.is_dirty)


if __name__ == 'supervisor':
  serve_requests()
