"""The peers of judge.py: a subprocess per test, plain or each in bubblewrap."""

import os
import pathlib
import subprocess
import sys
import venv

import numpy as np

from valley_jax.execution import languages


class SubprocessPeer:
  """Runs programs one by one, the interpreter and its start included.

  Python runs in a venv that holds numpy and nothing else, for `site` reads all
  that is installed beside it.
  """

  def __init__(self, folder: pathlib.Path, is_confined: bool):
    self._folder, self._prefix = folder, []
    # As in ours: a pool of threads costs more than what they compute here.
    self._environment = {**os.environ, 'OPENBLAS_NUM_THREADS': '1'}
    numpy = pathlib.Path(np.__file__).resolve().parent
    packages = [p for p in (numpy, numpy.with_name('numpy.libs')) if p.exists()]
    if not (folder / 'venv').exists():
      venv.create(folder / 'venv', symlinks=True)
      [site] = (folder / 'venv').glob('lib/python*/site-packages')
      for package in packages:
        (site / package.name).symlink_to(package)
    if is_confined:
      build = folder / 'build'  # Where a compiler writes.
      build.mkdir(exist_ok=True)
      # As PID 1, since bubblewrap does not wait for one of its own: its CPU
      # time would be nobody's.
      self._prefix = 'bwrap --unshare-all --die-with-parent --as-pid-1'.split()
      for name in ('bin', 'lib', 'lib64'):
        self._prefix += ['--symlink', f'usr/{name}', f'/{name}']
      self._prefix += ['--proc', '/proc', '--dev', '/dev', '--tmpfs', '/tmp']
      for path in ('/usr', sys.base_prefix, folder, *packages):
        self._prefix += ['--ro-bind', str(path), str(path)]
      self._prefix += ['--bind', str(build), str(build), '--']

  def build_command(self, language: str, source: str, is_new: bool) -> list[str]:
    """Returns the command that runs a program; compiles it if it `is_new`."""
    if language == 'python':
      path = self._folder / 'solution.py'
      path.write_text(source)
      return [str(self._folder / 'venv/bin/python'), '-I', str(path)]
    binary = self._folder / 'build' / 'program'
    binary.parent.mkdir(exist_ok=True)
    if is_new or not binary.exists():
      path = self._folder / 'solution.cpp'
      path.write_text(source)
      compiler = languages.LANGUAGES[language].compiler
      command = [*compiler, '-o', str(binary), str(path)]
      subprocess.run(self._prefix + command, check=True)
    return [str(binary)]

  def run_test(self, command: list[str], stdin: bytes) -> bytes:
    """Returns what a program has printed."""
    done = subprocess.run(
        self._prefix + command, input=stdin, env=self._environment, capture_output=True, check=True
    )
    return done.stdout
