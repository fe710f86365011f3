"""Finds and reads the files of a source: one file, a glob or a directory, local or remote.

A name with `://` in it, such as gs://bucket/rows.parquet, goes through fsspec, whose package for
that kind of storage must be installed (gcsfs, s3fs, ...).
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import glob
import hashlib
import os
from typing import Any, BinaryIO
import zlib

import fsspec
import zstandard

from valley_jax import errors

# Only files that end like this are taken from a directory. A file that is named itself may end in
# anything: it is JSONL unless its suffix says otherwise.
SUFFIXES = ('.jsonl', '.jsonl.gz', '.jsonl.zst', '.parquet')

_CHUNK = 1 << 18  # Bytes.
# Small, because a damaged chunk is lost as a whole, and because it may unpack to much more.
_PACKED_CHUNK = 1 << 12


class DamagedError(Exception):
  """Why the rest of a compressed file cannot be read."""


def find_files(path: str) -> list[str]:
  """Returns the files of a path, sorted by name; an empty list if there are none.

  Args:
    path: A file, a glob, or a directory. From a directory, the files that end in one of
      `SUFFIXES` are taken; its subdirectories are not searched.

  Raises:
    UserError: fsspec does not know this kind of remote storage.
  """
  if '\0' in path:  # The functions of `os` would raise.
    return []
  if '://' in path:
    return _find_remote_files(path)
  if os.path.isfile(path):
    return [path]
  if os.path.isdir(path):
    names = [os.path.join(path, name) for name in os.listdir(path)]
    return sorted(name for name in filter(_is_data_file, names) if os.path.isfile(name))
  return sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))


def _is_data_file(name: str) -> bool:
  base = name.rpartition('/')[2]
  return base.endswith(SUFFIXES) and not base.startswith('.')


def _find_remote_files(path: str) -> list[str]:
  try:
    system, inner = fsspec.url_to_fs(path)
  except (ImportError, ValueError) as e:
    raise errors.UserError(f'{path} cannot be reached: {e}') from e
  if system.isfile(inner):
    return [path]
  if system.isdir(inner):
    names = filter(_is_data_file, system.ls(inner, detail=False))
  else:
    names = filter(system.isfile, system.glob(inner))
  return sorted(map(system.unstrip_protocol, names))


def open_binary(name: str) -> BinaryIO:
  """Opens a local or remote file to read its bytes, without unpacking them."""
  if '://' in name:
    opener: Any = fsspec.open(name, 'rb', compression=None)
    return opener.open()
  return open(name, 'rb')


def read_chunks(name: str) -> Iterator[bytes]:
  """Yields the bytes of a file, unpacked if its name ends in .gz or .zst.

  Raises:
    DamagedError: the file is damaged; all that can be unpacked has been yielded before.
  """
  with open_binary(name) as f:
    if name.endswith('.gz'):
      packed = iter(functools.partial(f.read, _PACKED_CHUNK), b'')
      # 31 bits of window: zlib then expects the header of gzip.
      yield from _unpack_streams(packed, functools.partial(zlib.decompressobj, 31))
    elif name.endswith('.zst'):
      packed = iter(functools.partial(f.read, _PACKED_CHUNK), b'')
      yield from _unpack_streams(packed, zstandard.ZstdDecompressor().decompressobj)
    else:
      yield from iter(functools.partial(f.read, _CHUNK), b'')


def _unpack_streams(packed: Iterable[bytes], new_stream: Callable[[], Any]) -> Iterator[bytes]:
  """Unpacks compressed streams that follow one another in a file.

  Not by the libraries' own readers: zstandard's takes a file that is cut off for one that ends,
  and gzip's loses what it has already unpacked of the last block.
  """
  stream = None
  for data in packed:
    while data:
      if stream is None:
        data = data.lstrip(b'\0')  # Padding after a stream.
        if not data:
          break
        stream = new_stream()
      try:
        text = stream.decompress(data)
      except (zlib.error, zstandard.ZstdError) as e:
        raise DamagedError(str(e)) from e
      if text:
        yield text
      data = stream.unused_data  # Bytes after the end of the stream: the next one.
      if stream.eof:
        stream = None
  if stream is not None:
    raise DamagedError('the file is cut off')


def hash_files(names: Iterable[str]) -> str:
  """Returns the SHA-256 of a file; of several files, that of their hashes, one a line."""
  hashes = []
  for name in names:
    with open_binary(name) as f:
      digest = hashlib.sha256()
      for chunk in iter(functools.partial(f.read, _CHUNK), b''):
        digest.update(chunk)
    hashes.append(digest.hexdigest())
  if len(hashes) == 1:
    return hashes[0]
  lines = ''.join(f'{digest}\n' for digest in hashes)
  return hashlib.sha256(lines.encode()).hexdigest()
