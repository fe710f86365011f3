"""What has been judged and compiled before, by the hash of everything that it depends on.

Verdicts are stored in one SQLite file, binaries in files of their own; both are written
atomically, so that any number of judges may share a directory and be killed at any moment.
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

_CREATE_TABLE = 'CREATE TABLE IF NOT EXISTS judgements (key BLOB PRIMARY KEY, row BLOB)'
_LOCK_TIMEOUT_SECONDS = 60.0  # How long to wait for another judge's write.


def compute_digest(*values) -> bytes:
  """Returns a hash of values that have a JSON form."""
  return hashlib.blake2b(records.to_json(values), digest_size=20).digest()


@functools.cache
def describe_engine() -> str:
  """Returns the versions of Python and numpy, and a hash of the judge's own code."""
  paths = sorted(pathlib.Path(__file__).parent.rglob('*.py'))
  code = hashlib.blake2b(b''.join(path.read_bytes() for path in paths))
  try:
    numpy = metadata.version('numpy')
  except metadata.PackageNotFoundError:
    numpy = 'no'
  return f'{sys.version} {numpy} numpy {code.hexdigest()}'


class JudgementCache:
  """Stores verdicts and binaries in a directory; without a directory it stores nothing.

  A verdict IE is never stored: it says nothing about the program.

  Raises:
    UserError: the directory cannot be used as a cache.
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
      self._database = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_SECONDS, check_same_thread=False)
      with self._database as database:
        database.execute(_CREATE_TABLE)
    except (sqlite3.Error, OSError) as e:
      self.close()
      raise errors.UserError(
          f'{path} cannot be used as a cache of judgements: {e}. Remove it, or set `cache` of the'
          ' config to another directory.'
      ) from e

  def __bool__(self) -> bool:
    return self._database is not None

  def get_judgement(self, key: bytes) -> records.Judgement | None:
    """Returns the stored judgement, None if there is none."""
    if self._database is None:
      return None
    query = 'SELECT row FROM judgements WHERE key = ?'
    with self._lock:
      row = self._database.execute(query, (key,)).fetchone()
    return records.from_json(row[0], records.Judgement) if row else None

  def put_judgement(self, key: bytes, judgement: records.Judgement) -> None:
    is_our_failure = judgement.verdict is records.Verdict.INTERNAL_ERROR
    if self._database is None or is_our_failure:  # IE would be repeated for ever.
      return
    with self._lock, self._database as database:
      # Another judge may have stored the same judgement meanwhile.
      query = 'INSERT OR REPLACE INTO judgements VALUES (?, ?)'
      database.execute(query, (key, records.to_json(judgement)))

  def read_file(self, name: str) -> bytes:
    """Returns the contents of a stored file, b'' if it is not stored."""
    path = self._directory and self._directory / name
    return path.read_bytes() if path and path.exists() else b''

  def write_file(self, name: str, data: bytes) -> None:
    """Stores a file, unless it is empty."""
    if self._directory and data:
      jsonl.write_atomically(self._directory / name, data)

  def close(self) -> None:
    if self._database is not None:
      self._database.close()
      self._database = None
