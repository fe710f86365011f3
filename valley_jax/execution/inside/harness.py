"""What the process of one test does: it limits itself and runs a program as Python itself would.

This file runs inside the sandbox, in the child that `supervisor.py` forks for a test; it imports
nothing of valley_jax. Descriptors may be open beside 0, 1 and 2: the test's private input, its
report, and the binary. What is written into the report is believed only to the program's
disadvantage, or where a value is compared outside, or where it is the test's nonce (see
`run_assert`).
"""

import _ctypes
import _json
import _signal  # pyright: ignore[reportMissingImports]
import atexit
import errno
import gc
import io
import marshal
import os
import resource
import sys

INPUT, REPORT, PROGRAM = 3, 4, 5  # Private descriptors: open files without a name.
NONCE_BYTES = 16
PATH = '/tmp/solution.py'  # The program's name in tracebacks.
file_path = PATH  # Where its file is; `supervisor.py` sets it in T2.
# Names that can make a file object of standard output other than `sys.stdout`.
_WRITERS = {'fdopen', 'open', 'TextIOWrapper', 'BufferedWriter', 'FileIO'}
_CO_GENERATOR = 0x20  # Flag of a generator's code, whose `finally` may run late.
_PR_SET_DUMPABLE = 4


def set_dumpable(value: int) -> None:
  """Lets processes of the same user look into this one (1) or not (0)."""
  library = _ctypes.dlopen(None, 0)  # pyright: ignore[reportArgumentType]
  prctl = _ctypes.dlsym(library, 'prctl')
  if _ctypes.call_function(prctl, (_PR_SET_DUMPABLE, value, 0, 0, 0)) != 0:
    raise OSError('prctl(PR_SET_DUMPABLE) failed.')


def set_kernel_limits(limits: dict, is_binary: bool) -> None:
  """Sets the limits that the kernel itself enforces.

  The stack is part of the memory. Only its soft limit is set, since templates call
  `setrlimit(RLIMIT_STACK, ...)` with any hard one. Python keeps its frames elsewhere, and reserves
  the soft limit for each of its threads.
  """
  cpu = limits['cpu_us'] // 1_000_000 + 2  # In whole seconds: the monitor is the exact one.
  stack = limits['memory_bytes'] if is_binary else min(limits['memory_bytes'], 256 << 20)
  for name, value in (
      (resource.RLIMIT_CPU, cpu),
      # Address space is not memory: the stacks of threads, and numpy, reserve plenty of it.
      (resource.RLIMIT_AS, 2 * limits['memory_bytes'] + 4 * stack + (512 << 20)),
      (resource.RLIMIT_FSIZE, limits['output_bytes'] + 1),
      (resource.RLIMIT_STACK, stack),
      (resource.RLIMIT_NPROC, limits['max_processes']),
      # Where no cgroup counts it, a descriptor is kernel memory that nobody sees.
      (resource.RLIMIT_NOFILE, 64 if limits['sum_memory'] else 256),
      (resource.RLIMIT_CORE, 0),
      (resource.RLIMIT_MEMLOCK, 0),
  ):
    hard = resource.getrlimit(name)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(name, (value, hard if name == resource.RLIMIT_STACK else value))


def run_binary(argv: tuple[str, ...]) -> None:
  """Becomes the program of descriptor PROGRAM, or the command that argv[0] names."""
  for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them.
    _signal.signal(number, _signal.SIG_DFL)
  try:
    os.execve(argv[0] if argv[0][0] == '/' else PROGRAM, argv, os.environ)
  except OSError as e:
    os.write(2, f'The program cannot be started: {e}'.encode())
    if e.errno in (errno.EACCES, errno.EPERM):
      raise  # Our own walls did it, so it is our failure.
    os._exit(126)


def open_standard_streams() -> None:
  """Gives the program new stdin, stdout and stderr over 0, 1 and 2."""

  def open_text(fd: int, name: str, mode: str, errors: str):
    raw = io.FileIO(fd, mode, closefd=False)
    raw.name = f'<{name}>'
    buffered = (io.BufferedReader if mode == 'r' else io.BufferedWriter)(raw)
    is_stderr = name == 'stderr'
    stream = io.TextIOWrapper(buffered, 'utf-8', errors, '\n', is_stderr)
    setattr(stream, 'mode', mode)  # noqa: B010  Programs ask for it.
    setattr(sys, name, stream)
    setattr(sys, f'__{name}__', stream)

  open_text(0, 'stdin', 'r', 'surrogateescape')
  open_text(1, 'stdout', 'w', 'surrogateescape')
  open_text(2, 'stderr', 'w', 'backslashreplace')


def compile_sources(sources: tuple[str, ...]) -> None:
  """Compiles each source; reports b'code' and the code objects, or b'error' and the reason.

  This runs in a child of its own, since a parser can be made to exhaust any limit. No line of the
  program is executed here, which is why the supervisor may trust the report.
  """
  try:
    codes = tuple(
        compile(source.removeprefix('\ufeff'), PATH, 'exec', dont_inherit=True)
        for source in sources
    )
    report = b'code' + marshal.dumps(codes)
  except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as e:
    message = f'{type(e).__name__}: {e}'
    report = b'error' + message.encode('utf-8', 'backslashreplace')
  write_all(REPORT, report)
  os._exit(0)  # Any other status means that the report may be incomplete.


def write_all(fd: int, data: bytes) -> None:
  """Writes all of the data."""
  view = memoryview(data)
  while view:
    view = view[os.write(fd, view) :]


def _make_module(name: str) -> dict:
  """Makes an empty module as `python solution.py` has it; returns its namespace."""
  module = type(sys)(name)
  module.__builtins__ = sys.modules['builtins']
  module.__file__ = file_path
  sys.modules[name] = module
  return module.__dict__


def print_exception(e: BaseException) -> None:
  """Prints a traceback without the frames that are ours."""
  traceback = e.__traceback__
  while traceback and traceback.tb_frame.f_code.co_filename != PATH:
    traceback = traceback.tb_next
  try:
    sys.excepthook(type(e), e.with_traceback(traceback), traceback)
  except BaseException:  # noqa: BLE001
    pass  # The program's own hook, or a closed stderr: it has failed anyway.


def _report_exception(e: BaseException) -> int:
  """Prints an uncaught exception as Python does; returns the exit status."""
  if not isinstance(e, SystemExit):
    if isinstance(e, MemoryError):
      write_all(REPORT, b'memory')
    print_exception(e)
    return 1
  if e.code is None:
    return 0
  if isinstance(e.code, int):
    return e.code & 0xFF if -(2**63) <= e.code < 2**63 else 0xFF
  print(e.code, file=sys.stderr)
  return 1


def _may_write_late(code) -> bool:
  """Returns whether a program may write when its objects are destroyed."""
  if code.co_flags & _CO_GENERATOR or not _WRITERS.isdisjoint(code.co_names):
    return True
  inner = (c for c in code.co_consts if isinstance(c, type(code)))
  return code.co_name == '__del__' or any(map(_may_write_late, inner))


def _flush_stream(name: str) -> None:
  stream = getattr(sys, name, None)  # The program may have deleted it.
  if stream is not None and not stream.closed:
    stream.flush()


def end_process(status: int, code=None, namespace: dict | None = None) -> None:
  """Ends as the interpreter does, but destroys objects only where the program can notice it."""
  try:
    if 'threading' in sys.modules:
      sys.modules['threading']._shutdown()  # Joins non-daemon threads.
    atexit._run_exitfuncs()
  except BaseException as e:  # noqa: BLE001
    status = _report_exception(e) or status
  try:
    _flush_stream('stdout')
    if namespace is not None and _may_write_late(code):
      sys.stdout = getattr(sys, '__stdout__', None)
      namespace.clear()
      gc.collect()
    _flush_stream('__stdout__')
  except BaseException:  # noqa: BLE001
    status = status or 120  # As CPython: the output could not be written.
  os._exit(status)


def run_stdin(codes: tuple) -> None:
  """Runs the program as `__main__`."""
  namespace = _make_module('__main__')
  try:
    exec(codes[0], namespace)
    status = 0
  except BaseException as e:  # noqa: BLE001
    status = _report_exception(e)
  end_process(status, codes[0], namespace)


def _find_entry_point(namespace: dict, entry_point: str):
  """Returns the function, or the method of a fresh `Solution`."""
  solution = namespace.get('Solution')
  if isinstance(solution, type) and hasattr(solution, entry_point):
    return getattr(solution(), entry_point)
  if entry_point not in namespace:
    raise NameError(f'the program defines no {entry_point!r}')
  return namespace[entry_point]


def encode_json(value: object) -> bytes:
  """Returns a value as JSON, numpy's numbers as numbers; raises a TypeError for other types."""
  # The C encoder itself: the json package would cost 10 ms of imports.
  encode = _json.make_encoder(
      {}, _convert_number, _json.encode_basestring_ascii, None, ': ', ', ', False, False, True
  )
  return ''.join(encode(value, 0)).encode()


def _convert_number(value: object):
  if type(value).__module__ == 'numpy' and getattr(value, 'shape', None) == ():
    return value.item()  # pyright: ignore  A number of numpy's is its value.
  raise TypeError(f'{type(value).__name__} is no JSON type')


def run_function(codes: tuple, entry_point: str) -> None:
  """Calls the entry point; reports b'value' and JSON, or b'type' and the reason."""
  try:
    namespace = _make_module('solution')
    for code in codes:  # The starter code, if there is any, and the submission.
      exec(code, namespace)
    call = _find_entry_point(namespace, entry_point)
    value = call(*marshal.loads(read_input()))
  except BaseException as e:  # noqa: BLE001
    _exit_without_value(e)
  try:
    report = b'value' + encode_json(value)
  except (TypeError, ValueError, RecursionError) as e:
    report = b'type' + str(e).encode('utf-8', 'backslashreplace')
  write_all(REPORT, report)
  os._exit(0)  # Without a flush: its standard output is not judged.


def _exit_without_value(e: BaseException) -> None:
  """Exits with an error, even where the program asked to exit with 0."""
  status = _report_exception(e)
  if isinstance(e, SystemExit):
    print(f'exited with {status} before it returned', file=sys.stderr)
  os._exit(status or 1)


def read_input(num_unread: int = 0) -> bytes:
  """Reads the private input but for its last bytes."""
  size = os.fstat(INPUT).st_size - num_unread
  data = b''
  while len(data) < size:
    data += os.read(INPUT, size - len(data))
  return data


def _copy_builtins() -> dict:
  """Returns builtins that no submission can replace; they import a copy of `math`."""
  import math

  builtins = {**vars(sys.modules['builtins'])}
  import_module, copy = builtins['__import__'], type(sys)('math')
  copy.__dict__.update(vars(math))
  builtins['__import__'] = (
      lambda name, *args: copy if name == 'math' else import_module(name, *args)
  )
  return builtins


def run_assert(codes: tuple, entry_point: str, build_namespace) -> None:
  """Runs starter code and submission, and the test code in a namespace of its own.

  The test has passed only if its nonce comes back in the report. The nonce stays unread in the
  input, in no frame and no object, until the last assert has passed: neither `sys.exit(0)` nor a
  search through memory finds it. Functions called after the submission were bound before it, and
  no exception leads to the last lines, so that patching modules changes nothing. The test code
  sees plain values only (see `plain_values.py`), and starter code and builtins as they were before
  the submission. (A program written against this very file can still rewrite these locals; where
  that matters mode function is the one to use, whose values are compared outside.)
  """
  run, build, read, write = exec, compile, os.read, os.write
  read_start, fail, exit_now = read_input, _exit_without_value, os._exit
  assertion = AssertionError
  provided = {'__name__': 'test', '__builtins__': _copy_builtins()}
  is_testing = False
  try:
    for code in codes[:-1]:
      run(code, provided)
    namespace = _make_module('solution')
    for code in codes:
      run(code, namespace)
    test_code = build(read_start(NONCE_BYTES), '<test>', 'exec')
    is_testing = True
    run(test_code, build_namespace(namespace, provided, entry_point))
  except BaseException as e:  # noqa: BLE001
    if is_testing and isinstance(e, assertion):
      write(REPORT, b'assert')
    fail(e)
  else:
    write(REPORT, read(INPUT, NONCE_BYTES))
    exit_now(0)


ACTIONS = {
    'stdin': run_stdin,
    'interactive': run_stdin,
    'function': run_function,
    'assert': run_assert,
}
