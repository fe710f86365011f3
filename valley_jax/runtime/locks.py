"""Keeps a workdir to one run with one set of settings."""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
from typing import Any

import msgspec

from valley_jax import errors
from valley_jax import jsonl


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
