"""Texts have the vectors of transformers, however they are padded."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests import tiny
from valley_jax import records
from valley_jax.data.cleaning import contamination
from valley_jax.data.tokens import tokenization
from valley_jax.models import hf_config
from valley_jax.models import hf_weights
from valley_jax.models import text_vectors
from valley_jax.runtime import config_groups

TEXTS = ['Add two numbers.', 'Sort them. ' * 9, 'x'] * 3
TRACE = records.Trace(trace_id='t', problem_id='p', question=TEXTS[0], response=TEXTS[1])


def _write(directory, pooling=None, tied=True):
  """An exported student, and how its hidden states become a vector."""
  tokenization.train_bpe(directory, [TRACE], 300)
  student = tiny.student(qk_norm=True, tied_head=tied, vocab_size=320)
  with tiny.mesh():
    params = tiny.put_params(student)
    hf_weights.write_weights(directory, student, params, 'float32')
  config = hf_config.build_student_config(student)
  (directory / 'config.json').write_text(json.dumps(config))
  if pooling:
    (directory / '1_Pooling').mkdir()
    path = directory / '1_Pooling' / 'config.json'
    path.write_text(json.dumps(pooling))
  return directory


LAST = {'pooling_mode_mean_tokens': False, 'pooling_mode_lasttoken': True}


def _rename(directory):
  """The names that a decoder's tensors have without what is around it."""
  path = directory / 'model.safetensors'
  tensors = safetensors.load_file(path)
  tensors.pop('lm_head.weight', None)
  safetensors.save_file({name.removeprefix('model.'): x for name, x in tensors.items()}, path)


@pytest.mark.parametrize('pooling', [None, LAST], ids=['mean', 'last'])
def test_padding_and_neighbours_do_not_matter(tmp_path, pooling):
  embed = text_vectors.load_embedder(_write(tmp_path / 'm', pooling))
  together = embed(TEXTS)
  assert together.shape == (9, 16) and np.std(together, axis=0).min() > 0.01
  alone = np.concatenate([embed([text]) for text in TEXTS[:3]])
  np.testing.assert_allclose(together, np.tile(alone, (3, 1)), atol=1e-5)


def test_the_last_token_is_not_the_mean(tmp_path):
  mean = text_vectors.load_embedder(_write(tmp_path / 'mean'))(TEXTS[:1])
  last = text_vectors.load_embedder(_write(tmp_path / 'last', LAST))(TEXTS[:1])
  assert np.abs(mean - last).max() > 0.1


@pytest.mark.parametrize('tied', [True, False])
def test_a_decoder_alone_is_read_too(tmp_path, tied):
  directory = _write(tmp_path / 'm', tied=tied)
  whole = text_vectors.load_embedder(directory)(TEXTS[:3])
  _rename(directory)
  np.testing.assert_array_equal(text_vectors.load_embedder(directory)(TEXTS[:3]), whole)


def test_a_question_is_found_by_its_vector(tmp_path):
  embed = text_vectors.load_embedder(_write(tmp_path / 'm'))
  problems = [('a', TEXTS[1]), ('b', TEXTS[0])]
  group = config_groups.get_contamination_group() | {'threshold': 0, 'aligned': 0, 'cosine': 0.99}
  settings = contamination.Settings.from_config(group)
  index = contamination.Contamination(problems, settings, embed)
  match = index.find_problem(TEXTS[0])
  assert match and match.problem_id == 'b' and match.score > 0.999


def test_what_cannot_be_computed_is_refused(tmp_path):
  directory = _write(tmp_path / 'm', {'pooling_mode_cls_token': True})
  with pytest.raises(ValueError, match='cls_token.* only lasttoken or mean'):
    text_vectors.load_embedder(directory)
  with pytest.raises(ValueError, match='does not exist'):
    text_vectors.load_embedder(tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'bert'}))
  with pytest.raises(ValueError, match='bert'):
    text_vectors.load_embedder(tmp_path)


def test_vectors_equal_those_of_transformers(tmp_path):
  torch = pytest.importorskip('torch')
  import transformers

  directory = _write(tmp_path / 'm', LAST)
  config = transformers.AutoConfig.from_pretrained(directory)
  torch.manual_seed(0)
  model = transformers.AutoModel.from_config(config).float().eval()
  model.save_pretrained(directory)
  names = safetensors.load_file(directory / 'model.safetensors')
  assert 'embed_tokens.weight' in names
  tokenizer = tokenization.load_tokenizer(directory)
  ours = text_vectors.load_embedder(directory)(TEXTS[:3])
  for text, vector_D in zip(TEXTS, ours):
    tokens = torch.tensor([tokenizer(text)['input_ids']])
    with torch.no_grad():
      theirs_LD = model(tokens).last_hidden_state[0].numpy()
    np.testing.assert_allclose(vector_D, theirs_LD[-1], atol=1e-4)
