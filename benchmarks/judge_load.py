"""Does load change a verdict? A program at 0.8 of its limit, 8 at once.

    python benchmarks/judge_load.py              20 repeats, 3 minutes

The loop is sized so that it takes .4 s of CPU time alone (the median of 5), and
its limit is .5 s. Then 8 of it are judged at once on two cores: by one pool of
two workers, and by four processes of two workers each, which know nothing of
one another. A verdict other than AC is a flip; there should be none.
"""

import argparse
import collections
from collections.abc import Iterator
import contextlib
import json
import statistics
import subprocess
import sys

from valley_jax import records
from valley_jax.execution import judge

LIMIT, USED = 0.5, 0.4  # Seconds of CPU time.
AT_ONCE, NUM_PROCESSES, NUM_WORKERS = 8, 4, 2
SETTINGS = judge.Settings(num_workers=NUM_WORKERS)
PROBLEM = records.Problem(
    problem_id='p',
    statement='',
    tests=(records.TestCase(input='', expected='done'),),
    limits=records.Limits(cpu_seconds=LIMIT),
)
Row = tuple[str, float]  # Verdict and CPU seconds.


def build_loop(num_steps: int) -> str:
  """Returns a program that takes this many steps."""
  return f'for i in range({num_steps}): i * i % 7\nprint("done")'


def judge_loop(pool: judge.WorkerPool, num_steps: int, times: int) -> list[Row]:
  """Judges the loop this many times."""
  source = build_loop(num_steps)
  one = records.Submission(problem_id='p', sample_index=0, source=source)
  rows = pool.judge_all([(PROBLEM, one)] * times)
  return [(row.verdict.value, row.cpu_seconds) for row in rows]


def calibrate_loop(used: float = USED) -> int:
  """Returns how many steps take this many CPU seconds, alone."""
  num_steps = 1_000_000
  with judge.WorkerPool(judge.Settings(num_workers=1)) as pool:
    for _ in range(10):  # Until it is steady: others may be at work here.
      alone = statistics.median(t for _, t in judge_loop(pool, num_steps, 5))
      num_steps = int(num_steps * used / alone)
      if abs(alone / used - 1) < 0.05:
        break
  return num_steps


def judge_in_one_pool(num_steps: int, repeats: int) -> list[Row]:
  """Judges AT_ONCE loops by a pool, again and again."""
  rows = []
  with judge.WorkerPool(SETTINGS) as pool:
    for _ in range(repeats):
      rows += judge_loop(pool, num_steps, AT_ONCE)
  return rows


def _serve_parent(num_steps: int) -> None:
  """Judges one process's part of the loops for every line of standard input."""
  with judge.WorkerPool(SETTINGS) as pool:
    judge_loop(pool, 1, NUM_WORKERS)  # Its workers are made.
    print(flush=True)
    for _ in sys.stdin:
      rows = judge_loop(pool, num_steps, AT_ONCE // NUM_PROCESSES)
      print(json.dumps(rows), flush=True)


@contextlib.contextmanager
def _start_processes(num_steps: int) -> Iterator[list[subprocess.Popen]]:
  command = [sys.executable, __file__, '--serve', str(num_steps)]
  streams = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
  children = []
  try:
    for _ in range(NUM_PROCESSES):
      children.append(subprocess.Popen(command, text=True, **streams))
    yield children
  finally:
    for child in children:
      child.communicate()  # At the end of their input they leave.


def judge_in_processes(num_steps: int, repeats: int) -> list[Row]:
  """Judges AT_ONCE loops by NUM_PROCESSES pools at the same time."""
  rows = []
  with _start_processes(num_steps) as children:
    for child in children:
      child.stdout.readline()
    for _ in range(repeats):
      for child in children:
        child.stdin.write('\n')
        child.stdin.flush()
      for child in children:
        rows += map(tuple, json.loads(child.stdout.readline()))
  return rows


def _print_spread(name: str, rows: list[Row]) -> None:
  counts = collections.Counter(verdict for verdict, _ in rows)
  seconds = sorted(t for _, t in rows)
  median = statistics.median(seconds)
  print(f'{name:14} {len(rows):4} {len(rows) - counts["AC"]:6}', end='  ')
  print(f'{seconds[0]:.3f}  {median:.3f}  {seconds[-1]:.3f}', dict(counts))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--repeats', type=int, default=20)
  parser.add_argument('--serve', type=int, help='for the processes it starts')
  args = parser.parse_args()
  if args.serve:
    return _serve_parent(args.serve)
  num_steps = calibrate_loop()
  print(f'{num_steps:,} steps; limit {LIMIT} s\n{"":14} rows  flips  CPU s:')
  print(f'{"":27}least  median  most')
  _print_spread('one pool', judge_in_one_pool(num_steps, args.repeats))
  _print_spread('four processes', judge_in_processes(num_steps, args.repeats))


if __name__ == '__main__':
  main()
