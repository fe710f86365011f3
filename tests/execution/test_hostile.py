"""Hostile programs, by tier: none is accepted, none affects the next program.

These exhaust and destroy. Those that try to reach something are in `test_hostile_walls.py`, those
of compilers in `test_hostile_cpp.py`.
"""

import concurrent.futures
import pathlib

import pytest

from tests import judged
from tests import leftovers
from valley_jax import records
from valley_jax.execution import cache
from valley_jax.execution import languages
from valley_jax.execution.confinement import sandbox

# Each may end in any verdict but AC and IE.
BOMBS = {
    'fork bomb': """
while True:
  try: os.fork()
  except OSError: pass""",
    'fork bomb with setsid': """
while True:
  try:
    if os.fork() == 0: os.setsid()
  except OSError: pass""",
    'fork bomb of siblings': """
CLONE_PARENT, SIGCHLD = 0x8000, 17
while True: libc.syscall(56, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)""",
    'thread bomb': """
import threading
while True:
  try: threading.Thread(target=time.sleep, args=(9,)).start()
  except RuntimeError: pass""",
    'memory bomb': 'x = []\nwhile True: x.append(bytearray(b"x") * (1 << 20))',
    'shared memory bomb': """
import mmap
x = []
while True:
  x.append(mmap.mmap(-1, 1 << 24))
  x[-1].write(b'x' * (1 << 24))""",
    'memory bomb of many processes': """
for _ in range(5): os.fork()
x = b'x' * (32 << 20)
while True: pass""",
    'memory bomb that cannot be dumped': """
libc.prctl(4, 0, 0, 0, 0)
libc.syscall(157, c_ulong(1 << 32 | 4), 0, 0, 0, 0)
for _ in range(6):
  if os.fork() == 0:
    x = b'x' * (48 << 20)
    time.sleep(3)
    os._exit(0)
for _ in range(6): os.wait()
print('held')""",
    'endless stdout': 'while True: print("x" * 999)',
    'endless stderr': 'while True: sys.stderr.write("x" * 999)',
    'endless reports': 'while True: os.write(4, b"x" * 65536)',
    'endless stdout beyond the end': """
os.lseek(1, 1 << 40, os.SEEK_SET)
while True: os.write(1, b'x')""",
    'a file in a pipe of itself':
        'while True: os.write(1, os.read(0, 10) or b"x" * 10)',
    'ignores all signals': """
for n in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)
while True: pass""",
    'a flood of timers': """
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
while True: pass""",
    'a timer that kills': """
event = bytes(8) + (9).to_bytes(4, 'little') + bytes(64)  # SIGEV_SIGNAL.
timer = ctypes.c_int()
libc.timer_create(0, event, ctypes.byref(timer))
libc.timer_settime(c_void_p(timer.value), 0, struct.pack('4q', 0, 1, 0, 1), 0)
while True: pass""",
    'leaves a daemon': """
if os.fork() == 0:
  os.setsid()
  if os.fork() == 0:
    os.closerange(0, 9)
    time.sleep(99)""",
    'leaves a daemon that ignores signals': """
for n in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)
libc.prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
  os.setsid()
  if os.fork() == 0:
    while True: pass""",
    'kills everybody': 'os.kill(-1, 9)',
    'kills its parent': 'os.kill(os.getppid(), 9)',
    'kills its group': 'os.killpg(0, 9)',
    'kills its parent and its group, each way': """
parent = os.getppid()
for n in set(range(1, 65)):
  for target in (parent, -parent, 1, -1 if n in (18, 28) else parent):
    for high in (0, 1 << 32):
      libc.syscall(62, c_ulong(high | target & 0xffffffff), n)  # kill
  libc.syscall(200, parent, n)  # tkill
  libc.syscall(234, parent, parent, n)  # tgkill
  libc.syscall(129, parent, n, bytes(128))  # rt_sigqueueinfo
  libc.syscall(297, parent, parent, n, bytes(128))  # rt_tgsigqueueinfo
  try: signal.pidfd_send_signal(os.pidfd_open(parent), n)
  except OSError: pass""",
    'closes all descriptors': 'os.closerange(0, 999)',
    'writes into each descriptor': """
for fd in range(3, 99):
  try: os.write(fd, b'time value code 42')
  except OSError: pass""",
    'reads each descriptor': """
for fd in range(3, 99):
  try: os.write(1, os.read(fd, 99))
  except OSError: pass""",
    'fills its directory': """
for i in range(10**6): open(str(i), 'wb').write(bytes(1 << 17))""",
    'fills /dev/shm': """
for i in range(10**6): open(f'/dev/shm/{i}', 'wb').write(bytes(1 << 17))""",
    'fills inodes': 'for i in range(10**6): open(str(i), "w").close()',
    'nests directories':
        'for _ in range(4095): os.mkdir("d"); os.chdir("d")',
    'takes its directory away':
        'os.chmod(".", 0); os.chmod(os.environ["HOME"], 0)',
    'C stack overflow': """
f = ctypes.CFUNCTYPE(None)
g = f(lambda: g())
g()""",
    'segmentation fault': 'ctypes.string_at(8)',
    'abort': 'os.abort()',
    'bad UTF-8': 'os.write(1, b"\\xff\\xfe\\x80")',
    'a burst of NUL': 'print("\\0" * 1000)',
    'NUL in the source': 'print("held")\0',
    'half a character in the source': 'print("held\ud800")',
    'another personality':
        'libc.personality(0x0040000); os.execv("/usr/bin/true", ["held"])',
}  # fmt: skip
PRELUDE = """
import ctypes, os, signal, struct, sys, time
from ctypes import c_ulong, c_void_p
libc = ctypes.CDLL(None)
"""

# Each is stopped by its wall time, that is after five seconds: all at once.
IDLERS = {
    'sleeps': 'time.sleep(99)',
    'stops itself': 'os.kill(os.getpid(), signal.SIGSTOP)',
    'waits for itself': 'r, w = os.pipe(); os.read(r, 1)',
    'waits with a stopped child': """
if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)
os.wait()""",
}
# Its children are reaped by nobody, so that no /proc and no wait4 tells what
# they used; each is gone before the watch looks again.
UNSEEN = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
  if os.fork() == 0:
    end = time.process_time() + 0.015
    while time.process_time() < end: pass
    os._exit(0)
  try: os.wait()
  except ChildProcessError: pass
"""


@pytest.fixture(scope='module', params=leftovers.TIER_PARAMS)
def bombs(request):
  sources = {name: PRELUDE + source for name, source in BOMBS.items()}
  # A slow machine takes a second to fill the memory.
  patient = judged.build_problem(
      ('', 'held'), limits=records.replace(leftovers.LIMITS, cpu_seconds=5.0)
  )
  greedy = {n: sources.pop(n) for n, v in EXPECTED.items() if v == 'MLE'}
  rows = leftovers.judge_with_controls(greedy, request.param, patient)
  return rows | leftovers.judge_with_controls(sources, request.param)


@pytest.mark.parametrize('name', BOMBS)
def test_a_bomb_is_judged_and_the_next_program_accepted(bombs, name, record_property):
  row, control, seconds = bombs[name]
  assert row.verdict.value not in ('AC', 'IE'), row
  assert control.verdict.value == 'AC', control
  record_property('seconds_to_the_next', round(seconds, 3))
  assert seconds < 30  # A second, on a machine with nothing else to do.


EXPECTED = {
    'memory bomb': 'MLE',
    'shared memory bomb': 'MLE',
    'memory bomb of many processes': 'MLE',
    'memory bomb that cannot be dumped': 'MLE',
    'endless stdout': 'OLE',
    'ignores all signals': 'TLE',
    'a flood of timers': 'TLE',
    'NUL in the source': 'CE',
    'half a character in the source': 'CE',
}


@pytest.mark.parametrize('name', EXPECTED)
def test_the_verdict_says_which_limit_was_passed(bombs, name):
  assert bombs[name][0].verdict.value == EXPECTED[name], bombs[name]


@pytest.fixture(scope='module')
def idlers():
  sources = {name: PRELUDE + source for name, source in IDLERS.items()}
  sources['unseen'] = PRELUDE + UNSEEN
  p = judged.build_problem(('', 'held'), limits=leftovers.LIMITS)
  pairs = []
  for source in sources.values():
    pairs += [(p, source), (judged.build_problem(), judged.CONTROL)]

  def judge_in_tier(tier, some):
    rows = judged.judge_pairs(*some, tier=tier)
    return [row.verdict.value for row in rows]

  with leftovers.expect_no_leftovers(), concurrent.futures.ThreadPoolExecutor(20) as executor:
    futures = {
        (tier, name): executor.submit(judge_in_tier, tier, pairs[2 * i : 2 * i + 2])
        for tier in leftovers.TIERS
        for i, name in enumerate(sources)
    }
    return {key: future.result() for key, future in futures.items()}


@pytest.mark.parametrize('name', IDLERS)
@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_an_idle_program_is_stopped(idlers, tier, name):
  assert idlers[tier, name] == ['ILE', 'AC']


@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_what_children_used_counts_even_if_nobody_reaped_them(idlers, tier):
  """By the cgroup; without one, the wall limit ends the program."""
  verdict, control = idlers[tier, 'unseen']
  assert verdict in (('TLE',) if tier == 'T0' else ('TLE', 'ILE'))
  assert control == 'AC'


# Writes down what it can and looks for what an earlier test wrote.
KEEPS = """
import fcntl
def attempt(action):
  try: return action()
  except (OSError, ValueError): return None
def look():
  found = [os.getpriority(0, 0), os.getcwd()]
  for path in ('/tmp', '/dev/shm', '.', '/var/tmp', os.environ['HOME']):
    found += [attempt(lambda: sorted(os.listdir(path))),
              attempt(lambda: os.listxattr(path)), os.path.exists(path + '/x')]
    found.append(attempt(lambda: oct(os.stat(path).st_mode)))
  for fd in range(6):
    found += [fcntl.fcntl(fd, fcntl.F_GETFL), os.fstat(fd).st_mode,
              attempt(lambda: os.lseek(fd, 0, os.SEEK_CUR)),
              attempt(lambda: os.listxattr(fd))]
  found += [signal.getsignal(n) for n in range(1, 32)]
  return found
first = repr(look())
for path in ('/tmp', '/dev/shm', '.', '/var/tmp', os.environ['HOME']):
  attempt(lambda: open(path + '/x', 'w').write('x'))
  attempt(lambda: os.setxattr(path, 'user.x', b'x'))
for fd in range(2, 6):
  attempt(lambda: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK))
  attempt(lambda: os.setxattr(fd, 'user.x', b'x'))
  attempt(lambda: os.lseek(fd, 7, os.SEEK_SET))
  attempt(lambda: os.fchmod(fd, 0))
attempt(lambda: os.setpriority(os.PRIO_USER, 0, 7))
attempt(lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 7))
os.environ['x'] = 'x'
signal.signal(signal.SIGTERM, signal.SIG_IGN)
attempt(lambda: os.chmod('.', 0o777))
print(first)
"""


KEEPS_BINARY = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
int main() {
  struct stat s;
  fstat(5, &s);
  printf("%ld %o %ld\n", lseek(5, 0, SEEK_CUR), s.st_mode, s.st_size);
  fflush(stdout);
  lseek(5, 7, SEEK_SET);
  flock(5, LOCK_EX);
  fchmod(5, 0600);
  execl("/bin/sh", "sh", "-c", "echo x > /proc/self/fd/5; chmod 0 /dev/fd/5",
        (char*)0);
}
"""


def _run_twice(tier: str, prepare_program) -> list[sandbox.Execution]:
  """Runs two tests as a worker does: in one sandbox, unless it is dirty."""

  def run_both(confinement):
    load_program, executions, box = prepare_program(confinement), [], None
    while len(executions) < 2:
      if box is None or box.is_dirty:
        if box:
          box.close()
        box = sandbox.Sandbox(confinement, leftovers.LIMITS)
        load_program(box)
      executions.append(box.run_test(b''))
    box.close()
    return executions

  return judged.run_confined(run_both, tier)


@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_a_test_finds_nothing_that_another_has_left(tier):
  def prepare_program(confinement):
    del confinement
    return lambda box: box.compile_python((PRELUDE + KEEPS,), 'stdin', '')

  first, second = _run_twice(tier, prepare_program)
  assert first.exit_code == second.exit_code == 0, first.stderr
  assert first.stdout == second.stdout


@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_a_binary_that_a_test_has_rewritten_is_whole_for_the_next(tier):
  def prepare_program(confinement):
    compilers = languages.Compilers(cache.JudgementCache(''), pathlib.Path('/none'))
    source = {'solution.c': KEEPS_BINARY.encode()}
    binary, made = compilers.compile_files(confinement, 'c', source)
    assert binary, made
    return lambda box: box.load_binary(binary)

  first, second = _run_twice(tier, prepare_program)
  assert first.stdout == second.stdout != b''
