"""How a sandbox is built: the bubblewrap command line and what it binds.

Inside there are /usr and the interpreter read-only, two small tmpfs (/tmp and
/dev/shm), a /proc and a /dev that cannot be written, and nothing else: no home,
no repository, no network, own user, pid, net, ipc, uts and cgroup namespaces,
an empty environment, no capabilities, a seccomp filter.

A worker that runs as root gives root up before bubblewrap starts, because
bubblewrap maps any `--uid` to the caller's own: inside, the program would
still be the host's uid 0, to whom RLIMIT_NPROC does not apply and /proc/sys
belongs.
"""

import ctypes
import dataclasses
import fcntl
import importlib.util
import marshal
import os
import pathlib
import shutil
import sys

from valley_jax.execution import seccomp

UNPRIVILEGED_UID = 65534  # nobody
TMP_MIB, SHM_MIB = 256, 64
_INSTALL = (
    'Programs are judged in a bubblewrap sandbox only; install it with'
    ' `apt-get install bubblewrap` (or your package manager).'
)
_ENVIRONMENT = {
    'HOME': '/tmp',
    'LANG': 'C.UTF-8',
    'OPENBLAS_NUM_THREADS': '1',
    'OMP_NUM_THREADS': '1',
    'PATH': '/usr/bin:/bin',
    # A program's set order, and so its judgement, is the same at every run.
    'PYTHONHASHSEED': '0',
}
_BOOT = (
    'import marshal,os,sys\n'
    'for n,c in marshal.loads(os.pread({fd},1<<24,0)):\n'
    '  m=sys.modules[n]=type(sys)(n);exec(c,m.__dict__)'
)
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18


class IsolationError(RuntimeError):
  """This machine cannot confine programs; the message says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Isolation:
  """What every sandbox of a pool has in common."""

  bubblewrap: str
  interpreter: str
  binds: tuple[tuple[str, str], ...]  # (where it is, where it is seen).
  seccomp_filter: bytes
  code_fd: int  # A sealed memfd with the code of supervisor.py and its parts.
  uid: int | None  # To become before bubblewrap; None: we are not root.

  def close(self) -> None:
    """Releases the descriptor."""
    os.close(self.code_fd)


def prepare() -> Isolation:
  """Finds out what this machine offers.

  Raises:
    IsolationError: bubblewrap is not installed.
  """
  bubblewrap = shutil.which('bwrap')
  if bubblewrap is None:
    raise IsolationError(f'`bwrap` is not on the PATH. {_INSTALL}')
  interpreter = os.path.realpath(getattr(sys, '_base_executable'))  # noqa: B009
  prefix = os.path.realpath(sys.base_prefix)
  binds = [(prefix, prefix)] if not _is_within(prefix, '/usr') else []
  numpy = importlib.util.find_spec('numpy')
  if numpy is not None and numpy.submodule_search_locations:
    packages = pathlib.Path(numpy.submodule_search_locations[0]).parent
    for name in ('numpy', 'numpy.libs'):
      if (packages / name).is_dir():
        binds.append((str((packages / name).resolve()), f'/packages/{name}'))
  return Isolation(
      bubblewrap=bubblewrap,
      interpreter=interpreter,
      binds=tuple(binds),
      seccomp_filter=seccomp.compile_filter(),
      code_fd=_sealed_code(),
      uid=UNPRIVILEGED_UID if os.geteuid() == 0 else None,
  )


def _is_within(path: str, parent: str) -> bool:
  return path == parent or path.startswith(parent.rstrip('/') + '/')


def _sealed_code() -> int:
  """Compiles what runs inside into a memfd that nobody can change."""
  directory = pathlib.Path(__file__).parent
  modules = []
  for name in ('harness', 'watch', 'supervisor'):
    source = (directory / f'{name}.py').read_text(encoding='utf-8')
    modules.append((name, compile(source, f'<{name}>', 'exec', optimize=2)))
  fd = os.memfd_create('supervisor', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
  os.write(fd, marshal.dumps(modules))
  seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
  fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
  return fd


def _is_open_to_all(path: str) -> bool:
  """Whether any user can reach what lies at `path`."""
  resolved = pathlib.Path(path).resolve()
  return all(p.stat().st_mode & 0o001 for p in (resolved, *resolved.parents))


def stage(isolation: Isolation) -> Isolation:
  """Makes the binds reachable for the uid that the calling thread gives up to.

  An interpreter under /root cannot be seen by `nobody`. The calling thread
  (only it) takes a mount namespace of its own, in which the binds also lie at
  /mnt; what it starts inherits that. When the thread ends, so does the
  namespace, even by SIGKILL: there is nothing to clean up.

  Raises:
    IsolationError: the machine does not let root do so.
  """
  closed = [s for s, _ in isolation.binds if not _is_open_to_all(s)]
  if isolation.uid is None or not closed:
    return isolation
  libc = ctypes.CDLL(None, use_errno=True)

  def must(result: int, what: str) -> None:
    if result != 0:
      reason = os.strerror(ctypes.get_errno())
      raise IsolationError(
          f'{what} failed ({reason}), so the sandbox cannot see {closed[0]},'
          ' which only root can read. Use a Python that every user can read,'
          ' or run as a user who owns it.'
      )

  def mount(source: str, target: str, kind: str, flags: int) -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), flags)
    must(libc.mount(*arguments, None), f'mount {source} on {target}')

  must(libc.unshare(_CLONE_NEWNS), 'unshare(CLONE_NEWNS)')
  mount('none', '/', '', _MS_REC | _MS_PRIVATE)
  mount('tmpfs', '/mnt', 'tmpfs', 0)
  staged = []
  for number, (source, target) in enumerate(isolation.binds):
    place = f'/mnt/{number}'
    os.mkdir(place, 0o755)
    mount(source, place, '', _MS_BIND | _MS_REC)
    staged.append((place, target))
  os.chmod('/mnt', 0o755)
  return dataclasses.replace(isolation, binds=tuple(staged))


def command(
    isolation: Isolation, seccomp_fd: int, info_fd: int | None
) -> list[str]:
  """Returns the command line that starts one sandbox."""
  flags = [
      isolation.bubblewrap, '--unshare-all', '--unshare-user', '--as-pid-1',
      '--die-with-parent', '--new-session', '--clearenv', '--uid', '1000',
      '--gid', '1000', '--hostname', 'judge', '--cap-drop', 'ALL',
      '--ro-bind', '/usr', '/usr',
  ]  # fmt: skip
  for path in ('/bin', '/lib', '/lib32', '/lib64'):
    if os.path.islink(path):
      flags += ['--symlink', os.readlink(path), path]
    elif os.path.isdir(path):
      flags += ['--ro-bind', path, path]
  for path in ('/etc/alternatives', '/etc/ld.so.cache', '/etc/localtime'):
    flags += ['--ro-bind-try', path, path]
  for source, target in isolation.binds:
    flags += ['--ro-bind', source, target]
  flags += ['--proc', '/proc', '--dev', '/dev']
  for path, mib in (('/tmp', TMP_MIB), ('/dev/shm', SHM_MIB)):
    flags += ['--size', str(mib << 20), '--tmpfs', path]
  for path in ('/dev', '/proc', '/'):
    flags += ['--remount-ro', path]
  for name, value in _ENVIRONMENT.items():
    flags += ['--setenv', name, value]
  if info_fd is not None:
    flags += ['--info-fd', str(info_fd)]
  flags += ['--chdir', '/tmp', '--seccomp', str(seccomp_fd), '--']
  # -I but for the hash seed (the environment is empty), and without `site`.
  boot = _BOOT.format(fd=isolation.code_fd)
  return flags + [isolation.interpreter, '-s', '-P', '-S', '-c', boot]
