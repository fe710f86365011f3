"""The first process of a sandbox: forks a child a test, watches it, reaps all.

It runs no line of a submission and knows no expected output. The host talks
to it over descriptors 0 and 1: a request is 8 bytes of length, a marshalled
tuple and what it announces; an answer is integers and three byte strings
(`sandbox.py` holds the other end). It imports C modules only, since each
Python module of the standard library would cost every submission its import.

It is PID 1 (in T2, a subreaper) and cannot be signalled from inside, except for
signals that it handles: it handles none. It is not dumpable, so that a child
of the same user can open neither its memory nor its descriptors.
"""

import _signal  # pyright: ignore[reportMissingImports]
import _sitebuiltins
import builtins
import gc
import marshal
import os
import sys
import time

import child
import harness
import watch

_MAX_CODE, _MAX_WORDS = 64 << 20, 4096  # Bytes, of compiled Python and errors.
# Imported before the fork if the program names them: once, not at each test.
_PRELOADED = (
    'numpy', 'array', 'bisect', 'collections', 'copy', 'dataclasses',
    'datetime', 'decimal', 'enum', 'fractions', 'functools', 'heapq', 'io',
    'itertools', 'json', 'math', 'operator', 'queue', 'random', 're',
    'statistics', 'string', 'threading', 'typing',
)  # fmt: skip


def harden() -> None:
  """Makes this process untouchable for its children."""
  # Also what our caller ignores, as a shell's background job does SIGINT. What
  # Python itself ignores stays.
  kept = {_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGPIPE, _signal.SIGXFSZ}
  for number in _signal.valid_signals() - kept:
    _signal.signal(number, _signal.SIG_DFL)
  while os.open('/dev/null', os.O_RDONLY) < child.PROGRAM:
    pass  # Reserve the descriptors that a test will use.
  child.set_dumpable(0)
  builtins.quit = _sitebuiltins.Quitter('quit', 'Ctrl-D (i.e. EOF)')
  builtins.exit = _sitebuiltins.Quitter('exit', 'Ctrl-D (i.e. EOF)')
  builtins.help = _sitebuiltins._Helper()
  sys.argv[:] = [harness.PATH]
  if os.path.isdir('/packages'):  # numpy, where the host has it.
    sys.path.append('/packages')
  sys.set_int_max_str_digits(0)  # Time is what limits here.
  gc.disable()


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


class Cell:
  """What the requests act on: the place, the program, the limits of a test.

  Attributes:
    scratch: The writable directories; unnamed files lie in the first.
    confine: The module of that name with its rules and filter, in T2 only.
    action, args: What the child of a test does.
  """

  def __init__(self):
    self.scratch = ('/tmp', '/dev/shm')
    self.confine = None
    self.rules, self.guard, self.is_required = [], b'', True
    self.is_dirty = False  # Something lies in a writable directory.
    self.action, self.args = harness.run_stdin, ()
    self.binary = -1  # Of no test: those get copies.

  def enter(self, limits, scratch: str, rules, files, filters, is_required: bool) -> None:
    """Builds the walls of T2 around this process."""
    import confine

    base, self.guard = filters
    self.scratch, self.rules = (scratch,), rules
    self.is_required = is_required
    confine.adopt_orphans()
    everywhere = [(scratch, confine.WRITE), ('/proc', confine.READ)]
    confine.limit_files(rules + everywhere, is_required)
    confine.filter_calls(base)
    sys.path += files
    child.set_dumpable(0)
    self.confine = confine

  def scratch_state(self) -> list:
    """What changes when a test has touched a writable directory."""
    states = (os.stat(path) for path in self.scratch)
    return [(s.st_mode, s.st_nlink, s.st_ctime_ns) for s in states]

  def unnamed_file(self, size: int = 0) -> int:
    """A file that no path leads to, with the next `size` bytes from the host.

    They are spliced: a child, which inherits our memory, must not find there
    what it may only read when its time has come.
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

  def take_binary(self, limits, size: int) -> None:
    """Keeps a binary."""
    self.binary = self.unnamed_file(size)
    self.action, self.args = child.run_binary, (('solution',),)

  def open_program(self) -> int:
    """Opens a copy of the binary: a test can rewrite and lock what it runs."""
    if self.binary < 0:
      return os.open('/dev/null', os.O_RDONLY | os.O_CLOEXEC)
    fd, at = self.unnamed_file(), 0
    while sent := os.sendfile(fd, self.binary, at, 1 << 30):
      at += sent
    # Opened again, as what can be written cannot be run.
    program = os.open(f'/proc/self/fd/{fd}', os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    return program

  def put_files(self, files: dict[str, bytes]) -> None:
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
      for target, fd in enumerate(fds):  # `harden` keeps 0 to 5 reserved.
        os.dup2(fd, target)
      os.closerange(len(fds), ready)
      os.closerange(ready + 1, 1024)
      os.setsid()
      os.chdir(self.scratch[0])
      child.limit(limits)
      child.set_dumpable(1)  # So that the watch sees what it shares.
      if self.confine:
        own = self.confine.WRITE if limits['writes'] else self.confine.READ
        rules = [*self.rules, (self.scratch[0], own)]
        self.confine.limit_files(rules, self.is_required)
        self.confine.filter_calls(self.guard)
      _signal.signal(_signal.SIGINT, _signal.default_int_handler)
      harness.open_standard_streams()
      for name in ('child', 'confine', 'harness', 'supervisor', 'watch'):
        sys.modules.pop(name, None)
      os.eventfd_write(ready, 1)  # From here on failures are the program's.
      gc.enable()
      if action is not child.run_binary:
        os.close(ready)
      action(*args)
    finally:
      if action is child.run_binary:
        os.eventfd_write(ready, 1)  # It has not become the program: our fault.
      os._exit(1)

  def run(self, limits, sizes, action, args, ends=()) -> watch.Watch:
    """Runs `action(*args)` in a child; returns what it did."""
    stdin, private = map(self.unnamed_file, sizes)
    stdout, report = self.unnamed_file(), self.unnamed_file()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    program = self.open_program()
    before = self.scratch_state()
    pid = os.fork()
    if pid == 0:
      source, sink = ends or (stdin, stdout)
      fds = (source, sink, writer, private, report, program)
      self.become_test(limits, fds, ready, action, args)
    for fd in (writer, program):
      os.close(fd)
    following = watch.Watch(pid, limits, stdout, reader)
    following.until_end()
    following.kill_all()
    for fd in ends:  # Only now: whom the other's end ends, ends later.
      os.close(fd)
    following.drain()
    self.is_dirty = self.is_dirty or self.scratch_state() != before
    try:
      following.is_ready = os.eventfd_read(ready) == 1
    except BlockingIOError:
      pass
    most = limits['output'] + 1
    following.report, following.output = (
        os.pread(fd, min(os.fstat(fd).st_size, most), 0) for fd in (report, stdout)
    )
    for fd in (stdin, stdout, private, report, reader, ready):
      os.close(fd)
    return following

  def compile(self, limits, sources, mode: str, entry_point: str):
    """Compiles Python and makes it what the tests run."""
    action = harness.compile_sources
    limits = {**limits, 'output': _MAX_CODE}  # Code is no output.
    done = self.run(limits, (0, 0), action, (sources,))
    if not done.report.startswith(b'code') or done.status != 0:
      done.report = done.report.removeprefix(b'code')[:_MAX_WORDS]
      return done
    codes = marshal.loads(done.report[4:])
    done.report = b'code'
    preload(codes)
    gc.freeze()
    if mode.startswith('lcb_'):
      import lcb_inside

      self.action = getattr(lcb_inside, mode.replace('lcb', 'run'))
      codes = sources
    else:
      self.action = harness.ACTIONS[mode]
    is_call = mode.endswith('function')
    self.args = (codes, entry_point) if is_call else (codes,)
    return done

  def build(self, limits, argv, files):
    """Runs a compiler; its report is the file `program` that it has made."""
    self.put_files(files)
    done = self.run(limits, (0, 0), child.run_binary, (argv,))
    done.report = b''
    if done.status == 0 and not done.stopped:
      with open(f'{self.scratch[0]}/program', 'rb') as f:
        done.report = f.read(limits['output'] + 1)
    return done

  def test(self, limits, sizes, argv, files, ends):
    """Runs the program on one test."""
    self.put_files(files)
    args = self.args
    if self.action is child.run_binary:
      args = ((*args[0], *argv),)
    elif argv:
      sys.argv[1:] = argv
      sys.path.insert(0, self.scratch[0])
    return self.run(limits, sizes, self.action, args, ends)


def preload(codes: tuple) -> None:
  """Imports the standard modules that the program imports at its top."""
  for name in _PRELOADED:
    if any(name in code.co_names for code in codes):
      try:
        __import__(name)
      except ImportError:
        pass  # No numpy here: the program will say so itself.


def answer(done: watch.Watch, is_dirty: bool) -> None:
  """Sends the host what the process did."""
  texts = done.report, done.output, done.tail
  numbers = (
      int(done.is_ready),
      -_signal.SIGKILL if done.status is None else done.status,
      int(done.cpu * 1e6),
      int(time.process_time() * 1e6),
      int((done.end - done.start) * 1e6),
      int(done.end * 1e6),
      int(done.waited * 1e6),
      done.peak,
      done.stopped,
      int(is_dirty),
      *map(len, texts),
  )
  head = b''.join(n.to_bytes(8, 'little', signed=True) for n in numbers)
  harness.write_all(1, head + b''.join(texts))


def main() -> None:
  """Serves requests until the host hangs up."""
  harden()
  cell = Cell()
  while True:
    size = int.from_bytes(read_exactly(8), 'little')
    kind, limits, rest = marshal.loads(read_exactly(size))
    done = getattr(cell, kind)(limits, *rest)
    if done is not None:
      answer(done, cell.is_dirty)


if __name__ == 'supervisor':
  main()
