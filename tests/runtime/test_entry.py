"""Every verb says what it does, what it reads and what it writes."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
VERBS = ['shard', 'train', 'sample', 'execute', 'score', 'report']
VERBS += ['label', 'study']
verbs = pytest.mark.parametrize('verb', VERBS)


def _docstring(verb: str) -> str:
  path = ROOT / 'valley_jax' / f'{verb}.py'
  return ast.get_docstring(ast.parse(path.read_text())) or ''


@verbs
def test_help_is_the_docstring_of_the_module(verb):
  helped = subprocess.run(
      [sys.executable, '-m', f'valley_jax.{verb}', '--help'],
      check=False,
      capture_output=True,
      text=True,
      timeout=60,
      cwd=ROOT,
  )
  words = ' '.join(helped.stdout.split())
  assert ' '.join(_docstring(verb).split()) in words
  assert '--config' in words and '--workdir' in words


@verbs
def test_a_docstring_shows_the_command_and_what_is_written(verb):
  docstring = _docstring(verb)
  assert f'python -m valley_jax.{verb} --config configs/' in docstring
  assert '\nWrites' in docstring


@pytest.mark.parametrize('missing', ['--config', '--workdir'])
def test_a_missing_flag_is_named(missing, tmp_path):
  given = {'--config': f'--config={ROOT}/configs/valley.py', '--workdir': f'--workdir={tmp_path}'}
  del given[missing]
  refused = subprocess.run(
      [sys.executable, '-m', 'valley_jax.score', *given.values()],
      check=False,
      capture_output=True,
      text=True,
      timeout=60,
      cwd=ROOT,
  )
  assert refused.returncode
  assert f'{missing} must have a value' in refused.stdout + refused.stderr


def test_a_misspelt_field_is_named(tmp_path):
  refused = subprocess.run(
      [
          sys.executable,
          '-m',
          'valley_jax.score',
          f'--config={ROOT}/configs/valley.py',
          f'--workdir={tmp_path}',
          '--config.train.batchsize=3',
      ],
      check=False,
      capture_output=True,
      text=True,
      timeout=60,
      cwd=ROOT,
  )
  assert refused.returncode
  assert 'batchsize' in refused.stdout + refused.stderr


@pytest.mark.parametrize('flags', [[], ['--verbosity=0']])
def test_a_user_reads_words_and_no_way_through_the_code(flags, tmp_path):
  refused = subprocess.run(
      [
          sys.executable,
          '-m',
          'valley_jax.shard',
          f'--config={ROOT}/configs/valley.py:mini',
          f'--workdir={tmp_path}',
          '--config.traces=nowhere',
          *flags,
      ],
      check=False,
      capture_output=True,
      text=True,
      timeout=60,
      cwd=ROOT,
  )
  assert refused.returncode == 1
  assert ('Traceback' in refused.stderr) == bool(flags)
  assert flags or "shard: Traces 'nowhere': want FORMAT:P" in refused.stderr
