"""Directories of runs: paths in a bucket (gs://BUCKET/PATH, through epath), locks and claims.

An object in a bucket cannot be appended to. A run whose workdir is in a bucket therefore keeps
config.json, metrics.jsonl and TensorBoard's events in a local directory, and copies them to the
bucket before every checkpoint and at the end. A kill loses what was written since then; the run
resumes from the checkpoint and writes it again.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

from etils import epath
import msgspec

from valley_jax import errors
from valley_jax import jsonl

_BLOCK_BYTES = 1 << 20


def is_remote(path: str | os.PathLike) -> bool:
  """Returns whether a path is in a bucket, such as gs://BUCKET/PATH."""
  return '://' in str(path)


def absolute_path(path: str | os.PathLike) -> epath.Path:
  """Returns the path from the root, or from the bucket."""
  # `absolute()` alone would turn gs://a into $PWD/gs:/a.
  return epath.Path(path) if is_remote(path) else epath.Path(path).absolute()


def download_path(source: str | os.PathLike, target: pathlib.Path) -> None:
  """Copies a file, or a directory with everything in it, from a bucket."""
  source = epath.Path(source)
  if source.is_dir():
    for path in source.iterdir():
      download_path(path, target / path.name)
    return
  target.parent.mkdir(parents=True, exist_ok=True)
  with source.open('rb') as reader, open(target, 'wb') as writer:
    shutil.copyfileobj(reader, writer, _BLOCK_BYTES)


class RunFiles:
  """The files of a run. `directory` is the workdir, or a local copy of one in a bucket."""

  def __init__(self, workdir: str | os.PathLike, is_writer: bool = True):
    """Describes the files of one process of a run.

    Args:
      workdir: The run's directory, local or in a bucket.
      is_writer: Whether this process uploads; exactly one of a run's processes does.
    """
    self._remote = epath.Path(workdir) if is_remote(workdir) else None
    self._is_writer = is_writer
    self._uploaded: dict[pathlib.Path, tuple[int, int]] = {}  # Size and time of change.
    self._scratch = None
    self.directory = pathlib.Path(workdir)

  def __enter__(self) -> 'RunFiles':
    if self._remote is not None:
      self._scratch = tempfile.TemporaryDirectory(prefix='valley_jax_')
      self.directory = pathlib.Path(self._scratch.name)
      # The only file that a resumed run appends to.
      metrics = self._remote / 'metrics.jsonl'
      if metrics.exists():
        download_path(metrics, self.directory / metrics.name)
    return self

  def upload(self) -> None:
    """Copies the files that have changed to the bucket; does nothing for a local workdir."""
    if self._remote is None or not self._is_writer:
      return
    for path in sorted(p for p in self.directory.rglob('*') if p.is_file()):
      stat = path.stat()
      state = stat.st_size, stat.st_mtime_ns
      if self._uploaded.get(path) != state:
        target = self._remote / path.relative_to(self.directory).as_posix()
        with open(path, 'rb') as reader, target.open('wb') as writer:
          shutil.copyfileobj(reader, writer, _BLOCK_BYTES)
        self._uploaded[path] = state

  def __exit__(self, *unused_exception) -> None:
    try:
      self.upload()
    finally:
      if self._scratch is not None:
        self._scratch.cleanup()


@contextlib.contextmanager
def lock_directory(directory: pathlib.Path, verb: str) -> Iterator[None]:
  """Refuses a second run of a verb in a directory; a killed run leaves no lock behind.

  Raises:
    UserError: another process holds the lock.
  """
  directory.mkdir(parents=True, exist_ok=True)
  fd = os.open(directory, os.O_RDONLY)
  try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
  except BlockingIOError as e:
    raise errors.UserError(
        f'Another {verb} is at work in {directory}; wait for it, or use another --workdir.'
    ) from e
  finally:
    os.close(fd)


def claim_directory(path: str | os.PathLike, settings: dict[str, Any]) -> None:
  """Records, in the file `path`, the settings that the contents of its directory depend on.

  Raises:
    UserError: the directory was begun with other settings; names the first that differs.
  """
  path = pathlib.Path(path)
  settings = json.loads(json.dumps(msgspec.to_builtins(settings)))
  if not path.exists():
    jsonl.write_json(path, settings)
  if difference := _first_difference(jsonl.read_json(path), settings):
    name, before, now = difference
    raise errors.UserError(
        f'{path.parent} was begun with {name}={before!r}, now it is {now!r};'
        ' use another --workdir, or delete what is there.'
    )


def _first_difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
  """Returns (dotted name, old value, new value), such as ('filters.think', True, False)."""
  for name in sorted({*before, *now}):
    old, new = before.get(name), now.get(name)
    if isinstance(old, dict) and isinstance(new, dict):
      if inner := _first_difference(old, new):
        return f'{name}.{inner[0]}', *inner[1:]
    elif old != new:
      return name, old, new
  return None
