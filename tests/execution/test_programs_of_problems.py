"""Checkers and interactors that come with a problem decide the verdict, and do nothing else."""

import re

import pytest

from tests import judged
from valley_jax import records
from valley_jax.execution import problem_programs

_P = records.Protocol


def _build_program(language, protocol, *texts, **others) -> records.Program:
  name = 'main.py' if language == 'python' else 'main.cpp'
  files = {name: texts[0], **{n.replace('_', '.'): t for n, t in others.items()}}
  return records.Program(language=language, files=files, protocol=protocol)


def _build_checked_problem(program: records.Program, *tests, **fields) -> records.Problem:
  """Returns a problem that asks for two summands of the input; the answer is one pair."""
  return judged.build_problem(
      *(tests or [('7', '3 4'), ('2', '1 1')]), checker='program',
      program=program, **fields,
  )  # fmt: skip


# Each accepts any two whole numbers whose sum is the input.
KATTIS_CPP = _build_program('cpp17', _P.KATTIS, """
#include "main.h"
int main(int argc, char** argv) {
  std::ifstream in(argv[1]), answer(argv[2]);
  std::ofstream feedback(std::string(argv[3]) + "judgemessage.txt");
  feedback << "seen";
  long n, a, b; std::string more;
  in >> n;
  if (!feedback || !answer) return 1;
  if (!(std::cin >> a >> b) || std::cin >> more) return WRONG;
  return a + b == n ? RIGHT : WRONG;
}""", main_h='#include <iostream>\n#include <fstream>\n#include <string>\n'
    'const int RIGHT = 42, WRONG = 43;\n')  # fmt: skip
KATTIS_PYTHON = _build_program('python', _P.KATTIS, """
import os, sys
import other
n = int(open(sys.argv[1]).read())
assert open(sys.argv[2]).read() and os.path.isdir(sys.argv[3])
sys.exit(42 if other.is_sum(n, sys.stdin.read()) else 43)
""", other_py="""
def is_sum(n, text):
  try: a, b = map(int, text.split())
  except ValueError: return False
  return a + b == n
""")  # fmt: skip
TESTLIB_CPP = _build_program(
    'cpp17',
    _P.TESTLIB,
    """
#include <fstream>
#include <iostream>
#include <string>
int main(int argc, char** argv) {
  std::ifstream in(argv[1]), out(argv[2]), answer(argv[3]);
  long n, a, b; std::string more;
  if (!(in >> n) || !answer) return 3;
  if (!(out >> a >> b)) { std::cerr << "wrong output format"; return 2; }
  if (out >> more) return 4;
  return a + b == n ? 0 : 1;
}""",
)
OPEN_R1 = _build_program(
    'python',
    _P.PYTHON,
    """
import sys
def main(given, answer, output):
  n = int(open(given).read())
  assert len(open(answer).read().split()) == 2
  try: a, b = map(int, open(output).read().split())
  except ValueError: return print(0)
  print(1 if a + b == n else 0)
main(*sys.argv[1:4])
""",
)
CHECKERS = {
    'a validator in C++': KATTIS_CPP, 'a validator in Python': KATTIS_PYTHON,
    'testlib': TESTLIB_CPP, 'open-r1': OPEN_R1,
}  # fmt: skip
OUTPUTS = {
    'the answer': ('AC', 'print("3 4" if input() == "7" else "1 1")'),
    'another': ('AC', 'print(-1, int(input()) + 1)'),
    'a wrong sum': ('WA', 'print(1, 1, sep="\\n")'),
    'one number': ('WA', 'print(7)'),
    'no numbers': ('WA', 'print("a b")'),
    'more than is asked for': ('WA', 'print(int(input()), 0, 0)'),
    'nothing': ('WA', 'pass'),
    'bytes that are no text': ('WA', 'import os; os.write(1, b"\\xff 1")'),
    'right, but a crash': ('RE', 'print(0, input(), flush=True)\n1 / 0'),
}  # fmt: skip
GIVEN = {
    f'{name}: {output}': (verdict, _build_checked_problem(program), source)
    for name, program in CHECKERS.items()
    for output, (verdict, source) in OUTPUTS.items()
}
PRINTS = 'print(input(), 0)'


def _build_failing_checker(source: str, protocol=_P.KATTIS) -> records.Problem:
  return _build_checked_problem(_build_program('python', protocol, source), ('7', '3 4'))


# Checkers that trust the output, and programs whose output they fail at: the output is wrong.
_CONVERTS = 'import sys\nsys.exit(42 if float(sys.stdin.read()) == 7 else 43)'
TRUSTING = {
    'a conversion fails': (_CONVERTS, _P.KATTIS, '7', 'print("seven")', 'ValueError'),
    'nothing to convert': (_CONVERTS, _P.KATTIS, '7', 'pass', 'ValueError'),
    'it says nothing': (
        'import sys\nprint(*[1] * (open(sys.argv[3]).read() == "7\\n"))', _P.PYTHON, '7\n',
        'print(8)', 'gave no answer',
    ),
    "testlib's failure": (
        'import sys\nexit(3 * (open(sys.argv[2]).read() > "7"))', _P.TESTLIB, '7', 'print(8)',
        'exit status 3',
    ),
    'a partial score': (
        'import sys\nif open(sys.argv[2]).read() == "8\\n":\n'
        '  print("points 0.3", file=sys.stderr)\n  exit(7)', _P.TESTLIB, '7', 'print(8)',
        'points 0.3',
    ),
    'points as a code': (
        'import sys\nexit(20 * (open(sys.argv[2]).read() == "8\\n"))', _P.TESTLIB, '7',
        'print(8)', 'exit status 20',
    ),
}  # fmt: skip


def _build_trusting(source, protocol, answer) -> records.Problem:
  return _build_checked_problem(_build_program('python', protocol, source), ('', answer))


# Checkers that give no answer at the jury's answer, and what is said about it.
BROKEN = {
    'it crashes': (_build_failing_checker('1 / 0'), 'ZeroDivisionError'),
    'it exits with 0': (_build_failing_checker('pass'), r'exit status 0.*\[42, 43\]'),
    "testlib's own failure": (_build_failing_checker('exit(3)', _P.TESTLIB), 'exit status 3'),
    'it says nothing': (_build_failing_checker('pass', _P.PYTHON), 'gave no answer'),
    'it is killed': (_build_failing_checker('import os; os.kill(os.getpid(), 9)'), 'status -9'),
    'no syntax': (_build_failing_checker('print('), 'does not compile'),
    'no syntax in C++': (
        _build_checked_problem(_build_program('cpp17', _P.KATTIS, 'int main( {')), 'not compile'
    ),
    'a header is missing': (
        _build_checked_problem(_build_program('cpp17', _P.KATTIS, '#include "x.h"\n')), 'x.h'
    ),
}  # fmt: skip

# The interactor knows a number up to 1,000 and grants ten guesses.
GUESS = '1000', '617'
KATTIS_TALK = _build_program(
    'python',
    _P.KATTIS,
    """
import sys
secret = int(open(sys.argv[2]).read())
for _ in range(10):
  line = sys.stdin.readline()
  try: guess = int(line)
  except ValueError: sys.exit(43)
  print('correct' if guess == secret else
        'lower' if guess > secret else 'higher', flush=True)
  if guess == secret: sys.exit(42)
sys.exit(43)
""",
)
TESTLIB_TALK = _build_program(
    'cpp17',
    _P.TESTLIB,
    """
#include <cstdio>
#include <unistd.h>
int main(int argc, char** argv) {
  alarm(20);
  int most, secret, guess;
  FILE *in = fopen(argv[1], "r"), *answer = fopen(argv[3], "r");
  FILE* log = fopen(argv[2], "w");
  if (!log || fscanf(in, "%d", &most) + fscanf(answer, "%d", &secret) != 2)
    return 3;
  for (int i = 0; i < 10; i++) {
    if (scanf("%d", &guess) != 1) return 2;
    puts(guess == secret ? "correct" : guess > secret ? "lower" : "higher");
    fflush(stdout);
    if (guess == secret) return 0;
  }
  return 1;
}""",
)
HALVE = """
low, high = 1, 1000
while True:
  guess = (low + high) // 2
  print(guess, flush=True)
  said = input()
  if said == 'correct': break
  if said == 'lower': high = guess - 1
  else: low = guess + 1
"""
TALKS = {
    'halves': ('AC', HALVE),
    'halves, without a flush': ('AC', HALVE.replace('print', 'import os; os'
        '.write(1, b"%d\\n" % guess) #')),
    'counts up': ('WA', 'i = 1\nwhile True:\n  print(i, flush=True)\n  i += 1\n'
                  '  if input() == "correct": break'),
    'asks too often, then fails': ('WA', 'for _ in range(11):\n'
        '  print(1, flush=True)\n  assert input()'),
    'says nonsense': ('WA', 'print("what?", flush=True)\ninput()'),
    'ends early': ('WA', 'print(500, flush=True)'),
    'says nothing and ends': ('WA', 'pass'),
    'crashes': ('RE', 'print(500, flush=True)\ninput()\n1 / 0'),
    'right, then crashes': ('RE', HALVE + '\nimport time\n1 / 0'),
    'loops': ('TLE', 'print(500, flush=True)\nwhile True: pass'),
    'floods': ('WA', 'while True: print(1)'),
    'needs too much memory': ('MLE',
        'x = bytearray(200 << 20); x[::4096] = bytes(len(x[::4096]))'),
}  # fmt: skip


def _build_dialogue(program: records.Program) -> records.Problem:
  return judged.build_problem(
      GUESS, mode=records.Mode.INTERACTIVE, program=program,
      limits=records.Limits(cpu_seconds=0.5, memory_mib=128),
  )  # fmt: skip


GIVEN |= {
    f'{name}: {talk}': (verdict, _build_dialogue(program), source)
    for name, program in (('Kattis', KATTIS_TALK), ('testlib', TESTLIB_TALK))
    for talk, (verdict, source) in TALKS.items()
}
BROKEN |= {
    'an interactor that crashes': (
        _build_dialogue(_build_program('python', _P.KATTIS, 'input()\n1 / 0')),
        'ZeroDivisionError',
    ),
    'an interactor that exits at once': (
        _build_dialogue(_build_program('python', _P.TESTLIB, 'exit(3)')), 'exit status 3'
    ),
}  # fmt: skip


@pytest.fixture(scope='module')
def judgements():
  table = {name: row[1:] for name, row in GIVEN.items()}
  broken = {n: (p, HALVE if p.mode is records.Mode.INTERACTIVE else PRINTS)
            for n, (p, _) in BROKEN.items()}  # fmt: skip
  trusting = {n: (_build_trusting(*row[:3]), row[3]) for n, row in TRUSTING.items()}
  return judged.judge_table(table | broken | {f'trusting: {n}': x for n, x in trusting.items()})


@pytest.mark.parametrize('name', TRUSTING)
def test_what_an_output_does_to_a_checker_is_the_programs_fault(judgements, name):
  judgement = judgements[f'trusting: {name}']
  assert judgement.verdict is records.Verdict.WRONG_ANSWER, judgement
  assert TRUSTING[name][-1] in judgement.message


@pytest.mark.parametrize('name', GIVEN)
def test_the_program_of_the_problem_decides(judgements, name):
  assert judgements[name].verdict.value == GIVEN[name][0], judgements[name]


@pytest.mark.parametrize('name', BROKEN)
def test_a_program_without_an_answer_is_not_the_submissions_fault(judgements, name):
  judgement = judgements[name]
  is_tried = BROKEN[name][0].mode is not records.Mode.INTERACTIVE  # At the jury's answer.
  assert judgement.verdict.value == ('BP' if is_tried else 'IE'), judgement
  assert re.search(BROKEN[name][1], judgement.message, re.DOTALL), judgement


def test_who_says_nothing_idles_and_the_interactor_outlasts_it(monkeypatch):
  limits = records.replace(problem_programs.LIMITS, cpu_seconds=0.1)
  monkeypatch.setattr(problem_programs, 'LIMITS', limits)
  silent = 'import time; time.sleep(99)'
  assert judged.judge_verdict(_build_dialogue(KATTIS_TALK), silent) == 'ILE'


def test_an_interactor_may_go_on_talking_to_who_has_left():
  talk = _build_program(
      'python',
      _P.KATTIS,
      """
import sys
print('x' * 10**6, flush=True)
sys.exit(43 if not sys.stdin.readline() else 1)""",
  )
  assert judged.judge_verdict(_build_dialogue(talk), 'import os; os.close(0)') == 'WA'


def test_a_checker_that_hangs_is_a_broken_problem(monkeypatch):
  limits = records.replace(problem_programs.LIMITS, cpu_seconds=0.2)
  monkeypatch.setattr(problem_programs, 'LIMITS', limits)
  judgement = judged.judge_program(_build_failing_checker('while True: pass'), PRINTS)
  assert judgement.verdict is records.Verdict.BROKEN_PROBLEM
  assert 'limit passed: CPU' in judgement.message


def test_a_checker_sees_its_own_sandbox_only():
  leaves = """
import os
for top in ('/tmp', '/dev/shm'): open(top + '/left', 'w').write('x')
if os.fork() == 0:
  os.setsid()
  import time; time.sleep(5)
else: print(3, 4)
"""
  looks = """
import os, sys
names = set(os.listdir('/tmp')) | set(os.listdir('/dev/shm'))
pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]
sys.exit(42 if names == {'input', 'answer', 'feedback'} and len(pids) < 3
         else f'{names} {pids}')
"""
  row = judged.judge_program(_build_failing_checker(looks), leaves)
  assert row.verdict.value == 'AC', row


def test_a_submission_does_not_find_the_answer_of_its_interactor():
  looks = """
import glob
for path in ['/tmp/answer', *glob.glob('/proc/*/root/tmp/answer'),
             *glob.glob('/proc/*/cwd/answer')]:
  try: print(open(path).read(), flush=True); break
  except OSError: pass
else: raise SystemExit(9)
"""
  row = judged.judge_program(_build_dialogue(KATTIS_TALK), looks)
  assert row.message == 'exit status 9', row
