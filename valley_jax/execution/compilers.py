"""Turns sources into binaries: in a sandbox, under limits, once a source.

A compiler is a program that runs on hostile input: constants that fold for
ever, includes of /dev/zero, floods of errors. What passes the limits does not
compile.
"""

import collections
import dataclasses
import os
import pathlib
import sys
import threading

from valley_jax import records
from valley_jax.execution import cache as cache_lib
from valley_jax.execution import languages
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import place as place_lib
from valley_jax.execution.confinement import sandbox

LIMITS = records.Limits(
    cpu_seconds=30.0, memory_mib=2048, output_kib=192 * 1024
)
# A precompiled header takes 4 s to make and saves 0.8 s a compilation.
_COMPILATIONS_BEFORE_HEADER = 4
_MAX_BINARY = 64 << 20  # Bytes: a test has a copy in the sandbox's memory.
_NUM_RECENT = 32  # Kept in memory: a checker serves many submissions.


class Compilers:
  """The compilers of a pool; shared by its workers.

  Args:
    cache: Keeps binaries and precompiled headers, if it has a directory.
    public: A directory that is seen inside sandboxes.
  """

  def __init__(self, cache: cache_lib.Cache, public: pathlib.Path):
    self._cache, self._public = cache, public
    self._lock = threading.Lock()
    self._counts = collections.Counter()
    self._versions: dict[str, str] = {}
    self._recent: dict[str, sandbox.Execution] = {}  # The oldest first.

  def version(self, name: str) -> str:
    """Returns the version of a language's compiler, asked for once."""
    if name not in self._versions:
      language = languages.LANGUAGES[name]
      self._versions[name] = languages.compiler_version(language)
    return self._versions[name]

  def build(
      self, place: place_lib.Place, name: str, files: dict[str, bytes]
  ) -> tuple[bytes, sandbox.Execution | None]:
    """Returns the binary of these files, or b'' and what the compiler did.

    Raises:
      SandboxError: there is no such compiler here, or the sandbox failed.
    """
    language = languages.LANGUAGES[name]
    if not self.version(name):
      raise sandbox.SandboxError(
          f'{language.compiler[0]} is not installed, so no {name} program can'
          ' be judged; `apt-get install g++` and run it again.'
      )
    texts = sorted((n, text.hex()) for n, text in files.items())
    key = cache_lib.digest(texts, language.compiler, self.version(name)).hex()
    if recent := self._recent.get(key):
      return recent.report, recent
    kept = self._cache.file(f'binaries/{key}')
    if kept and kept.exists() and (binary := kept.read_bytes()):
      return binary, None
    pch = self._header(place, name)
    made = self._run(place, language.command(list(files), pch), files)
    if len(made.report) > _MAX_BINARY:
      words = f'The binary has {len(made.report):,} bytes; {_MAX_BINARY:,} are'
      words = f'{words} allowed.'.encode()
      made = dataclasses.replace(made, report=b'', stderr=words)
    if made.report and kept:
      records.write_atomically(kept, made.report)
    with self._lock:
      self._recent[key] = made
      while len(self._recent) > _NUM_RECENT:
        self._recent.pop(next(iter(self._recent)))
    return made.report, made

  def _run(self, place, argv, files) -> sandbox.Execution:
    with sandbox.Sandbox(place, LIMITS, writes=True) as box:
      return box.build(argv, files)

  def _header(self, place: place_lib.Place, name: str) -> str:
    """Returns the directory of the precompiled header as seen inside."""
    language = languages.LANGUAGES[name]
    if not language.header:
      return ''
    key = cache_lib.digest(language.compiler, self.version(name)).hex()
    kept = self._cache.file(f'headers/{key}')
    with self._lock:
      self._counts[name] += 1
      folder = self._public / 'pch' / name
      header = folder / f'{language.header}.gch'
      if not header.exists():
        is_frequent = self._counts[name] > _COMPILATIONS_BEFORE_HEADER
        if not is_frequent and not (kept and kept.exists()):
          return ''
        data = self._precompiled(place, language, kept)
        if not data:  # It will not do so the next time either.
          self._counts[name] = -sys.maxsize
          return ''
        records.write_atomically(header, data)
        for path in (header.parent, folder, folder.parent):
          os.chmod(path, 0o755)
        os.chmod(header, 0o644)
    top = f'{self._public}/pch' if place.user else bubblewrap.PCH
    return f'{top}/{name}'

  def _precompiled(self, place, language, kept: pathlib.Path | None) -> bytes:
    if kept and kept.exists():
      return kept.read_bytes()
    source = f'#include <{language.header}>\n'.encode()
    made = self._run(place, language.header_command(), {'header': source})
    if kept and made.report:
      records.write_atomically(kept, made.report)
    return made.report
