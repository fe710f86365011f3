"""Paths that may lie in a bucket: gs://BUCKET/PATH, through epath.

An object in a bucket cannot be appended to. So a run there keeps config.json,
metrics.jsonl and TensorBoard's events in a local directory, and copies them to
the bucket before every checkpoint and at the end. A kill loses what was written
since; the run goes on from the checkpoint and writes it again.
"""

import os
import pathlib
import shutil
import tempfile

from etils import epath


def is_remote(path: str | os.PathLike) -> bool:
  """Says whether a path is one of a bucket, such as gs://BUCKET/PATH."""
  return '://' in str(path)


def absolute(path: str | os.PathLike) -> epath.Path:
  """Returns the path from the root, or from the bucket."""
  # Not `absolute()` alone: it makes of gs://a the path $PWD/gs:/a.
  return epath.Path(path) if is_remote(path) else epath.Path(path).absolute()


def download(source: str | os.PathLike, target: pathlib.Path) -> None:
  """Copies a file, or a directory with all that is in it."""
  source = epath.Path(source)
  if not source.is_dir():
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open('rb') as read, open(target, 'wb') as write:
      shutil.copyfileobj(read, write, 1 << 20)
    return
  for path in source.iterdir():
    download(path, target / path.name)


class RunFiles:
  """`directory` is the workdir, or stands for it while the run goes on."""

  def __init__(self, workdir: str | os.PathLike, is_writer: bool = True):
    """Of several processes, one is the writer: it alone uploads."""
    self._remote = epath.Path(workdir) if is_remote(workdir) else None
    self._is_writer = is_writer
    self._uploaded: dict[pathlib.Path, tuple[int, int]] = {}
    self._scratch = None
    self.directory = pathlib.Path(workdir)

  def __enter__(self) -> 'RunFiles':
    if self._remote is not None:
      self._scratch = tempfile.TemporaryDirectory(prefix='valley_jax_')
      self.directory = pathlib.Path(self._scratch.name)
      metrics = self._remote / 'metrics.jsonl'
      if metrics.exists():
        download(metrics, self.directory / metrics.name)
    return self

  def upload(self) -> None:
    """Brings what has changed to the bucket; without one, does nothing."""
    if self._remote is None or not self._is_writer:
      return
    for path in sorted(p for p in self.directory.rglob('*') if p.is_file()):
      stat = path.stat()
      state = stat.st_size, stat.st_mtime_ns
      if self._uploaded.get(path) != state:
        target = self._remote / path.relative_to(self.directory).as_posix()
        with open(path, 'rb') as read, target.open('wb') as write:
          shutil.copyfileobj(read, write, 1 << 20)
        self._uploaded[path] = state

  def __exit__(self, *unused_exception) -> None:
    try:
      self.upload()
    finally:
      if self._scratch is not None:
        self._scratch.cleanup()
