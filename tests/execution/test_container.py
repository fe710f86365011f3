"""Tier T2 where it is needed: in a container that denies namespaces."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason='Only root can build what is like a container.'
)

HERE = pathlib.Path(__file__).parents[1]
IMPORTS = """
from tests import judged
from valley_jax import records
from valley_jax.execution.confinement import isolation
from valley_jax.execution import judge
"""


def _run_in_container(*command, uid=0, refuse=(), missing=()) -> subprocess.CompletedProcess:
  how = json.dumps({'uid': uid, 'refuse': refuse, 'missing': missing})
  here = [str(HERE), str(HERE.parent), *filter(None, sys.path)]
  return subprocess.run(
      [sys.executable, HERE / 'like_container.py', how, *command],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(here)},
      capture_output=True, text=True,
  )  # fmt: skip


def _run_program_in_container(source: str, **container) -> list[str]:
  """Runs Python in the container; returns the lines that it prints."""
  done = _run_in_container('-c', IMPORTS + textwrap.dedent(source), **container)
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


@pytest.fixture(scope='module')
def probe():
  return _run_in_container('-m', 'valley_jax.execution.probe')


def test_the_container_denies_what_docker_denies():
  lines = _run_program_in_container("""
      import ctypes, os
      libc = ctypes.CDLL(None, use_errno=True)
      for flags in (0x10000000, 0x20000, 0x20000000, 0x40000000):
        print(libc.unshare(flags), ctypes.get_errno())
      print(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))
      print(os.listdir('/sys/fs/cgroup'), os.access('/sys/fs/cgroup', os.W_OK))
      status = open('/proc/self/status').read()
      print(status.split('CapBnd:')[1].split()[0], status.count('Seccomp:\\t2'))
  """)
  assert lines == ['-1 1'] * 4 + ['-1', '[] False', '00000000a80425fb 1']


def test_the_probe_takes_t2_there_and_says_why_not_the_others(probe):
  assert probe.returncode == 0, probe.stdout
  assert 'T0: not available' in probe.stdout
  assert 'T1: not available' in probe.stdout
  assert 'T2: holds' in probe.stdout
  assert 'execute takes T2 here.' in probe.stdout


JUDGED = {
    'control': ('python', 'print(3)', 'AC'),
    'numpy': ('python', 'import numpy as np; print(np.arange(3).sum())', 'AC'),
    'threads': ('python', """
        import threading
        t = threading.Thread(target=lambda: print(3)); t.start()""", 'AC'),
    'wrong': ('python', 'print(4)', 'WA'),
    'C++': ('cpp17', '#include <iostream>\nint main() { std::cout << 3; }',
        'AC'),
    'C++ that includes a file of the host':
        ('cpp17', '#include "/etc/shadow"\nint main() {}', 'CE'),
    'reads': ('python', 'print(open("/etc/passwd").read())', 'RE'),
    'reads another': ('python', 'import os; print(open('
        'f"/proc/{os.getppid()}/environ").read())', 'RE'),
    'writes': ('python', 'open("/tmp/x", "w").write("x"); print(3)', 'RE'),
    'writes where it stands': ('python', 'open("x", "w"); print(3)', 'RE'),
    'connects': ('python', 'import socket; socket.socket(); print(3)', 'RE'),
    'kills': ('python', 'import os; os.kill(os.getppid(), 9); print(3)', 'RE'),
    'kills all': ('python', 'import os; os.kill(-1, 9); print(3)', 'RE'),
    'stops': ('python', 'import os; os.kill(os.getppid(), 19); print(3)', 'RE'),
    'forks': ('python', 'import os\nwhile True:\n'
        '  try: os.fork()\n  except OSError: pass', 'TLE'),
    'fills memory': ('python',
        'x = []\nwhile True: x.append(b"x" * (1 << 20))', 'MLE'),
    'prints': ('python', 'while True: print("x" * 999)', 'OLE'),
    'leaves a daemon': ('python', 'import os, time\nif os.fork() == 0:\n'
        '  os.setsid()\n  if os.fork() == 0: time.sleep(77.5)', 'WA'),
    'control after that': ('python', 'print(3)', 'AC'),
}  # fmt: skip


@pytest.fixture(scope='module')
def verdicts():
  programs = [(n, s, textwrap.dedent(c)) for n, (s, c, _) in JUDGED.items()]
  *lines, left = _run_program_in_container(f"""
      import os, pathlib
      before = set(os.listdir('/tmp'))
      limits = records.Limits(cpu_seconds=0.3, memory_mib=128, output_kib=256)
      p = judged.build_problem(('', '3'), limits=limits)
      slow = judged.build_problem(('', '3'))  # numpy, on a busy machine.
      limits = records.replace(limits, cpu_seconds=5.0)
      patient = judged.build_problem(('', '3'), limits=limits)
      special = {{'numpy': slow, 'C++': slow, 'fills memory': patient}}
      pairs = [
          (special.get(n, p), records.Submission(
              problem_id='p', sample_index=0, source=s, language=l))
          for n, l, s in {programs!r}
      ]
      for row in judge.judge_all(pairs, judge.Settings(num_workers=1)):
        print(row.verdict.value, row.tier, row.waivers)
      own = {{20_000 + (os.getpid() * 64 + n) % 40_000 for n in range(64)}}
      users = []
      for path in pathlib.Path('/proc').glob('[0-9]*'):
        try:
          users.append(path.stat().st_uid)
        except FileNotFoundError:
          pass  # It has just ended.
      alive = own.intersection(users)
      left = set(os.listdir('/tmp')) - before
      print(left or 'no files', alive or "no processes")
  """)
  assert left == 'no files no processes'
  return dict(zip(JUDGED, map(str.split, lines)))


@pytest.mark.parametrize('name', JUDGED)
def test_a_program_is_judged_there_as_elsewhere(verdicts, name):
  assert verdicts[name] == [JUDGED[name][2], 'T2', '()']


REFUSED = """
try:
  print(judged.judge_verdict(judged.build_problem(), judged.CONTROL, waivers={!r}))
except isolation.IsolationError as e: print(str(e).replace(chr(10), ' '))
"""


def test_an_ordinary_user_is_told_what_to_do():
  [line] = _run_program_in_container(REFUSED.format(()), uid=1234)
  assert 'Run as root inside the container' in line


LANDLOCK = (
    'landlock_create_ruleset', 'landlock_add_rule', 'landlock_restrict_self'
)  # fmt: skip


@pytest.mark.parametrize(
    ('waivers', 'words'),
    [
        ((), 'needs Landlock'),
        (('network',), 'needs Landlock'),
        (('files',), 'does not confine on this machine: writes'),
        (('writes',), 'does not confine on this machine: files'),
    ],
)
def test_without_landlock_nothing_runs(waivers, words):
  [line] = _run_program_in_container(REFUSED.format(waivers), missing=LANDLOCK)
  assert words in line


def test_without_landlock_what_is_waived_by_name_is_stamped():
  lines = _run_program_in_container(
      """
      row = judged.judge_program(
          judged.build_problem(), judged.CONTROL, waivers=('writes', 'files'))
      print(row.verdict.value, row.tier, *row.waivers)
      """,
      missing=LANDLOCK,
  )
  assert lines == ['AC T2 files writes']


def test_a_waiver_does_not_take_a_wall_away_that_can_be_had():
  source = 'open("/etc/passwd"); print(3)'
  lines = _run_program_in_container(f"""
      row = judged.judge_program(
          judged.build_problem(('', '3')), {source!r}, waivers=('writes', 'files'))
      print(row.verdict.value, row.waivers)
  """)
  assert lines == ['RE ()']


GUARDED = """
import ctypes, os, signal, subprocess, sys
from valley_jax.execution.confinement import seccomp
from valley_jax.execution.inside import confine
libc = ctypes.CDLL(None)
other = subprocess.Popen(
    ['/bin/sleep', '1'], start_new_session=True, stdout=subprocess.DEVNULL)
pid = other.pid
confine.install_filter(seccomp.compile_guard(pid))
high = 1 << 32
ways = {
    'kill': (62, pid, 9), 'kill, high': (62, high | pid, 9),
    'group': (62, (1 << 64) - pid, 9), 'group, low': (62, high - pid, 9),
    'all': (62, (1 << 64) - 1, 0), 'all, low': (62, high - 1, 0),
    'tkill': (200, pid, 9), 'tgkill': (234, pid, pid, 9),
    'tgkill, high': (234, high | pid, pid, 9),
    'queue': (129, pid, 9, bytes(128)),
    'tgqueue': (297, pid, pid, 9, bytes(128)),
    'pidfd': (424, os.pidfd_open(pid), 9, 0, 0),
    'hide': (157, 4, 0, 0, 0, 0), 'hide, high': (157, high | 4, 0, 0, 0, 0),
}
for name, (number, *args) in ways.items():
  args = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in args]
  if libc.syscall(number, *args) != -1: print('reached', name)
try: other.wait(0.1)
except subprocess.TimeoutExpired: print('lives')
os.kill(os.getpid(), 0)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(os.uname().machine != 'x86_64', reason='Calls by number.')
def test_the_filter_alone_keeps_a_test_from_its_supervisor():
  """For Landlock before Linux 6.12, which lets signals through."""
  assert _run_program_in_container(GUARDED) == ['lives']
