"""What the process of one test does: runs a program as Python itself would.

This file runs inside the sandbox, in the child that `supervisor.py` forks for
a test; it imports nothing of valley_jax. Three descriptors may be open beside
0, 1 and 2: the test's private input and its report. What is written into the
report is believed only to the program's disadvantage, or where a value is
compared outside, or where it is the test's nonce (see `run_assert`).
"""

import _json
import atexit
import gc
import io
import marshal
import os
import sys

INPUT, REPORT = 3, 4  # Private descriptors; open files without a name.
NONCE_BYTES = 16
# What makes another file object of standard output than `sys.stdout`.
_WRITERS = {'fdopen', 'open', 'TextIOWrapper', 'BufferedWriter', 'FileIO'}
_GENERATOR = 0x20  # CO_GENERATOR: it may be left within `try`.
PATH = '/tmp/solution.py'  # What tracebacks call the program.


def open_standard_streams() -> None:
  """Gives the program new stdin, stdout and stderr over 0, 1 and 2."""

  def text(fd: int, name: str, mode: str, errors: str):
    raw = io.FileIO(fd, mode, closefd=False)
    raw.name = f'<{name}>'
    buffered = (io.BufferedReader if mode == 'r' else io.BufferedWriter)(raw)
    is_stderr = name == 'stderr'
    stream = io.TextIOWrapper(buffered, 'utf-8', errors, '\n', is_stderr)
    setattr(stream, 'mode', mode)  # noqa: B010  Programs ask for it.
    setattr(sys, name, stream)
    setattr(sys, f'__{name}__', stream)

  text(0, 'stdin', 'r', 'surrogateescape')
  text(1, 'stdout', 'w', 'surrogateescape')
  text(2, 'stderr', 'w', 'backslashreplace')


def compile_sources(sources: tuple[str, ...]) -> None:
  """Compiles each source and reports b'code' + them, or b'error' + why.

  It runs in a child of its own, since a parser can be made to exhaust any
  limit. No line of the program is executed here, which is why the supervisor
  may trust the report.
  """
  try:
    codes = tuple(
        compile(source.removeprefix('\ufeff'), PATH, 'exec', dont_inherit=True)
        for source in sources
    )
    report = b'code' + marshal.dumps(codes)
  except (
      SyntaxError, ValueError, RecursionError, MemoryError, OverflowError,
  ) as e:  # fmt: skip
    message = f'{type(e).__name__}: {e}'
    report = b'error' + message.encode('utf-8', 'backslashreplace')
  write_all(REPORT, report)
  os._exit(0)  # Only now is it whole.


def write_all(fd: int, data: bytes) -> None:
  """Writes everything."""
  view = memoryview(data)
  while view:
    view = view[os.write(fd, view) :]


def _module(name: str) -> dict:
  """Makes an empty module the way `python solution.py` has it."""
  module = type(sys)(name)
  module.__builtins__ = sys.modules['builtins']
  module.__file__ = PATH
  sys.modules[name] = module
  return module.__dict__


def _print_exception(e: BaseException) -> None:
  """Prints a traceback without the frames that are ours."""
  traceback = e.__traceback__
  while traceback and traceback.tb_frame.f_code.co_filename != PATH:
    traceback = traceback.tb_next
  try:
    sys.excepthook(type(e), e.with_traceback(traceback), traceback)
  except BaseException:  # noqa: BLE001
    pass  # The program's own hook, or a closed stderr: it has failed anyway.


def _exit_status(e: BaseException) -> int:
  """Returns the exit status that Python gives for an uncaught exception."""
  if not isinstance(e, SystemExit):
    if isinstance(e, MemoryError):
      write_all(REPORT, b'memory')
    _print_exception(e)
    return 1
  if e.code is None:
    return 0
  if isinstance(e.code, int):
    return e.code & 0xFF if -(2**63) <= e.code < 2**63 else 0xFF
  print(e.code, file=sys.stderr)
  return 1


def _has_last_words(code) -> bool:
  """Whether a program may write when its objects are torn down."""
  if code.co_flags & _GENERATOR or not _WRITERS.isdisjoint(code.co_names):
    return True
  inner = (c for c in code.co_consts if isinstance(c, type(code)))
  return code.co_name == '__del__' or any(map(_has_last_words, inner))


def _flush(name: str) -> None:
  stream = getattr(sys, name, None)  # The program may have deleted it.
  if stream is not None and not stream.closed:
    stream.flush()


def leave(status: int, code=None, namespace: dict | None = None) -> None:
  """Ends as the interpreter does, but tears down only where it can be seen."""
  try:
    if 'threading' in sys.modules:
      sys.modules['threading']._shutdown()  # Joins non-daemon threads.
    atexit._run_exitfuncs()
  except BaseException as e:  # noqa: BLE001
    status = _exit_status(e) or status
  try:
    _flush('stdout')
    if namespace is not None and _has_last_words(code):
      sys.stdout = getattr(sys, '__stdout__', None)
      namespace.clear()
      gc.collect()
    _flush('__stdout__')
  except BaseException:  # noqa: BLE001
    status = status or 120  # As CPython: the output could not be written.
  os._exit(status)


def run_stdin(codes: tuple) -> None:
  """Runs the program as `__main__`."""
  namespace = _module('__main__')
  try:
    exec(codes[0], namespace)
    status = 0
  except BaseException as e:  # noqa: BLE001
    status = _exit_status(e)
  leave(status, codes[0], namespace)


def _find(namespace: dict, entry_point: str):
  """Returns the function, or the method of a fresh `Solution`."""
  solution = namespace.get('Solution')
  if isinstance(solution, type) and hasattr(solution, entry_point):
    return getattr(solution(), entry_point)
  if entry_point not in namespace:
    raise NameError(f'the program defines no {entry_point!r}')
  return namespace[entry_point]


def _to_json(value: object) -> bytes:
  # The C encoder itself: the json package would cost 10 ms of imports.
  encode = _json.make_encoder(
      {}, _refuse, _json.encode_basestring_ascii, None, ': ', ', ', False,
      False, True,
  )  # fmt: skip
  return ''.join(encode(value, 0)).encode()


def _refuse(value: object):
  raise TypeError(f'{type(value).__name__} is no JSON type')


def run_function(codes: tuple, entry_point: str) -> None:
  """Calls the entry point; reports b'value' + JSON, or b'type' + why not."""
  try:
    namespace = _module('solution')
    for code in codes:  # What the judge provides, and the submission.
      exec(code, namespace)
    call = _find(namespace, entry_point)
    value = call(*marshal.loads(_read_input()))
  except BaseException as e:  # noqa: BLE001
    _leave_without_value(e)
  try:
    report = b'value' + _to_json(value)
  except (TypeError, ValueError, RecursionError) as e:
    report = b'type' + str(e).encode('utf-8', 'backslashreplace')
  write_all(REPORT, report)
  os._exit(0)  # What it printed is not looked at.


def _leave_without_value(e: BaseException) -> None:
  """Exits with an error, even where the program asked to exit with 0."""
  status = _exit_status(e)
  if isinstance(e, SystemExit):
    print(f'exited with {status} before it returned', file=sys.stderr)
  os._exit(status or 1)


def _read_input(num_kept_back: int = 0) -> bytes:
  size = os.fstat(INPUT).st_size - num_kept_back
  data = b''
  while len(data) < size:
    data += os.read(INPUT, size - len(data))
  return data


def run_assert(codes: tuple) -> None:
  """Runs starter code, submission and test code in one namespace.

  The test has passed only if its nonce comes back in the report. The nonce
  stays unread in the input, in no frame and no object, until the last assert
  is behind us: neither `sys.exit(0)` nor a search through memory finds it.
  What runs after the submission was bound before it, and an exception has no
  way to the last lines, so that patching modules changes nothing. (A program
  written against this very file can still rewrite these locals; what must
  stand against that is tested in mode function, where we compare outside.)
  """
  run, build, read, write = exec, compile, os.read, os.write
  read_input, fail, leave_now = _read_input, _leave_without_value, os._exit
  assertion = AssertionError
  namespace = _module('solution')
  is_testing = False
  try:
    for code in codes:
      run(code, namespace)
    test_code = build(read_input(NONCE_BYTES), '<test>', 'exec')
    is_testing = True
    run(test_code, namespace)
  except BaseException as e:  # noqa: BLE001
    if is_testing and isinstance(e, assertion):
      write(REPORT, b'assert')
    fail(e)
  else:
    write(REPORT, read(INPUT, NONCE_BYTES))
    leave_now(0)


ACTIONS = {
    'stdin': run_stdin,
    'interactive': run_stdin,
    'function': run_function,
    'assert': run_assert,
}
