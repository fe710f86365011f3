"""Hostile programs: none gets out, none spoils what comes after it."""

import os
import pathlib
import socket
import threading

import judged
import pytest

from valley_jax import records
from valley_jax.execution import cgroups
from valley_jax.execution import isolation as isolation_lib
from valley_jax.execution import sandbox

LIMITS = records.Limits(cpu_seconds=0.4, memory_mib=128, output_kib=256)

# Each may end in any verdict but AC and IE; those that print must print
# nothing but what their wall lets through, which is 'held'.
HOSTILE = {
    'fork bomb': 'import os\nwhile True:\n'
        '  try: os.fork()\n  except OSError: pass',
    'fork bomb with setsid': 'import os\nwhile True:\n'
        '  try:\n    if os.fork() == 0: os.setsid()\n  except OSError: pass',
    'thread bomb': 'import threading, time\nwhile True:\n'
        '  try: threading.Thread(target=time.sleep, args=(9,)).start()\n'
        '  except RuntimeError: pass',
    'memory bomb': 'x = []\nwhile True: x.append(bytearray(1 << 20))',
    'shared memory bomb': 'import mmap\nx = []\n'
        'while True:\n  m = mmap.mmap(-1, 1 << 24); m.write(b"x" * (1 << 24))\n'
        '  x.append(m)',
    'memory bomb of many processes': 'import os\n'
        'for _ in range(5): os.fork()\n'
        'x = b"x" * (32 << 20)\nwhile True: pass',
    'endless stdout': 'while True: print("x" * 999)',
    'endless stderr': 'import sys\nwhile True: sys.stderr.write("x" * 999)',
    'sleeps as a daemon': 'import os, time\n'
        'if os.fork() == 0:\n  os.setsid()\n'
        '  if os.fork() == 0:\n    for n in range(3): os.close(n)\n'
        '    time.sleep(99)\n',
    'kills everybody': 'import os\nos.kill(-1, 9)',
    'kills its parent': 'import os\nos.kill(os.getppid(), 9)',
    'kills its group': 'import os\nos.killpg(0, 9)',
    'stops PID 1': 'import os, signal\n'
        'for n in set(range(1, 65)) - {32, 33}: os.kill(1, n)',
    'closes all descriptors': 'import os\nos.closerange(0, 999)',
    'fills /tmp': 'i = 0\nwhile True:\n'
        '  open(f"/tmp/{i}", "wb").write(bytes(1 << 17)); i += 1',
    'fills /dev/shm': 'i = 0\nwhile True:\n'
        '  open(f"/dev/shm/{i}", "wb").write(bytes(1 << 17)); i += 1',
    'fills inodes': 'i = 0\nwhile True: open(f"/tmp/{i}", "w").close(); i += 1',
    'nests directories': 'import os\n'
        'for _ in range(4095): os.mkdir("d"); os.chdir("d")',
    'takes its directory away': 'import os\nos.chmod("/tmp", 0)',
    'C stack overflow': 'import ctypes\n'
        'F = ctypes.CFUNCTYPE(None)\ng = F(lambda: g())\ng()',
    'bad UTF-8': 'import os\nos.write(1, b"\\xff\\xfe\\x80")',
    'a burst of NUL': 'print("\\0" * 1000)',
    'a file in a pipe of itself': 'import os\n'
        'while True: os.write(1, os.read(0, 10) or b"x" * 10)',
}  # fmt: skip

# Each line prints what it reached; a wall that holds prints nothing.
REACH = {
    'host files': """
      for path in paths:
        attempt(path, lambda: open(path).read())
      for path in ('/etc/passwd', '/etc/shadow', '/etc/hostname',
                   '/proc/1/root/etc', '/proc/1/cwd/../etc', '/sys/fs/cgroup',
                   '/var', '/run', os.path.dirname(paths[0])):
        attempt(path, lambda: open(path).read() if os.path.isfile(path)
                else os.listdir(path))
      # A home may be there, with nothing on it but the way to the interpreter.
      top = '/'
      while top != sys.prefix and not sys.prefix.startswith('/usr'):
        inside = os.path.relpath(sys.prefix, top).split('/')[0]
        if top != '/' and os.listdir(top) != [inside]:
          print('reached', os.listdir(top))
        top = os.path.join(top, inside)
      attempt('link', lambda: (os.symlink(paths[0], '/tmp/l'),
                               open('/tmp/l').read()))""",
    'the supervisor': """
      for name in ('mem', 'environ', 'fd/0', 'fd/1', 'maps', 'auxv'):
        attempt(name, lambda: open('/proc/1/' + name, 'rb').read(100))
      attempt('fds', lambda: os.listdir('/proc/1/fd'))""",
    'writing': """
      for path in ('/x', '/usr/x', '/etc/x', '/dev/x', '/proc/x', '/packages/x',
                   '/proc/sys/kernel/core_pattern', '/proc/1/oom_score_adj',
                   '/proc/sys/vm/drop_caches', '/proc/sysrq-trigger',
                   sys.prefix + '/x', os.__file__):
        attempt(path, lambda: open(path, 'a'))
      attempt('mkdir', lambda: os.mkdir('/y'))
      attempt('mknod', lambda: os.mknod('/tmp/disk', 0o60644, 0x800))""",
    'networks': """
      for family in (1, 2, 10, 16, 17, 40):
        for kind in (1, 2, 3):
          attempt((family, kind), lambda: socket.socket(family, kind))
      attempt('connect', lambda: socket.create_connection(('127.0.0.1', port)))
      attempt('dns', lambda: socket.getaddrinfo('localhost', port))""",
    'system calls': """
      import ctypes
      libc = ctypes.CDLL(None, use_errno=True)
      def call(name, *args):
        def run():
          if getattr(libc, name)(*args) < 0: raise OSError(name)
        attempt(name, run)
      call('ptrace', 16, 1, 0, 0)
      call('unshare', 0x10000000)
      call('unshare', 0x20000)
      call('mount', b'none', b'/tmp', b'tmpfs', 0, None)
      call('umount2', b'/tmp', 2)
      call('chroot', b'/tmp')
      call('setns', 0, 0)
      call('process_vm_readv', 1, None, 0, None, 0, 0)
      call('shmget', 0, 4096, 0o1600)
      call('msgget', 0, 0o1600)
      call('memfd_create', b'x', 0)
      call('prlimit', 1, 7, ctypes.create_string_buffer(16), None)
      call('setpriority', 0, 1, 19)
      call('sched_setaffinity', 1, 8, ctypes.create_string_buffer(b'\\1', 8))
      call('setuid', 0)
      call('sethostname', b'x', 1)
      call('personality', 0x0040000) if False else None
      for number, name in ((321, 'bpf'), (425, 'io_uring'), (250, 'keyctl'),
                           (438, 'pidfd_getfd'), (323, 'userfaultfd'),
                           (298, 'perf_event_open'), (435, 'clone3')):
        if os.uname().machine == 'x86_64':
          call('syscall', number, 0, 0, 0, 0, 0)""",
}
PRELUDE = """
import os, socket, sys
port, *paths = sys.stdin.read().split()
port = int(port)
def attempt(name, action):
  try: action()
  except (OSError, AttributeError): return
  print('reached', name)
"""


def _descendants() -> set[int]:
  """Every process below this one."""
  parents = {}
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      text = stat.read_text()
    except OSError:
      continue
    parents[int(stat.parent.name)] = int(text.rpartition(')')[2].split()[1])
  found, level = set(), {os.getpid()}
  while level:
    level = {pid for pid, parent in parents.items() if parent in level}
    found |= level
  return found


@pytest.fixture(scope='module')
def hostile_judgements():
  processes, threads = _descendants(), threading.active_count()
  mounts = pathlib.Path('/proc/self/mounts').read_text()
  files = set(os.listdir('/tmp'))
  control = (judged.problem(), judged.CONTROL)
  p = judged.problem(('', 'held'), ('', 'held'), limits=LIMITS)
  pairs = [pair for s in HOSTILE.values() for pair in ((p, s), control)]
  rows = judged.judge_pairs(*pairs)
  assert _descendants() == processes
  assert threading.active_count() == threads
  assert pathlib.Path('/proc/self/mounts').read_text() == mounts
  assert not {f for f in set(os.listdir('/tmp')) - files if f.isdigit()}
  for directory in cgroups._own_groups().values():
    assert not list(directory.glob(f'valley_jax.{os.getpid()}.*'))
  return dict(zip(HOSTILE, zip(rows[::2], rows[1::2])))


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_program_is_judged_and_the_next_one_accepted(
    hostile_judgements, name
):
  judgement, control = hostile_judgements[name]
  assert judgement.verdict.value not in ('AC', 'IE'), judgement
  assert control.verdict.value == 'AC', control


@pytest.mark.parametrize('name', REACH)
def test_a_wall_holds(tmp_path, name):
  canary = tmp_path / 'canary'
  canary.write_text('secret')
  listener = socket.create_server(('127.0.0.1', 0))
  port = listener.getsockname()[1]
  given = f'{port} {canary} {pathlib.Path(__file__)}'
  body = '\n'.join(line[6:] for line in REACH[name].splitlines())
  source = f"{PRELUDE}{body}\nprint('held')\n"
  judgement = judged.judge_one(
      judged.problem((given, 'held')), source, cpu_seconds=5.0
  )
  listener.settimeout(0.01)
  with pytest.raises(TimeoutError):
    listener.accept()
  listener.close()
  assert judgement.verdict.value == 'AC', (judgement, judgement.message)


def test_socketpair_still_works():
  source = (
      'import socket\na, b = socket.socketpair()\n'
      'a.send(b"3")\nprint(b.recv(1).decode())'
  )
  assert judged.verdict(judged.problem(('', '3')), source) == 'AC'


def test_a_program_is_neither_root_nor_pid_1_and_has_no_environment():
  source = """
import os
secrets = set(os.environ) - {'HOME', 'LANG', 'OPENBLAS_NUM_THREADS', 'PWD',
    'OMP_NUM_THREADS', 'PATH', 'PYTHONHASHSEED', 'LC_CTYPE'}
print(os.getpid() > 1, os.getuid() > 0, not secrets, os.uname().nodename)
"""
  p = judged.problem(('', 'True True True judge'))
  row = judged.judge_one(p, source)
  assert row.verdict.value == 'AC', row


def test_the_host_sees_no_program_as_root():
  """bubblewrap maps any --uid to the caller's: root must be given up first."""
  if os.geteuid() != 0:
    pytest.skip('We are not root, so no program is.')
  owners = []

  def look():
    isolation = isolation_lib.prepare()
    limits = records.Limits(cpu_seconds=1.0)
    staged = isolation_lib.stage(isolation)
    before = _descendants()
    with sandbox.Sandbox(staged, None, limits) as box:
      box.compile(('pass',), records.Mode.STDIN, '')
      for pid in _descendants() - before:
        status = pathlib.Path(f'/proc/{pid}/status').read_text()
        owners.append(int(status.split('Uid:')[1].split()[0]))
    isolation.close()

  thread = threading.Thread(target=look)
  thread.start()
  thread.join()
  assert len(owners) >= 2
  assert set(owners) == {isolation_lib.UNPRIVILEGED_UID}
