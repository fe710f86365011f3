"""Runs Python as an unprivileged Docker container would: `like_container.py`.

    python like_container.py '{"uid": 0, "refuse": [], "missing": []}' -c ...

Without Docker, by the same means: a mount namespace, fourteen capabilities, no cgroup, and a
seccomp filter that refuses what Docker's default profile refuses
(https://docs.docker.com/engine/security/seccomp). `missing` names calls that the kernel pretends
not to know. The interpreter, its packages and the repository can be read by everybody inside, as
in an image, even where they are stored in root's home.
"""

import ctypes
import errno
import json
import os
import pathlib
import sys

import pyseccomp

CAPABILITIES = (
    'chown', 'dac_override', 'fowner', 'fsetid', 'kill', 'setgid', 'setuid',
    'setpcap', 'net_bind_service', 'net_raw', 'sys_chroot', 'mknod',
    'audit_write', 'setfcap',
)  # fmt: skip
REFUSED = """
acct add_key bpf clock_adjtime clock_settime delete_module fanotify_init
finit_module fsconfig fsmount fsopen fspick get_mempolicy init_module ioperm
iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount
mount_setattr move_mount move_pages name_to_handle_at nfsservctl
open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root
process_madvise process_vm_readv process_vm_writev ptrace quotactl reboot
request_key set_mempolicy setns settimeofday stime swapoff swapon syslog umount2
unshare userfaultfd ustat vhangup io_uring_setup io_uring_enter
io_uring_register
""".split()
_NAMESPACES = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
)  # fmt: skip
_CLONE_NEWNS, _MS_RDONLY, _MS_BIND, _MS_REC, _MS_PRIVATE = (
    0x20000, 1, 0x1000, 0x4000, 1 << 18
)  # fmt: skip
_libc = ctypes.CDLL(None, use_errno=True)


def _mount_path(source: str, target: str, kind: str = '', flags: int = 0) -> None:
  arguments = (source.encode(), target.encode(), kind.encode(), flags, None)
  if _libc.mount(*arguments) != 0:
    raise OSError(ctypes.get_errno(), f'mount {source} on {target}')


def _find_closed_parent(path: pathlib.Path) -> pathlib.Path | None:
  """Returns the topmost directory on the way to `path` that not everybody can enter."""
  for parent in reversed((path, *path.parents)):
    if parent.exists() and not parent.stat().st_mode & 0o001:
      return parent
  return None


def expose_paths(paths: list[str]) -> None:
  """Makes paths readable in place, without their siblings."""
  # Parents first: their mounts include the children.
  held = [(path, os.open(path, os.O_PATH)) for path in sorted(paths)]
  _mount_path('tmpfs', '/tmp', 'tmpfs')  # The paths may be below it.
  os.chmod('/tmp', 0o1777)
  for path, _ in held:
    if closed := _find_closed_parent(pathlib.Path(path)):
      _mount_path('tmpfs', str(closed), 'tmpfs')
      closed.chmod(0o755)
  for path, fd in held:
    if not os.path.exists(path) or _is_empty_dir(path):
      os.makedirs(path, 0o755, exist_ok=True)
      _mount_path(f'/proc/self/fd/{fd}', path, flags=_MS_BIND | _MS_REC)
    os.close(fd)


def _is_empty_dir(path: str) -> bool:
  return os.path.isdir(path) and not os.listdir(path)


def install_docker_filter(refuse: list[str], missing: list[str]) -> None:
  """Installs the seccomp filter of the container."""
  rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
  rules.set_attr(pyseccomp.Attr.CTL_NNP, 0)  # As Docker: it has CAP_SYS_ADMIN.
  refusal = pyseccomp.ERRNO(errno.EPERM)
  unknown = pyseccomp.ERRNO(errno.ENOSYS)
  for name in (*REFUSED, *refuse):
    if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) >= 0:
      rules.add_rule(refusal, name)
  for flag in _NAMESPACES:
    argument = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag)
    rules.add_rule(refusal, 'clone', argument)
  for name in ('clone3', *missing):
    rules.add_rule(unknown, name)
  rules.load()


def main() -> None:
  """Builds the container around this process and becomes Python in it."""
  how = json.loads(sys.argv[1])
  python = os.path.realpath(getattr(sys, '_base_executable'))  # noqa: B009
  path = [os.path.realpath(p) for p in sys.path if p and os.path.isdir(p)]
  packages = [p for p in path if not p.startswith(sys.base_prefix)]
  if _libc.unshare(_CLONE_NEWNS) != 0:
    raise OSError(ctypes.get_errno(), 'unshare')
  _mount_path('none', '/', '', _MS_REC | _MS_PRIVATE)
  expose_paths([os.path.realpath(sys.base_prefix), *packages])
  _mount_path('tmpfs', '/sys/fs/cgroup', 'tmpfs', _MS_RDONLY)
  os.chdir('/')
  install_docker_filter(how['refuse'], how['missing'])
  kept = ','.join(f'+{name}' for name in CAPABILITIES)
  user = ['--inh-caps=-all', f'--bounding-set=-all,{kept}']
  if uid := how['uid']:
    user += [f'--reuid={uid}', f'--regid={uid}', '--clear-groups']
  environment = {
      'PATH': '/usr/bin:/bin',
      'PYTHONPATH': os.pathsep.join(packages),
      'PYTHONDONTWRITEBYTECODE': '1',
  }
  command = ['setpriv', *user, '--', python, '-P', *sys.argv[2:]]
  os.execve('/usr/bin/setpriv', command, environment)


if __name__ == '__main__':
  main()
