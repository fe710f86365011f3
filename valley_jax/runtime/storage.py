"""Paths that may be in a bucket: gs://BUCKET/PATH, through epath.

An object in a bucket cannot be appended to. A run whose workdir is in a bucket therefore keeps
config.json, metrics.jsonl and TensorBoard's events in a local directory, and copies them to the
bucket before every checkpoint and at the end. A kill loses what was written since then; the run
resumes from the checkpoint and writes it again.
"""

import os
import pathlib
import shutil
import tempfile

from etils import epath

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
