"""The tests of a Kattis package: `.in` and `.ans` beside each other in data/sample and data/secret.

Some are symbolic links whose text is now the link's target: a copy by way of a file system without
links, or git with core.symlinks=false, leaves `../../sample/1.in` in place of the sample's bytes.
They are followed.
"""

from collections.abc import Iterator
import os
import pathlib
import re

from valley_jax import errors
from valley_jax import records
from valley_jax.data.problem_formats import conversion

_GROUPS = ('sample', 'secret')
_MAX_LINKS = 8  # From one to the next.
_MAX_LINK_BYTES = 4096  # PATH_MAX of Linux.
_LINK_TARGET = re.compile(rb'(?!/)((?:[^\0\n]*/)?[^/\0\n]+(\.[a-z]+))\n?')


def read_text_file(path: pathlib.Path) -> str:
  """Returns the file's text; not through open(), which would translate CRLF."""
  with conversion.naming_column(path.name):
    return path.read_bytes().decode('utf-8')


def find_test_files(folder: pathlib.Path, suffix: str) -> list[pathlib.Path]:
  """Returns the files of tests, sorted; without `._1.in`, which macOS leaves."""
  return sorted(file for file in folder.rglob(f'[!.]*{suffix}') if file.is_file())


def find_link_targets(package: pathlib.Path) -> dict[pathlib.Path, pathlib.Path]:
  """Returns the tests that are links turned to text, with the files that they lead to."""
  data = package / 'data'
  tests = [
      file
      for group in _GROUPS
      for suffix in ('.in', '.ans')
      for file in find_test_files(data / group, suffix)
  ]
  followed = {file: follow_text_links(file, data) for file in tests}
  return {file: there for file, there in followed.items() if there != file}


def list_tests(
    package: pathlib.Path, targets: dict[pathlib.Path, pathlib.Path]
) -> Iterator[records.TestCase]:
  """Yields the samples, then the secret tests, by path.

  Raises:
    UserError: half of a test is missing, or a link hides tests, or no test is secret.
    conversion.UnjudgeableError: tests bring files along.
  """
  num_secret = 0
  for group in _GROUPS:
    folder = package / 'data' / group
    for other in sorted(folder.rglob('*')):
      if other.is_symlink() and other.is_dir():  # rglob does not go there.
        raise errors.UserError(f'`{_name_file(package, other)}` is a link to a folder')
      if other.is_dir() and other.suffix == '.files':
        raise conversion.UnjudgeableError('its tests bring files along')
    inputs = find_test_files(folder, '.in')
    for answer in find_test_files(folder, '.ans'):
      if not answer.with_suffix('.in').is_file():
        raise errors.UserError(f'`{_name_file(package, answer)}` has no .in beside it')
    for file in inputs:
      answer = file.with_suffix('.ans')
      if not answer.is_file():
        raise errors.UserError(f'`{_name_file(package, file)}` has no .ans beside it')
      yield records.TestCase(
          input=read_text_file(targets.get(file, file)),
          expected=read_text_file(targets.get(answer, answer)),
          is_sample=group == 'sample',
      )
    num_secret = len(inputs)  # After the loop: those of the last group, `secret`.
  if not num_secret:
    raise errors.UserError('`data/secret` has no tests; samples alone are not enough')


def _name_file(package: pathlib.Path, file: pathlib.Path) -> str:
  return file.relative_to(package).as_posix()


def follow_text_links(file: pathlib.Path, top: pathlib.Path) -> pathlib.Path:
  """Returns the file that a test stands for: usually itself.

  A link's target has the suffix of the file that contains it, and is in `top`. Any other text is a
  test, except one that starts with `../`: it is almost certainly a link, and a right program would
  fail on it.

  Raises:
    UserError: a link to nothing, to something outside of `top`, or in a ring.
  """
  here = file
  for _ in range(_MAX_LINKS + 1):
    target = _parse_link_text(here)
    if target is None:
      return here
    # As with real links: relative to the place of the text, even if a link led here.
    there = here.resolve().parent / target
    # os.path, since is_file() raises for names that no file can have.
    if os.path.isfile(there) and there.resolve().is_relative_to(top.resolve()):
      here = there
    elif target.startswith('../'):
      raise errors.UserError(
          f'`{_name_file(top.parent, file)}` is a link turned to text, to {target!r}, and'
          f' {top.name}/ has no such file; put the test itself in its place'
      )
    else:
      return here
  raise errors.UserError(
      f'`{_name_file(top.parent, file)}` is a link turned to text that leads over more than'
      f' {_MAX_LINKS} others, or in a ring; put the test itself in its place'
  )


def _parse_link_text(file: pathlib.Path) -> str | None:
  """Returns the relative path that is all of the file's text; None if it is something else."""
  if file.stat().st_size > _MAX_LINK_BYTES:
    return None
  match = _LINK_TARGET.fullmatch(file.read_bytes())
  if not match or match[2] != os.fsencode(file.suffix):
    return None
  return os.fsdecode(match[1])
