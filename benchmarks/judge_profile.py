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


def _usage() -> tuple[float, float]:
  """Returns the CPU-ms of this process and of its children."""
  usages = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  own, children = ((u.ru_utime + u.ru_stime) * 1e3 for u in map(resource.getrusage, usages))
  return own, children


def _price(name: str, action, repeats: int = _REPEATS) -> None:
  """Prints the median price of an action."""
  action()
  prices = []
  for _ in range(repeats):
    before = _usage()
    action()
    prices.append([b - a for a, b in zip(before, _usage())])
  own, children = (statistics.median(column) for column in zip(*prices))
  print(f'{name:<52} {own:6.2f} {children:8.2f} {own + children:8.2f}')


def _spawn(command: list[str], fds=(), uid: int | None = None) -> None:
  if uid is not None:
    command = isolation_lib.build_user_switch(uid) + command
  subprocess.run(command, check=True, stdin=subprocess.DEVNULL, pass_fds=fds)


def _bubblewrap(isolation: isolation_lib.Isolation, command: list[str]) -> None:
  reader, writer = os.pipe()
  os.write(writer, isolation.seccomp_filter)
  os.close(writer)
  whole = bubblewrap.build_bubblewrap_command(isolation, reader, None)
  try:
    head = whole[: whole.index('--') + 1]
    _spawn([*head, *command], (reader, isolation.code_fd), isolation.uid)
  finally:
    os.close(reader)


def _sandbox(place: isolation_lib.Confinement, source: str | None, tests: int) -> None:
  with sandbox.Sandbox(place, _LIMITS) as box:
    if source is not None:
      box.compile_python((source,), 'stdin', '')
    for case in benchmark.make_tests(tests):
      box.run_test(case.input.encode())


def _steps(worker: worker_lib.Worker) -> None:
  place = worker.confinement
  isolation = place.isolation
  boot = isolation_lib.build_boot_command(isolation)
  bare = [isolation.interpreter, '-s', '-P', '-S', '-c', '']
  print(f'{isolation.tier:<52}   host children      all')
  _price('spawn /bin/true', lambda: _spawn(['/bin/true']))
  uid = isolation.uid
  _price('… after giving root up', lambda: _spawn(['/bin/true'], (), uid))
  if not place.user:
    _price('… in bubblewrap', lambda: _bubblewrap(isolation, ['/usr/bin/true']))
    _price('an interpreter in it', lambda: _bubblewrap(isolation, bare))
    _price('… that is the supervisor', lambda: _bubblewrap(isolation, boot))
  _price('Sandbox: … moved into a cgroup', lambda: _sandbox(place, None, 0))
  for name in ('Python', 'numpy'):
    source = benchmark.WORKLOADS[name][1]
    for tests in (0, 1, 2, 20):
      action = functools.partial(_sandbox, place, source, tests)
      _price(f'{name}: … compiled, {tests} tests run', action, 10)
  for tests in (1, 20):
    [pair] = benchmark.make_pairs('Python', 1, tests)
    action = functools.partial(worker.judge_submission, *pair)
    _price(f'Worker.judge_submission: Python, {tests} tests', action)


def _functions(worker: worker_lib.Worker, tests: int) -> None:
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
    _steps(worker)
    _functions(worker, 1)
    _functions(worker, 20)
    worker.close()
    shared.isolation.close()

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
