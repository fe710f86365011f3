"""What a real judge accepts is accepted: programs as people write them."""

import textwrap

import judged
import pytest

FAST_IO = """
import os, sys
from io import BytesIO, IOBase
BUFSIZE = 8192
class FastIO(IOBase):
  newlines = 0
  def __init__(self, file):
    self._fd = file.fileno()
    self.buffer = BytesIO()
    self.writable = 'x' in file.mode or 'r' not in file.mode
    self.write = self.buffer.write if self.writable else None
  def read(self):
    while True:
      b = os.read(self._fd, max(os.fstat(self._fd).st_size, BUFSIZE))
      if not b: break
      ptr = self.buffer.tell()
      self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
    self.newlines = 0
    return self.buffer.read()
  def readline(self):
    while self.newlines == 0:
      b = os.read(self._fd, max(os.fstat(self._fd).st_size, BUFSIZE))
      self.newlines = b.count(b'\\n') + (not b)
      ptr = self.buffer.tell()
      self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
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
    self.read = lambda: self.buffer.read().decode('ascii')
    self.readline = lambda: self.buffer.readline().decode('ascii')
sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
input = lambda: sys.stdin.readline().rstrip('\\r\\n')
input()
print(sum(int(x) for x in input().split()))
print(input())
"""

# Every program reads "2\n3 4\nend\n" and prints "7\nend\n".
PROGRAMS = {
    'input': 'input()\nprint(sum(map(int, input().split())))\nprint(input())',
    'for line in stdin': """
        import sys
        lines = [line for line in sys.stdin]
        print(sum(map(int, lines[1].split())), lines[2], sep='\\n')""",
    'input, then read': """
        import sys
        n = input()
        a, b, c = sys.stdin.read().split()
        print(int(a) + int(b)); print(c)""",
    'buffer.readline twice': """
        import sys
        sys.stdin.buffer.readline()
        print(sum(map(int, sys.stdin.buffer.readline().split())))
        print(sys.stdin.buffer.readline().decode())""",
    'buffer until end of file': """
        import sys
        rows = list(iter(sys.stdin.buffer.readline, b''))
        print(sum(map(int, rows[1].split())), rows[2].decode(), sep='\\n')""",
    'open(0)': """
        rows = open(0).read().split('\\n')
        print(sum(map(int, rows[1].split())), rows[2], sep='\\n')""",
    'open /dev/stdin': """
        rows = open('/dev/stdin').readlines()
        print(sum(map(int, rows[1].split())), rows[2], sep='\\n')""",
    'os.read(0)': """
        import os
        rows = os.read(0, 10**6).split(b'\\n')
        print(sum(map(int, rows[1].split())), rows[2].decode(), sep='\\n')""",
    'readlines': """
        from sys import stdin
        rows = stdin.readlines()
        print(sum(map(int, rows[1].split())), rows[2], sep='\\n')""",
    'until EOFError': """
        rows = []
        try:
          while True: rows.append(input())
        except EOFError: pass
        print(sum(map(int, rows[1].split())), rows[2], sep='\\n')""",
    'stdout.buffer': """
        import sys
        sys.stdout.buffer.write(b'7\\n'); sys.stdout.buffer.write(b'end\\n')""",
    'os.write(1)': 'import os; os.write(1, b"7\\nend\\n")',
    'FastIO': FAST_IO.replace(
        "print(input())", "print(input()); sys.stdout.flush()"
    ),
    'os._exit(0)': 'import os\nprint("7\\nend", flush=True)\nos._exit(0)',
    'quit()': 'print("7\\nend")\nquit()\nprint(8)',
    'sys.exit()': 'import sys\nprint("7\\nend")\nsys.exit()',
    'exit(0) in a function': 'def f():\n  print("7\\nend"); exit(0)\nf()',
    'atexit': """
        import atexit
        atexit.register(print, '7\\nend')""",
    'a thread that is not joined': """
        import threading, time
        def late(): time.sleep(.1); print('7\\nend')
        threading.Thread(target=late).start()""",
    'a thread with a large stack': """
        import sys, threading
        sys.setrecursionlimit(10**6); threading.stack_size(1 << 27)
        def f(n): return n and 1 + f(n - 1)
        t = threading.Thread(target=lambda: print(f(50000) - 49993, 'end'))
        t.start(); t.join()""",
    'global': """
        count = 3
        def f():
          global count
          count += 4
        f(); print(count); print('end')""",
    'a builtin shadowed later': """
        a = [3, 4]
        total = sum(a)
        sum = total
        print(sum); print('end')""",
    'a class Solution': """
        class Solution:
          def solve(self): return 7
        print(Solution().solve()); print('end')""",
    'from __future__ first': """
        from __future__ import annotations
        def f(x: Unknown) -> int: return 7
        print(f(1)); print('end')""",
    'import * in try': """
        try: from math import *
        except ImportError: pass
        print(floor(7.5)); print('end')""",
    'main guard': """
        def main(): print(7); print('end')
        if __name__ == '__main__': main()""",
    'main guard, reversed and not last': """
        if '__main__' == __name__: print(7)
        print('end')""",
    'a module that looks itself up': """
        import sys
        me = sys.modules['__main__']
        value = 7
        print(me.value); print('end')""",
    'a dataclass': """
        import dataclasses
        @dataclasses.dataclass
        class A: x: int = 7
        print(A().x); print('end')""",
    'multiprocessing-free subprocess': """
        import subprocess
        print(subprocess.check_output(['echo', '7']).decode(), 'end')""",
    'a byte order mark': '\ufeffprint(7); print("end")',
    'a coding cookie': '# -*- coding: latin-1 -*-\nprint(7); print("end")',
    'a scratch file': """
        open('scratch.txt', 'w').write('7\\nend')
        print(open('scratch.txt').read())""",
    'big integers': """
        print(len(str(10**5000)) - 4994); print('end')""",
    'no final newline': 'print("7\\nend", end="")',
}  # fmt: skip


@pytest.fixture(scope='module')
def judgements():
  p = judged.problem(('2\n3 4\nend\n', '7\nend\n'), ('2\n3 4\nend', '7 end'))
  sources = [textwrap.dedent(source).strip() for source in PROGRAMS.values()]
  rows = judged.judge_pairs(*((p, source) for source in sources))
  return dict(zip(PROGRAMS, rows))


@pytest.mark.parametrize('name', PROGRAMS)
def test_a_usual_way_to_write_it_is_accepted(judgements, name):
  judgement = judgements[name]
  assert judgement.verdict.value == 'AC', judgement.message


def test_numpy_can_be_used_where_the_host_has_it():
  pytest.importorskip('numpy')
  source = 'import numpy as np\nprint(np.array(input().split(), int).sum())'
  assert judged.verdict(judged.problem(), source, cpu_seconds=5.0) == 'AC'


def test_two_runs_of_a_program_iterate_sets_alike():
  source = 'print(*{str(i) for i in range(50)})'
  rows = [
      judged.judge_one(judged.problem(), source + '\nimport sys\n'
                       'print(*{str(i) for i in range(50)}, file=sys.stderr)')
      for _ in range(2)
  ]  # fmt: skip
  assert rows[0].message == rows[1].message != ''


FUNCTIONS = [
    ('a function', 'def f(a, b): return a + b', '[1, 2]', '3', 'AC'),
    ('a method', 'class Solution:\n  def f(self, a): return a', '[7]', '7',
     'AC'),
    ('a lambda', 'f = lambda: "ä"', '[]', '"ä"', 'AC'),
    ('inner tuples for lists', 'f = lambda: [(1, 2), (3,)]', '[]',
     '[[1, 2], [3]]', 'AC'),
    ('a float near enough', 'f = lambda: .1 + .2', '[]', '0.3', 'AC'),
    ('an integer for a float', 'f = lambda: 2', '[]', '2.0', 'AC'),
    ('True for 1', 'f = lambda: True', '[]', '1', 'WA'),
    ('1.0 for 1', 'f = lambda: 1.0', '[]', '1', 'WA'),
    ('1 for true', 'f = lambda: 1', '[]', 'true', 'WA'),
    ('None', 'def f(): pass', '[]', 'null', 'AC'),
    ('integers near 2**53', f'f = lambda: {2**53}', '[]', str(2**53 + 1),
     'WA'),
    ('5,000 digits', 'f = lambda x: x', f'[1{"0" * 5000}]', f'1{"0" * 5000}',
     'AC'),
    ('prints do not matter', 'def f(): print("x"); return 1', '[]', '1', 'AC'),
    ('a main guard is not run', 'f = lambda: 1\n'
     'if __name__ == "__main__": input()', '[]', '1', 'AC'),
    ('an object equal to all', 'class E:\n  __eq__ = lambda *_: True\nf = E',
     '[]', '1', 'WA'),
    ('a set', 'f = lambda: {1}', '[]', '[1]', 'WA'),
    ('no such function', 'g = 1', '[]', '1', 'RE'),
    ('too few arguments', 'def f(): pass', '[1]', 'null', 'RE'),
    ('sys.exit(0)', 'import sys\ndef f(): sys.exit(0)', '[]', 'null', 'RE'),
    ('os._exit(0)', 'import os\ndef f(): os._exit(0)', '[]', 'null', 'RE'),
    ('an input with end', 'f = lambda: input()', '[]', '""', 'RE'),
]  # fmt: skip


@pytest.fixture(scope='module')
def function_judgements():
  rows = judged.judge_pairs(
      *(
          (judged.function(expected, given), source)
          for _, source, given, expected, _ in FUNCTIONS
      )
  )
  return dict(zip((case[0] for case in FUNCTIONS), rows))


@pytest.mark.parametrize(
    'name, expected', [(c[0], c[4]) for c in FUNCTIONS], ids=lambda x: x
)
def test_a_functions_value_is_compared_by_type_and_value(
    function_judgements, name, expected
):
  judgement = function_judgements[name]
  assert judgement.verdict.value == expected, judgement


def test_nothing_is_kept_between_tests():
  p = judged.problem(('', '1'), ('', '1'), ('', '1'))
  source = """
import os
with open('/tmp/count', 'a') as f: f.write('x')
try: os.symlink('/tmp', '/dev/shm/link')
except FileExistsError: print('seen before')
print(os.path.getsize('/tmp/count'))
"""
  assert judged.verdict(p, source) == 'AC'


def test_an_instance_is_fresh_for_each_test():
  source = """
class Solution:
  seen = []
  def __init__(self): self.mine = []
  def f(self, x):
    self.seen.append(x); self.mine.append(x)
    return len(self.seen) + len(self.mine)
"""
  p = judged.problem(
      ('[1]', '2'), ('[2]', '2'), mode=judged.records.Mode.FUNCTION,
      entry_point='f',
  )  # fmt: skip
  assert judged.verdict(p, source) == 'AC'
