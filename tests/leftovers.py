"""Judges hostile programs, and checks what they leave on the host."""

import contextlib
import ctypes
import os
import pathlib
import tempfile
import threading
import time

from tests import judged
from tests import marks
from valley_jax import records
from valley_jax.execution import judge
from valley_jax.execution.confinement import cgroups
from valley_jax.execution.confinement import isolation as isolation_lib

# The others need root.
TIERS = isolation_lib.TIERS if os.geteuid() == 0 else ('T1',)
# For hostile programs that take minutes: the strongest tier in every run, the others with --all.
TIER_PARAMS = marks.long_but_first(TIERS)
LIMITS = records.Limits(cpu_seconds=0.3, memory_mib=128, output_kib=256)
_PR_SET_CHILD_SUBREAPER = 36
_SHARED = ('/tmp', '/var/tmp', '/dev/shm', '/dev/mqueue', tempfile.gettempdir())


def find_descendants(root: int = 0) -> set[int]:
  """Returns the living descendants of `root`, by default of this process."""
  parents, dead = {}, set()
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = stat.read_text().rpartition(')')[2].split()
    except OSError:
      continue  # It has just ended.
    parents[int(stat.parent.name)] = int(fields[1])
    if fields[0] in 'ZX':
      dead.add(int(stat.parent.name))
  descendants, level = set(), {root or os.getpid()}
  while level := {pid for pid, parent in parents.items() if parent in level}:
    descendants |= level
  return descendants - dead


def _list_program_users() -> set[int]:
  """Returns the user ids that a program judged by this process may have."""
  return {isolation_lib.UNPRIVILEGED_UID} | {
      20_000 + (os.getpid() * 64 + number) % 40_000 for number in range(64)
  }


def _capture_host_state() -> dict[str, object]:
  """Returns everything on the host that a program could leave."""
  users = _list_program_users()
  files, groups = set(), set()
  for top in _SHARED:
    for entry in os.scandir(top) if os.path.isdir(top) else ():
      with contextlib.suppress(FileNotFoundError):
        is_pools = entry.name.startswith(f'valley_jax.{os.getpid()}.')
        if is_pools or entry.stat(follow_symlinks=False).st_uid in users:
          files.add(entry.path)
  for directory in cgroups.find_own_groups().values():
    groups |= set(directory.glob(f'valley_jax.{os.getpid()}.*'))
  sockets = pathlib.Path('/proc/net/unix').read_text().split()
  names = {f'@valley_jax.uid.{uid}' for uid in users}
  return {
      'processes': find_descendants(),
      'threads': threading.active_count(),
      'mounts': pathlib.Path('/proc/self/mounts').read_text(),
      'files': files,
      'groups': groups,
      'sockets': names & set(sockets),
      'descriptors': set(os.listdir('/proc/self/fd')),
      'shared memory': pathlib.Path('/proc/sysvipc/shm').read_text(),
  }


@contextlib.contextmanager
def expect_no_leftovers():
  """Asserts that the body leaves nothing on the host.

  An orphan that has left its sandbox is seen as well: it becomes a child of this process, and not
  of PID 1.
  """
  libc = ctypes.CDLL(None)
  before = _capture_host_state()
  libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
  try:
    yield
    deadline = time.monotonic() + 30.0
    while (after := _capture_host_state()) != before and time.monotonic() < deadline:
      time.sleep(0.05)  # Killed processes take a moment to end.
    assert after == before
  finally:
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def judge_with_controls(
    sources: dict[str, str],
    tier: str,
    problem: records.Problem | None = None,
    language: str = 'python',
    **settings,
) -> dict[str, tuple[records.Judgement, records.Judgement, float]]:
  """Judges hostile programs with one worker, and a control after each.

  Returns:
    By name: the program's judgement, the control's, and the seconds between them.
  """
  problem = problem or judged.build_problem(('', 'held'), limits=LIMITS)
  control = judged.build_problem()
  pairs = []
  for index, source in enumerate(sources.values()):
    for p, code, name in ((problem, source, language), (control, judged.CONTROL, 'python')):
      submission = records.Submission(
          problem_id='p', sample_index=index, source=code, language=name
      )
      pairs.append((p, submission))
  settings = {'cpu_seconds': 1.0, 'num_workers': 1, **settings}
  rows, times = [], []
  with expect_no_leftovers():
    for row in judge.judge_all(pairs, judge.Settings(tier=tier, **settings)):
      rows.append(row)
      times.append(time.monotonic())
  seconds = [b - a for a, b in zip(times[::2], times[1::2])]
  return dict(zip(sources, zip(rows[::2], rows[1::2], seconds)))
