"""What a real judge accepts is accepted: programs as people write them."""

import collections
import textwrap

import pytest

from tests import judge_cases
from tests import judged
from valley_jax import records

CASES = {f'{c.group}: {c.name}': c for c in judge_cases.CASES}


@pytest.fixture(scope='module')
def judgements():
  return judged.judge_table({n: (c.problem, c.source) for n, c in CASES.items()})


def test_no_case_is_lost():
  assert len(CASES) == len(judge_cases.CASES) >= 80
  assert collections.Counter(c.group for c in CASES.values()) == {
      'stdin': 11, 'stdout': 9, 'scoping': 12, 'comparison': 14, 'limits': 9,
      'anti-cheat': 5, 'call': 14, 'control': 6,
  }  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_a_contest_judge_would_say_the_same(judgements, name):
  assert judgements[name].verdict.value == CASES[name].verdict, judgements[name]


# More programs that read '2\n3 4\nend\n' and print '7\nend\n'.
PROGRAMS = {
    'open /dev/stdin': """
        rows = open('/dev/stdin').readlines()
        print(sum(map(int, rows[1].split())), rows[2], sep='\\n')""",
    'exit(0) in a function': 'def f():\n  print("7\\nend"); exit(0)\nf()',
    'a thread with a large stack': """
        import sys, threading
        sys.setrecursionlimit(10**6); threading.stack_size(1 << 27)
        def f(n): return n and 1 + f(n - 1)
        t = threading.Thread(target=lambda: print(f(50000) - 49993, 'end'))
        t.start(); t.join()""",
    'subprocess': """
        import subprocess
        print(subprocess.check_output(['echo', '7']).decode(), 'end')""",
    'a byte order mark': '\ufeffprint(7); print("end")',
    'a byte order mark and CRLF': '\ufeffprint(7)\r\nif 1:\r\n  print("end")',
    'line ends of old': 'print(7)\rprint("end")',
    'a coding cookie': '# -*- coding: latin-1 -*-\nprint(7); print("end")',
    'a scratch file': """
        open('scratch.txt', 'w').write('7\\nend')
        print(open('scratch.txt').read())""",
    'big integers': "print(len(str(10**5000)) - 4994); print('end')",
    'a generator as coroutine': """
        from types import GeneratorType
        def f(n):
          if n == 0: yield 0
          else: yield 1 + (yield f(n - 1))
        stack, value = [f(5000)], None
        while stack:
          value = stack[-1].send(value)
          if isinstance(value, GeneratorType): stack.append(value); value = None
          else: stack.pop()
        print(value - 4993); print('end')""",
    'pickle and asyncio': """
        import asyncio, pickle
        async def f(): return pickle.loads(pickle.dumps(7))
        print(asyncio.run(f())); print('end')""",
}  # fmt: skip
PAIRS = {
    name: (judge_cases.READ, textwrap.dedent(source).strip()) for name, source in PROGRAMS.items()
}
ADD = 'n = int(input())\nprint(sum(map(int, input().split())))'
ROWS = 'import sys\nprint([row for row in sys.stdin])'
BIG = records.Limits(cpu_seconds=10.0, memory_mib=512)


def _build_stdin_case(given: str, expected: str, source: str, **fields):
  return judged.build_problem((given, expected), **fields), source


PAIRS |= {
    'numbers in lines with CRLF': _build_stdin_case('2\r\n3 4\r\n', '7\r\n', ADD),
    'lines with CRLF as they are': _build_stdin_case('a\r\nb', r"['a\r\n', 'b']", ROWS),
    'input() keeps no newline': _build_stdin_case('a b\n', "'a b'", 'print(repr(input()))'),
    'bytes of an input with CRLF': _build_stdin_case(
        'a\r\n', r"b'a\r\n'", 'import sys; print(sys.stdin.buffer.read())'
    ),
    'a byte order mark in the input': _build_stdin_case(
        '\ufeff1', r"'\ufeff1'", 'print(ascii(input()))'
    ),
    'text beyond ASCII': _build_stdin_case('äß→😀', '😀→ßä', 'print(input()[::-1])'),
    'no input': _build_stdin_case('', '[]', ROWS),
    'an empty line': _build_stdin_case('\n', r"['\n']", ROWS),
    'no output': _build_stdin_case('1', '', 'pass'),
    'one of several answers': _build_stdin_case(
        '', '["1 2", "2 1"]', 'print(2, 1)', checker='any_of'
    ),
    'lines in any order': _build_stdin_case('', 'a\nb', 'print("b\\na")',
                                checker='unordered'),
    'nan where it is': _build_stdin_case('', 'nan', 'print(float("nan"))', checker='float'),
    '-0.0 for 0.0': _build_stdin_case('', '0.0', 'print(-0.0)', checker='float'),
    'inf where it is': _build_stdin_case('', 'inf', 'print(1e999)', checker='float'),
    'a value in JSON': _build_stdin_case('', '[1.0, {"a": 2}]', 'print(\'[1, {"a":2}]\')',
                             checker='json'),
    'an input of 100 MB': _build_stdin_case(
        'x' * 10**8, '100000000', 'import os\nprint(os.fstat(0).st_size)\n'
        'import sys\nassert len(sys.stdin.buffer.read()) == 10**8', limits=BIG,
    ),
}  # fmt: skip
REFUSED = {
    'a byte order mark in the output': _build_stdin_case('', '1', 'print("\\ufeff1")'),
    '-0.0 for 0.0 as text': _build_stdin_case('', '0.0', 'print(-0.0)'),
    '-0 for 0': _build_stdin_case('', '0', 'print("-0")'),
    'a number for nan': _build_stdin_case('', 'nan', 'print(0.0)', checker='float'),
    'none of the answers': _build_stdin_case('', '["1", "2"]', 'print(3)', checker='any_of'),
    'words around the answer': _build_stdin_case('', '7', 'print("answer: 7")'),
    'other case': _build_stdin_case('', 'YES', 'print("yes")'),
    'nothing, once a line is wanted': _build_stdin_case('', 'x', 'pass'),
}


@pytest.fixture(scope='module')
def more_judgements():
  return judged.judge_table(PAIRS | REFUSED)


@pytest.mark.parametrize('name', PAIRS)
def test_a_usual_way_to_write_it_is_accepted(more_judgements, name):
  judgement = more_judgements[name]
  assert judgement.verdict.value == 'AC', judgement


@pytest.mark.parametrize('name', REFUSED)
def test_an_output_that_is_nearly_right_is_wrong(more_judgements, name):
  assert more_judgements[name].verdict.value == 'WA'


def _build_function_case(expected: str, source: str, given: str = '[]'):
  return judged.build_function_problem(expected, given), source


FUNCTIONS = {
    'a lambda': ('AC', *_build_function_case('"ä"', 'f = lambda: "ä"')),
    '1.0 for 1': ('WA', *_build_function_case('1', 'f = lambda: 1.0')),
    'integers near 2**53': ('WA', *_build_function_case(
        str(2**53 + 1), f'f = lambda: {2**53}')),
    '5,000 digits': ('AC', *_build_function_case(f'1{"0" * 5000}', 'f = lambda x: x',
                                   f'[1{"0" * 5000}]')),
    'prints do not matter': ('AC', *_build_function_case(
        '1', 'def f(): print("x"); return 1')),
    'a main guard is not run': ('AC', *_build_function_case(
        '1', 'f = lambda: 1\nif __name__ == "__main__": input()')),
    'too few arguments': ('RE', *_build_function_case('null', 'def f(): pass', '[1]')),
    'sys.exit(0)': ('RE', *_build_function_case('null', 'import sys\ndef f(): sys.exit(0)')),
    'an input with end': ('RE', *_build_function_case('""', 'f = lambda: input()')),
    'nan': ('AC', *_build_function_case('NaN', 'f = lambda: float("nan")')),
    '-0.0 for 0.0': ('AC', *_build_function_case('0.0', 'f = lambda: -0.0')),
    'keys that are numbers': ('AC', *_build_function_case('{"1": 2}', 'f = lambda: {1: 2}')),
    'an attribute of the class, fresh for each test': ('AC', judged.build_problem(
        ('[1]', '1'), ('[2]', '1'), mode=records.Mode.FUNCTION,
        entry_point='f'), 'class Solution:\n  seen = []\n  def f(self, x):\n'
        '    self.seen.append(x)\n    return len(self.seen)'),
}  # fmt: skip


@pytest.fixture(scope='module')
def function_judgements():
  return judged.judge_table({n: row[1:] for n, row in FUNCTIONS.items()})


@pytest.mark.parametrize('name', FUNCTIONS)
def test_a_functions_value_is_compared_by_type_and_value(function_judgements, name):
  judgement = function_judgements[name]
  assert judgement.verdict.value == FUNCTIONS[name][0], judgement


def test_numpy_can_be_used_where_the_host_has_it():
  pytest.importorskip('numpy')
  source = 'import numpy as np\nprint(np.array(input().split(), int).sum())'
  assert judged.judge_verdict(judged.build_problem(), source, cpu_seconds=5.0) == 'AC'


def test_two_runs_of_a_program_iterate_sets_alike():
  source = """
import sys
words = {str(i) for i in range(50)}
print(*words)
print(*words, file=sys.stderr)"""
  rows = judged.judge_pairs(*[(judged.build_problem(), source)] * 2)
  assert rows[0].message == rows[1].message != ''


def test_nothing_is_kept_between_tests():
  p = judged.build_problem(('', '1'), ('', '1'), ('', '1'))
  source = """
import os
with open('/tmp/count', 'a') as f: f.write('x')
try: os.symlink('/tmp', '/dev/shm/link')
except FileExistsError: print('seen before')
print(os.path.getsize('/tmp/count'))
"""
  assert judged.judge_verdict(p, source) == 'AC'
