"""What has been judged and compiled before, by the hash of all it depends on.

Verdicts lie in one SQLite file, binaries in files; both are written as wholes,
so that any number of judges may share a directory and be killed at any moment.
"""

import functools
import hashlib
from importlib import metadata
import pathlib
import sqlite3
import sys
import threading

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records

_TABLE = 'CREATE TABLE IF NOT EXISTS judgements (key BLOB PRIMARY KEY, row BLOB)'
_WAIT_SECONDS = 60.0  # For another judge's write.


def digest(*values) -> bytes:
  """Returns a hash of anything that has a JSON form."""
  return hashlib.blake2b(records.to_json(values), digest_size=20).digest()


@functools.cache
def engine() -> str:
  """Returns a hash of the judge's own code and its Python."""
  parts = sorted(pathlib.Path(__file__).parent.rglob('*.py'))
  code = hashlib.blake2b(b''.join(path.read_bytes() for path in parts))
  try:
    numpy = metadata.version('numpy')
  except metadata.PackageNotFoundError:
    numpy = 'no'
  return f'{sys.version} {numpy} numpy {code.hexdigest()}'


class Cache:
  """Verdicts and binaries; without a directory it forgets at once.

  A verdict IE is never kept: it says nothing about the program.

  Raises:
    ValueError: the directory holds something that is no cache.
  """

  def __init__(self, directory: str):
    self._directory = pathlib.Path(directory) if directory else None
    self._lock = threading.Lock()
    self._database: sqlite3.Connection | None = None
    if self._directory is None:
      return
    path = self._directory / 'judgements.sqlite'
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
      # No WAL: it needs shared memory, which network file systems lack.
      self._database = sqlite3.connect(path, timeout=_WAIT_SECONDS, check_same_thread=False)
      with self._database as database:
        database.execute(_TABLE)
    except (sqlite3.Error, OSError) as e:
      self.close()
      raise errors.UserError(
          f'{path} cannot be used as a cache of judgements: {e}. Remove it, or'
          ' set `cache` of the config to another directory.'
      ) from e

  def __bool__(self) -> bool:
    return self._database is not None

  def get(self, key: bytes) -> records.Judgement | None:
    """Returns the judgement that was made, if there is one."""
    if self._database is None:
      return None
    query = 'SELECT row FROM judgements WHERE key = ?'
    with self._lock:
      found = self._database.execute(query, (key,)).fetchone()
    return records.from_json(found[0], records.Judgement) if found else None

  def put(self, key: bytes, judgement: records.Judgement) -> None:
    """Keeps a judgement."""
    is_ours = judgement.verdict is records.Verdict.INTERNAL_ERROR
    if self._database is None or is_ours:
      return
    with self._lock, self._database as database:
      query = 'INSERT OR REPLACE INTO judgements VALUES (?, ?)'
      database.execute(query, (key, records.to_json(judgement)))

  def read(self, name: str) -> bytes:
    """Returns the bytes of a file, b'' if it is not kept."""
    path = self._directory and self._directory / name
    return path.read_bytes() if path and path.exists() else b''

  def write(self, name: str, data: bytes) -> None:
    """Keeps a file, unless it is empty."""
    if self._directory and data:
      jsonl.write_atomically(self._directory / name, data)

  def close(self) -> None:
    """Closes the file of verdicts."""
    if self._database is not None:
      self._database.close()
      self._database = None
