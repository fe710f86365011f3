"""Where the judge's CPU time goes: `python benchmarks/judge.py --profile`.

Each line of the table is something done many times in the strongest tier, in
CPU-ms of this process and of all that it has waited for. A line holds what the
lines above it do, so that the differences are the price of a step. Then come
the functions of the host, by cProfile.
"""

import cProfile
import functools
import io
import os
import pstats
import resource
import statistics
import subprocess
import threading

import judge as benchmark

from valley_jax import records
from valley_jax.execution import judge
from valley_jax.execution import worker as worker_lib
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import sandbox

_REPEATS = 25
_LIMITS = records.Limits(cpu_seconds=5.0)


def _read_cpu_ms() -> tuple[float, float]:
  """Returns the CPU-ms of this process and of its children."""
  usages = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  own, children = ((u.ru_utime + u.ru_stime) * 1e3 for u in map(resource.getrusage, usages))
  return own, children


def _print_price(name: str, action, repeats: int = _REPEATS) -> None:
  """Prints the median price of an action."""
  action()
  prices = []
  for _ in range(repeats):
    before = _read_cpu_ms()
    action()
    prices.append([b - a for a, b in zip(before, _read_cpu_ms())])
  own, children = (statistics.median(column) for column in zip(*prices))
  print(f'{name:<52} {own:6.2f} {children:8.2f} {own + children:8.2f}')


def _spawn_command(command: list[str], fds=(), uid: int | None = None) -> None:
  if uid is not None:
    command = isolation_lib.build_user_switch(uid) + command
  subprocess.run(command, check=True, stdin=subprocess.DEVNULL, pass_fds=fds)


def _spawn_in_bubblewrap(isolation: isolation_lib.Isolation, command: list[str]) -> None:
  reader, writer = os.pipe()
  os.write(writer, isolation.seccomp_filter)
  os.close(writer)
  whole = bubblewrap.build_bubblewrap_command(isolation, reader, None)
  try:
    head = whole[: whole.index('--') + 1]
    _spawn_command([*head, *command], (reader, isolation.code_fd), isolation.uid)
  finally:
    os.close(reader)


def _run_sandbox(confinement: isolation_lib.Confinement, source: str | None, tests: int) -> None:
  with sandbox.Sandbox(confinement, _LIMITS) as box:
    if source is not None:
      box.compile_python((source,), 'stdin', '')
    for case in benchmark.make_tests(tests):
      box.run_test(case.input.encode())


def _print_steps(worker: worker_lib.Worker) -> None:
  confinement = worker.confinement
  isolation = confinement.isolation
  boot = isolation_lib.build_boot_command(isolation)
  bare = [isolation.interpreter, '-s', '-P', '-S', '-c', '']
  print(f'{isolation.tier:<52}   host children      all')
  _print_price('spawn /bin/true', lambda: _spawn_command(['/bin/true']))
  uid = isolation.uid
  _print_price('… after giving root up', lambda: _spawn_command(['/bin/true'], (), uid))
  if not confinement.user:
    _print_price('… in bubblewrap', lambda: _spawn_in_bubblewrap(isolation, ['/usr/bin/true']))
    _print_price('an interpreter in it', lambda: _spawn_in_bubblewrap(isolation, bare))
    _print_price('… that is the supervisor', lambda: _spawn_in_bubblewrap(isolation, boot))
  _print_price('Sandbox: … moved into a cgroup', lambda: _run_sandbox(confinement, None, 0))
  for name in ('Python', 'numpy'):
    source = benchmark.WORKLOADS[name][1]
    for tests in (0, 1, 2, 20):
      action = functools.partial(_run_sandbox, confinement, source, tests)
      _print_price(f'{name}: … compiled, {tests} tests run', action, 10)
  for tests in (1, 20):
    [pair] = benchmark.make_pairs('Python', 1, tests)
    action = functools.partial(worker.judge_submission, *pair)
    _print_price(f'Worker.judge_submission: Python, {tests} tests', action)


def _print_functions(worker: worker_lib.Worker, tests: int) -> None:
  profile = cProfile.Profile()
  pairs = list(benchmark.make_pairs('Python', 20, tests))
  profile.enable()
  for pair in pairs:
    worker.judge_submission(*pair)
  profile.disable()
  text = io.StringIO()
  pstats.Stats(profile, stream=text).sort_stats('tottime').print_stats(20)
  print(f'\nThe host, 20 programs of {tests} tests (wall time, waits included):')
  print(text.getvalue().partition('ncalls')[2])


def main() -> None:
  """Prints all of it."""

  def work():  # A worker may change the mounts of its thread.
    shared = worker_lib.SharedResources(judge.Settings(num_workers=1))
    worker = worker_lib.Worker(shared, min(os.sched_getaffinity(0)))
    _print_steps(worker)
    _print_functions(worker, 1)
    _print_functions(worker, 20)
    worker.close()
    shared.isolation.close()

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
