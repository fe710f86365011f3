"""The profile lcb_compat decides as LiveCodeBench's grader does."""

import json
import marshal
import os
import pathlib
import subprocess
import sys

import pytest

from tests import rows
from valley_jax.execution import checkers
from valley_jax.execution import verdicts

INSIDE = pathlib.Path(verdicts.__file__).parent / 'inside'
BOOT = """
import os, sys
os.dup2(int(sys.argv[1]), 3), os.dup2(int(sys.argv[2]), 4)
import harness, lcb_inside
lcb_inside._SECONDS = int(sys.argv[5])
harness.open_standard_streams()
del sys.modules['harness']
getattr(lcb_inside, sys.argv[3])(*eval(sys.argv[4]))
"""


def run_inside(name, args, stdin='', private=b''):
  """Runs a function of lcb_inside; returns exit status, stdout and report.

  What sleeps or loops is interrupted after a second; the others have a minute.
  """
  source = args[0][0]
  seconds = 1 if 'sleep' in source or 'while' in source else 60
  given, report = os.memfd_create('given'), os.memfd_create('report')
  os.write(given, private)
  os.lseek(given, 0, os.SEEK_SET)
  ended = subprocess.run(
      [sys.executable, '-c', BOOT, str(given), str(report), name, repr(args),
       str(seconds)],
      input=stdin.encode(), capture_output=True, cwd=INSIDE, timeout=60,
      pass_fds=(given, report),
  )  # fmt: skip
  reported = os.pread(report, 1 << 20, 0)
  os.close(given), os.close(report)
  assert b'lcb_inside' not in ended.stderr.split(b'Traceback')[0]
  return ended.returncode, ended.stdout, reported


def run_printing(source, stdin='2\n3 4\nend'):
  """Returns what a program prints in that profile; None if it fails."""
  status, printed, _ = run_inside('run_stdin', ((source,),), stdin)
  return None if status else printed.decode()


def run_returning(source, expected, given=()):
  """Returns whether the function's value is accepted; None if it fails."""
  status, _, report = run_inside(
      'run_function', ((source,), 'f'), private=marshal.dumps(list(given))
  )
  if status:
    return None
  return verdicts.equal_lcb_values(expected, report.removeprefix(b'value'))


@pytest.mark.parametrize(
    'expected, printed',
    [('3', '3.0'), ('1000', '1_000'), ('1 2.50', '1.0  2.5'), ('', '\n'),
     ('a b', ' a b \n'), ('a\nb', '\n a\r\n b'), ('1e2', '100'), ('1', '１'),
     ('1', '\xa01\u3000'), ('nan', 'nan'), ('1' * 5000, '1' * 5000 + '.0')],
)  # fmt: skip
def test_rows_of_numbers_are_decimals(expected, printed):
  assert verdicts.equal_lcb_outputs(expected.encode(), printed.encode())


@pytest.mark.parametrize(
    'expected, printed',
    [('0.3', repr(0.1 + 0.2)), ('a b', 'a  b'), ('1\n2', '1 2'), ('1', ''),
     ('1\n2', '1'), ('1', '1\n2'), ('yes', 'Yes'), ('1', 'True'),
     ('a 1', 'a 1.0'), ('nan 1', 'nan 1.0'), ('snan', '1'), ('1', '1 1'),
     ('1', '1e999999999'), ('1', '1e' + '9' * 1000), ('1', '0x1')],
)  # fmt: skip
def test_nothing_else_is_equal(expected, printed):
  assert not verdicts.equal_lcb_outputs(expected.encode(), printed.encode())


def test_outputs_that_are_no_text_are_wrong():
  assert not verdicts.equal_lcb_outputs(b'1', b'1\xff')
  assert not verdicts.equal_lcb_outputs(b'1', b'\xed\xa0\x80')


@pytest.mark.parametrize(
    'expected, returned',
    [('1', 'true'), ('1', '1.0'), ('true', '1'), ('[1]', '[true]'),
     ('{"a": 1}', '{"dict": [["a", 1.0]]}'), ('[1]', '[{"other": true}]'),
     ('1' * 5000, '1' * 5000), ('0.0', '-0.0')],
)  # fmt: skip
def test_values_are_equal_as_in_python(expected, returned):
  assert verdicts.equal_lcb_values(expected, returned.encode())


@pytest.mark.parametrize(
    'expected, returned',
    [('0.3', repr(0.1 + 0.2)), ('[[1]]', '[{"other": false}]'), ('1', '"1"'),
     ('NaN', 'NaN'), ('{"1": 2}', '{"dict": [[1, 2]]}'), ('1', '{"a": 1}'),
     ('{}', '{"dict": [[[], 1]]}'), ('{}', '{"dict": 1}'), ('1' * 5000, '1')],
)  # fmt: skip
def test_other_values_are_not(expected, returned):
  assert not verdicts.equal_lcb_values(expected, returned.encode())


def test_what_is_no_report_is_an_error():
  for report in (b'[', b'\xff', b'[' * 100_000):
    with pytest.raises(ValueError):
      verdicts.equal_lcb_values('1', report)


@pytest.mark.parametrize(
    'source',
    ['n = input()\nprint(sum(map(int, input().split())))\nprint(input())',
     'import sys\nr = sys.stdin.read().split()\nprint(7, r[-1], sep="\\n")',
     'import sys\nr = sys.stdin.buffer.read().split()\nprint(7)\nprint("end")',
     'from sys import stdin\nstdin.readline()\n'
     'print(sum(map(int, stdin.readline().split())))\nprint(stdin.readline())',
     'from sys import stdin\nprint(7, stdin.readlines()[2], sep="\\n")',
     'def main():\n  print(7)\n  print("end")\n'
     'if __name__ == "__main__":\n  main()',
     'print(7)\nprint("end")\nexit()', 'print(7)\nprint("end")\nexit(3)',
     'print(len(str(10**5000)) - 4994)\nprint("end")',
     'print(Counter("aaaaaaa")["a"])\nprint("end")',
     'import os\nprint(7)\nprint("end")\nos.write(1, b"lost")',
     'import atexit\natexit.register(print, "lost")\nprint(7)\nprint("end")',
     'import threading\nt = threading.Thread(target=print, args=(7,))\n'
     't.start()\nt.join()\nprint("end")',
     'import signal, time\nsignal.alarm(0)\ntime.sleep(1.1)\n'
     'print(7)\nprint("end")',
     'import time\ntry:\n  time.sleep(9)\nexcept Exception:\n  pass\n'
     'print(7)\nprint("end")'],
)  # fmt: skip
def test_programs_that_it_accepts(source):
  assert run_printing(source).split() == ['7', 'end']


@pytest.mark.parametrize(
    'source',
    ['import sys\nfor line in sys.stdin:\n  print(line)',
     'import sys\nsys.stdout.buffer.write(b"7")',
     'import sys\nsys.stdin.fileno()', 'quit()', 'print(1)\nquit()',
     'n = 0\ndef f():\n  global n\n  n += 1\nf()',
     'print(sum([1]))\nsum = 3', 'class Solution:\n  pass\nprint(7)',
     'from __future__ import annotations\nprint(7)', '# nothing',
     'try:\n  from math import *\nexcept ImportError:\n  pass\nprint(7)',
     'import resource\nprint(7)', 'import os\nos.system("ls")',
     'import sys\nsys.stdin.buffer.readlines()', 'raise KeyboardInterrupt',
     'import sys\nsys.stdout.close()', 'import math', 'print(10**60000)'],
)  # fmt: skip
def test_programs_that_fail_there(source):
  assert run_printing(source) is None


@pytest.mark.parametrize(
    'source, printed',
    [('import os\nos.write(1, b"7")', ''),
     ('from sys import stdout\nstdout.write("7")', ''),
     ('print(open(0).read())', '\n'),
     ('import os\nprint(os.read(0, 9))', "b''\n"),
     ('import os\nprint(7, flush=True)\nos._exit(0)', ''),
     ('if "__main__" == __name__:\n  print(7)', ''),
     ('if __name__ == "__main__":\n  print(7)\nprint(8)', '8\n'),
     ('import sys\ninput()\nprint(sys.stdin.read())', '2\n3 4\nend\n'),
     ('import sys\nb = sys.stdin.buffer\nprint(b.readline() == b.readline())',
      'True\n'),
     ('import sys\nprint(sys.stdin.readlines())', "['2', '3 4', 'end']\n"),
     ('import builtins\nprint(builtins.open("any").read())', '2\n3 4\nend\n'),
     ('import threading, time\ndef f():\n  time.sleep(9)\n  print(7)\n'
      'threading.Thread(target=f).start()', '')],
)  # fmt: skip
def test_what_passes_by_its_streams_is_not_seen(source, printed):
  assert run_printing(source) == printed


def test_its_alarm_is_reported():
  source = 'import time\ntime.sleep(9)'
  status, printed, report = run_inside('run_stdin', ((source,),))
  assert (status, printed, report) == (1, b'', b'time')
  source = 'while True: pass'
  assert run_inside('run_function', ((source,), 'f'))[2] == b'time'


@pytest.mark.parametrize(
    'source, expected, verdict',
    [('def f(a, b): return a + b', '3', True),
     ('class Solution:\n  def f(self, a, b): return a + b', '3', True),
     ('def f(a: List[int], b): return Counter([a])[a]', '1', True),
     ('def f(a, b): return a, b', '[1, 2]', True),
     ('def f(a, b): return [(a, b)]', '[[1, 2]]', False),
     ('def f(a, b): return {a: b}', '{"1": 2}', False),
     ('def f(a, b): return {"1": b}', '{"1": 2}', True),
     ('def f(a, b): return a == 1', '1', True),
     ('def f(a, b): return .1 + .2', '0.3', False),
     ('def f(a, b): return {a, b}', '[1, 2]', False),
     ('def f(a, b): return collections.deque([a])', '[1]', False),
     ('def f(a, b):\n  import fractions\n  return fractions.Fraction(a, b)',
      '0.5', True),
     ('class A:\n  def __eq__(self, other): return True\n'
      'def f(a, b): return A()', '[[3]]', True),
     ('def f(a, b): return iter([a])', '[1]', False),
     ('def f(a, b):\n  x = []\n  x.append(x)\n  return x', '[[]]', None),
     ('def g(a, b): return a', '1', None), ('def f(a): return a', '1', None),
     ('# class Solution\ndef f(a, b): return a', '1', None),
     ('import sys\ndef f(a, b): sys.exit(0)', '1', None),
     ('from __future__ import annotations\ndef f(a, b): return 1', '1', None)],
)  # fmt: skip
def test_functions_are_called_as_there(source, expected, verdict):
  assert run_returning(source, expected, (1, 2)) is verdict


def test_tags_tell_tuples_and_keys_apart():
  source = 'def f(): return [(1,), {1: (2,)}, None, "ä", float("inf")]'
  _, _, report = run_inside('run_function', ((source,), 'f'), private=marshal.dumps([]))
  other = {'other': False}
  tagged = [other, {'dict': [[1, other]]}, None, 'ä', float('inf')]
  assert json.loads(report.removeprefix(b'value')) == tagged


def build_judgement(verdict, message=''):
  return rows.make_judgement('p', 0, verdict, first_failed=0, message=message)


@pytest.mark.parametrize(
    'strict, compat, words',
    [(('RE', 'exit status 3'), ('AC',),
      'strict RE, LiveCodeBench AC: it ignores the exit status 3'),
     (('RE', "NameError: name 'gcd' is not defined"), ('AC',), 'it imports'),
     (('WA',), ('AC',), 'decimals'), (('MLE',), ('AC',), 'memory'),
     (('TLE',), ('AC',), 'wall time'), (('CE',), ('AC',), 'rules of its own'),
     (('AC',), ('RE', "Traceback\nAttributeError: 'x'"), "AttributeError: 'x'"),
     (('AC',), ('WA',), 'strict AC, LiveCodeBench WA: ')],
)  # fmt: skip
def test_a_difference_is_explained_in_a_sentence(strict, compat, words):
  sentence = verdicts.explain_difference(build_judgement(*strict), build_judgement(*compat))
  assert words in sentence
  assert '\n' not in sentence


def test_equal_verdicts_need_no_words():
  assert not verdicts.explain_difference(build_judgement('RE', 'a'), build_judgement('RE', 'b'))


def test_both_profiles_differ_where_they_are_known_to():
  assert checkers.match_tokens(b'1 2', b'1\n2')
  assert not verdicts.equal_lcb_outputs(b'1 2', b'1\n2')
  assert not checkers.match_tokens(b'1000', b'1_000')
  assert not checkers.equal_json_values(1, True)
