"""Only a program that solves the problem is accepted."""

import pytest

from tests import judged

ASSERT = 'assert f(2) == 4\nassert f(3) == 9\n'

# Programs for `f(x) = x * x`, none of which computes it.
CHEATS = {
    'exit in the function': 'import sys\ndef f(x): sys.exit(0)',
    'exit at the top': 'exit(0)',
    '_exit in the function': 'import os\ndef f(x): os._exit(0)',
    '_exit at the top': 'import os; os._exit(0)',
    '_exit in atexit': 'import atexit, os\natexit.register(os._exit, 0)',
    'a kill with signal 0 status': 'import os, signal\n'
        'def f(x): os.execv("/usr/bin/true", ["true"])',
    'equals anything': 'class E:\n  def __init__(self, x): pass\n'
        '  __eq__ = lambda *_: True\nf = E',
    'a number that equals anything': f'{judged.EQUALS_ANYTHING}f = lambda x: E(0)',
    'a class that says it is int': 'class M(type):\n  __mro__ = property(lambda c: (int,))\n'
        '  __flags__ = 1 << 8\nclass E(metaclass=M):\n  __class__ = int\n'
        '  __eq__ = lambda *_: True\nf = lambda x: E()',
    'no AssertionError': 'import builtins\nbuiltins.AssertionError ='
        ' SystemExit\nf = lambda x: 0',
    'a hook for exceptions': 'import os, sys\nsys.excepthook ='
        ' lambda *_: os._exit(0)\nf = lambda x: 0',
    'writes to every descriptor': """
import os
def f(x):
  for fd in range(3, 300):
    try: os.write(fd, b'x' * 16)
    except OSError: pass
  os._exit(0)""",
    'echoes what it finds in frames': """
import os, sys
def f(x):
  frame, found = sys._getframe(), []
  while frame:
    for scope in (frame.f_locals, frame.f_globals):
      found += [v for v in scope.values() if isinstance(v, bytes)]
    frame = frame.f_back
  for data in found: os.write(4, data)
  os._exit(0)""",
    'echoes what the collector knows': """
import gc, os
def f(x):
  gc.unfreeze()
  for o in gc.get_objects():
    for v in (gc.get_referents(o)):
      if isinstance(v, bytes) and len(v) == 16:
        os.write(4, v)
  os._exit(0)""",
    'patches the harness': """
import sys
frame = sys._getframe()
while frame:
  for name in ('_leave_without_value', '_write', '_exit_status'):
    if name in frame.f_globals: frame.f_globals[name] = lambda *_: 0
  frame = frame.f_back
f = lambda x: 0""",
    'patches what the harness calls': """
import builtins, os
builtins.exec = builtins.compile = lambda *_, **__: None
os._exit = lambda *_: None
f = lambda x: 0""",
    'forks and lets the child fail': 'import os\n'
        'def f(x): return 4 if os.fork() else 9',
}  # fmt: skip


STARTER = '''import math
def f(x):
  """Square."""
def helper(x): return math.prod([x, x])
'''
HONEST = {
    'right': ('AC', '', 'f = lambda x: x * x'),
    'wrong': ('WA', '', 'f = lambda x: x'),
    'by what is provided': ('AC', STARTER, 'def f(x): return helper(x)'),
    'from __future__ first': (
        'AC', STARTER, 'from __future__ import annotations\n'
        'def f(x): return helper(x)'),
    'unfinished': ('WA', STARTER, 'pass'),
}  # fmt: skip


@pytest.fixture(scope='module')
def judgements():
  p = judged.build_assert_problem(ASSERT)
  table = {name: (p, source) for name, source in CHEATS.items()}
  for name, (_, starter, source) in HONEST.items():
    table[name] = judged.build_assert_problem(ASSERT, starter_code=starter), source
  return judged.judge_table(table)


@pytest.mark.parametrize('name', CHEATS)
def test_asserts_are_passed_by_reaching_their_end_only(judgements, name):
  judgement = judgements[name]
  assert judgement.verdict.value in ('WA', 'RE'), judgement


# Asserts of other forms, each with a program that fakes its result.
FAKES = {
    'what is left in an argument': (
        'x = [1]\nf(x)\nassert x == [5]\n', 'def f(x): x[0] = E(0)', 'def f(x): x[0] = 5'
    ),
    'inside a list': ('assert f() == [[5]]', 'f = lambda: [[E(0)]]', 'f = lambda: [[5]]'),
    'in what is yielded': ('assert list(f()) == [5]', 'f = lambda: map(E, "0")', 'f = lambda: [5]'),
    'among': ('assert 5 in f()', 'f = lambda: [E(0)]', 'f = lambda: {5}'),
    'an attribute': (
        'assert f().x.y == 5',
        'class C: pass\ndef f():\n  c = C(); c.x = c; c.y = E(0); return c',
        'class C: pass\ndef f():\n  c = C(); c.x = c; c.y = 5; return c',
    ),
    'a builtin': ('assert set(f()) == {5}', 'set = lambda x: 0\nf = list', 'f = lambda: [5, 5]'),
    'a patched builtin': (
        'assert abs(f() - 5) < 1', 'import builtins\nbuiltins.abs = lambda x: 0\nf = int',
        'f = lambda: 5.0',
    ),
    'patched math': (
        'import math\nassert math.isclose(f(), 5)',
        'import math\nmath.isclose = lambda *_: True\nf = int', 'f = lambda: 5',
    ),
    'a builtin patched in the call': (
        'assert f() == 5',
        'import builtins\ndef f():\n  builtins.type = lambda _: int\n  return E(0)',
        'f = lambda: 5',
    ),
    'math patched in the call': (
        'import math\nassert math.isclose(f(), 5)',
        'import math\ndef f():\n  math.isclose = lambda *_: True\n  return 0', 'f = lambda: 5',
    ),
    'left in an argument by a call that fails': (
        'x = [1]\ntry: f(x)\nexcept ValueError: pass\nassert x == [5]',
        'def f(x):\n  x[0] = E(0)\n  raise ValueError',
        'def f(x):\n  x[0] = 5\n  raise ValueError',
    ),
    'left deep in an argument': (
        'from collections import deque\nx = [deque([[1]])]\nx.append(x)\nf(x)\n'
        'assert x[0] == deque([[5]])',
        'def f(x): x[0][0][0] = E(0)', 'def f(x): x[0][0][0] = 5',
    ),
    'a method of an object that lives on': (
        'c = C()\nc.put(2)\nc.put(3)\nassert c.f() == 5',
        'class C:\n  put = lambda *_: 0\n  f = lambda self: E(0)',
        'class C:\n  x = 0\n  def put(self, x): self.x += x\n  def f(self): return self.x',
    ),
    'a node that the test builds': (
        'n = Node(2)\nn.next = Node(3)\nassert f([n]) == f(n) == 5',
        'class Node:\n  __init__ = lambda *_: None\nf = lambda n: E(0)',
        'class Node:\n  def __init__(self, x): self.x = x\n'
        'def f(n):\n  n = n[0] if type(n) is list else n\n  return n.x + n.next.x',
    ),
    'a tuple with names': (
        'assert f() == (5, 1)', 'f = lambda: (E(0), E(0))',
        'from collections import namedtuple\nP = namedtuple("P", "x y")\nf = lambda: P(5, 1)',
    ),
    'a number from numpy': (
        'assert f() is True', 'f = lambda: E(0)', 'import numpy as np\nf = lambda: np.bool_(1)'
    ),
}  # fmt: skip


@pytest.fixture(scope='module')
def fakes():
  table = {}
  for name, (code, fake, right) in FAKES.items():
    problem = judged.build_assert_problem(code)
    table[name, 'fake'] = problem, judged.EQUALS_ANYTHING + fake
    table[name, 'right'] = problem, right
  return judged.judge_table(table, cpu_seconds=2.0)


@pytest.mark.parametrize('name', FAKES)
def test_test_code_sees_plain_values_of_a_submission(fakes, name):
  assert fakes[name, 'fake'].verdict.value in ('WA', 'RE'), fakes[name, 'fake']
  assert fakes[name, 'right'].verdict.value == 'AC', fakes[name, 'right']


@pytest.mark.parametrize('name', HONEST)
def test_a_submission_is_run_behind_what_is_provided(judgements, name):
  assert judgements[name].verdict.value == HONEST[name][0], judgements[name]


STDIN_CHEATS = {
    'nothing to find in frames': """
import sys
def walk(o, depth, seen):
  if id(o) in seen or depth > 6: return
  seen.add(id(o))
  if isinstance(o, (str, bytes)):
    text = o if isinstance(o, str) else o.decode('latin-1')
    # Its own text, and no other, may hold the word.
    if 'secret' + '42' in text and 'walk' not in text: print('secret' + '42')
  elif isinstance(o, dict):
    for v in list(o.values()): walk(v, depth + 1, seen)
  elif isinstance(o, (list, tuple, set)):
    for v in list(o): walk(v, depth + 1, seen)
frame, seen = sys._getframe(), set()
while frame:
  walk(frame.f_globals, 0, seen); walk(frame.f_locals, 0, seen)
  frame = frame.f_back
""",
    'nothing to find in memory': """
import re, sys
given = input()  # So that the search is seen to find something.
found = set()
for line in open('/proc/self/maps'):
  a, b = (int(x, 16) for x in line.split()[0].split('-'))
  if 'r' not in line.split()[1] or '[v' in line or b - a > 64 << 20: continue
  try:
    with open('/proc/self/mem', 'rb') as f:
      f.seek(a); data = f.read(b - a)
  except (OSError, ValueError, OverflowError): continue
  found |= set(re.findall(rb'secre[t][4]2|visibl[e]77', data))
  del data
for word in found: print(*map(chr, word), sep='')
print('searched', len(found), file=sys.stderr)
""",
    'nothing to find in files': """
import os
for top in ('/tmp', '/dev/shm', '/proc/1', '/packages', '/etc', '/'):
  try: names = os.listdir(top)
  except OSError: continue
  for name in names:
    try: data = open(os.path.join(top, name), 'rb').read(1 << 20)
    except OSError: continue
    if b'secret' + b'42' in data: print('secret' + '42')
for fd in range(3, 64):
  try: data = os.pread(fd, 1 << 16, 0)
  except OSError: continue
  if b'secret' + b'42' in data: print('secret' + '42')
""",
}


@pytest.fixture(scope='module')
def searches():
  p = judged.build_problem(('visible77', 'secret42'))
  table = {name: (p, source) for name, source in STDIN_CHEATS.items()}
  return judged.judge_table(table, cpu_seconds=5.0)


@pytest.mark.parametrize('name', STDIN_CHEATS)
def test_the_expected_output_is_nowhere_in_the_sandbox(searches, name):
  row = searches[name]
  assert row.verdict.value == 'WA', row
  assert row.message in ('', 'searched 1')


FUNCTION_CHEATS = {
    'patches the encoder': """
import json, sys
json.dumps = lambda *_: '1'
for module in list(sys.modules.values()):
  for name in ('dumps', 'encode_basestring_ascii', 'equal_json', 'make_encoder',
               'c_make_encoder'):
    if hasattr(module, name): setattr(module, name, lambda *a, **k: 'x')
f = lambda: 2""",
    'an int that prints as another': """
class I(int):
  __repr__ = __str__ = lambda self: '1'
f = lambda: I(2)""",
    'a float that prints as an int': """
class F(float):
  __repr__ = __str__ = lambda self: '1'
f = lambda: F(2)""",
    'two values': 'import os\ndef f():\n  os.write(4, b"value2"); return 1',
    'not a value': 'import os\ndef f():\n  os.write(4, b"1"); os._exit(0)',
    'deep': 'x = []\nfor _ in range(10**5): x = [x]\nf = lambda: x',
    'itself': 'x = []\nx.append(x)\nf = lambda: x',
    'a forged report of our failure': """
import os
def f(): os.write(4, b'code'); os._exit(0)""",
}


@pytest.fixture(scope='module')
def values():
  p = judged.build_function_problem('1')
  table = {name: (p, source) for name, source in FUNCTION_CHEATS.items()}
  return judged.judge_table(table)


@pytest.mark.parametrize('name', FUNCTION_CHEATS)
def test_a_value_is_right_only_if_it_is(values, name):
  row = values[name]
  assert row.verdict.value in ('WA', 'RE'), row


OUTLIVERS = {
    'alarm': 'import signal\nsignal.alarm(0)\nwhile True: pass',
    'ignores': 'import signal\n'
        'for n in set(range(1, 65)) - {9, 19, 32, 33}:\n'
        '  signal.signal(n, signal.SIG_IGN)\nwhile True: pass',
    'swallows': 'while True:\n  try:\n    while True: pass\n'
        '  except Exception: pass',
    'raises its limit': 'import resource\n'
        'try: resource.setrlimit(resource.RLIMIT_CPU, (99, 99))\n'
        'except (OSError, ValueError): pass\nwhile True: pass',
}  # fmt: skip


def test_no_program_outlives_its_time():
  p = judged.build_problem()
  table = {name: (p, source) for name, source in OUTLIVERS.items()}
  rows = judged.judge_table(table, cpu_seconds=0.3)
  assert {name: row.verdict.value for name, row in rows.items()} == (
      dict.fromkeys(OUTLIVERS, 'TLE')
  )
