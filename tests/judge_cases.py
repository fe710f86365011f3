"""Tricky programs, and what a contest judge and LiveCodeBench say of them.

A case is (name, verdict, LiveCodeBench's verdict, source[, problem]); without a
problem it reads '2\\n3 4\\nend\\n' and prints '7\\nend\\n'. The right column is
what a transcription of its grader (lcb_runner/evaluation/testing_util.py, with
its later object for standard input) said of these very programs; only the
frames of the caller, whose names differ there, are read off the original. '-'
is where the grader's process ends and says nothing.
"""

import dataclasses
import textwrap

from tests import judged
from valley_jax import records

READ = judged.build_problem(('2\n3 4\nend\n', '7\nend\n'), ('2\n3 4\nend', '7\nend'))
SUM = judged.build_problem(('1 2\n', '3\n'))
BOTH = 'AC', 'AC'

STDIN = [
    ('input', *BOTH,
     'input()\nprint(sum(map(int, input().split())))\nprint(input())'),
    ('for line in stdin', 'AC', 'RE', """
        import sys
        lines = [line for line in sys.stdin]
        print(sum(map(int, lines[1].split())), lines[2], sep='\\n')"""),
    ('input, then read', 'AC', 'RE', """
        import sys
        n = input()
        a, b, c = sys.stdin.read().split()
        print(int(a) + int(b)); print(c)"""),
    ('buffer.readline twice', 'AC', 'WA', """
        import sys
        sys.stdin.buffer.readline()
        print(sum(map(int, sys.stdin.buffer.readline().split())))
        print(sys.stdin.buffer.readline().decode())"""),
    ('buffer.readline until end of file', 'AC', 'TLE', """
        import sys
        rows = list(iter(sys.stdin.buffer.readline, b''))
        print(sum(map(int, rows[1].split())), rows[2].decode(), sep='\\n')""",
     # Late long before its rows fill the memory.
     records.replace(READ, limits=records.Limits(cpu_seconds=0.3))),
    ('open(0)', 'AC', 'RE', """
        rows = open(0).read().split('\\n')
        print(sum(map(int, rows[1].split())), rows[2], sep='\\n')"""),
    ('os.read(0)', 'AC', 'RE', """
        import os
        rows = os.read(0, 10**6).split(b'\\n')
        print(sum(map(int, rows[1].split())), rows[2].decode(), sep='\\n')"""),
    ('readlines with their ends', 'AC', 'WA', """
        import sys
        rows = [row[:-1] for row in sys.stdin.readlines()[:2]]
        print(sum(map(int, rows[1].split())), 'end', sep='\\n')"""),
    ('until EOFError', *BOTH, """
        rows = []
        try:
          while True: rows.append(input())
        except EOFError: pass
        print(sum(map(int, rows[1].split())), rows[2], sep='\\n')"""),
    ('stdin.read', *BOTH, """
        import sys
        n, a, b, c = sys.stdin.read().split()
        print(int(a) + int(b)); print(c)"""),
    ('buffer.read', *BOTH, """
        import sys
        n, a, b, c = sys.stdin.buffer.read().split()
        print(int(a) + int(b)); print(c.decode())"""),
]  # fmt: skip

STDOUT = [
    ('stdout.buffer', 'AC', 'RE', """
        import sys
        sys.stdout.buffer.write(b'7\\n')
        sys.stdout.buffer.write(b'end\\n')"""),
    ('os.write(1)', 'AC', 'WA', 'import os; os.write(1, b"7\\nend\\n")'),
    ('FastIO', 'AC', 'RE', """
        import os, sys
        from io import BytesIO, IOBase
        class FastIO(IOBase):
          newlines = 0
          def __init__(self, file):
            self._fd = file.fileno()
            self.buffer = BytesIO()
            self.writable = 'x' in file.mode or 'r' not in file.mode
            self.write = self.buffer.write if self.writable else None
          def readline(self):
            while self.newlines == 0:
              b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
              self.newlines = b.count(b'\\n') + (not b)
              at = self.buffer.tell()
              self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(at)
            self.newlines -= 1
            return self.buffer.readline()
          def flush(self):
            if self.writable:
              os.write(self._fd, self.buffer.getvalue())
              self.buffer.truncate(0), self.buffer.seek(0)
        class IOWrapper(IOBase):
          def __init__(self, file):
            self.buffer = FastIO(file)
            self.flush = self.buffer.flush
            self.writable = self.buffer.writable
            self.write = lambda s: self.buffer.write(s.encode('ascii'))
            self.readline = lambda: self.buffer.readline().decode('ascii')
        sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
        input = lambda: sys.stdin.readline().rstrip('\\r\\n')
        input()
        print(sum(int(x) for x in input().split()))
        print(input())
        sys.stdout.flush()"""),
    ('os._exit(0) at the end', 'AC', '-',
     'import os\nprint("7\\nend", flush=True)\nos._exit(0)'),
    ('quit()', 'AC', 'RE', 'print("7\\nend")\nquit()\nprint(8)'),
    ('atexit', 'AC', 'WA', "import atexit\natexit.register(print, '7\\nend')"),
    ('a thread that is not joined', 'AC', 'WA', """
        import threading, time
        def late(): time.sleep(.1); print('7\\nend')
        threading.Thread(target=late).start()"""),
    ('sys.exit()', *BOTH, 'import sys\nprint("7\\nend")\nsys.exit()'),
    ('no final newline', *BOTH, 'print("7\\nend", end="")'),
]  # fmt: skip

SCOPING = [
    ('global', 'AC', 'RE', """
        count = 3
        def f():
          global count
          count += 4
        f(); print(count); print('end')"""),
    ('a builtin shadowed later', 'AC', 'RE', """
        a = [3, 4]
        total = sum(a)
        sum = total
        print(sum); print('end')"""),
    ('a class Solution', 'AC', 'RE', """
        class Solution:
          def solve(self): return 7
        print(Solution().solve()); print('end')"""),
    ('from __future__ first', 'AC', 'RE', """
        from __future__ import annotations
        def f(x: Unknown) -> int: return 7
        print(f(1)); print('end')"""),
    ('import * in try', 'AC', 'RE', """
        try: from math import *
        except ImportError: pass
        print(floor(7.5)); print('end')"""),
    ('main guard, reversed', 'AC', 'WA',
     "if '__main__' == __name__: print(7); print('end')"),
    ('main guard that is not last', 'AC', 'WA', """
        def main(): print(7)
        if __name__ == '__main__': main()
        print('end')"""),
    ('main guard', *BOTH, """
        def main(): print(7); print('end')
        if __name__ == '__main__': main()"""),
    ('a comprehension over a class', *BOTH, """
        class A:
          rows = [3, 4]
          total = sum(x for x in rows)
        print(A.total); print('end')"""),
    ('a recursive function', *BOTH, """
        def f(n): return n and 1 + f(n - 1)
        print(f(7)); print('end')"""),
    ('a module that looks itself up', 'AC', 'RE', """
        import sys
        me = sys.modules['__main__']
        value = 7
        print(me.value); print('end')"""),
    ('a dataclass', *BOTH, """
        import dataclasses
        @dataclasses.dataclass
        class A: x: int = 7
        print(A().x); print('end')"""),
]  # fmt: skip


def _build_printing_program(text: str) -> str:
  return f'import os; os.write(1, {text.encode()!r})'


def _build_expecting_problem(text: str, **fields) -> records.Problem:
  return judged.build_problem(('', text), **fields)


COMPARISON = [
    ('spaces at line ends', *BOTH, 'print("1 2 ")\nprint(3)',
     _build_expecting_problem('1 2\n3')),
    ('newlines at the end', *BOTH, 'print("1\\n\\n")', _build_expecting_problem('1')),
    ('two spaces for one, numbers', *BOTH, 'print("1  2")', _build_expecting_problem('1 2')),
    ('two spaces for one, words', 'AC', 'WA', 'print("a  b")',
     _build_expecting_problem('a b')),
    ('other line breaks', 'AC', 'WA', 'print(1, 2, sep="\\n")',
     _build_expecting_problem('1 2')),
    ('lines with CRLF', *BOTH, 'print("1\\r\\n2\\r")', _build_expecting_problem('1\n2\n')),
    ('an answer with CRLF', *BOTH, 'print(1); print("b")',
     _build_expecting_problem('1\r\nb\r\n')),
    ('1_000 for 1000', 'WA', 'AC', 'print("1_000")', _build_expecting_problem('1000')),
    ('1.0 for 1', 'WA', 'AC', 'print(1.0)', _build_expecting_problem('1')),
    ('.1 + .2 for a float', 'AC', 'WA', 'print(.1 + .2)',
     _build_expecting_problem('0.3', checker='float')),
    ('-0.0 for a float', *BOTH, 'print(-0.0)',
     _build_expecting_problem('0.0', checker='float')),
    ('nan for a float', 'WA', 'WA', 'print("nan")',
     _build_expecting_problem('0.5', checker='float')),
    ('a prefix', 'WA', 'WA', 'print(1)', _build_expecting_problem('1\n2')),
    ('integers near 2**53', 'WA', 'WA', f'print({2**53})',
     _build_expecting_problem(str(2**53 + 1))),
]  # fmt: skip

SMALL = records.Limits(cpu_seconds=0.5, memory_mib=128, output_kib=64)
# A slow machine takes a second to fill the memory.
_PATIENT = records.replace(SUM, limits=records.replace(SMALL, cpu_seconds=5.0))
TOUCH = 'x = bytearray({mib} << 20); x[::4096] = bytes(len(x[::4096]))\n'
_SUM = judged.CONTROL

LIMITS = [
    ('a loop', 'TLE', 'TLE', 'while True: pass'),
    ('right but late', 'TLE', 'AC',
     f'import time\nwhile time.process_time() < 2: pass\n{_SUM}'),
    ('signal.alarm(0) and on', 'TLE', 'AC', 'import signal, time\n'
     'signal.alarm(0)\nwhile time.process_time() < 2: pass\n' + _SUM),
    ('swallows every exception', 'TLE', 'AC', """
        import time
        while time.process_time() < 2:
          try:
            while time.process_time() < 2: pass
          except Exception: pass
        """ + _SUM),
    ('memory touched', 'MLE', 'AC', TOUCH.format(mib=400) + _SUM, _PATIENT),
    ('memory untouched', *BOTH, f'x = bytes(400 << 20)\n{_SUM}'),
    ('endless output', 'OLE', 'TLE', 'while True: print("x" * 1000)', _PATIENT),
    ('9,000 levels of recursion', *BOTH,
     f'import sys; sys.setrecursionlimit(10**5)\n'
     f'f = lambda n: n and f(n - 1)\nf(9000)\n{_SUM}'),
    ('a processor at rest', *BOTH, f'import time; time.sleep(.3)\n{_SUM}'),
]  # fmt: skip


def _build_call_problem(expected: str, *given: str) -> records.Problem:
  """A function `f` of 1 unless other lists of arguments are given."""
  return judged.build_problem(
      *((arguments, expected) for arguments in given or ('[1]',)),
      mode=records.Mode.FUNCTION,
      entry_point='f',
  )


ANTI_CHEAT = [
    ('an object equal to all', 'WA', 'AC', """
        class E:
          __eq__ = lambda *_: True
        f = lambda x: E()""", _build_call_problem('7')),
    ('the answer in the frames of its caller', 'RE', 'AC', """
        import sys
        def f(x):
          frame = sys._getframe()
          while 'gt_out' not in frame.f_locals: frame = frame.f_back
          return frame.f_locals['gt_out']""", _build_call_problem('7')),
    ('a comparison that is patched', 'WA', 'AC', """
        import sys
        main = sys.modules['__main__']
        main.lines = main.get_stripped_lines = lambda text: ['x']
        print('anything')""", SUM),
    ('exit before the answer', 'RE', '-',
     'import os\ndef f(x): os._exit(0)', _build_call_problem('7')),
    ('kills its parent', 'RE', 'RE',
     'import os\nos.kill(os.getppid(), 9)\nraise SystemError', SUM),
]  # fmt: skip

CALLS = [
    ('a function', *BOTH, 'def f(a, b): return a + b', _build_call_problem('3', '[1, 2]')),
    ('a method', *BOTH, 'class Solution:\n  def f(self, a): return a',
     _build_call_problem('7', '[7]')),
    ('annotations of typing', *BOTH, 'from typing import List\n'
     'class Solution:\n  def f(self, a: List[int]) -> int: return a[0]',
     _build_call_problem('7', '[[7]]')),
    ('an outer tuple for a list', *BOTH, 'f = lambda x: (1, 2)',
     _build_call_problem('[1, 2]')),
    ('inner tuples for lists', 'AC', 'WA', 'f = lambda x: [(1, 2), (3,)]',
     _build_call_problem('[[1, 2], [3]]')),
    ('a float near enough', 'AC', 'WA', 'f = lambda x: .1 + .2', _build_call_problem('0.3')),
    ('an integer for a float', *BOTH, 'f = lambda x: 2', _build_call_problem('2.0')),
    ('True for 1', 'WA', 'AC', 'f = lambda x: True', _build_call_problem('1')),
    ('1 for true', 'WA', 'AC', 'f = lambda x: 1', _build_call_problem('true')),
    ('None', *BOTH, 'def f(x): pass', _build_call_problem('null')),
    ('a set for a list', 'WA', 'WA', 'f = lambda x: {1}', _build_call_problem('[1]')),
    ('state in self between tests', 'AC', 'WA', """
        class Solution:
          def __init__(self): self.seen = []
          def f(self, x):
            self.seen.append(x)
            return len(self.seen)""", _build_call_problem('1', '[1]', '[2]')),
    ('a missing import', 'RE', 'AC', 'f = lambda x: gcd(4, 6)', _build_call_problem('2')),
    ('no such function', 'RE', 'RE', 'g = lambda x: 1', _build_call_problem('1')),
]  # fmt: skip

CONTROLS = [
    ('right', *BOTH, _SUM, SUM),
    ('wrong', 'WA', 'WA', 'print(4)', SUM),
    ('an exception', 'RE', 'RE', '1 / 0', SUM),
    ('right, but a non-zero exit', 'RE', 'AC', f'{_SUM}\nexit(1)', SUM),
    ('right, but by a missing import', 'RE', 'AC',
     f'heapq.heapify([])\n{_SUM}', SUM),
    ('no syntax', 'CE', 'RE', 'print(', SUM),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class JudgeCase:
  """A program with two verdicts."""

  group: str
  name: str
  verdict: str
  lcb: str
  source: str
  problem: records.Problem


def _build_cases(group: str, rows: list, problem: records.Problem) -> list[JudgeCase]:
  return [
      JudgeCase(group, name, ours, lcb, textwrap.dedent(source).strip(), *own)
      for name, ours, lcb, source, *own in (row if row[4:] else (*row, problem) for row in rows)
  ]


CASES = (
    *_build_cases('stdin', STDIN, READ),
    *_build_cases('stdout', STDOUT, READ),
    *_build_cases('scoping', SCOPING, READ),
    *_build_cases('comparison', COMPARISON, SUM),
    *_build_cases('limits', LIMITS, records.replace(SUM, limits=SMALL)),
    *_build_cases('anti-cheat', ANTI_CHEAT, SUM),
    *_build_cases('call', CALLS, SUM),
    *_build_cases('control', CONTROLS, SUM),
)
