"""Tests that were symbolic links and whose text is now the link's target.

A copy by way of a file system without links, or git with core.symlinks=false,
leaves `../../sample/1.in` in place of the sample's bytes.
"""

import os
import pathlib
import re

from valley_jax import errors

_MAX_LINKS = 8  # From one to the next.
_MAX_BYTES = 4096  # PATH_MAX of Linux.
_TARGET = re.compile(rb'(?!/)((?:[^\0\n]*/)?[^/\0\n]+(\.[a-z]+))\n?')


def follow(file: pathlib.Path, top: pathlib.Path) -> pathlib.Path:
  """Returns the file that a test stands for: mostly itself.

  A link's target has the suffix of the file that it stands in, and is in `top`.
  Any other text is a test, save one that starts with `../`: it is as good as
  certainly a link, and a right program would fail on it.

  Raises:
    ValueError: a link to nothing, to something outside of `top`, or in a ring.
  """
  here = file
  for _ in range(_MAX_LINKS + 1):
    target = _target(here)
    if target is None:
      return here
    # As real links: relative to where the text stands, also if a link led here.
    there = here.resolve().parent / target
    # os.path, since is_file() raises for what no file can be called.
    if os.path.isfile(there) and there.resolve().is_relative_to(top.resolve()):
      here = there
    elif target.startswith('../'):
      raise errors.UserError(
          f'`{_name(file, top)}` is a link turned to text, to {target!r}, and'
          f' {top.name}/ has no such file; put the test itself in its place'
      )
    else:
      return here
  raise errors.UserError(
      f'`{_name(file, top)}` is a link turned to text that leads over more than'
      f' {_MAX_LINKS} others, or in a ring; put the test itself in its place'
  )


def _target(file: pathlib.Path) -> str | None:
  """The relative path that the file consists of, if it does."""
  if file.stat().st_size > _MAX_BYTES:
    return None
  found = _TARGET.fullmatch(file.read_bytes())
  if not found or found[2] != os.fsencode(file.suffix):
    return None
  return os.fsdecode(found[1])


def _name(file: pathlib.Path, top: pathlib.Path) -> str:
  return file.relative_to(top.parent).as_posix()
