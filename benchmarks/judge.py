"""What judging costs: CPU-ms per test, compared with two ways without a supervisor.

    python benchmarks/judge.py               about 5 minutes on two cores
    python benchmarks/judge.py --quick       one minute, noisier
    python benchmarks/judge.py --profile     where the CPU time of ours goes

In one run, in turn, on the same programs and tests:

    ours    judge.WorkerPool in the strongest tier: a sandbox per program, a fork per test
    plain   a subprocess per test: `python -I solution.py`, or the binary
    bwrap   the same in a bubblewrap of its own

All three must print the same bytes. CPU time is that of this process and of
all that it has waited for, so it does not depend on how busy the machine is,
as wall time does; it still grows by some ten per cent on a busy one. Pools are
open and warm: probes are not measured. `--output DIR` keeps the result there.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import resource
import statistics
import tempfile
import time

import judge_peers
import machine

from valley_jax import jsonl
from valley_jax import records
from valley_jax.execution import judge
from valley_jax.execution import languages
from valley_jax.execution import timing

_PYTHON = 'print(sum(map(int, input().split())))\n'
_NUMPY = 'import numpy as np\nprint(np.array(input().split(), int).sum())\n'
_CPP = """#include <bits/stdc++.h>
int main() { long a, b; std::cin >> a >> b; std::cout << a + b << "\\n"; }
"""
# name: (language, source, whether each program is compiled anew)
WORKLOADS = {
    'Python': ('python', _PYTHON, False),
    'numpy': ('python', _NUMPY, False),
    'C++': ('cpp17', _CPP, False),
    'C++, compiled': ('cpp17', _CPP, True),
}
# (workload, tests a program): (programs a round, CPU-ms a test to stay below)
_CASES = {
    ('Python', 1): (20, 23.0),
    ('Python', 20): (4, 3.5),
    ('numpy', 1): (8, None),
    ('numpy', 20): (2, 6.0),
    ('C++', 1): (20, None),
    ('C++', 20): (4, None),
    ('C++, compiled', 1): (2, None),
}
_SERIAL = itertools.count()


def _read_cpu_seconds() -> float:
  usages = map(resource.getrusage, (resource.RUSAGE_SELF,
                                    resource.RUSAGE_CHILDREN))  # fmt: skip
  return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def make_tests(number: int) -> tuple[records.TestCase, ...]:
  return tuple(
      records.TestCase(input=f'{i} {i * i}\n', expected=f'{i + i * i}\n') for i in range(number)
  )


def make_pairs(name: str, programs: int, tests: int, is_wrong=False):
  """Yields pairs of one problem, whose checker accepts only the same bytes."""
  language, source, is_compiled = WORKLOADS[name]
  cases = make_tests(tests)
  if is_wrong:
    cases = tuple(records.replace(case, expected='x') for case in cases)
  problem = records.Problem(problem_id=name, statement='', tests=cases, checker='exact')
  for i in range(programs):
    own = f'// {next(_SERIAL)}\n' if is_compiled else ''
    yield problem, records.Submission(
        problem_id=name, sample_index=i, source=own + source, language=language
    )


def _build_peer_runner(peer: judge_peers.SubprocessPeer):
  def run(name: str, programs: int, tests: int) -> list[bytes]:
    outputs = []
    for problem, submission in make_pairs(name, programs, tests):
      language, _, is_new = WORKLOADS[name]
      command = peer.build_command(language, submission.source, is_new)
      inputs = (test.input.encode() for test in problem.tests)
      outputs += [peer.run_test(command, text) for text in inputs]
    return outputs

  return run


def _build_pool_runner(pool: judge.WorkerPool):
  def run(name: str, programs: int, tests: int) -> list[bytes]:
    rows = pool.judge_all(make_pairs(name, programs, tests))
    accepted = [row.verdict is records.Verdict.ACCEPTED for row in rows]
    assert all(accepted), accepted
    return [case.expected.encode() for case in make_tests(tests)] * programs

  return run


def _check_same_outputs(ways, pool: judge.WorkerPool) -> None:
  """Checks that all ways print the same, and that ours rejects another output."""
  for name in WORKLOADS:
    first, *others = [run(name, 1, 3) for run in ways.values()]
    assert all(first == other for other in others), (name, first, others)
    [row] = pool.judge_all(make_pairs(name, 1, 3, is_wrong=True))
    assert row.verdict is records.Verdict.WRONG_ANSWER, row
  list(pool.judge_all(make_pairs('C++, compiled', 5, 1)))  # Until there is a .gch.


def _measure_rounds(ways, num_rounds: int, scale: float) -> dict:
  """Returns {case: {way: [(CPU-ms per test, tests/s), ...]}}, a pair per round."""
  results = {}
  for (name, tests), (programs, _) in _CASES.items():
    programs = max(1, round(programs * scale))
    rounds = results[name, tests] = {way: [] for way in ways}
    for _ in range(num_rounds):
      for way, run in ways.items():
        wall, cpu = time.perf_counter(), _read_cpu_seconds()
        outputs = run(name, programs, tests)
        cpu, wall = _read_cpu_seconds() - cpu, time.perf_counter() - wall
        rounds[way].append((cpu * 1e3 / len(outputs), len(outputs) / wall))
  return results


def _measure_growth(num_rounds: int, scale: float) -> dict[int, list[float]]:
  """Returns tests/s of Python at 20 tests per program, by number of workers."""
  programs = max(4, round(32 * scale))
  rates = {}
  numbers = [n for n in (1, 2) if n <= len(os.sched_getaffinity(0))]
  with contextlib.ExitStack() as stack:
    pools = {
        n: stack.enter_context(judge.WorkerPool(judge.Settings(num_workers=n))) for n in numbers
    }
    for _, n in itertools.product(range(num_rounds + 1), numbers):
      wall = time.perf_counter()
      _build_pool_runner(pools[n])('Python', programs, 20)
      rate = programs * 20 / (time.perf_counter() - wall)
      rates.setdefault(n, []).append(rate)
  return {n: found[1:] for n, found in rates.items()}  # The first warms up.


def _format_results(results: dict, growth: dict) -> str:
  """Returns the medians (least–most) and the ratios of the medians."""
  lines = [
      '| program | tests | ours, CPU-ms a test | target | plain | bwrap'
      ' | plain / ours | bwrap / ours | ours, tests/s |',
      '|---|---|---|---|---|---|---|---|---|',
  ]
  for (name, tests), rounds in results.items():
    cpu = {way: [c for c, _ in rows] for way, rows in rounds.items()}
    ours = statistics.median(cpu['ours'])
    target = _CASES[name, tests][1]
    goal = target and f'≤ {target} {"met" if ours <= target else "missed"}'
    cells = [name, str(tests), machine.format_spread(cpu['ours']), goal or '']
    cells += [machine.format_spread(cpu['plain']), machine.format_spread(cpu['bwrap'])]
    for peer in ('plain', 'bwrap'):
      ratios = [a / b for a, b in zip(cpu[peer], cpu['ours'])]
      cells.append(f'{statistics.median(ratios):.2f}')
    cells.append(machine.format_spread([rate for _, rate in rounds['ours']], 0))
    lines.append(f'| {" | ".join(cells)} |')
  lines += ['', '| workers | tests/s, Python, 20 tests a program |', '|---|---|']
  lines += [f'| {n} | {machine.format_spread(rates, 0)} |' for n, rates in growth.items()]
  return '\n'.join(lines)


def _describe_host() -> dict:
  compiler = languages.LANGUAGES['cpp17'].compiler[0]
  return {
      **machine.describe_machine('numpy'),
      'bubblewrap': machine.read_first_line('bwrap', '--version'),
      'compiler': machine.read_first_line(compiler, '--version'),
      'calibration_cpu_ms': round(timing.time_reference_loop() * 1e3, 2),
  }


def _encode_results(results: dict, growth: dict, where: dict) -> str:
  cases = []
  for (name, tests), rounds in results.items():
    row = {'program': name, 'tests': tests, 'target': _CASES[name, tests][1]}
    for way, figures in rounds.items():
      row[f'{way}_cpu_ms'] = [round(cpu, 3) for cpu, _ in figures]
      row[f'{way}_tests_per_s'] = [round(rate, 2) for _, rate in figures]
    cases.append(row)
  rates = {n: [round(x, 1) for x in found] for n, found in growth.items()}
  return json.dumps({'cases': cases, 'growth': rates, **where})


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='fewer, shorter')
  parser.add_argument('--profile', action='store_true', help='of ours, instead')
  parser.add_argument('--output', help='a directory for judge.md, judge.json')
  arguments = parser.parse_args()
  if arguments.profile:
    import judge_profile  # In this file's directory.

    return judge_profile.main()
  num_rounds, scale = (3, 0.5) if arguments.quick else (5, 1.0)
  where = _describe_host()
  with tempfile.TemporaryDirectory() as name, judge.WorkerPool(
      judge.Settings(num_workers=1)
  ) as pool:
    folder = pathlib.Path(name)
    ways = {
        'ours': _build_pool_runner(pool),
        'plain': _build_peer_runner(judge_peers.SubprocessPeer(folder, False)),
        'bwrap': _build_peer_runner(judge_peers.SubprocessPeer(folder, True)),
    }
    _check_same_outputs(ways, pool)
    results = _measure_rounds(ways, num_rounds, scale)
  growth = _measure_growth(num_rounds, scale)
  where['load_after'] = [round(x, 2) for x in os.getloadavg()]
  table, figures = _format_results(results, growth), _encode_results(results, growth, where)
  if arguments.output:
    path = pathlib.Path(arguments.output)
    command = 'python benchmarks/judge.py' + ' --quick' * arguments.quick
    title = f'# What judging costs\n\nMedian (least–most) of {num_rounds} rounds'
    title += f' by `{command}`; all figures are in judge.json. The load was'
    load = machine['load'][0], where['load_after'][0]
    title += f' {load[0]} before and {load[1]} after, on {where["cores"]} cores'
    title += ': see the least where others were at work.\n\n'
    jsonl.write_atomically(path / 'judge.md', f'{title}{table}\n')
    jsonl.write_atomically(path / 'judge.json', figures + '\n')
  print(table, figures, sep='\n\n')


if __name__ == '__main__':
  main()
