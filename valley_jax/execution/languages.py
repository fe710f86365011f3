"""The languages of submissions and checkers.

A new one is an entry in LANGUAGES here, and one in `records.LANGUAGES` with its other names.

Python is run by the harness, in the supervisor's own interpreter. Every other
language names the command that turns its source into the file `program`, which
is run as it is: a binary, or a script that begins with `#!`.
"""

import dataclasses
import functools
import subprocess

from valley_jax import errors
from valley_jax import records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
  """How a language is compiled."""

  suffixes: tuple[str, ...]  # Of its source files; the first names a source.
  compiler: tuple[str, ...] = ()  # Without the sources; () is the harness.
  header: str = ''  # Is precompiled, once a machine.

  def command(self, names: list[str], pch: str = '') -> tuple[str, ...]:
    """Returns the command that makes `program` of the files of these names."""
    sources = [n for n in names if n.endswith(self.suffixes)]
    include = ('-I', pch) if self.header and pch else ()
    return (*self.compiler, *include, '-o', 'program', *sources, '-lm')

  def header_command(self) -> tuple[str, ...]:
    """Returns the command that precompiles the file `header`."""
    return (*self.compiler, '-x', 'c++-header', '-o', 'program', 'header')


def _cpp(standard: str) -> Language:
  flags = (f'-std={standard}', '-O2', '-fmax-errors=20', '-w', '-DONLINE_JUDGE')
  return Language(
      suffixes=('.cpp', '.cc', '.cxx', '.C'),
      compiler=('/usr/bin/g++', *flags),
      header='bits/stdc++.h',
  )


LANGUAGES = {
    'python': Language(suffixes=('.py',)),
    'c': Language(suffixes=('.c',), compiler=('/usr/bin/gcc', '-O2', '-w')),
    'cpp17': _cpp('gnu++17'),
    'cpp20': _cpp('gnu++20'),
}


def parse_language_name(name: str) -> str:
  """Returns the key of LANGUAGES for a language that may be given by another of its names.

  Raises:
    UserError: this judge has no such language.
  """
  name = records.canonical_language(name)
  if name not in LANGUAGES:
    raise errors.UserError(
        f'Language {name!r} is unknown; this judge runs'
        f' {", ".join(sorted(LANGUAGES))}. Change the `language` of the row, or'
        ' add an entry to records.py and execution/languages.py.'
    )
  return name


@functools.cache
def compiler_version(language: Language) -> str:
  """Returns what tells one compiler from another, '' if there is none."""
  if not language.compiler:
    return ''
  try:
    done = subprocess.run([language.compiler[0], '--version'], capture_output=True, check=True)
  except (OSError, subprocess.CalledProcessError):
    return ''
  return done.stdout.decode('utf-8', 'replace').splitlines()[0]
