"""Files of a source: one, a glob or a directory, local or remote.

A name with `://` in it, such as gs://bucket/rows.parquet, goes through fsspec,
whose package for that place must be installed (gcsfs, s3fs, ...).
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

# What is taken of a directory. A file may be named by itself whatever it is
# called: it is JSONL unless its suffix says otherwise.
SUFFIXES = ('.jsonl', '.jsonl.gz', '.jsonl.zst', '.parquet')

_CHUNK = 1 << 18  # Bytes.
# Small: a damaged chunk is lost as a whole, and one may unpack to much more.
_PACKED_CHUNK = 1 << 12


class DamagedError(Exception):
  """Why the rest of a packed file cannot be read."""


def find(path: str) -> list[str]:
  """Returns the files of a path by name; none where there is nothing.

  Args:
    path: A file, a glob, or a directory, of which the files that end in one
      of `SUFFIXES` are taken, but none of its subdirectories.

  Raises:
    ValueError: a remote place that fsspec does not know.
  """
  if '\0' in path:
    return []
  if '://' in path:
    return _find_remote(path)
  if os.path.isfile(path):
    return [path]
  if os.path.isdir(path):
    found = [os.path.join(path, name) for name in os.listdir(path)]
    return sorted(f for f in filter(_is_data, found) if os.path.isfile(f))
  return sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))


def _is_data(name: str) -> bool:
  base = name.rpartition('/')[2]
  return base.endswith(SUFFIXES) and not base.startswith('.')


def _find_remote(path: str) -> list[str]:
  try:
    system, inner = fsspec.url_to_fs(path)
  except (ImportError, ValueError) as e:
    raise errors.UserError(f'{path} cannot be reached: {e}') from e
  if system.isfile(inner):
    return [path]
  if system.isdir(inner):
    found = filter(_is_data, system.ls(inner, detail=False))
  else:
    found = filter(system.isfile, system.glob(inner))
  return sorted(map(system.unstrip_protocol, found))


def open_binary(name: str) -> BinaryIO:
  """Opens a file to read its bytes as they are."""
  if '://' in name:
    opened: Any = fsspec.open(name, 'rb', compression=None)
    return opened.open()
  return open(name, 'rb')


def chunks(name: str) -> Iterator[bytes]:
  """Yields the bytes of a file, unpacked if it ends in .gz or .zst.

  Raises:
    DamagedError: after all that can be unpacked.
  """
  with open_binary(name) as f:
    if name.endswith('.gz'):
      packed = iter(functools.partial(f.read, _PACKED_CHUNK), b'')
      yield from _unpack(packed, functools.partial(zlib.decompressobj, 31))
    elif name.endswith('.zst'):
      packed = iter(functools.partial(f.read, _PACKED_CHUNK), b'')
      yield from _unpack(packed, zstandard.ZstdDecompressor().decompressobj)
    else:
      yield from iter(functools.partial(f.read, _CHUNK), b'')


def _unpack(packed: Iterable[bytes], begin: Callable[[], Any]) -> Iterator[bytes]:
  """Unpacks one stream behind another.

  By hand, since zstandard's reader takes a file that is cut off for one that
  ends, and gzip's loses what it has unpacked of the last block.
  """
  stream = None
  for data in packed:
    while data:
      if stream is None:
        data = data.lstrip(b'\0')  # Padding behind a stream.
        if not data:
          break
        stream = begin()
      try:
        text = stream.decompress(data)
      except (zlib.error, zstandard.ZstdError) as e:
        raise DamagedError(str(e)) from e
      if text:
        yield text
      data = stream.unused_data
      if stream.eof:
        stream = None
  if stream is not None:
    raise DamagedError('the file is cut off')


def sha256(names: Iterable[str]) -> str:
  """Returns the hash of a file, or of the hashes of several, a line each."""
  found = []
  for name in names:
    with open_binary(name) as f:
      digest = hashlib.sha256()
      for chunk in iter(functools.partial(f.read, _CHUNK), b''):
        digest.update(chunk)
    found.append(digest.hexdigest())
  if len(found) == 1:
    return found[0]
  lines = ''.join(f'{digest}\n' for digest in found)
  return hashlib.sha256(lines.encode()).hexdigest()
