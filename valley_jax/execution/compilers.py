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

from valley_jax import jsonl
from valley_jax import records
from valley_jax.execution import cache as cache_lib
from valley_jax.execution import languages
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import place as place_lib
from valley_jax.execution.confinement import sandbox

LIMITS = records.Limits(cpu_seconds=30.0, memory_mib=2048, output_kib=192 * 1024)
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
    self._recent: dict[str, sandbox.Execution] = {}  # The oldest first.

  def build(
      self, place: place_lib.Place, name: str, files: dict[str, bytes]
  ) -> tuple[bytes, sandbox.Execution | None]:
    """Returns the binary of these files, or b'' and what the compiler did.

    Raises:
      SandboxError: there is no such compiler here, or the sandbox failed.
    """
    language = languages.LANGUAGES[name]
    version = languages.compiler_version(language)
    if not version:
      raise sandbox.SandboxError(
          f'{language.compiler[0]} is not installed, so no {name} program can'
          ' be judged; `apt-get install g++` and run it again.'
      )
    texts = sorted((n, text.hex()) for n, text in files.items())
    key = cache_lib.digest(texts, language.compiler, version).hex()
    if recent := self._recent.get(key):
      return recent.report, recent
    if binary := self._cache.read(f'binaries/{key}'):
      return binary, None
    pch = self._header(place, name)
    made = self._run(place, language.command(list(files), pch), files)
    if len(made.report) > _MAX_BINARY:
      words = f'The binary has {len(made.report):,} bytes; {_MAX_BINARY:,} are'
      words = f'{words} allowed.'.encode()
      made = dataclasses.replace(made, report=b'', stderr=words)
    self._cache.write(f'binaries/{key}', made.report)
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
    folder = self._public / 'pch' / name
    header = folder / f'{language.header}.gch'
    with self._lock:
      self._counts[name] += 1
      if not header.exists():
        data = self._precompiled(place, name)
        if not data:
          return ''
        jsonl.write_atomically(header, data)
        for path in (header.parent, folder, folder.parent):
          os.chmod(path, 0o755)
        os.chmod(header, 0o644)
    top = f'{self._public}/pch' if place.user else bubblewrap.PCH
    return f'{top}/{name}'

  def _precompiled(self, place: place_lib.Place, name: str) -> bytes:
    """Returns the header if it is there or worth its time, b'' if not."""
    language = languages.LANGUAGES[name]
    version = languages.compiler_version(language)
    kept = f'headers/{cache_lib.digest(language.compiler, version).hex()}'
    data = self._cache.read(kept)
    if not data and self._counts[name] > _COMPILATIONS_BEFORE_HEADER:
      source = f'#include <{language.header}>\n'.encode()
      data = self._run(place, language.header_command(), {'header': source}).report
      self._cache.write(kept, data)
      if not data:  # It will not do so the next time either.
        self._counts[name] = -sys.maxsize
    return data
