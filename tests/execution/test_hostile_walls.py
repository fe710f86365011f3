"""Hostile programs that try the walls, by tier; each prints what it has reached.

If the walls hold, it prints nothing but 'held'.
"""

import os
import pathlib
import socket

import pytest

from tests import judged
from tests import leftovers
from valley_jax import records
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import sandbox

PRELUDE = """
import ctypes, os, socket, struct, sys
port, canary, *paths = sys.stdin.read().split()
port, parent = int(port), os.getppid()
proc = f'/proc/{parent}/'
libc = ctypes.CDLL(None, use_errno=True)
def reached(*what):
  print('reached', *what)
  print('reached', *what, file=sys.stderr)
def attempt(name, action):
  try: action()
  except (OSError, ValueError, AttributeError): return
  reached(name)
def call(name, *args, what=None):
  def run():
    if getattr(libc, name)(*args) == -1: raise OSError(name)
  attempt(what or name, run)
def syscall(what, number, *args):
  if os.uname().machine == 'x86_64':
    args = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in args]
    call('syscall', number, *args, what=what)
"""
REACH = {
    'host files': """
for path in (canary, *paths, '/etc/passwd', '/etc/shadow', '/etc/hostname',
             '/etc/ssl', '/root', '/home', '/var', '/run', '/boot', '/mnt',
             '/opt', '/sys', '/sys/fs/cgroup', '/sys/kernel', '/srv',
             os.path.dirname(canary), os.path.expanduser('~root'), '/dev/mem',
             '/dev/kmsg', '/dev/fuse', '/dev/kvm', '/dev/vda', '/dev/sda'):
  if any(p.startswith(path + '/') for p in (sys.prefix, os.environ['HOME'])):
    continue  # The way to the interpreter may lead through it.
  attempt(path, lambda: open(path).read() if not os.path.isdir(path)
          else os.listdir(path)[0])
def look_at(path):  # In T0 and T1 there is one of our own.
  for name in os.listdir(path):
    if name not in ('alternatives', 'ld.so.cache', 'localtime'): reached(name)
attempt('etc', lambda: look_at('/etc') or open('/'))
top = '/'
while top != sys.prefix and not sys.prefix.startswith('/usr'):
  inside = os.path.relpath(sys.prefix, top).split('/')[0]
  try:
    if top != '/' and os.listdir(top) != [inside]:
      reached(os.listdir(top))
  except PermissionError: pass
  top = os.path.join(top, inside)""",
    'tricks with paths': """
for way in ('/proc/self/root', '/proc/self/cwd/' + '../' * 9,
            f'/proc/self/task/{os.getpid()}/root', proc + 'root',
            proc + 'cwd/../..', '/dev/fd/../root', '/tmp/' + '../' * 9,
            '/usr/../', '//', '/proc/thread-self/root'):
  for path in (canary, '/etc/shadow'):
    attempt(way + path, lambda: open(way + path).read())
for link in ('l', '/tmp/l', '/dev/shm/l'):
  attempt(link, lambda: (os.symlink(canary, link), open(link).read()))
  attempt(link, lambda: (os.link(canary, link + '2'), open(link + '2').read()))
attempt('rename', lambda: os.rename(canary, 'stolen'))
attempt('truncate', lambda: os.truncate(canary, 0))
attempt('chmod', lambda: os.chmod(canary, 0o777))
attempt('chown', lambda: os.chown(canary, os.getuid(), os.getgid()))
attempt('utime', lambda: os.utime(canary))
attempt('xattr', lambda: os.setxattr(canary, 'user.x', b'x'))
attempt('fd', lambda: open(f'/dev/fd/{os.open(canary, os.O_PATH)}').read())
attempt('openat', lambda: os.open(canary, 0, dir_fd=os.open('/', os.O_PATH)))
attempt('memory of the host', lambda: open('/proc/kcore', 'rb').read(1))""",
    'other processes': """
for pid in ['1', str(parent), *filter(str.isdigit, map(str, range(1, 400)))]:
  if int(pid) == os.getpid(): continue
  for name in ('mem', 'environ', 'maps', 'auxv', 'stack', 'syscall', 'io',
               'fd/0', 'fd/1', 'fd/3', 'map_files', 'root/etc', 'cwd/tmp'):
    attempt(f'{pid} {name}',
            lambda: os.open(f'/proc/{pid}/{name}', os.O_RDONLY))
  attempt(f'{pid} fds', lambda: os.listdir(f'/proc/{pid}/fd'))
  attempt(f'{pid} exe', lambda: os.readlink(f'/proc/{pid}/exe'))""",
    'writing': """
for path in ('/x', '/usr/x', '/etc/x', '/dev/x', '/proc/x', '/packages/x',
             '/etc/passwd', '/var/tmp/x', '/run/x', '/dev/mqueue/x', '/pch/x',
             '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname',
             '/proc/sys/vm/drop_caches', '/proc/sysrq-trigger',
             '/proc/sys/user/max_user_namespaces', proc + 'oom_score_adj',
             proc + 'comm', proc + 'mem', '/sys/fs/cgroup/x', canary + '2',
             sys.prefix + '/x', os.__file__, sys.executable or '/usr/bin/env',
             os.path.dirname(canary) + '/open/x'):
  attempt(path, lambda: open(path, 'a'))
  attempt('mkdir ' + path, lambda: os.mkdir(path + '/y'))
attempt('mknod', lambda: os.mknod('disk', 0o60644, 0x800))
attempt('mknod', lambda: os.mknod('/dev/shm/zero', 0o20666, 0x105))""",
    'networks': """
for family in range(46):
  for kind in (1, 2, 3, 5):
    attempt((family, kind), lambda: socket.socket(family, kind))
attempt('connect', lambda: socket.create_connection(('127.0.0.1', port)))
attempt('dns', lambda: socket.getaddrinfo('localhost', 'x'))
ours, _ = socket.socketpair()
attempt('abstract', lambda: ours.connect('\\0valley_jax'))
attempt('bind', lambda: ours.bind('\\0valley_jax.' + str(port)))
attempt('bind', lambda: ours.bind('socket'))
attempt('listen', lambda: ours.listen())
for kind in (2, 3, 2 | socket.SOCK_CLOEXEC, 1, 5):
  for to in (os.path.dirname(canary) + '/socket', '\\0valley_jax.datagram'):
    attempt((kind, to), lambda:
            socket.socketpair(1, kind)[0].sendto(b'x', to))
for family in range(2, 46):
  attempt(family, lambda: socket.socketpair(family, 1))""",
    'signals to others': """
import fcntl
reader, writer = os.pipe()
for fd in (0, 1, 2, 5, reader):
  for command in (8, 10, 15):  # F_SETOWN, F_SETSIG, F_SETOWN_EX.
    attempt((fd, command), lambda: fcntl.fcntl(fd, command, parent))
    syscall('fcntl', 72, fd, 1 << 32 | command, parent)
  for request in (0x8901, 0x8902):  # FIOSETOWN, SIOCSPGRP.
    syscall('ioctl', 16, fd, request, struct.pack('i', parent))
    syscall('ioctl', 16, fd, 1 << 32 | request, struct.pack('i', parent))
for request in (0x5412, 0x541C):  # TIOCSTI, TIOCLINUX.
  syscall('ioctl', 16, 0, request, b'x')""",
    'the supervisor': """
call('ptrace', 16, parent, 0, 0)
call('ptrace', 0x4206, parent, 0, 0)
call('process_vm_readv', parent, None, 0, None, 0, 0)
call('process_vm_writev', parent, None, 0, None, 0, 0)
pidfd = os.pidfd_open(parent)
syscall('pidfd_getfd', 438, pidfd, 0, 0)
syscall('setns', 308, pidfd, 0x20000)
syscall('process_madvise', 440, pidfd, 0, 0, 20, 0)
syscall('process_mrelease', 448, pidfd, 0)
call('prlimit', parent, 7, ctypes.create_string_buffer(16), None)
call('prlimit', parent, 7, None, ctypes.create_string_buffer(16))
call('sched_setaffinity', parent, 8, ctypes.create_string_buffer(b'\\1', 8))
call('sched_setscheduler', parent, 0, bytes(4))
attempt('nice', lambda: os.setpriority(os.PRIO_PROCESS, parent, 19))
attempt('nice', lambda: os.setpriority(os.PRIO_USER, 0, 19))
attempt('nice', lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19))
attempt('nice', lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(parent), 19))
for which, who in ((1, parent), (2, os.getpgid(parent)), (3, 0),
                   (3, os.getuid()), (1 << 32 | 3, 0)):
  syscall('ioprio_set', 251, which, who, 3 << 13)
syscall('setpgid', 109, parent, os.getpid())
syscall('setpgid', 109, 0, os.getpgid(parent))
syscall('kcmp', 312, parent, os.getpid(), 0, 0, 0)
syscall('get_robust_list', 274, parent, bytes(8), bytes(8))
syscall('migrate_pages', 256, parent, 1, 0, 0)
syscall('move_pages', 279, parent, 0, 0, 0, 0, 0)""",
    'privileges': """
for flags in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x80,
              0x4000000, 0x2000000):
  call('unshare', flags)
  if flags != 0x80: syscall('clone', 56, flags | 17, 0, 0, 0, 0)
call('mount', b'none', b'/tmp', b'tmpfs', 0, None)
call('mount', b'/', b'/tmp', None, 0x1000, None)
call('mount', None, b'/', None, 0x20, None)
call('umount2', b'/tmp', 2)
call('umount2', b'/proc', 2)
call('chroot', b'/tmp')
call('pivot_root', b'.', b'.') if hasattr(libc, 'pivot_root') else None
call('setns', 0, 0)
call('setuid', 0)
call('setgid', 0)
call('setgroups', 0, None)
call('sethostname', b'x', 1)
call('setdomainname', b'x', 1)
call('swapon', b'x', 0)
call('reboot', 0)
call('acct', None)
call('klogctl', 3, ctypes.create_string_buffer(9), 9)
call('iopl', 3)
call('vhangup')
sets = struct.pack('6I', *[0xffffffff] * 6)
syscall('capset', 126, struct.pack('II', 0x20080522, 0), sets)
syscall('clock_settime', 227, 0, struct.pack('qq', 0, 0))
attempt('rlimit', lambda: __import__('resource').setrlimit(0, (-1, -1)))""",
    'what outlives a test': """
call('shmget', 0, 4096, 0o1600)
call('msgget', 0, 0o1600)
call('semget', 0, 1, 0o1600)
call('shmat', 0, None, 0)
call('mq_open', b'/x', 0o102, 0o600, None)
syscall('add_key', 248, b'user', b'x', b'x', 1, -3 & (1 << 64) - 1)
syscall('request_key', 249, b'user', b'x', 0, 0)
syscall('keyctl', 250, 0, 0, 0, 0, 0)""",
    'memory out of sight': """
call('memfd_create', b'x', 0)
syscall('memfd_secret', 447, 0)
reader, writer = os.pipe()
page = ctypes.create_string_buffer(b'x', 4096)
one = struct.pack('PN', ctypes.addressof(page), 4096)
call('vmsplice', writer, one, 1, 0)
call('mlock', page, 1 << 20)
call('mlockall', 3)""",
    'other calls': """
syscall('bpf', 321, 0, bytes(64), 64)
syscall('io_uring_setup', 425, 4, bytes(120))
syscall('perf_event_open', 298, bytes(120), 0, -1 & (1 << 64) - 1, 0, 0)
syscall('userfaultfd', 323, 1)
syscall('clone3', 435, bytes(88), 88)
syscall('io_setup', 206, 1, ctypes.create_string_buffer(8))
syscall('fanotify_init', 300, 0x200, 0)
syscall('inotify_init1', 294, 0)
syscall('fsopen', 430, b'tmpfs', 0)
syscall('open_tree', 428, 0, b'/', 1)
syscall('mount_setattr', 442, 0, b'/', 0, bytes(32), 32)
handle = struct.pack('Ii', 128, 0) + bytes(128)
syscall('name_to_handle_at', 303, 0, b'/', handle, bytes(8), 0)
syscall('open_by_handle_at', 304, 0, bytes(128), 0)
syscall('quotactl', 179, 0, 0, 0, 0)
syscall('kexec_load', 246, 0, 0, 0, 0)
syscall('init_module', 175, 0, 0, 0)
syscall('lookup_dcookie', 212, 0, 0, 0)
syscall('syncfs', 306, 1)""",
}  # fmt: skip


@pytest.fixture(scope='module', params=leftovers.TIERS)
def walls(request, tmp_path_factory):
  directory = tmp_path_factory.mktemp('host')
  for path in (directory, *list(directory.parents)[:-2]):
    path.chmod(path.stat().st_mode | 0o011)
  canary = directory / 'canary'
  canary.write_text('secret')
  (directory / 'open').mkdir()
  (directory / 'open').chmod(0o777)
  mail = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
  mail.bind(str(directory / 'socket'))
  (directory / 'socket').chmod(0o777)
  named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
  named.bind('\0valley_jax.datagram')
  with mail, named, socket.create_server(('127.0.0.1', 0)) as listener:
    port = listener.getsockname()[1]
    here = pathlib.Path(__file__)
    given = f'{port} {canary} {here} {here.parent} {pathlib.Path.home()}'
    p = judged.build_problem((given, 'held'))
    sources = {n: f"{PRELUDE}{s}\nprint('held')" for n, s in REACH.items()}
    rows = leftovers.judge_with_controls(sources, request.param, p, cpu_seconds=5.0)
    for heard in (listener.accept, lambda: mail.recv(1), lambda: named.recv(1)):
      for end in (listener, mail, named):
        end.settimeout(0.01)
      with pytest.raises(TimeoutError):
        heard()
  assert canary.read_text() == 'secret'
  assert not list((directory / 'open').iterdir())
  return rows


@pytest.mark.parametrize('name', REACH)
def test_a_wall_holds(walls, name):
  row, control, _ = walls[name]
  assert row.verdict.value == 'AC', (row, row.message)
  assert control.verdict.value == 'AC'


@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_a_stream_between_a_programs_own_processes_still_works(tier):
  source = """
import os, socket
a, b = socket.socketpair()
if os.fork() == 0:
  b.send(b'3')
  os._exit(0)
print(a.recv(1).decode())"""
  p = judged.build_problem(('', '3'))
  assert judged.judge_verdict(p, source, tier=tier) == 'AC'


@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_a_program_is_neither_root_nor_pid_1_and_has_no_environment(tier):
  source = """
import os
secrets = set(os.environ) - {'HOME', 'LANG', 'OPENBLAS_NUM_THREADS', 'PWD',
    'OMP_NUM_THREADS', 'PATH', 'PYTHONHASHSEED', 'LC_CTYPE', 'TMPDIR',
    'LD_LIBRARY_PATH'}
ids = {*os.getresuid(), *os.getresgid(), *os.getgroups()}
print(os.getpid() > 1, 0 in ids, len(ids), secrets or 'none')
"""
  p = judged.build_problem(('', 'True False 1 none'))
  row = judged.judge_program(p, source, tier=tier)
  assert row.verdict.value == 'AC', row


@pytest.mark.skipif(os.geteuid() != 0, reason='We are not root: no program is.')
@pytest.mark.parametrize('tier', leftovers.TIERS)
def test_the_host_sees_no_program_as_root(tier):
  """bubblewrap maps any --uid to the caller's: root must be given up first."""
  owners, groups = [], []

  def look_at_owners(confinement):
    before = leftovers.find_descendants()
    limits = records.Limits(cpu_seconds=1.0)
    with sandbox.Sandbox(confinement, limits) as box:
      box.compile_python(('pass',), 'stdin', '')
      for pid in leftovers.find_descendants() - before:
        lines = pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
        status = dict(line.split(':', 1) for line in lines)
        owners.extend(map(int, status['Uid'].split()))
        groups.extend(map(int, status['Gid'].split()))
        assert not status['Groups'].split()
    return confinement.user.uid if confinement.user else isolation_lib.UNPRIVILEGED_UID

  uid = judged.run_confined(look_at_owners, tier)
  assert set(owners) == set(groups) == {uid}
