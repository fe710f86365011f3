"""Every verb explains itself; what users can cause is reported in one line."""

import ast
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
VERBS = ['shard', 'train', 'sample', 'execute', 'score', 'report', 'label', 'study', 'curate']
VERBS += ['teach', 'plan', 'convert']
verbs = pytest.mark.parametrize('verb', VERBS)
# These take other flags.
config_verbs = pytest.mark.parametrize('verb', VERBS[:8])

# An entry point whose verb reads a field that the config lacks, or one that the user got wrong.
PROGRAM = '''
"""Reads and writes nothing."""
from valley_jax import errors
from valley_jax.runtime import entry

def verb(config, workdir):
  if config.name == 'user':
    raise errors.UserError('Batches of -1 rows: want at least 1.')
  if config.name == 'ours':
    raise ValueError('raised in Python')
  int(config.name)

entry.run(verb)
'''
CONFIG = 'from ml_collections import ConfigDict\nget_config = lambda: ConfigDict({"name": ""})\n'


def _run_python(*arguments: str, cwd: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
  return subprocess.run(
      [sys.executable, *arguments],
      check=False,
      capture_output=True,
      text=True,
      timeout=250,
      cwd=cwd,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
  )


def _docstring(verb: str) -> str:
  path = ROOT / 'valley_jax' / f'{verb}.py'
  return ast.get_docstring(ast.parse(path.read_text())) or ''


@verbs
def test_help_is_the_docstring_of_the_module(verb):
  helped = _run_python('-m', f'valley_jax.{verb}', '--help')
  words = ' '.join(helped.stdout.split())
  assert ' '.join(_docstring(verb).split()) in words
  if verb != 'convert':
    assert '--config' in words
    assert ('--workdir' if verb != 'plan' else '--topology') in words


def test_help_comes_before_slow_imports():
  helped = _run_python('-X', 'importtime', '-m', 'valley_jax.train', '--help')
  assert '--config' in helped.stdout
  imported = {line.rpartition('|')[2].strip() for line in helped.stderr.splitlines()}
  assert 'absl.app' in imported
  assert not imported & {'jax', 'numpy.linalg', 'grain', 'transformers', 'matplotlib'}


@config_verbs
def test_a_docstring_shows_the_command_and_what_is_written(verb):
  docstring = _docstring(verb)
  assert f'python -m valley_jax.{verb} --config configs/' in docstring
  assert '\nWrites' in docstring


@pytest.mark.parametrize('missing', ['--config', '--workdir'])
def test_a_missing_flag_is_named(missing, tmp_path):
  given = {'--config': f'--config={ROOT}/configs/valley.py', '--workdir': f'--workdir={tmp_path}'}
  del given[missing]
  refused = _run_python('-m', 'valley_jax.score', *given.values())
  assert refused.returncode
  assert f'{missing} must have a value' in refused.stdout + refused.stderr


def test_a_misspelt_field_is_named(tmp_path):
  flags = [f'--config={ROOT}/configs/valley.py', f'--workdir={tmp_path}']
  refused = _run_python('-m', 'valley_jax.score', *flags, '--config.train.batchsize=3')
  assert refused.returncode
  assert 'batchsize' in refused.stdout + refused.stderr


@pytest.fixture
def run_program(tmp_path):
  """Runs PROGRAM with this name in its config and these flags."""
  (tmp_path / 'program.py').write_text(PROGRAM)
  (tmp_path / 'config.py').write_text(CONFIG)

  def run(name: str, *flags: str) -> subprocess.CompletedProcess:
    flags = ('--config=config.py', '--workdir=.', f'--config.name={name}', *flags)
    return _run_python('program.py', *flags, cwd=tmp_path)

  return run


def test_a_user_error_is_one_line_without_a_traceback(run_program):
  refused = run_program('user')
  assert refused.returncode == 1
  assert 'Traceback' not in refused.stderr
  first_line = refused.stderr.splitlines()[0]
  assert first_line == 'program: Batches of -1 rows: want at least 1.'


def test_verbosity_shows_where_a_user_error_was_raised(run_program):
  refused = run_program('user', '--verbosity=0')
  assert refused.returncode == 1
  assert 'Traceback' in refused.stderr
  assert "raise errors.UserError('Batches of -1" in refused.stderr


@pytest.mark.parametrize(
    ('name', 'message'), [('ours', 'raised in Python'), ('x', 'invalid literal for int')]
)
def test_every_other_value_error_keeps_its_traceback(run_program, name, message):
  failed = run_program(name)
  assert failed.returncode == 1
  assert 'Traceback' in failed.stderr
  assert f'ValueError: {message}' in failed.stderr


# Imports the verbs named on the command line and writes an event of each kind.
WITHOUT_TORCH = """
import importlib
import importlib.util
import pathlib
import sys

import numpy as np

from valley_jax.runtime import metrics

for verb in sys.argv[1:]:
  importlib.import_module(f'valley_jax.{verb}')
writer = metrics.Writer('.')
writer.write(1, {'loss': 1.0})
writer.write_text(1, 'text', 'text')
writer.write_hparams({'seed': 1}, ['loss'])
writer.close()
metrics.write_samples(pathlib.Path(), np.arange(3), {'text': 'text'})
assert list(pathlib.Path('tensorboard').glob('events.*'))
assert 'torch' not in sys.modules
assert importlib.util.find_spec('torch')
"""


def test_torch_is_not_imported_where_it_is_installed(tmp_path):
  if not importlib.util.find_spec('torch'):
    (tmp_path / 'torch.py').touch()
    metadata = tmp_path / 'torch-2.13.0.dist-info' / 'METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n')
  (tmp_path / 'program.py').write_text(WITHOUT_TORCH)
  ran = _run_python('program.py', *VERBS, cwd=tmp_path)
  assert not ran.returncode, ran.stderr
