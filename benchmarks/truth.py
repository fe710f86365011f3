"""Are right programs accepted, and wrong ones not? Other people's data.

    python benchmarks/truth.py --data ../shared/data      3 minutes on two cores

HumanEval and MBPP bring a solution to each problem; all must be accepted. Of
MBPP those count whose asserts hold under plain `python3`, which is asked of
each row in a process of its own. The Kattis packages and the LeetCode set bring
none: `tests/solutions.py` has them, with wrong, slow and broken ones.
"""

import argparse
import collections
import concurrent.futures
import gzip
import json
import os
import pathlib
import subprocess
import sys
import warnings

from valley_jax import records
from valley_jax.data.problem_formats import problems as problems_lib
from valley_jax.execution import judge

ROOT = pathlib.Path(__file__).parents[1]
KATTIS = {'cpu_seconds': 1.0}  # Slow programs end soon.


def read_gzipped_rows(path: pathlib.Path) -> list[dict]:
  """Returns the rows of a .jsonl.gz file."""
  return [json.loads(x) for x in gzip.decompress(path.read_bytes()).splitlines()]


def read_mbpp_solutions(data: pathlib.Path) -> dict[str, str]:
  """Returns the solutions of MBPP by problem."""
  rows = read_gzipped_rows(data / 'mbpp.jsonl.gz')
  return {f'mbpp/{row["task_id"]}': row['code'] for row in rows}


def read_humaneval_solutions(data: pathlib.Path) -> dict[str, str]:
  """Returns the solutions of HumanEval by problem."""
  rows = read_gzipped_rows(data / 'HumanEval.jsonl.gz')
  return {r['task_id']: r['prompt'] + r['canonical_solution'] for r in rows}


def build_submissions(by_problem: dict) -> list[records.Submission]:
  """Returns a submission for each (problem, kind) or problem."""
  return [
      records.Submission(
          problem_id=key if isinstance(key, str) else key[0],
          sample_index=index,
          source=source,
          language='cpp17' if key[1].endswith('C++') else 'python',
      )
      for index, (key, source) in enumerate(by_problem.items())
  ]


def judge_by_key(spec: str, by_problem: dict, **settings) -> dict:
  """Judges programs by (problem, kind) or problem; returns their judgements."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # Problems without what we do not ask for.
    known = {p.problem_id: p for p in problems_lib.read_problems(spec)}
  pairs = ((known[s.problem_id], s) for s in build_submissions(by_problem))
  rows = judge.judge_all(pairs, judge.Settings(**settings))
  return dict(zip(by_problem, rows))


def passes_plain_python(row: dict) -> bool:
  """Returns whether the asserts of a row of MBPP hold under plain Python."""
  parts = [row['code'], row['test_setup_code'], *row['test_list']]
  command = [sys.executable, '-I', '-c', '\n'.join(parts).replace('\r', '')]
  try:
    done = subprocess.run(command, capture_output=True, timeout=60)
  except subprocess.TimeoutExpired:
    return False
  return done.returncode == 0


def _print_golden(name: str, judgements: dict, right: set[str]) -> None:
  counts = collections.Counter(judgements[key].verdict.value for key in right).most_common()
  print(f'{name:10} {len(right):4} hold:', *(f'{v} {n}' for v, n in counts))
  for key, judgement in judgements.items():
    if (judgement.verdict is records.Verdict.ACCEPTED) != (key in right):
      print('  unlike plain Python:', key, judgement.verdict.value)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data', type=pathlib.Path, required=True)
  data = parser.parse_args().data
  sys.path.append(str(ROOT / 'tests'))
  import solutions

  golden = read_humaneval_solutions(data)
  rows = judge_by_key(f'humaneval:{data}/HumanEval.jsonl.gz', golden)
  _print_golden('HumanEval', rows, set(golden))

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
    mbpp = read_gzipped_rows(data / 'mbpp.jsonl.gz')
    right = [
        f'mbpp/{row["task_id"]}'
        for row, is_right in zip(mbpp, executor.map(passes_plain_python, mbpp))
        if is_right
    ]
  rows = judge_by_key(f'mbpp:{data}/mbpp.jsonl.gz', read_mbpp_solutions(data))
  _print_golden('MBPP', rows, set(right))

  rows = judge_by_key(f'kattis:{data}/kattis', solutions.KATTIS, **KATTIS)
  for (problem, kind), row in rows.items():
    print(f'{problem:14} {kind:7} {row.verdict.value:3}', end=' ')
    print(f'{row.tests_passed}/{row.num_tests} {row.cpu_seconds:.3f} s')

  spec = f'leetcode:{data}/leetcode-20240121-Jul.jsonl.gz'
  for index, expected in enumerate(('AC', 'WA')):
    programs = {task: both[index] for task, both in solutions.LEETCODE.items()}
    found = [row.verdict.value for row in judge_by_key(spec, programs).values()]
    print(f'LeetCode, to be {expected}:', *found)


if __name__ == '__main__':
  main()
