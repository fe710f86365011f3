"""Hugging Face checkpoints are read and written bit for bit, or refused."""

import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests import tiny
from valley_jax.models import hf_weights
from valley_jax.models import parameters
from valley_jax.models import pretrained

STUDENT = tiny.student(qkv_bias=True)


def _theirs(student=STUDENT, seed=0):
  """A checkpoint's tensors, [out, in], without our table of names."""
  params = tiny.params(student, seed)
  blocks, width = params['blocks'], student.embed_dim
  tensors = {
      'model.embed_tokens.weight': params['embed_VD'],
      'model.norm.weight': params['final_norm']['scale'],
  }
  if not student.tied_head:
    tensors['lm_head.weight'] = params['head_DV'].T
  for n in range(student.num_layers):
    layer = {
        'input_layernorm.weight': blocks['attention_norm']['scale'][n],
        'post_attention_layernorm.weight': blocks['mlp_norm']['scale'][n],
        'self_attn.q_proj.weight': blocks['q_DKGH'][n].reshape(width, -1).T,
        'self_attn.k_proj.weight': blocks['k_DKH'][n].reshape(width, -1).T,
        'self_attn.v_proj.weight': blocks['v_DKH'][n].reshape(width, -1).T,
        'self_attn.o_proj.weight': blocks['out_KGHD'][n].reshape(-1, width).T,
        'mlp.gate_proj.weight': blocks['gate_DF'][n].T,
        'mlp.up_proj.weight': blocks['up_DF'][n].T,
        'mlp.down_proj.weight': blocks['down_FD'][n].T,
    }
    for name in 'qkv' if student.qkv_bias else '':
      dims = 'KGH' if name == 'q' else 'KH'
      bias = blocks[f'{name}_bias_{dims}'][n].ravel()
      layer[f'self_attn.{name}_proj.bias'] = bias
    for name in ('q_norm', 'k_norm') if student.qk_norm else ():
      layer[f'self_attn.{name}.weight'] = blocks[name]['scale'][n]
    for name, x in layer.items():
      tensors[f'model.layers.{n}.{name}'] = x
  return {name: np.ascontiguousarray(x) for name, x in tensors.items()}


def _write(directory, tensors, num_files=1):
  """Writes tensors by the safetensors library, the index as they do."""
  if num_files == 1:
    safetensors.save_file(tensors, directory / 'model.safetensors')
    return
  weight_map = {}
  for part in range(num_files):
    name = f'model-{part + 1:05d}-of-{num_files:05d}.safetensors'
    names = sorted(tensors)[part::num_files]
    weight_map.update(dict.fromkeys(names, name))
    safetensors.save_file({n: tensors[n] for n in names}, directory / name)
  index = {'metadata': {}, 'weight_map': weight_map}
  path = directory / 'model.safetensors.index.json'
  path.write_text(json.dumps(index))


def _load(directory, student=STUDENT, **mesh):
  with tiny.mesh(**mesh):
    like = parameters.abstract_params(student)
    params = pretrained.load_params(directory, student)
  for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(like)):
    assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
  return params


def _assert_same_bits(params, other):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), params, other)


@pytest.mark.parametrize(
    'variant, num_files, mesh',
    [
        ('llama3', 1, {}),
        ('qwen2', 3, {'data': 2, 'fsdp': 2, 'tp': 2}),
        ('qwen3', 2, {'fsdp': 8}),
        ('tied', 1, {'fsdp': 4, 'tp': 2}),
    ],
)
def test_files_are_read_into_any_sharding(variant, num_files, mesh, tmp_path):
  student = tiny.student(**tiny.VARIANTS[variant])
  _write(tmp_path, _theirs(student), num_files)
  params = _load(tmp_path, student, **mesh)
  _assert_same_bits(params, tiny.params(student))


def test_bfloat16_files_become_float32_parameters(tmp_path):
  rounded = {k: x.astype(ml_dtypes.bfloat16) for k, x in _theirs().items()}
  _write(tmp_path, rounded)
  want = jax.tree.map(
      lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), tiny.params(STUDENT)
  )
  _assert_same_bits(_load(tmp_path, fsdp=2), want)


@pytest.mark.parametrize('max_file_bytes', [10**9, 5000])
def test_sharded_parameters_are_written_as_they_would(max_file_bytes, tmp_path):
  with tiny.mesh(data=2, fsdp=2, tp=2):
    params = tiny.put_params(STUDENT)
    hf_weights.write_weights(tmp_path, STUDENT, params, 'float32', max_file_bytes)
  files = sorted(tmp_path.glob('*.safetensors'))
  found = {}
  for path in files:
    found.update(safetensors.load_file(path))
    assert path.stat().st_size < max_file_bytes + 2000  # And its header.
  theirs = _theirs()
  assert found.keys() == theirs.keys()
  for name, x in theirs.items():
    np.testing.assert_array_equal(found[name], x, name)
  index = tmp_path / 'model.safetensors.index.json'
  assert index.exists() == (len(files) > 1) == (max_file_bytes == 5000)
  if index.exists():
    index = json.loads(index.read_text())
    assert set(index['weight_map']) == set(theirs)
    total = sum(x.nbytes for x in theirs.values())
    assert index['metadata']['total_size'] == total


def test_what_is_written_in_bfloat16_comes_back_bit_for_bit(tmp_path):
  rounded = {k: x.astype(ml_dtypes.bfloat16) for k, x in _theirs().items()}
  (tmp_path / 'in').mkdir()
  (tmp_path / 'out').mkdir()
  _write(tmp_path / 'in', rounded)
  with tiny.mesh(fsdp=2):
    params = _load(tmp_path / 'in', fsdp=2)
    hf_weights.write_weights(tmp_path / 'out', STUDENT, params, 'bfloat16')
  found = safetensors.load_file(tmp_path / 'out/model.safetensors')
  assert found.keys() == rounded.keys()
  for name, x in rounded.items():
    assert found[name].tobytes() == x.tobytes(), name


_NORM = 'model.norm.weight'
_HEAD = 'lm_head.weight'


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda t: t.pop(_NORM), f'lacks {_NORM}'),
        (lambda t: t.update({'model.extra': t[_NORM]}), 'no parameter takes, model.extra'),
        (lambda t: t.update({_NORM: t[_NORM][:8]}), rf'shape {_NORM} \(8,\) instead of \(16,\)'),
        (
            lambda t: t.update({_NORM: t[_NORM].astype(np.int8)}),
            f'quantised or in another dtype {_NORM} int8',
        ),
    ],
    ids=['missing', 'left over', 'shape', 'dtype'],
)
def test_tensors_that_do_not_fit_are_named(change, message, tmp_path):
  tensors = _theirs()
  change(tensors)
  _write(tmp_path, tensors)
  with pytest.raises(ValueError, match=message):
    _load(tmp_path)


def test_a_missing_file_is_named(tmp_path):
  _write(tmp_path, _theirs(), num_files=3)
  (tmp_path / 'model-00002-of-00003.safetensors').unlink()
  with pytest.raises(ValueError, match='lacks model-00002-of-00003.safe.*down'):
    _load(tmp_path)


def test_a_tied_head_may_be_there_but_only_as_the_embedding(tmp_path):
  student = tiny.student(**tiny.VARIANTS['tied'])
  tensors = _theirs(student)
  tensors[_HEAD] = tensors['model.embed_tokens.weight'].copy()
  _write(tmp_path, tensors)
  _assert_same_bits(_load(tmp_path, student, fsdp=2), tiny.params(student))
  tensors[_HEAD][3, 5] += 1
  _write(tmp_path, tensors)
  with pytest.raises(ValueError, match='ties the head.*tie_word_embeddings'):
    _load(tmp_path, student, fsdp=2)


def test_a_vocabulary_that_the_mesh_cannot_cut_is_an_error(tmp_path):
  student = tiny.student(vocab_size=36, qkv_bias=True)
  _write(tmp_path, _theirs(student))
  with pytest.raises(ValueError, match=r'embed_VD.*36 .*fsdp=8 cannot cut'):
    _load(tmp_path, student, fsdp=8)


def test_a_directory_without_config_is_an_error(tmp_path):
  path = pathlib.Path(tmp_path)
  with pytest.raises(ValueError, match='config.json does not exist; download'):
    pretrained.read_student(path)
