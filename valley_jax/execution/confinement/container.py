"""Tier T2: what stands in for namespaces where a container denies them.

The host side of `confine.py`: a user id that nobody else has, a directory for
the files of a sandbox, and the paths that Landlock leaves.
"""

import errno
import os
import pathlib
import pwd
import socket
import subprocess

from valley_jax.execution.confinement import isolation as isolation_lib

_FIRST_UID, _NUM_UIDS = 20_000, 40_000
_READ, _DEVICE = 13, 6  # As in confine.py: execute, read, list; read, write.
_SYSTEM = (
    '/usr', '/bin', '/lib', '/lib32', '/lib64', '/etc/alternatives',
    '/etc/ld.so.cache', '/etc/localtime',
)  # fmt: skip
_DEVICES = ('/dev/null', '/dev/zero', '/dev/random', '/dev/urandom')


class User:
  """A user id of one's own for as long as this object lives.

  Raises:
    IsolationError: none is free.
  """

  def __init__(self):
    used = {entry.pw_uid for entry in pwd.getpwall()}
    for process in pathlib.Path('/proc').glob('[0-9]*'):
      try:
        used.add(process.stat().st_uid)
      except OSError:
        continue
    self._lock = socket.socket(socket.AF_UNIX)
    for number in range(_NUM_UIDS):
      self.uid = _FIRST_UID + (os.getpid() * 64 + number) % _NUM_UIDS
      try:  # An abstract name: it is free again when we end, however we end.
        if self.uid not in used:
          self._lock.bind(f'\0valley_jax.uid.{self.uid}')
          return
      except OSError as e:
        if e.errno != errno.EADDRINUSE:
          raise
    raise isolation_lib.IsolationError(
        f'All user ids from {_FIRST_UID:,} on are in use; end other judges.'
    )

  def end_all(self) -> None:
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


def make_scratch(public: pathlib.Path, uid: int) -> str:
  """Makes the directory in which a sandbox keeps its files."""
  path = public / f'scratch.{uid}'
  path.mkdir(0o700)
  os.chown(path, uid, uid)
  return str(path)


def remove_scratch(path: str) -> None:
  """Removes it, however deep a program has dug in it."""
  try:
    os.rmdir(path)
  except OSError:  # rm goes down 4,000 directories without recursion.
    subprocess.run(['rm', '-rf', '--', path], check=False)


def rules(isolation: isolation_lib.Isolation) -> list[tuple[str, int]]:
  """Returns the paths that programs may reach, with their rights."""
  own = [source for source, _ in isolation.binds]
  pool = [str(isolation.public / name) for name in ('packages', 'pch')]
  readable = [(path, _READ) for path in (*_SYSTEM, *own, *pool)]
  return readable + [(path, _DEVICE) for path in _DEVICES]


def link_packages(isolation: isolation_lib.Isolation) -> list[str]:
  """Puts numpy, and nothing that lies beside it, on a path of its own."""
  folder = isolation.public / 'packages'
  folder.mkdir(0o755, exist_ok=True)
  for source, target in isolation.binds:
    link = folder / os.path.basename(target)
    if target.startswith('/packages/') and not link.is_symlink():
      link.symlink_to(source)
  return [str(folder)]
