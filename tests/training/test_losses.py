"""The loss is plain cross entropy over supervised tokens, however computed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from valley_jax.models import parameters
from valley_jax.runtime import partitioning
from valley_jax.training import losses
from valley_jax.training import optimizer
from valley_jax.training import program as program_lib

STUDENT = tiny.student()
DECLARED = parameters.describe_parameters(STUDENT)
_LOSS = functools.partial(
    losses.next_token_loss,
    student=STUDENT,
    dtype=jnp.float32,
    attention='auto',
    remat='none',
    chunk_len=6,
)


def _hidden_and_head(length):
  rng = np.random.default_rng(length)
  hidden_BLD = rng.normal(size=(2, length, 16)).astype(np.float32)
  head_DV = rng.normal(size=(16, 40)).astype(np.float32)
  return hidden_BLD, head_DV


def _plain(hidden_BLD, head_DV, targets_BL, weights_BL):
  loss_BL = optax.softmax_cross_entropy_with_integer_labels(hidden_BLD @ head_DV, targets_BL)
  return jnp.sum(loss_BL * weights_BL), loss_BL * (weights_BL != 0)


@pytest.mark.parametrize(
    'length, chunk_len', [(12, 1), (12, 4), (12, 5), (12, 12), (12, 99), (7, 4)]
)
def test_chunked_loss_equals_plain_cross_entropy(length, chunk_len):
  hidden_BLD, head_DV = _hidden_and_head(length)
  batch = tiny.batch(2, length)
  rows = batch['targets'], batch['weights']
  ours = functools.partial(losses.cross_entropy, chunk_len=chunk_len)
  with tiny.mesh():
    found, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(hidden_BLD, head_DV, *rows)
        for f in (ours, _plain)
    )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def test_tokens_of_weight_zero_contribute_nothing():
  hidden_BLD, head_DV = _hidden_and_head(12)
  batch = tiny.batch(2, 12)
  is_off = batch['weights'] == 0
  grad_fn = jax.jit(
      jax.value_and_grad(functools.partial(losses.cross_entropy, chunk_len=4), has_aux=True)
  )

  def run(targets_BL):
    with tiny.mesh():
      return jax.device_get(grad_fn(hidden_BLD, head_DV, targets_BL, batch['weights']))

  (value, loss_BL), grads_BLD = run(batch['targets'])
  other = run(np.where(is_off, 39 - batch['targets'], batch['targets']))
  assert value == other[0][0]
  assert not loss_BL[is_off].any()
  assert not grads_BLD[is_off].any()
  assert grads_BLD[~is_off].any(axis=-1).all()


def test_chunks_without_a_supervised_token_are_not_computed():
  hidden_BLD, head_DV = _hidden_and_head(12)
  hidden_BLD[:, 3] = np.nan  # Infects what multiplies with it, even by 0.
  weights_BL = np.ones((2, 12), np.float32)
  weights_BL[:, 3] = 0
  weights_BL[:, 9:] = 0  # 16 supervised tokens: two chunks of eight.
  loss_fn = functools.partial(losses.cross_entropy, chunk_len=4)
  with tiny.mesh():
    (total, _), grads = jax.jit(jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True))(
        hidden_BLD, head_DV, tiny.batch(2, 12)['targets'], weights_BL
    )
  assert np.isfinite(total)
  assert all(np.isfinite(grad).all() for grad in grads)


def test_z_loss_is_minimised_but_not_reported():
  hidden_BLD, head_DV = _hidden_and_head(12)
  batch = tiny.batch(2, 12)
  rows = batch['targets'], batch['weights']
  ours = functools.partial(losses.cross_entropy, chunk_len=4, z_loss=0.01)

  def plain(hidden_BLD, head_DV, targets_BL, weights_BL):
    total, loss_BL = _plain(hidden_BLD, head_DV, targets_BL, weights_BL)
    lse_BL = jax.nn.logsumexp(hidden_BLD @ head_DV, axis=-1)
    return total + 0.01 * jnp.sum(weights_BL * lse_BL**2), loss_BL

  with tiny.mesh():
    found, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(hidden_BLD, head_DV, *rows)
        for f in (ours, plain)
    )
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, expected)


def _temporary_bytes(length, vocab_size, argnums):
  shapes = (1, length, 8), (8, vocab_size), (1, length), (1, length)
  dtypes = jnp.float32, jnp.float32, jnp.int32, jnp.float32
  grad_fn = jax.value_and_grad(
      functools.partial(losses.cross_entropy, chunk_len=64), argnums=argnums, has_aux=True
  )
  with tiny.mesh():
    args = map(jax.ShapeDtypeStruct, shapes, dtypes)
    analysis: Any = jax.jit(grad_fn).lower(*args).compile().memory_analysis()
  return analysis.temp_size_in_bytes


def test_memory_does_not_grow_with_length_times_vocabulary():
  short = _temporary_bytes(1024, 4096, (0, 1))
  long = _temporary_bytes(4096, 4096, (0, 1))
  # What grows is the hidden states' gradient, and an order of tokens; a float32 of logits a token
  # would be 16 kB.
  assert long - short < (4096 - 1024) * 128
  # A few copies of a chunk's logits, and of the head.
  assert short < 4096 * (5 * 64 + 4 * 8) * 4


def test_huge_logits_stay_finite():
  hidden_BLD, head_DV = _hidden_and_head(12)
  batch = tiny.batch(2, 12)
  loss_fn = jax.jit(functools.partial(losses.cross_entropy, chunk_len=4))
  rows = batch['targets'], batch['weights']
  with tiny.mesh():
    loss, _ = loss_fn(1e6 * hidden_BLD, head_DV, *rows)
  assert np.isfinite(loss)


@functools.cache
def _compiled(clip_norm):
  tx = optimizer.AdamW(b1=0.9, b2=0.95, weight_decay=0.0, clip_norm=clip_norm).build(DECLARED)
  step = functools.partial(program_lib.train_step, loss_fn=_LOSS, tx=tx, declarations=DECLARED)
  return tx, jax.jit(step)


def _steps(batches, learning_rate=1e-2, clip_norm=1e6):
  """Metrics and the state of training from the same start."""
  tx, step = _compiled(clip_norm)
  found = []
  with tiny.mesh():
    state = program_lib.init_state(tiny.put_params(STUDENT), tx, DECLARED)
    for batch in batches:
      batch = partitioning.put_batch(batch)
      state, metrics = step(state, batch, learning_rate)
      found.append(jax.device_get(metrics))
  return found, jax.device_get(state)


def _adam(state):
  """The moments' state, and so the gradient after clipping."""
  (adam,) = (s for s in state.opt_state if hasattr(s, 'mu'))
  return adam


def test_accumulation_equals_one_big_batch():
  whole = tiny.batch(1, 6, 12)
  # Micro-batches of unequal numbers of supervised tokens, one of none.
  whole['weights'][0, :2] = 0
  whole['weights'][0, 2, 3:] = 0
  parts = {k: x.reshape(3, 2, 12) for k, x in whole.items()}
  assert len({float(w.sum()) for w in parts['weights']}) == 3
  (expected,), one = _steps([whole])
  (found,), three = _steps([parts])
  assert found['num_supervised'] == whole['weights'].sum()
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      (found, _adam(three)),
      (expected, _adam(one)),
  )


def test_the_loss_is_a_mean_over_supervised_tokens():
  batch = tiny.batch(1, 2, 12)
  with tiny.mesh():
    params = tiny.put_params(STUDENT)
    one = {k: x[0] for k, x in batch.items()}
    total, pairs = jax.jit(_LOSS)(params, one)
  np.testing.assert_allclose(total, pairs['loss'][0], rtol=1e-6)
  count = pairs['loss'][1]
  (metrics,), _ = _steps([batch])
  assert count == batch['weights'].sum()
  np.testing.assert_allclose(metrics['loss'], total / count, rtol=1e-5)


def test_thinking_and_answer_are_the_two_parts_of_the_loss():
  batch = tiny.batch(1, 4, 12)
  batch['answers'][0, :2] = 0  # Micro-batches of unequal shares.
  parts = {k: x.reshape(2, 2, 12) for k, x in batch.items()}
  n = {
      'loss_answer': (batch['weights'] * batch['answers']).sum(),
      'loss_think': (batch['weights'] * (1 - batch['answers'])).sum(),
  }
  (found,), _ = _steps([parts])
  for name in n:  # The loss of a part is that of its tokens alone.
    alone = batch['weights'] * (batch['answers'] == (name == 'loss_answer'))
    (expected,), _ = _steps([{**batch, 'weights': alone}])
    np.testing.assert_allclose(found[name], expected['loss'], rtol=1e-5)
  total = sum(found[name] * n[name] for name in n)
  np.testing.assert_allclose(total / sum(n.values()), found['loss'], rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
  batch = tiny.batch(1, 2, 12)
  norm_of = lambda state: optax.tree.norm(_adam(state).mu) / (1 - 0.9)
  (free,), state = _steps([batch])
  norm = free['grad_norm']
  assert norm > 0.5
  np.testing.assert_allclose(norm_of(state), norm, rtol=1e-4)
  (clipped,), state = _steps([batch], clip_norm=0.1)
  np.testing.assert_allclose(norm_of(state), 0.1, rtol=1e-4)
  np.testing.assert_allclose(clipped['grad_norm'], norm, rtol=1e-4)


def test_a_batch_without_supervised_tokens_changes_nothing():
  batch = tiny.batch(1, 2, 12)
  batch['weights'][:] = 0
  (metrics,), state = _steps([batch])
  assert metrics['loss'] == 0
  assert metrics['grad_norm'] == 0
  jax.tree.map(np.testing.assert_array_equal, state.params, tiny.params(STUDENT))


def test_only_matrices_are_decayed():
  student = tiny.student(qkv_bias=True, qk_norm=True)
  params = tiny.params(student)
  decaying = optimizer.AdamW(b1=0.9, b2=0.95, weight_decay=0.1, clip_norm=1.0)
  tx = decaying.build(parameters.describe_parameters(student))
  zeros = jax.tree.map(np.zeros_like, params)
  updates, _ = jax.jit(tx.update)(zeros, jax.jit(tx.init)(params), params)
  decayed = {
      '/'.join(entry.key for entry in path)
      for path, update in jax.tree.leaves_with_path(updates)
      if np.any(update)
  }
  blocks = 'q_DKGH k_DKH v_DKH out_KGHD gate_DF up_DF down_FD'.split()
  assert decayed == {
      'embed_VD', 'head_DV', *(f'blocks/{name}' for name in blocks)
  }  # fmt: skip
  np.testing.assert_allclose(updates['embed_VD'], 0.1 * params['embed_VD'])


def test_a_step_goes_downhill_by_the_learning_rate():
  batch = tiny.batch(1, 2, 12)
  _, state = _steps([batch], learning_rate=1e-3)
  moved = jax.tree.map(np.subtract, state.params, tiny.params(STUDENT))
  # Adam's first step is the sign of the gradient.
  for delta, grad in zip(jax.tree.leaves(moved), jax.tree.leaves(_adam(state).mu)):
    far = np.abs(grad) > 1e-4
    np.testing.assert_allclose(delta[far], -1e-3 * np.sign(grad[far]), rtol=1e-2)


def test_training_learns_a_batch_by_heart():
  found, _ = _steps([tiny.batch(1, 2, 12)] * 60)
  assert found[0]['loss'] > 3
  assert found[-1]['loss'] < 0.2


def test_the_learning_rate_warms_up_and_decays():
  schedule = optimizer.build_schedule(8e-5, 100, 0.1, 0.1)
  rates = np.array([schedule(step) for step in range(101)])
  warmup = np.linspace(0.8e-5, 7.28e-5, 10)
  np.testing.assert_allclose(rates[:10], warmup, rtol=1e-6)
  assert np.argmax(rates) == 10
  assert (np.diff(rates[10:]) < 0).all()
  at = rates[[10, 55, 100]]  # Peak, middle of the cosine, end.
  np.testing.assert_allclose(at, 8e-5 * np.array([1, 0.55, 0.1]), rtol=1e-5)


@pytest.mark.parametrize('num_steps', [0, 1, 2, 3])
def test_a_short_run_learns_at_every_step(num_steps):
  schedule = optimizer.build_schedule(1e-3, num_steps, 0.1, 0.1)
  rates = np.array([schedule(step) for step in range(num_steps)])
  assert ((rates >= 1e-4) & (rates <= 1e-3)).all()
