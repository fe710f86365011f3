"""The model is the decoder that its families' papers describe."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from valley_jax.models import declarations
from valley_jax.models import parameters
from valley_jax.models import transformer
from valley_jax.runtime import partitioning
from valley_jax.training import optimizer


@functools.partial(jax.jit, static_argnums=0, static_argnames='remat')
def _hidden(student, params, tokens_BL, positions_BL, segments_BL, remat='none'):
  model = parameters.bind_transformer(student, params)
  return model(tokens_BL, positions_BL, segments_BL, remat=remat)[0]


@functools.partial(jax.jit, static_argnums=0)
def _logits(student, params, hidden_BLD):
  return hidden_BLD @ parameters.bind_transformer(student, params).output_head(hidden_BLD.dtype)


def _run(student, params, tokens, positions=None, segments=None):
  """Hidden states [L, D] of one row, by default a single example."""
  tokens = np.asarray(tokens, np.int32)
  if positions is None:
    positions, segments = np.arange(len(tokens)), np.ones(len(tokens))
  rows = (np.asarray(x, np.int32)[None] for x in (tokens, positions, segments))
  with tiny.mesh():
    return np.asarray(_hidden(student, tiny.put_params(student, params), *rows))[0]


# The reference: one example at a time, one head at a time, in float64.


def _norm(x, scale, eps):
  return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * scale


def _rope(x, theta):
  """x: [L, H]; pairs (i, i + H/2) as complex numbers, turned."""
  length, width = x.shape
  pairs = x[:, : width // 2] + 1j * x[:, width // 2 :]
  speed = theta ** (-2 * np.arange(width // 2) / width)
  turned = pairs * np.exp(1j * np.arange(length)[:, None] * speed)
  return np.concatenate([turned.real, turned.imag], axis=1)


def _attend(q, k, v):
  scores = q @ k.T / np.sqrt(q.shape[1])
  scores[np.triu_indices(len(q), 1)] = -np.inf
  weights = np.exp(scores - scores.max(axis=1, keepdims=True))
  return weights / weights.sum(axis=1, keepdims=True) @ v


def _heads(student, w, x, head):
  """Query, key and value of query head `head`."""
  kv, group = divmod(head, student.num_heads // student.num_kv_heads)
  q = x @ w['q_DKGH'][:, kv, group]
  k, v = x @ w['k_DKH'][:, kv], x @ w['v_DKH'][:, kv]
  if student.qkv_bias:
    q = q + w['q_bias_KGH'][kv, group]
    k, v = k + w['k_bias_KH'][kv], v + w['v_bias_KH'][kv]
  if student.qk_norm:
    q = _norm(q, w['q_norm']['scale'], student.norm_eps)
    k = _norm(k, w['k_norm']['scale'], student.norm_eps)
  return _rope(q, student.rope_theta), _rope(k, student.rope_theta), v


def _reference(student, params, tokens):
  """Hidden states and logits of one example."""
  params = jax.tree.map(lambda x: x.astype(np.float64), params)
  x = params['embed_VD'][tokens]
  for layer in range(student.num_layers):
    w = jax.tree.map(lambda leaf, at=layer: leaf[at], params['blocks'])
    y = _norm(x, w['attention_norm']['scale'], student.norm_eps)
    out = w['out_KGHD'].reshape(-1, *w['out_KGHD'].shape[2:])
    for head in range(student.num_heads):
      x = x + _attend(*_heads(student, w, y, head)) @ out[head]
    y = _norm(x, w['mlp_norm']['scale'], student.norm_eps)
    gate = y @ w['gate_DF']
    x = x + (gate / (1 + np.exp(-gate)) * (y @ w['up_DF'])) @ w['down_FD']
  x = _norm(x, params['final_norm']['scale'], student.norm_eps)
  head = params['embed_VD'].T if student.tied_head else params['head_DV']
  return x, x @ head


TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]


@pytest.mark.parametrize('variant', tiny.VARIANTS)
def test_the_model_equals_the_reference(variant):
  student = tiny.student(**tiny.VARIANTS[variant], rope_theta=500.0)
  params = tiny.params(student)
  hidden, logits = _reference(student, params, TOKENS)
  ours = _run(student, params, TOKENS)
  np.testing.assert_allclose(ours, hidden, rtol=0, atol=1e-5)
  with tiny.mesh():
    ours = np.asarray(_logits(student, tiny.put_params(student, params), ours[None]))[0]
  np.testing.assert_allclose(ours, logits, rtol=0, atol=3e-5)


def test_grouped_queries_equal_full_attention_with_repeated_heads():
  grouped = tiny.student(qkv_bias=True, qk_norm=True)
  full = tiny.student(qkv_bias=True, qk_norm=True, num_kv_heads=6)
  params = tiny.params(grouped)

  def repeat(name, x):
    if name in ('q_DKGH', 'q_bias_KGH', 'out_KGHD'):
      return x.reshape(shapes['blocks'][name].shape)
    return np.repeat(x, 3, -2) if name.endswith(('DKH', 'bias_KH')) else x

  with tiny.mesh():
    shapes = parameters.abstract_params(full)
  blocks = {name: repeat(name, x) for name, x in params['blocks'].items()}
  repeated = {**params, 'blocks': blocks}
  np.testing.assert_allclose(
      _run(grouped, params, TOKENS), _run(full, repeated, TOKENS), rtol=0, atol=1e-5
  )


def test_future_tokens_do_not_change_the_past():
  student = tiny.student()
  params = tiny.params(student)
  before = _run(student, params, TOKENS)
  for at in range(1, len(TOKENS)):
    changed = [*TOKENS[:at], *reversed(TOKENS[at:-1]), 0]
    after = _run(student, params, changed)
    np.testing.assert_array_equal(after[:at], before[:at])
    assert np.abs(after[-1] - before[-1]).max() > 1e-3


def test_packed_equals_unpacked():
  student = tiny.student()
  params = tiny.params(student)
  examples = [TOKENS, [7, 7, 8], [35], [2, 30, 2, 30, 11]]
  lengths = [len(example) for example in examples]
  packed = _run(
      student,
      params,
      np.concatenate([*examples, [0, 0, 0]]),
      np.concatenate([*map(np.arange, lengths), [0, 0, 0]]),
      np.concatenate([np.repeat([1, 2, 3, 4], lengths), [0, 0, 0]]),
  )
  at = 0
  for example in examples:
    np.testing.assert_allclose(
        packed[at : at + len(example)], _run(student, params, example), rtol=0, atol=1e-5
    )
    at += len(example)


def test_padding_changes_nothing():
  student = tiny.student()
  params = tiny.params(student)
  n = len(TOKENS)
  alone = _run(student, params, TOKENS)
  for pad in (0, 17):
    padded = _run(student, params, [*TOKENS, *[pad] * 6], [*range(n), *[0] * 6], [1] * n + [0] * 6)
    assert np.isfinite(padded).all()
    np.testing.assert_allclose(padded[:n], alone, rtol=0, atol=1e-5)


def test_rows_do_not_see_one_another():
  student = tiny.student()
  params = tiny.params(student)
  batch = tiny.batch(3, 12)
  keys = ('inputs', 'positions', 'segments')
  with tiny.mesh():
    together = _hidden(student, tiny.put_params(student, params), *(batch[k] for k in keys))
  for row in range(3):
    alone = _run(student, params, *(batch[k][row] for k in keys))
    np.testing.assert_allclose(together[row], alone, rtol=0, atol=1e-5)


@functools.cache
def _value_and_grads(attention, remat, **mesh):
  student = tiny.student(qk_norm=True)

  def loss(params, rows):
    model = parameters.bind_transformer(student, params)
    hidden_BLD, _ = model(*rows, attention=attention, remat=remat)
    return (hidden_BLD**3).sum()

  batch = tiny.batch(4, 16)
  names = ('inputs', 'positions', 'segments')
  with tiny.mesh(**mesh):
    rows = partitioning.put_batch({name: batch[name] for name in names})
    rows = [rows[name] for name in names]
    found = jax.jit(jax.value_and_grad(loss))(tiny.put_params(student), rows)
    return jax.device_get(found)


@pytest.mark.parametrize('attention', ['dense', 'blocks'])
@pytest.mark.parametrize(
    'remat',
    [
        name if name == 'full' else pytest.param(name, marks=pytest.mark.long)
        for name in sorted({*transformer.REMAT_POLICIES} - {'none'})
    ],
)
def test_remat_changes_nothing(attention, remat):
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
      _value_and_grads(attention, remat),
      _value_and_grads(attention, 'none'),
  )


def test_remat_offloads_on_several_devices():
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
      _value_and_grads('blocks', 'offload', fsdp=2, tp=2),
      _value_and_grads('blocks', 'none'),
  )


def test_the_seed_makes_the_student():
  student = tiny.student()
  with tiny.mesh():
    one, same, other = (parameters.init_params(student, jax.random.key(seed)) for seed in (1, 1, 2))
  jax.tree.map(np.testing.assert_array_equal, one, same)
  assert not np.array_equal(one['embed_VD'], other['embed_VD'])
  q_YDKGH = np.asarray(one['blocks']['q_DKGH'])
  assert not np.array_equal(q_YDKGH[0], q_YDKGH[1])


class _WithRouter(nnx.Module):

  def __init__(self):
    self.router_DE = nnx.Param(jnp.zeros((2, 2)))


class _WithMisleadingName(nnx.Module):

  def __init__(self):
    self.q_scale_bias_DF = declarations.declare_matrix(jnp.ones((4, 6)), 'D F', jax.P(None, None))
    self.matrix_F = declarations.declare_vector(jnp.ones(6), 'F', jax.P(None))


def test_a_parameter_that_declares_nothing_is_an_error():
  with pytest.raises(ValueError, match="'router_DE' does not declare axes, spec, decay, cast"):
    declarations.describe_module(_WithRouter())


@pytest.mark.parametrize('kind', ['adamw', 'muon'])
def test_what_a_parameter_declares_counts_and_not_its_name(kind):
  module = _WithMisleadingName()
  declared = declarations.describe_module(module)
  params = nnx.to_pure_dict(nnx.state(module))
  moments = {'b1': 0.9, 'b2': 0.95, 'weight_decay': 0.1, 'clip_norm': 1.0}
  more = {'muon_beta': 0.9} if kind == 'muon' else {}
  tx = optimizer.OPTIMIZERS[kind](**moments, **more).build(declared)
  with tiny.mesh():
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
  np.testing.assert_allclose(updates['q_scale_bias_DF'], 0.1)
  assert not np.any(updates['matrix_F'])
  low = declarations.cast_matrices(declared, params, jnp.bfloat16)
  assert (low['q_scale_bias_DF'].dtype, low['matrix_F'].dtype) == (jnp.bfloat16, jnp.float32)
