"""Runs a program as LiveCodeBench's grader does; `lcb.py` compares.

This file runs inside the sandbox, in place of the functions of `harness.py`
with the same names. The program becomes a function behind a prelude, standard
input and output are objects in memory, and what passes by those is not seen.
Near to it only: there one process, and one `Solution()`, runs all tests.
"""

import ast
import builtins
import contextlib
import io
import marshal
import os
import signal
import sys
import types

import harness

_STARS = (
    'string re datetime collections heapq bisect copy math random statistics'
    ' itertools functools operator io sys json builtins typing'
).split()
_IMPORTS = ''.join(f'from {name} import *\n' for name in _STARS)
_IMPORTS += f'import {", ".join(_STARS[:-2])}\n'
_PRELUDE = f'{_IMPORTS}sys.setrecursionlimit(50000)\n'
_SECONDS = 6  # Of wall time, a test.
_TimeoutException = type('_TimeoutException', (Exception,), {})
exec(_IMPORTS, {})  # Here, before the fork: once, not at each test.


class _Stdin:
  """Standard input as it is there: `read` begins anew, no lines to iterate."""

  def __init__(self, text: str):
    data, self._lines = text.encode(), io.StringIO(text)
    self.read = lambda *unused: text
    self.readlines = lambda *unused: text.split('\n')
    self.buffer = types.SimpleNamespace(read=lambda *unused: data)
    self.buffer.readline = lambda *unused: data.split(b'\n')[0] + b'\n'

  def __getattr__(self, name: str):
    return getattr(self._lines, name)


def _as_function(source: str) -> str:
  """Imports behind the prelude, all else in a function, without a guard."""
  body = ast.parse(source).body
  guard = "__name__ == '__main__'"
  if isinstance(body[-1], ast.If) and ast.unparse(body[-1].test) == guard:
    body[-1:] = body[-1].body
  imports, others = ast.Module([], []), ast.parse('def wrapped_function(): 0')
  others.body[0].body = rest = []  # pyright: ignore[reportAttributeAccessIssue]
  for x in body:
    is_import = isinstance(x, (ast.Import, ast.ImportFrom))
    (imports.body if is_import else rest).append(x)
  return f'{_PRELUDE}\n{ast.unparse(imports)}\n{ast.unparse(others)}'


def _time_out(*unused_signal):
  raise _TimeoutException  # The program may catch it.


def _load(source: str):
  """Runs the module; returns it, or its `Solution()` if it speaks of one."""
  for name in 'kill system fork remove unlink rename getcwd chdir'.split():
    setattr(os, name, None)  # More are taken away there, but not used.
  sys.modules['resource'] = None  # pyright: ignore[reportArgumentType]
  builtins.quit = builtins.help = None
  sys.set_int_max_str_digits(50000)
  signal.signal(signal.SIGALRM, _time_out)
  signal.alarm(_SECONDS)
  module = type(sys)('tmp_sol', '')
  exec(compile(source, harness.PATH, 'exec'), module.__dict__)
  return module.Solution() if 'class Solution' in source else module


def _fail(e: BaseException) -> None:
  if 'timeoutexception' in repr(e).lower():
    harness.write_all(harness.REPORT, b'time')
  harness._print_exception(e)
  os._exit(1)


def run_stdin(sources: tuple[str, ...]) -> None:
  """Runs the program; what it has printed comes out at the end."""
  text = io.FileIO(0, closefd=False).readall().decode()
  output = os.dup(1)
  for fd in (0, 1):
    os.dup2(os.open('/dev/null', os.O_RDWR), fd)
  printed, lines = io.StringIO(), iter(text.split('\n'))
  try:
    method = _load(_as_function(sources[-1])).wrapped_function
    # This object is what `from sys import stdin` has found; the next is new.
    sys.stdin.read = lambda *unused: text
    sys.stdin.readlines = lambda *unused: text.split('\n')
    sys.stdin.readline = lambda *unused: next(lines)
    sys.stdin, sys.stdout = _Stdin(text), printed
    builtins.open = lambda *unused, **unused_options: io.StringIO(text)
    method()
  except SystemExit:
    pass
  except BaseException as e:  # noqa: BLE001
    _fail(e)
  with io.BufferedWriter(io.FileIO(output, 'w')) as f:
    f.write(printed.getvalue().encode('utf-8', 'surrogatepass'))
  os._exit(0)


def run_function(sources: tuple[str, ...], entry_point: str) -> None:
  """Calls the entry point; reports b'value' + JSON, tagged by `_tag`."""
  try:
    call = getattr(_load(f'{_PRELUDE}\n\n{sources[-1]}'), entry_point)
    value = call(*marshal.loads(harness._read_input()))
    tagged = _tag(list(value) if isinstance(value, tuple) else value)
    harness.write_all(harness.REPORT, b'value' + harness._to_json(tagged))
  except BaseException as e:  # noqa: BLE001
    _fail(e)
  os._exit(0)


def _tag(value):
  """Marks what == tells apart and JSON does not: keys, tuples, other types."""
  with contextlib.suppress(Exception):  # Of an `__eq__` of its own.
    if value == object():
      return {'other': True}  # It equals anything.
    if value is None or isinstance(value, (str, int, float)):
      return value
    if isinstance(value, list):
      return [_tag(item) for item in value]
    if isinstance(value, dict):
      return {'dict': [[_tag(k), _tag(v)] for k, v in value.items()]}
    for kind in (int, float):  # A fraction, or a number of numpy.
      if value == kind(value):
        return kind(value)
  return {'other': False}
