"""Tier T2: what replaces namespaces where a container denies them.

The host side of `inside/confine.py`: a user id that nobody else has, a directory for the files of
a sandbox, and the paths that Landlock allows.
"""

import errno
import os
import pathlib
import pwd
import socket
import subprocess

FIRST_UID, _NUM_UIDS = 20_000, 40_000
_READ, _DEVICE = 13, 6  # As in confine.py: execute, read, list; read, write.
_SYSTEM_PATHS = (
    '/usr', '/bin', '/lib', '/lib32', '/lib64', '/etc/alternatives',
    '/etc/ld.so.cache', '/etc/localtime',
)  # fmt: skip
_DEVICES = ('/dev/null', '/dev/zero', '/dev/random', '/dev/urandom')


class PrivateUser:
  """A user id that is a worker's own until it is closed."""

  def __init__(self, uid: int, lock: socket.socket):
    self.uid, self._lock = uid, lock

  def kill_processes(self) -> None:
    """Kills every process of this user."""
    subprocess.run(
        ['/bin/sh', '-c', 'kill -9 -1'],
        check=False,
        capture_output=True,
        user=self.uid,
        group=self.uid,
        extra_groups=[],
    )

  def close(self) -> None:
    """Gives the id back."""
    self._lock.close()


def claim_user() -> PrivateUser | None:
  """Returns a user id that nobody uses, None if there is none."""
  used = {entry.pw_uid for entry in pwd.getpwall()}
  for process in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      used.add(process.stat().st_uid)
    except OSError:
      continue
  lock = socket.socket(socket.AF_UNIX)
  for number in range(_NUM_UIDS):
    uid = FIRST_UID + (os.getpid() * 64 + number) % _NUM_UIDS
    try:  # An abstract name: it is free again when we end, however we end.
      if uid not in used:
        lock.bind(f'\0valley_jax.uid.{uid}')
        return PrivateUser(uid, lock)
    except OSError as e:
      if e.errno != errno.EADDRINUSE:
        raise
  lock.close()
  return None


def make_scratch_dir(public: pathlib.Path, uid: int) -> str:
  """Makes the directory in which a sandbox keeps its files."""
  path = public / f'scratch.{uid}'
  path.mkdir(0o700)
  os.chown(path, uid, uid)
  return str(path)


def remove_scratch_dir(path: str) -> None:
  """Removes it, however deeply a program has nested directories in it."""
  try:
    os.rmdir(path)
  except OSError:  # rm goes down 4,000 directories without recursion.
    subprocess.run(['rm', '-rf', '--', path], check=False)


def list_allowed_paths(
    public: pathlib.Path, binds: tuple[tuple[str, str], ...]
) -> list[tuple[str, int]]:
  """Returns the paths that programs may reach, with their rights."""
  bound = [source for source, _ in binds]
  of_pool = [str(public / name) for name in ('packages', 'pch')]
  readable = [(path, _READ) for path in (*_SYSTEM_PATHS, *bound, *of_pool)]
  return readable + [(path, _DEVICE) for path in _DEVICES]


def link_packages(public: pathlib.Path, binds: tuple[tuple[str, str], ...]) -> list[str]:
  """Puts numpy, and nothing that is installed beside it, on a path of its own."""
  folder = public / 'packages'
  folder.mkdir(0o755, exist_ok=True)
  for source, target in binds:
    link = folder / os.path.basename(target)
    if target.startswith('/packages/') and not link.is_symlink():
      link.symlink_to(source)
  return [str(folder)]
