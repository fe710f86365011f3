"""The languages of submissions and checkers, and their compilers.

A new one is an entry in LANGUAGES here, and one in `records.LANGUAGES` with its other names.

Python is run by the harness, in the supervisor's own interpreter. Every other language names the
command that turns its source into the file `program`, which is run as it is: a binary, or a
script that begins with `#!`.

A compiler is a program that runs on hostile input: constants that fold for ever, includes of
/dev/zero, floods of errors. It runs in a sandbox, under limits; a source that passes them does
not compile.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import threading

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.execution import cache as cache_lib
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import sandbox

COMPILER_LIMITS = records.Limits(cpu_seconds=30.0, memory_mib=2048, output_kib=192 * 1024)
# A precompiled header takes 4 s to make and saves 0.8 s per compilation.
_COMPILATIONS_BEFORE_HEADER = 4
_MAX_BINARY_BYTES = 64 << 20  # Each test gets a copy in the sandbox's memory.
_NUM_RECENT = 32  # Kept in memory: a checker serves many submissions.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
  """How a language is compiled."""

  suffixes: tuple[str, ...]  # Suffixes of source files; the first names a submission's source.
  compiler: tuple[str, ...] = ()  # The command without the sources; (): run by the harness.
  header: str = ''  # Precompiled once per machine.

  def build_compile_command(self, names: list[str], header_dir: str = '') -> tuple[str, ...]:
    """Returns the command that makes `program` from the files of these names."""
    sources = [name for name in names if name.endswith(self.suffixes)]
    include = ('-I', header_dir) if self.header and header_dir else ()
    return (*self.compiler, *include, '-o', 'program', *sources, '-lm')

  def build_header_command(self) -> tuple[str, ...]:
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
        f'Language {name!r} is unknown; this judge runs {", ".join(sorted(LANGUAGES))}. Change the'
        ' `language` of the row, or add an entry to records.py and execution/languages.py.'
    )
  return name


@functools.cache
def find_compiler_version(language: Language) -> str:
  """Returns the first line of the compiler's `--version`, '' if there is no compiler."""
  if not language.compiler:
    return ''
  try:
    done = subprocess.run([language.compiler[0], '--version'], capture_output=True, check=True)
  except (OSError, subprocess.CalledProcessError):
    return ''
  return done.stdout.decode('utf-8', 'replace').splitlines()[0]


class Compilers:
  """The compilers of a pool, shared by its workers; each source is compiled once.

  Args:
    cache: Stores binaries and precompiled headers, if it has a directory.
    public: A directory that is seen inside sandboxes.
  """

  def __init__(self, cache: cache_lib.JudgementCache, public: pathlib.Path):
    self._cache, self._public = cache, public
    self._lock = threading.Lock()
    self._num_compilations = collections.Counter()
    self._recent: dict[str, sandbox.Execution] = {}  # The oldest first.

  def compile_files(
      self, confinement: isolation_lib.Confinement, name: str, files: dict[str, bytes]
  ) -> tuple[bytes, sandbox.Execution | None]:
    """Returns the binary of these files, or b'' and what the compiler did.

    Raises:
      SandboxError: there is no such compiler here, or the sandbox failed.
    """
    language = LANGUAGES[name]
    version = find_compiler_version(language)
    if not version:
      raise sandbox.SandboxError(
          f'{language.compiler[0]} is not installed, so no {name} program can be judged;'
          ' `apt-get install g++` and run it again.'
      )
    # In hex, as JSON has no bytes and a source need not be UTF-8.
    texts = sorted((file, text.hex()) for file, text in files.items())
    key = cache_lib.compute_digest(texts, language.compiler, version).hex()
    if recent := self._recent.get(key):
      return recent.report, recent
    if binary := self._cache.read_file(f'binaries/{key}'):
      return binary, None
    header_dir = self._provide_header(confinement, name)
    command = language.build_compile_command(list(files), header_dir)
    execution = self.run_compiler(confinement, command, files)
    if (size := len(execution.report)) > _MAX_BINARY_BYTES:
      message = f'The binary has {size:,} bytes; {_MAX_BINARY_BYTES:,} are allowed.'
      execution = dataclasses.replace(execution, report=b'', stderr=message.encode())
    self._cache.write_file(f'binaries/{key}', execution.report)
    with self._lock:
      self._recent[key] = execution
      while len(self._recent) > _NUM_RECENT:
        self._recent.pop(next(iter(self._recent)))
    return execution.report, execution

  def run_compiler(self, confinement, command, files) -> sandbox.Execution:
    """Runs a compiler in a sandbox of its own."""
    with sandbox.Sandbox(confinement, COMPILER_LIMITS, may_write=True) as box:
      return box.run_compiler(command, files)

  def _provide_header(self, confinement: isolation_lib.Confinement, name: str) -> str:
    """Returns the precompiled header's directory as seen inside, '' if there is none."""
    language = LANGUAGES[name]
    if not language.header:
      return ''
    folder = self._public / 'pch' / name
    header = folder / f'{language.header}.gch'
    with self._lock:
      self._num_compilations[name] += 1
      if not header.exists():
        data = self._precompile_header(confinement, name)
        if not data:
          return ''
        jsonl.write_atomically(header, data)
        # Programs run as other users, whom the umask might exclude.
        for path in (header.parent, folder, folder.parent):
          os.chmod(path, 0o755)
        os.chmod(header, 0o644)
    top = f'{self._public}/pch' if confinement.user else bubblewrap.PCH
    return f'{top}/{name}'

  def _precompile_header(self, confinement: isolation_lib.Confinement, name: str) -> bytes:
    """Returns the header if it is cached or worth its time, b'' if not."""
    language = LANGUAGES[name]
    version = find_compiler_version(language)
    path = f'headers/{cache_lib.compute_digest(language.compiler, version).hex()}'
    data = self._cache.read_file(path)
    if not data and self._num_compilations[name] > _COMPILATIONS_BEFORE_HEADER:
      files = {'header': f'#include <{language.header}>\n'.encode()}
      data = self.run_compiler(confinement, language.build_header_command(), files).report
      self._cache.write_file(path, data)
      if not data:  # It would fail the next time as well.
        self._num_compilations[name] = -sys.maxsize
    return data
