"""Runs a program as LiveCodeBench's grader does; `verdicts.py` compares.

This file runs inside the sandbox; its functions replace those of `harness.py` with similar names.
The program becomes a function after a prelude, standard input and output are objects in memory,
and output that bypasses them is lost. Close to the grader, not equal: there one process, and one
`Solution()`, runs all tests.
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

_STAR_IMPORTS = (
    'string re datetime collections heapq bisect copy math random statistics'
    ' itertools functools operator io sys json builtins typing'
).split()
_IMPORTS = ''.join(f'from {name} import *\n' for name in _STAR_IMPORTS)
_IMPORTS += f'import {", ".join(_STAR_IMPORTS[:-2])}\n'
_PRELUDE = f'{_IMPORTS}sys.setrecursionlimit(50000)\n'
_SECONDS = 6  # Wall time of a test.
_TimeoutException = type('_TimeoutException', (Exception,), {})
exec(_IMPORTS, {})  # Before the fork: once, not at each test.


class _Stdin:
  """Standard input as it is there: `read` always starts at the beginning, no iteration."""

  def __init__(self, text: str):
    data, self._lines = text.encode(), io.StringIO(text)
    self.read = lambda *unused: text
    self.readlines = lambda *unused: text.split('\n')
    self.buffer = types.SimpleNamespace(read=lambda *unused: data)
    self.buffer.readline = lambda *unused: data.split(b'\n')[0] + b'\n'

  def __getattr__(self, name: str):
    return getattr(self._lines, name)


def _wrap_in_function(source: str) -> str:
  """Puts imports after the prelude, the rest into a function, without its main guard."""
  body = ast.parse(source).body
  guard = "__name__ == '__main__'"
  if isinstance(body[-1], ast.If) and ast.unparse(body[-1].test) == guard:
    body[-1:] = body[-1].body
  imports, others = ast.Module([], []), ast.parse('def wrapped_function(): 0')
  others.body[0].body = rest = []  # pyright: ignore[reportAttributeAccessIssue]
  for statement in body:
    is_import = isinstance(statement, (ast.Import, ast.ImportFrom))
    (imports.body if is_import else rest).append(statement)
  return f'{_PRELUDE}\n{ast.unparse(imports)}\n{ast.unparse(others)}'


def _raise_timeout(*unused_signal):
  raise _TimeoutException  # The program may catch it.


def _load_module(source: str):
  """Runs the module; returns it, or its `Solution()` if its text contains one."""
  for name in 'kill system fork remove unlink rename getcwd chdir'.split():
    setattr(os, name, None)  # The grader removes more; programs do not use those.
  sys.modules['resource'] = None  # pyright: ignore[reportArgumentType]
  builtins.quit = builtins.help = None
  sys.set_int_max_str_digits(50000)
  signal.signal(signal.SIGALRM, _raise_timeout)
  signal.alarm(_SECONDS)
  module = type(sys)('tmp_sol', '')
  exec(compile(source, harness.PATH, 'exec'), module.__dict__)
  return module.Solution() if 'class Solution' in source else module


def _exit_with_error(e: BaseException) -> None:
  if 'timeoutexception' in repr(e).lower():
    harness.write_all(harness.REPORT, b'time')
  harness.print_exception(e)
  os._exit(1)


def run_stdin(sources: tuple[str, ...]) -> None:
  """Runs the program; its output is written when it has ended."""
  text = io.FileIO(0, closefd=False).readall().decode()
  output = os.dup(1)
  for fd in (0, 1):
    os.dup2(os.open('/dev/null', os.O_RDWR), fd)
  printed, lines = io.StringIO(), iter(text.split('\n'))
  try:
    method = _load_module(_wrap_in_function(sources[-1])).wrapped_function
    # `from sys import stdin` gave the program this object; `sys.stdin` becomes another one.
    sys.stdin.read = lambda *unused: text
    sys.stdin.readlines = lambda *unused: text.split('\n')
    sys.stdin.readline = lambda *unused: next(lines)
    sys.stdin, sys.stdout = _Stdin(text), printed
    builtins.open = lambda *unused, **unused_options: io.StringIO(text)
    method()
  except SystemExit:
    pass
  except BaseException as e:  # noqa: BLE001
    _exit_with_error(e)
  with io.BufferedWriter(io.FileIO(output, 'w')) as f:
    f.write(printed.getvalue().encode('utf-8', 'surrogatepass'))
  os._exit(0)


def run_function(sources: tuple[str, ...], entry_point: str) -> None:
  """Calls the entry point; reports b'value' and JSON, tagged by `_tag_value`."""
  try:
    call = getattr(_load_module(f'{_PRELUDE}\n\n{sources[-1]}'), entry_point)
    value = call(*marshal.loads(harness.read_input()))
    tagged = _tag_value(list(value) if isinstance(value, tuple) else value)
    harness.write_all(harness.REPORT, b'value' + harness.encode_json(tagged))
  except BaseException as e:  # noqa: BLE001
    _exit_with_error(e)
  os._exit(0)


def _tag_value(value):
  """Marks what == distinguishes and JSON does not: keys, tuples, other types."""
  with contextlib.suppress(Exception):  # The value may have an `__eq__` of its own.
    if value == object():
      return {'other': True}  # It equals anything.
    if value is None or isinstance(value, (str, int, float)):
      return value
    if isinstance(value, list):
      return [_tag_value(item) for item in value]
    if isinstance(value, dict):
      return {'dict': [[_tag_value(k), _tag_value(v)] for k, v in value.items()]}
    for kind in (int, float):  # A fraction, or a number from numpy.
      if value == kind(value):
        return kind(value)
  return {'other': False}
