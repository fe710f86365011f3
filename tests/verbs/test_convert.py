"""A run becomes a Hugging Face directory, and a run can begin with one."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import transformers

from tests import tiny
from valley_jax import convert
from valley_jax import jsonl
from valley_jax import train
from valley_jax.data.tokens import tokenization
from valley_jax.models import hf_weights
from valley_jax.models import initial
from valley_jax.models import parameters
from valley_jax.models import pretrained
from valley_jax.runtime import checkpoints

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run of no steps, in its own world, exported twice."""
  path = tmp_path_factory.mktemp('run')
  tiny.write_world(path)
  train.train(tiny.config(path, num_traces=0, shards=''), str(path))
  convert.export(path, dtype='float32', max_file_bytes=10**6)
  return path


def _tree(directory):
  return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.iterdir()}


def _params(directory):
  """The parameters of a run, on the host."""
  student = initial.read_checkpoint_student(directory)
  with tiny.mesh():
    like = parameters.abstract_params(student)
    return jax.device_get(checkpoints.load_latest_params(directory, like))


def test_an_export_holds_the_students_parameters(run):
  student = pretrained.read_student(run / 'hf')
  assert student == initial.read_checkpoint_student(run / 'checkpoints')
  with tiny.mesh(fsdp=2):
    params = pretrained.load_params(run / 'hf', student)
  jax.tree.map(np.testing.assert_array_equal, params, _params(run / 'checkpoints'))


def test_an_export_has_tokenizer_template_and_end_token(run):
  ours = tokenization.load_tokenizer(run / 'shards/tokenizer')
  theirs = transformers.AutoTokenizer.from_pretrained(run / 'hf')
  assert isinstance(theirs, tokenization.Tokenizer)
  assert tokenization.hash_tokenizer(theirs) == tokenization.hash_tokenizer(ours)
  assert theirs.chat_template == ours.chat_template
  for name in ('config.json', 'generation_config.json'):
    config = json.loads((run / 'hf' / name).read_text())
    assert config['eos_token_id'] == ours.convert_tokens_to_ids('<|end|>')


def test_the_second_export_does_nothing(run, capsys):
  before = _tree(run / 'hf')
  convert.export(run, dtype='float32', max_file_bytes=10**6)
  assert _tree(run / 'hf') == before
  assert 'is complete' in capsys.readouterr().out
  with pytest.raises(ValueError, match="dtype='float32', now it is 'bfloat16'"):
    convert.export(run, dtype='bfloat16', max_file_bytes=10**6)


def test_a_directory_of_something_else_is_left_alone(run, tmp_path):
  (tmp_path / 'mine').write_text('')
  with pytest.raises(ValueError, match='not written by export.*--to'):
    convert.export(run, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_a_broken_export_leaves_nothing_that_looks_finished(run, tmp_path, monkeypatch):
  whole = hf_weights.write_file

  def breaks(path, entries, dtype):
    whole(path, entries, dtype)
    raise OSError('No space left on device')

  with monkeypatch.context() as patched:
    patched.setattr(hf_weights, 'write_file', breaks)
    with pytest.raises(OSError, match='No space'):
      convert.export(run, tmp_path / 'hf')
  assert not (tmp_path / 'hf').exists()
  convert.export(run, tmp_path / 'hf')  # What is left does not disturb it.
  assert [path.name for path in tmp_path.iterdir()] == ['hf']


def test_another_tokenizer_than_in_training_is_refused(run, tmp_path):
  config = jsonl.read_json(run / 'config.json')
  there = tmp_path / 'run'
  there.mkdir()
  os.symlink(run / 'checkpoints', there / 'checkpoints')
  tokenizer = tokenization.load_tokenizer(run / 'shards/tokenizer')
  tokenizer.chat_template = '{{ messages }}'
  tokenizer.save_pretrained(tmp_path / 'shards/tokenizer')
  config['shards'] = f'{tmp_path}/shards'
  jsonl.write_json(there / 'config.json', config)
  with pytest.raises(ValueError, match='template has the hash'):
    convert.export(there)


def test_a_run_begins_with_a_hugging_face_checkpoint(run, tmp_path):
  config = tiny.config(run, num_traces=0, init=f'hf:{run}/hf', student='', vocab_multiple=7)
  train.train(config, str(tmp_path))
  jax.tree.map(
      np.testing.assert_array_equal, _params(tmp_path / 'checkpoints'), _params(run / 'checkpoints')
  )


def test_a_preset_that_the_checkpoint_is_not_is_refused(run, tmp_path):
  config = tiny.config(run, init=f'hf:{run}/hf', student='llama3_8b')
  with pytest.raises(ValueError, match='qk_norm=True, not False.*student'):
    train.train(config, str(tmp_path))


def test_distributions_that_differ_are_told_apart():
  logits = np.random.default_rng(0).normal(size=(600, 50)).astype(np.float32)
  same = convert.measure_differences(logits, logits + 1.0)  # Logits have no origin.
  assert same['kl_max'] < 1e-9 and same['agreement'] == 1
  p = np.log(np.asarray([[0.5, 0.25, 0.25]]))
  q = np.log(np.asarray([[0.25, 0.5, 0.25]]))
  found = convert.measure_differences(p, q)
  assert found['agreement'] == 0
  np.testing.assert_allclose(found['kl_mean'], 0.25 * np.log(2))
  np.testing.assert_allclose(found['max_logit_difference'], np.log(2))


@pytest.mark.skipif(bool(importlib.util.find_spec('torch')), reason='torch is installed')
def test_check_without_torch_says_how_to_install_it(run):
  with pytest.raises(ValueError, match=r"pip install 'valley_jax\[parity\]'"):
    convert.check(str(run / 'hf'))


def test_help_teaches(tmp_path):
  helped = subprocess.run(
      [sys.executable, '-m', 'valley_jax.convert', '--help'],
      check=True,
      capture_output=True,
      text=True,
      timeout=60,
      cwd=ROOT,
  )
  assert str(convert.__doc__).strip() in helped.stdout
