"""Each verdict states what the program did, and nothing else leads to it."""

import os
import threading
import time

import pytest

from tests import judged
from valley_jax import records
from valley_jax.execution import judge
from valley_jax.execution import worker as worker_lib
from valley_jax.execution.confinement import cgroups

TOUCH = 'x = bytearray({mib} << 20); x[::4096] = bytes(len(x[::4096]))\n'
SMALL = records.Limits(cpu_seconds=0.5, memory_mib=128, output_kib=64)
# A slow machine takes a second to fill the memory.
PATIENT = records.replace(SMALL, cpu_seconds=5.0)
BURN = 'import os\nfor _ in range(3): os.fork()\nwhile True: pass'
HIDDEN_BURN = """
import os
if os.fork():
  os.wait()
else:
  while True: pass
"""

CASES = [
    ('right', judged.CONTROL, 'AC'),
    ('wrong', 'print(4)', 'WA'),
    ('nothing printed', '', 'CE'),
    ('only a comment', '# nothing', 'WA'),
    ('a loop', 'while True: pass', 'TLE'),
    ('a tree that burns', BURN, 'TLE'),
    ('a child that burns', HIDDEN_BURN, 'TLE'),
    ('right but late', f'for _ in range(10**9): 0\n{judged.CONTROL}', 'TLE'),
    ('memory touched', TOUCH.format(mib=400) + judged.CONTROL, 'MLE'),
    ('memory asked for', 'x = [0] * 10**11', 'MLE'),
    ('memory untouched', f'x = bytes(400 << 20)\n{judged.CONTROL}', 'AC'),
    ('endless output', 'while True: print("x" * 1000)', 'OLE'),
    ('output just over', 'print("x" * (64 << 10))', 'OLE'),
    ('output swallowed errors', 'import os\nwhile True:\n'
     '  try: os.write(1, b"x" * 9999)\n  except OSError: pass', 'OLE'),
    ('an exception', '1 / 0', 'RE'),
    ('right, non-zero exit', f'{judged.CONTROL}\nexit(1)', 'RE'),
    ('right, exit with words', f'{judged.CONTROL}\nexit("bye")', 'RE'),
    ('right, then killed', f'{judged.CONTROL}\nimport os\n'
     'import sys; sys.stdout.flush(); os.kill(os.getpid(), 9)', 'RE'),
    ('a segmentation fault', 'import ctypes; ctypes.string_at(0)', 'RE'),
    ('an abort', 'import os; os.abort()', 'RE'),
    ('deep recursion', 'f = lambda: f()\nf()', 'RE'),
    ('a missing import', 'print(heapq.nsmallest(1, [3]))', 'RE'),
    ('no syntax', 'print(', 'CE'),
    ('NUL in the source', 'print(3)\0', 'CE'),
    ('a return at the top', 'return', 'CE'),
    ('nesting that kills parsers', '(' * 10**5, 'CE'),
    ('digits that int() refuses', 'x = ' + '9' * 10**4 + '\n' + judged.CONTROL,
     'AC'),
]  # fmt: skip


@pytest.fixture(scope='module')
def judgements():
  small, patient = (judged.build_problem(limits=x) for x in (SMALL, PATIENT))
  return judged.judge_table(
      {name: (patient if verdict == 'MLE' else small, source) for name, source, verdict in CASES}
  )


@pytest.mark.parametrize('name, expected', [(n, v) for n, _, v in CASES], ids=lambda x: x)
def test_a_program_gets_the_verdict_it_earned(judgements, name, expected):
  judgement = judgements[name]
  assert judgement.verdict.value == expected, judgement


def test_a_program_that_idles_is_stopped_by_wall_time_and_not_called_slow():
  p = judged.build_problem(limits=records.Limits(cpu_seconds=0.5))
  row = judged.judge_program(p, 'import time; time.sleep(99)')
  assert row.verdict.value == 'ILE', row
  assert 5 < row.wall_seconds < 20


def test_a_judgement_tells_where_it_stopped_and_why():
  p = judged.build_problem(('1', '1'), ('2', '2'), ('0', '0'), ('4', '4'))
  judgement = judged.judge_program(p, 'n = int(input())\nprint(n * n // n)')
  assert judgement.verdict is records.Verdict.RUNTIME_ERROR
  assert (judgement.tests_passed, judgement.num_tests) == (2, 4)
  assert judgement.first_failed == 2
  assert 'line 2' in judgement.message
  assert 'ZeroDivisionError' in judgement.message


def test_a_judgement_carries_the_largest_tests_figures():
  p = judged.build_problem(('0', ''), ('9', ''), ('0', ''))
  burn = 'import time\nn = int(input())\n'
  burn += 'while time.process_time() < n / 30: pass\n'
  judgement = judged.judge_program(p, burn + TOUCH.format(mib=40))
  assert judgement.verdict.value == 'AC'
  assert 0.2 < judgement.cpu_seconds < 0.8
  assert judgement.wall_seconds >= judgement.cpu_seconds * 0.5
  assert 40 < judgement.memory_mib < 90


def test_a_problems_own_time_limit_comes_before_the_configs():
  # More than .05 s by so much that no guess at the host's speed allows it.
  slow = f'for _ in range(2 * 10**7): 0\n{judged.CONTROL}'
  limits = records.Limits(cpu_seconds=30.0)
  assert judged.judge_verdict(judged.build_problem(), slow, cpu_seconds=0.05) == 'TLE'
  p = judged.build_problem(limits=limits)
  assert judged.judge_verdict(p, slow, cpu_seconds=0.05) == 'AC'


def test_floods_of_stderr_do_not_count_as_output():
  flood = 'import sys\nsys.stderr.write("x" * 10**6)\nsys.stderr.flush()\n'
  p = judged.build_problem(limits=SMALL)
  assert judged.judge_verdict(p, flood + judged.CONTROL) == 'AC'


def test_the_last_words_of_stderr_are_kept():
  flood = 'import sys\nsys.stderr.write("x" * 10**6 + "the end")\nexit(2)'
  judgement = judged.judge_program(judged.build_problem(), flood)
  assert judgement.message.endswith('xthe end')
  assert len(judgement.message) <= 1000


def _judge_while_killing(sleep: float, kill: int):
  """Judges a sleeper in a thread; kills its sandbox `kill` times meanwhile."""
  source = f'import time; time.sleep({sleep})\n{judged.CONTROL}'
  rows = []

  def judge_in_thread():
    shared = worker_lib.SharedResources(judge.Settings(cpu_seconds=1.0))
    worker = worker_lib.Worker(shared, min(os.sched_getaffinity(0)))
    workers.append(worker)
    s = records.Submission(problem_id='p', sample_index=0, source=source)
    rows.append(worker.judge_submission(judged.build_problem(('1 2', '3')), s))
    worker.close()
    shared.isolation.close()

  workers: list[worker_lib.Worker] = []
  thread = threading.Thread(target=judge_in_thread)
  thread.start()
  killed = None
  for _ in range(kill):
    while not workers or workers[0].box in (None, killed):
      assert thread.is_alive()
      time.sleep(0.01)
    killed = workers[0].box
    time.sleep(0.5)
    workers[0].kill_sandbox()
  thread.join()
  return rows[0]


def test_a_sandbox_that_dies_once_is_replaced_and_the_program_judged():
  assert _judge_while_killing(sleep=1, kill=1).verdict.value == 'AC'


def test_a_sandbox_that_dies_twice_is_our_failure_and_no_score():
  judgement = _judge_while_killing(sleep=5, kill=2)
  assert judgement.verdict is records.Verdict.INTERNAL_ERROR
  assert 'supervisor' in judgement.message
  for directory in cgroups.find_own_groups().values():
    assert not list(directory.glob(f'valley_jax.{os.getpid()}.*'))


def test_an_unknown_checker_is_an_error_that_names_the_known():
  with pytest.raises(ValueError, match="'fuzzy' is no checker.*tokens, lines"):
    judged.judge_program(judged.build_problem(checker='fuzzy'), judged.CONTROL)


def test_another_language_is_an_error_and_not_a_verdict():
  s = records.Submission(problem_id='p', sample_index=0, source='x', language='cobol')
  with pytest.raises(ValueError, match='cobol.*python'):
    list(judge.judge_all([(judged.build_problem(), s)]))


def test_a_consumer_that_leaves_early_leaves_no_thread_behind():
  before = threading.active_count()
  p = judged.build_problem()
  s = records.Submission(problem_id='p', sample_index=0, source='import time; time.sleep(99)')
  quick = records.Submission(problem_id='p', sample_index=1, source=judged.CONTROL)
  stream = judge.judge_all([(p, quick), (p, s), (p, s)], judge.Settings(cpu_seconds=20.0))
  next(stream)
  time.sleep(1)  # Another is asleep by now, or soon.
  started = time.monotonic()
  stream.close()
  assert time.monotonic() - started < 20  # It would idle for a minute.
  assert threading.active_count() == before
