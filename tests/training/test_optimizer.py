"""Optimisers move parameters as their papers say, on any mesh."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import valley
from tests import tiny
from valley_jax.models import declarations
from valley_jax.models import parameters
from valley_jax.runtime import partitioning
from valley_jax.training import optimizer
from valley_jax.training import program as program_lib

# Wide enough that Adafactor factors its moments.
STUDENT = tiny.student(embed_dim=128, mlp_dim=256, num_layers=1, qkv_bias=True)
DECLARED = parameters.describe_parameters(STUDENT)


def _build_optimizer(**fields):
  train = valley.get_config('mini').unlock().train
  train.update(fields)
  settings = program_lib.TrainSettings.from_config(train, 'auto')
  return optimizer.choose_optimizer(settings).build(DECLARED)


def _quadratic(params, batch):
  """A loss for which the gradient is the parameters, whatever the mesh."""
  terms = jax.tree.map(lambda x: jnp.sum(x.astype(jnp.float32) ** 2) / 2, params)
  total = functools.reduce(jnp.add, jax.tree.leaves(terms))
  ones = jnp.sum(batch['weights']) * 0 + 1
  return total, {'loss': (total, ones)}


def _steps(tx, mesh, num_steps=2):
  step: Any = jax.jit(
      functools.partial(program_lib.train_step, loss_fn=_quadratic, tx=tx, declarations=DECLARED)
  )
  with tiny.mesh(**mesh):
    params = tiny.put_params(STUDENT)
    state = program_lib.init_state(params, tx, DECLARED)
    layout = jax.tree.map(lambda x: (x.sharding, x.dtype), state)
    for _ in range(num_steps):
      batch = partitioning.put_batch(tiny.batch(1, 4, 2))
      state, _ = step(state, batch, 1e-2)
  assert jax.tree.map(lambda x: (x.sharding, x.dtype), state) == layout
  assert step._cache_size() == 1
  return jax.device_get(state)


@pytest.mark.parametrize('name', [pytest.param('adafactor', marks=pytest.mark.long), 'muon'])
def test_steps_do_not_depend_on_the_mesh_and_states_lie_still(name):
  tx = _build_optimizer(optimizer=name, weight_decay=0.1)
  meshes = {'data': 2, 'fsdp': 2, 'tp': 2}, {}
  found, expected = (_steps(tx, mesh).params for mesh in meshes)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected)


def test_adafactor_keeps_rows_and_columns_laid_out_like_its_matrices():
  with tiny.mesh(fsdp=4, tp=2):
    params = tiny.put_params(STUDENT)
    tx = _build_optimizer(optimizer='adafactor', b1=0.0)
    state = program_lib.init_state(params, tx, DECLARED)
  moments = state.opt_state[1]
  assert sum(x.size for x in jax.tree.leaves(moments)) < 0.25 * sum(
      x.size for x in jax.tree.leaves(params)
  )
  row, col = (x['blocks']['up_DF'] for x in (moments.v_row, moments.v_col))
  assert (row.shape, row.sharding.spec) == ((1, 128), jax.P(None, 'fsdp'))
  assert (col.shape, col.sharding.spec) == ((1, 256), jax.P(None, 'tp'))


@functools.cache
def _muon_update():
  tx = _build_optimizer(optimizer='muon', clip_norm=1e6)
  params = tiny.params(STUDENT)
  with tiny.mesh():
    update = jax.jit(lambda p: tx.update(p, tx.init(p), p)[0])
    return jax.device_get(update(params))


@pytest.mark.parametrize(
    ('name', 'shape'),
    [('q_DKGH', (128, 48)), ('out_KGHD', (48, 128)), ('k_DKH', (128, 16)), ('down_FD', (256, 128))],
)
def test_muon_makes_whole_matrices_orthogonal(name, shape):
  update = _muon_update()['blocks'][name].reshape(shape)
  values = np.linalg.svd(update, compute_uv=False) / (0.2 * max(shape) ** 0.5)
  assert ((values > 0.6) & (values < 1.3)).all(), values


def test_muon_leaves_embedding_head_norms_and_biases_to_adam():
  update = _muon_update()
  rest = {**update, **update['blocks']}
  for name in ('embed_VD', 'head_DV', 'k_bias_KH'):
    np.testing.assert_allclose(np.abs(rest[name]), 1, atol=1e-2)


def test_moments_are_kept_in_the_dtype_that_is_asked_for():
  state = _steps(_build_optimizer(mu_dtype='bfloat16', nu_dtype='bfloat16'), {}, num_steps=1)
  exact = _steps(_build_optimizer(), {}, num_steps=1)
  for name in ('mu', 'nu'):
    found, expected = (getattr(s.opt_state[1], name) for s in (state, exact))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
      assert (a.dtype, b.dtype) == (jnp.bfloat16, jnp.float32)
      np.testing.assert_array_equal(a, b.astype(jnp.bfloat16))


def test_stochastic_rounding_keeps_the_mean():
  x = np.array([1.0, 1.001, -1.001, 0.0, 3e-5, -7.77e8, 2e-3, 7], np.float32)
  x = np.tile(x, (4096, 1))
  found = []
  for mesh in ({}, {'fsdp': 2, 'tp': 4}):
    with tiny.mesh(**mesh):
      laid = jax.device_put(x, jax.P('fsdp', 'tp'))
      rounded = jax.jit(program_lib.round_stochastically)(laid, jax.random.key(0))
      found.append(np.asarray(rounded, np.float64))
  np.testing.assert_array_equal(*found)  # The same chance on any mesh.
  spacing = np.abs(x[0]) * 2.0**-7
  assert (np.abs(found[0] - x) <= spacing).all()
  assert (np.abs(found[0].mean(0) - x[0]) <= 0.05 * spacing).all()
  assert len(np.unique(found[0][:, 0])) == 1  # What has a bfloat16 stays.
  assert len(np.unique(found[0][:, 1])) == 2


def test_small_steps_on_bfloat16_parameters_arrive():
  spec = jax.P(None, None)
  declared = {'x_DF': declarations.Declaration(axes='D F', spec=spec, decay=True, cast=True)}
  tx = optimizer.AdamW(b1=0.9, b2=0.95, weight_decay=0.0, clip_norm=1.0).build(declared)

  def loss_fn(params, batch):
    total = jnp.sum(params['x_DF'].astype(jnp.float32) * batch['slope'])
    return total, {'loss': (total, jnp.ones(()))}

  with tiny.mesh():
    params = {'x_DF': jnp.ones((64, 64))}
    state = program_lib.init_state(params, tx, declared, jnp.bfloat16)
    step = jax.jit(
        functools.partial(program_lib.train_step, loss_fn=loss_fn, tx=tx, declarations=declared)
    )
    rows = jnp.ones((2, 1, 4), jnp.int32)  # What is counted of a batch.
    batch = {'slope': jnp.full(2, 1e-3), 'segments': rows, 'positions': rows}
    for _ in range(100):  # Adam steps by the rate; the spacing is .004.
      state, _ = step(state, batch, 1e-4)
  assert state.params['x_DF'].dtype == jnp.bfloat16
  assert {x.dtype for x in state.opt_state[1].mu.values()} == {jnp.dtype('f4')}
  mean = float(np.asarray(state.params['x_DF'], np.float64).mean())
  np.testing.assert_allclose(mean, 0.99, atol=1e-3)


@pytest.mark.parametrize(
    ('shape', 'rates'),
    [
        ('cosine', [0.05, 1, 0.55, 0.1]),
        ('linear', [0.05, 1, 0.55, 0.1]),
        ('constant', [0.05, 1, 1, 1]),
        ('wsd', [0.05, 1, 1, 0.1]),
    ],
)
def test_schedules_go_through_their_points(shape, rates):
  schedule = optimizer.build_schedule(1.0, 100, 0.2, 0.1, shape, 0.1)
  found = np.array([schedule(step) for step in (0, 20, 60, 100)])
  np.testing.assert_allclose(found, rates, rtol=1e-5)


def test_wsd_decays_in_its_last_steps():
  schedule = optimizer.build_schedule(1.0, 100, 0.2, 0.1, 'wsd', 0.1)
  found = np.array([schedule(step) for step in (20, 90, 95, 100)])
  np.testing.assert_allclose(found, [1, 1, 0.55, 0.1], rtol=1e-5)


@pytest.mark.parametrize('field', ['optimizer', 'schedule'])
def test_unknown_names_are_refused(field):
  with pytest.raises(ValueError, match=f'train.{field}=.sgdr.: want .*'):
    if field == 'optimizer':
      _build_optimizer(optimizer='sgdr')
    else:
      optimizer.build_schedule(1.0, 10, 0.1, 0.1, 'sgdr')
