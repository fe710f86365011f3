"""Without a sandbox that confines, nothing runs: there is no way around it."""

import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

from tests import judged
from tests import leftovers
from valley_jax import records
from valley_jax.execution import probe
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import cgroups
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import sandbox


def test_without_bubblewrap_it_refuses_and_names_the_package(monkeypatch):
  monkeypatch.setenv('PATH', '/nonexistent')
  with pytest.raises(isolation_lib.IsolationError, match='apt-get install bubblewrap'):
    judged.judge_program(judged.build_problem(), judged.CONTROL)


def _write_fake_bubblewrap(directory: pathlib.Path, script: str) -> str:
  path = directory / 'bwrap'
  path.write_text(f'#!/bin/sh\n{script}\n')
  path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
  # Whoever we become must reach it.
  for parent in list(path.parents)[:-2]:
    parent.chmod(parent.stat().st_mode | 0o011)
  return f'{directory}:{os.environ["PATH"]}'


def test_a_bubblewrap_that_does_not_start_is_refused(tmp_path, monkeypatch):
  script = 'echo "bwrap: No permissions to create new namespace" >&2; exit 1'
  monkeypatch.setenv('PATH', _write_fake_bubblewrap(tmp_path, script))
  with pytest.raises(isolation_lib.IsolationError, match='(?s)No permissions.*user namespaces'):
    judged.judge_program(judged.build_problem(), judged.CONTROL)


HOLES = {
    'files .reads': '--chdir) set -- "$@" --ro-bind /etc /etc;;',
    'writes to /dev': '--chdir) set -- "$@" --dev /dev --tmpfs /dev/shm;;',
    'privileges': '--chdir) set -- "$@" --cap-add CAP_NET_ADMIN;;',
    'opens a socket': '--seccomp) shift 2; count=$((count - 2)); continue;;',
}


def _write_bubblewrap_with_hole(directory: pathlib.Path, hole: str) -> str:
  """A script that calls the real bubblewrap with fewer walls."""
  return _write_fake_bubblewrap(
      directory,
      f"""
count=$#
while [ $count -gt 0 ]; do
  case "$1" in {hole} esac
  set -- "$@" "$1"; shift; count=$((count - 1))
done
exec {shutil.which('bwrap')} "$@" """,
  )


@pytest.mark.parametrize('words', HOLES)
def test_a_bubblewrap_with_a_hole_is_refused(words, tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', _write_bubblewrap_with_hole(tmp_path, HOLES[words]))
  with pytest.raises(isolation_lib.IsolationError, match=words):
    judged.judge_program(judged.build_problem(), judged.CONTROL)


@pytest.mark.parametrize('words', HOLES)
def test_a_hole_that_is_waived_by_name_is_stamped(words, tmp_path, monkeypatch):
  name = 'network' if 'socket' in words else words.split()[0]
  waivers = (name, 'privileges') if name == 'network' else (name,)
  monkeypatch.setenv('PATH', _write_bubblewrap_with_hole(tmp_path, HOLES[words]))
  row = judged.judge_program(judged.build_problem(), judged.CONTROL, waivers=waivers)
  assert row.verdict.value == 'AC'
  assert row.waivers == tuple(sorted(waivers))


def test_another_hole_than_the_waived_is_refused(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', _write_bubblewrap_with_hole(tmp_path, HOLES['files .reads']))
  with pytest.raises(isolation_lib.IsolationError, match='files .reads'):
    judged.judge_program(judged.build_problem(), judged.CONTROL, waivers=('writes', 'network'))


def test_what_holds_is_not_stamped_though_it_was_waived():
  row = judged.judge_program(
      judged.build_problem(), judged.CONTROL, waivers=tuple(probe.PROPERTIES)
  )
  assert (row.verdict.value, row.waivers) == ('AC', ())


def test_a_waiver_of_no_property_is_an_error_that_names_them():
  with pytest.raises(ValueError, match='file.*properties: files, writes'):
    judged.judge_program(judged.build_problem(), judged.CONTROL, waivers=('file',))


def _run_probe(**environment) -> subprocess.CompletedProcess:
  here = pathlib.Path(__file__).parents[2]
  path = os.pathsep.join([str(here), *filter(None, sys.path)])
  return subprocess.run(
      [sys.executable, '-m', 'valley_jax.execution.probe'],
      env={**os.environ, 'PYTHONPATH': path, **environment},
      capture_output=True, text=True,
  )  # fmt: skip


def test_the_probe_shows_every_property_of_every_tier():
  done = _run_probe()
  assert done.returncode == 0, done.stdout
  _, *tiers = done.stdout.split('\nT')
  assert [text[0] for text in tiers] == ['0', '1', '2']
  for tier, text in zip(isolation_lib.TIERS, tiers):
    if tier in leftovers.TIERS:
      lines = [line.split()[:2] for line in text.splitlines()[1:10]]
      assert lines == [['yes', name] for name in probe.PROPERTIES]
    else:
      assert 'not available' in text
  assert done.stdout.endswith(f'execute takes {leftovers.TIERS[0]} here.\n')


def test_the_probe_names_a_hole_and_takes_the_next_tier(tmp_path):
  done = _run_probe(PATH=_write_bubblewrap_with_hole(tmp_path, HOLES['files .reads']))
  assert 'T1: has holes\n  no  files       reads /etc/' in done.stdout
  is_left = 'T2' in leftovers.TIERS
  assert done.returncode == (0 if is_left else 1)
  last = 'execute takes T2 here.' if is_left else 'No tier holds here.'
  assert done.stdout.endswith(f'{last}\n')


def test_a_sandbox_without_a_cgroup_confines_too():
  assert judged.run_confined(probe.prove_confinement, 'T1') == ()


def test_two_pools_of_a_process_have_cgroups_of_their_own():
  first = cgroups.create_cgroup()
  if first is None:
    pytest.skip('No control group can be made here.')
  second = cgroups.create_cgroup()
  assert second
  assert first.directories[0] != second.directories[0]
  first.remove()
  second.remove()
  assert not first.directories[0].exists()
  assert not second.directories[0].exists()


@pytest.mark.parametrize('tier', ['T1', 'T2'])
def test_without_a_cgroup_memory_is_summed_over_the_tree(tier):
  greedy = """
import os, time
os.fork(); os.fork()
x = bytearray(48 << 20)
x[::4096] = b'x' * len(x[::4096])
time.sleep(3)
"""
  limits = records.Limits(cpu_seconds=2.0, memory_mib=128)
  execution = judged.run_python(greedy, limits, tier)
  assert execution.stopped is sandbox.StopReason.MEMORY


@pytest.mark.parametrize('tier', ['T1', 'T2'])
def test_what_processes_share_is_counted_once(tier):
  shared = """
import os, time
x = b'x' * (48 << 20)
for _ in range(3): os.fork()
time.sleep(0.3)
"""
  limits = records.Limits(cpu_seconds=2.0, memory_mib=128)
  assert judged.run_python(shared, limits, tier).exit_code == 0


@pytest.mark.parametrize('tier', ['T1', 'T2'])
def test_processes_are_limited_without_a_cgroup_too(tier):
  bomb = """
import os
n = 0
try:
  while True:
    if os.fork() == 0:
      while True: os.read(os.pipe()[0], 1)
    n += 1
except OSError: print(n)
"""
  limits = records.Limits(cpu_seconds=2.0)
  execution = judged.run_python(bomb, limits, tier)
  assert 10 < int(execution.stdout) < cgroups.MAX_PROCESSES


@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_the_tier_says_what_held_the_programs(tier):
  row = judged.judge_program(judged.build_problem(), judged.CONTROL, tier=tier)
  assert (row.verdict.value, row.tier) == ('AC', tier)


def test_there_is_no_other_tier():
  with pytest.raises(isolation_lib.IsolationError, match='T0, T1, T2'):
    judged.judge_program(judged.build_problem(), judged.CONTROL, tier='T3')


def test_an_unprivileged_user_judges_as_well():
  python = os.path.realpath(sys._base_executable)
  paths = [p for p in sys.path if os.path.isdir(p)]
  here = pathlib.Path(__file__).parents[1]
  nobody = isolation_lib.UNPRIVILEGED_UID
  if os.geteuid() != 0:
    pytest.skip('We are an unprivileged user already.')
  if not all(map(bubblewrap.is_open_to_all, [python, str(here), *paths])):
    pytest.skip(f'User {nobody} may not read {python} and its packages.')
  program = (
      'import judged\n'
      'row = judged.judge_program(judged.build_problem(), judged.CONTROL)\n'
      'print(row.verdict.value, row.tier)'
  )
  path = os.pathsep.join([str(here), str(here.parent), *paths])
  done = subprocess.run(
      [python, '-c', program], user=nobody, group=nobody, extra_groups=[],
      env={'PYTHONPATH': path, 'PATH': os.environ['PATH']}, cwd='/',
      capture_output=True, text=True,
  )  # fmt: skip
  assert done.stdout.split() == ['AC', 'T1'], done.stderr


@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_a_killed_judge_leaves_no_process(tier):
  """Processes inside end with the process that started the sandbox."""
  source = """
import os
while True:
  try:
    if os.fork() == 0: os.setsid()
  except OSError: pass"""
  program = (
      'import judged\n'
      f'judged.judge_program(judged.build_problem(), {source!r}, cpu_seconds=9,'
      f' tier={tier!r})'
  )
  here = pathlib.Path(__file__).parents[1]
  path = os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)])
  process = subprocess.Popen(
      [sys.executable, '-c', program],
      env={**os.environ, 'PYTHONPATH': path},
      start_new_session=True,
  )
  try:
    while len(inside := leftovers.find_descendants(process.pid)) < 30:
      assert process.poll() is None
      threading.Event().wait(0.02)
    process.kill()
    process.wait()
    for pid in inside:
      _wait_until_gone(pid)
  finally:
    process.kill()
    process.wait()
  # The next pool removes the leftovers.
  judged.judge_program(judged.build_problem(), judged.CONTROL, tier=tier)
  left = pathlib.Path(tempfile.gettempdir()).glob(f'valley_jax.{process.pid}.*')
  assert not list(left)
  for directory in cgroups.find_own_groups().values():
    assert not list(directory.glob(f'valley_jax.{process.pid}.*'))


def test_a_bubblewrap_that_waits_for_a_dead_judge_is_ended(tmp_path):
  """It waits for its user id if its caller has died before writing it."""
  dead = subprocess.Popen(['true'])
  dead.wait()
  directory = tempfile.mkdtemp(prefix=f'valley_jax.{dead.pid}.')
  reader, writer = os.pipe()
  waiting = subprocess.Popen(
      ['bwrap', '--unshare-all', '--ro-bind', '/', '/', '--ro-bind-try',
       f'{directory}/pch', '/pch', '--block-fd', str(reader), 'true'],
      pass_fds=[reader], stderr=subprocess.DEVNULL,
  )  # fmt: skip
  try:
    inside = set()
    while not inside:
      inside = leftovers.find_descendants(waiting.pid)
    isolation_lib.prepare_isolation().close()
    assert waiting.wait(timeout=60) != 0
    for pid in inside:
      _wait_until_gone(pid)
    assert not os.path.exists(directory)
  finally:
    waiting.kill()
    os.close(reader)
    os.close(writer)


def _wait_until_gone(pid: int) -> None:
  for _ in range(1500):  # Half a minute.
    try:
      state = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
      return
    if state.rpartition(')')[2].split()[0] in 'ZX':
      return
    threading.Event().wait(0.02)
  raise AssertionError(f'Process {pid} is still there.')


def test_starting_a_sandbox_forks_no_interpreter():
  """The caller may hold JAX, whose threads do not survive a fork."""
  forks = []
  os.register_at_fork(before=lambda: forks.append(1))
  judged.judge_program(judged.build_problem(), judged.CONTROL)
  assert not forks


USUAL = {
    # A child of a first process that resets all signals has Python's own.
    'signals': """
import signal
defaults = [n for n in range(1, 65) if n not in (32, 33)
            and signal.getsignal(n) is not signal.SIG_DFL]
print(defaults == [2, 13, 25] and
      signal.getsignal(2) is signal.default_int_handler)""",
    'memory that is not touched': 'x = bytes(400 << 20)\nprint(True)',
    'numpy': """
import numpy as np
print(bool((np.eye(99) @ np.ones((99, 99)) == 1).all()))""",
    'a signal of its own': """
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: print(True))
os.kill(os.getpid(), signal.SIGUSR1)""",
    'a broken pipe': """
import os
r, w = os.pipe()
os.close(r)
try: os.write(w, b'x')
except BrokenPipeError: print(True)""",
}
SIGNALS_OF_A_BINARY = """
#include <signal.h>
#include <stdio.h>
int main() {
  int others = 0;
  struct sigaction a;
  for (int n = 1; n < 32; n++) {
    sigaction(n, 0, &a);
    others += a.sa_handler != SIG_DFL;
  }
  puts(others ? "False" : "True");
}
"""


@pytest.fixture(params=['as a shell has them', 'ignored'])
def signals(request):
  """A shell's job in the background ignores SIGINT; under nohup, SIGHUP too."""
  names = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
  before = {n: signal.getsignal(n) for n in names}
  if request.param == 'ignored':
    for n in names:
      signal.signal(n, signal.SIG_IGN)
  yield
  for n, handler in before.items():
    signal.signal(n, handler)


@pytest.mark.usefixtures('signals')
@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_what_is_usual_works_behind_the_walls(tier):
  limits = records.Limits(cpu_seconds=5.0, memory_mib=128)
  p = judged.build_problem(('', 'True'), limits=limits)
  rows = judged.judge_pairs(*((p, s) for s in USUAL.values()), tier=tier)
  verdicts = {n: row.verdict.value for n, row in zip(USUAL, rows)}
  assert verdicts == dict.fromkeys(USUAL, 'AC'), rows
  row = judged.judge_program(p, SIGNALS_OF_A_BINARY, tier=tier, language='c')
  assert row.verdict.value == 'AC', row
