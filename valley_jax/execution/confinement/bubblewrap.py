"""The bubblewrap command line, and how the paths that it binds become reachable for it.

Inside there are /usr and the interpreter read-only, two small tmpfs (/tmp and /dev/shm), a /proc
and a /dev that cannot be written, and nothing else: no home, no repository, no network, own user,
pid, net, ipc, uts and cgroup namespaces, an empty environment, no capabilities, a seccomp filter.

A worker that runs as root gives root up before bubblewrap starts, because bubblewrap maps any
`--uid` to the caller's own: inside, the program would still be the host's uid 0, to which
RLIMIT_NPROC does not apply and to which /proc/sys belongs.
"""

import ctypes
import dataclasses
import os
import pathlib

from valley_jax.execution.confinement import isolation as isolation_lib

TMP_MIB, SHM_MIB = 256, 64
PCH = '/pch'  # Directory of the precompiled headers as seen inside.
_MOUNT_POINT = '/mnt'  # Where closed paths are mounted for the calling thread.
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18


def is_open_to_all(path: str) -> bool:
  """Returns whether every user can reach `path`."""
  resolved = pathlib.Path(path).resolve()
  return all(p.stat().st_mode & 0o001 for p in (resolved, *resolved.parents))


def expose_binds(isolation: isolation_lib.Isolation) -> isolation_lib.Isolation:
  """Makes the binds reachable for the user whom the calling thread becomes.

  An interpreter under /root cannot be seen by `nobody`. The calling thread (only it) takes a
  mount namespace of its own, in which the binds are mounted below /mnt as well; what it starts
  inherits that. When the thread ends, so does the namespace, even by SIGKILL: there is nothing to
  clean up.

  Raises:
    IsolationError: the machine does not let root do so.
  """
  closed = [source for source, _ in isolation.binds if not is_open_to_all(source)]
  if isolation.uid is None or not closed:
    return isolation
  binds = _mount_binds(isolation.binds, closed[0])
  interpreter, libraries = isolation.interpreter, ''
  if isolation.tier == 'T2':  # Without a mount namespace inside, paths are those of this thread.
    for (source, _), (mounted, _) in zip(isolation.binds, binds):
      if interpreter.startswith(f'{source}/'):
        interpreter = mounted + interpreter.removeprefix(source)
        libraries = f'{mounted}/lib'
  return dataclasses.replace(isolation, binds=binds, interpreter=interpreter, libraries=libraries)


def _mount_binds(binds: tuple[tuple[str, str], ...], closed: str) -> tuple[tuple[str, str], ...]:
  """Mounts the binds below /mnt, for the calling thread; returns where they are now."""
  libc = ctypes.CDLL(None, use_errno=True)

  def check_call(result: int, call: str) -> None:
    if result != 0:
      reason = os.strerror(ctypes.get_errno())
      raise isolation_lib.IsolationError(
          f'{call} failed ({reason}), so the sandbox cannot see {closed}, which only root can'
          ' read. Use a Python that every user can read, or run as a user who owns it.'
      )

  def mount_path(source: str, target: str, kind: str, flags: int) -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), flags)
    check_call(libc.mount(*arguments, None), f'mount {source} on {target}')

  check_call(libc.unshare(_CLONE_NEWNS), 'unshare(CLONE_NEWNS)')
  mount_path('none', '/', '', _MS_REC | _MS_PRIVATE)  # The host must not see the mounts.
  mount_path('tmpfs', _MOUNT_POINT, 'tmpfs', 0)
  mounted_binds = []
  for source, target in binds:
    mounted = f'{_MOUNT_POINT}/{os.path.basename(target)}'
    os.mkdir(mounted, 0o755)
    mount_path(source, mounted, '', _MS_BIND | _MS_REC)
    mounted_binds.append((mounted, target))
  os.chmod(_MOUNT_POINT, 0o755)
  return tuple(mounted_binds)


def build_bubblewrap_command(
    isolation: isolation_lib.Isolation, seccomp_fd: int, info_fd: int | None
) -> list[str]:
  """Returns the command line that starts one sandbox."""
  flags = [
      isolation.bubblewrap, '--unshare-all', '--unshare-user', '--as-pid-1',
      '--die-with-parent', '--new-session', '--clearenv', '--uid', '1000',
      '--gid', '1000', '--hostname', 'judge', '--cap-drop', 'ALL',
      '--ro-bind', '/usr', '/usr',
      '--ro-bind-try', f'{isolation.public}/pch', PCH,
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
  for path in ('/dev', '/proc', '/'):  # Only now: mount points are made in them.
    flags += ['--remount-ro', path]
  for name, value in isolation_lib.ENVIRONMENT.items():
    flags += ['--setenv', name, value]
  if info_fd is not None:
    flags += ['--info-fd', str(info_fd)]
  flags += ['--chdir', '/tmp', '--seccomp', str(seccomp_fd), '--']
  return flags + isolation_lib.build_boot_command(isolation)
