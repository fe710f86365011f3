"""Without a sandbox that confines, nothing runs: there is no way around it."""

import os
import pathlib
import shutil
import stat
import subprocess
import sys
import threading

import judged
import pytest

from valley_jax import records
from valley_jax.execution import isolation as isolation_lib
from valley_jax.execution import probes
from valley_jax.execution import sandbox


def _in_thread(action):
  """Runs `action` where it may take a mount namespace of its own."""
  results = []

  def work():
    try:
      results.append(action())
    except isolation_lib.IsolationError as e:
      results.append(e)

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  return results[0]


def test_without_bubblewrap_it_refuses_and_names_the_package(monkeypatch):
  monkeypatch.setenv('PATH', '/nonexistent')
  with pytest.raises(
      isolation_lib.IsolationError, match='apt-get install bubblewrap'
  ):
    judged.judge_one(judged.problem(), judged.CONTROL)


def _fake_bubblewrap(directory: pathlib.Path, script: str) -> str:
  path = directory / 'bwrap'
  path.write_text(f'#!/bin/sh\n{script}\n')
  path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
  # Whoever we become must reach it.
  for parent in list(path.parents)[:-2]:
    parent.chmod(parent.stat().st_mode | 0o011)
  return f'{directory}:{os.environ["PATH"]}'


def test_a_bubblewrap_that_does_not_start_is_refused(tmp_path, monkeypatch):
  script = 'echo "bwrap: No permissions to create new namespace" >&2; exit 1'
  monkeypatch.setenv('PATH', _fake_bubblewrap(tmp_path, script))
  with pytest.raises(
      isolation_lib.IsolationError, match='(?s)No permissions.*user namespaces'
  ):
    judged.judge_one(judged.problem(), judged.CONTROL)


HOLES = {
    'reads a file of the host': '--chdir) set -- "$@" --ro-bind /etc /etc;;',
    'writes to /dev': '--chdir) set -- "$@" --dev /dev --tmpfs /dev/shm;;',
    'has CapBnd': '--chdir) set -- "$@" --cap-add CAP_NET_ADMIN;;',
    'opens a socket': '--seccomp) shift 2; count=$((count - 2)); continue;;',
}


@pytest.mark.parametrize('words', HOLES)
def test_a_bubblewrap_with_a_hole_is_refused(words, tmp_path, monkeypatch):
  """A script in its place asks the real one for less than it was told."""
  script = f"""
count=$#
while [ $count -gt 0 ]; do
  case "$1" in {HOLES[words]} esac
  set -- "$@" "$1"; shift; count=$((count - 1))
done
exec {shutil.which('bwrap')} "$@" """
  monkeypatch.setenv('PATH', _fake_bubblewrap(tmp_path, script))
  with pytest.raises(isolation_lib.IsolationError, match=words):
    judged.judge_one(judged.problem(), judged.CONTROL)


def test_a_sandbox_without_a_cgroup_confines_too():
  def prove():
    isolation = isolation_lib.stage(isolation_lib.prepare())
    probes.prove(isolation, None)

  assert _in_thread(prove) is None


def test_without_a_cgroup_memory_is_summed_over_the_tree():
  greedy = """
import os, time
os.fork(); os.fork()
x = bytearray(48 << 20)
x[::4096] = b'x' * len(x[::4096])
time.sleep(3)
"""
  limits = records.Limits(cpu_seconds=2.0, memory_mib=128)

  def run():
    isolation = isolation_lib.stage(isolation_lib.prepare())
    with sandbox.Sandbox(isolation, None, limits) as box:
      box.compile((greedy,), records.Mode.STDIN, '')
      return box.run(b'')

  assert _in_thread(run).stopped is sandbox.Stop.MEMORY


def test_what_processes_share_is_counted_once():
  shared = """
import os, time
x = b'x' * (48 << 20)
for _ in range(3): os.fork()
time.sleep(0.3)
"""
  limits = records.Limits(cpu_seconds=2.0, memory_mib=128)

  def run():
    isolation = isolation_lib.stage(isolation_lib.prepare())
    with sandbox.Sandbox(isolation, None, limits) as box:
      box.compile((shared,), records.Mode.STDIN, '')
      return box.run(b'')

  assert _in_thread(run).exit_code == 0


def test_processes_are_limited_without_a_cgroup_too():
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

  def run():
    isolation = isolation_lib.stage(isolation_lib.prepare())
    with sandbox.Sandbox(isolation, None, limits) as box:
      box.compile((bomb,), records.Mode.STDIN, '')
      return box.run(b'')

  assert 10 < int(_in_thread(run).stdout) < sandbox.MAX_PROCESSES


def test_the_tier_says_what_held_the_programs():
  tier = judged.judge_one(judged.problem(), judged.CONTROL).tier
  assert tier in ('T0', 'T1')
  assert tier == 'T1' or os.geteuid() == 0


def test_an_unprivileged_user_judges_as_well():
  python = os.path.realpath(sys._base_executable)
  paths = [p for p in sys.path if os.path.isdir(p)]
  here = pathlib.Path(__file__).parent
  nobody = isolation_lib.UNPRIVILEGED_UID
  if os.geteuid() != 0:
    pytest.skip('We are an unprivileged user already.')
  if not all(map(isolation_lib._is_open_to_all, [python, str(here), *paths])):
    pytest.skip(f'User {nobody} may not read {python} and its packages.')
  program = (
      'import judged\n'
      'row = judged.judge_one(judged.problem(), judged.CONTROL)\n'
      'print(row.verdict.value, row.tier)'
  )
  path = os.pathsep.join([str(here), str(here.parent), *paths])
  done = subprocess.run(
      [python, '-c', program], user=nobody, group=nobody, extra_groups=[],
      env={'PYTHONPATH': path, 'PATH': os.environ['PATH']}, cwd='/',
      capture_output=True, text=True,
  )  # fmt: skip
  assert done.stdout.split() == ['AC', 'T1'], done.stderr


def test_a_killed_judge_leaves_no_process():
  """bubblewrap and all in it end with the process that started it."""
  program = (
      'import judged\n'
      'judged.judge_one(judged.problem(), "import time; time.sleep(77.25)")'
  )
  here = pathlib.Path(__file__).parent
  path = os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)])
  process = subprocess.Popen(
      [sys.executable, '-c', program],
      env={**os.environ, 'PYTHONPATH': path},
      start_new_session=True,
  )
  try:
    with pytest.raises(subprocess.TimeoutExpired):
      process.wait(timeout=1.5)
    inside = _bubblewraps(process.pid)
    assert inside
  finally:
    process.kill()
    process.wait()
  for pid in inside:
    _wait_until_gone(pid)


def _bubblewraps(parent: int) -> list[int]:
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = path.read_text().rpartition(')')[2].split()
    except OSError:
      continue
    if int(fields[1]) == parent:
      pid = int(path.parent.name)
      found += [pid, *_bubblewraps(pid)]
  return found


def _wait_until_gone(pid: int) -> None:
  for _ in range(100):
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
  judged.judge_one(judged.problem(), judged.CONTROL)
  assert not forks
