"""Sharded equals unsharded: the mesh changes where, not what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from valley_jax.models import parameters
from valley_jax.runtime import partitioning
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib
from valley_jax.training import losses
from valley_jax.training import optimizer
from valley_jax.training import program as program_lib

MESHES = [
    {'data': 8},
    {'fsdp': 8},
    {'tp': 2},
    {'cp': 4},
    {'data': 2, 'fsdp': 2, 'tp': 2},
    {'fsdp': 2, 'tp': 2, 'cp': 2},
]
# Combinations in every run, single axes with --all.
MESH_PARAMS = [m if len(m) == 3 else pytest.param(m, marks=pytest.mark.long) for m in MESHES]
STUDENT = tiny.student(qkv_bias=True, qk_norm=True)
TIED = tiny.student(tied_head=True)
DECLARED = parameters.describe_parameters(STUDENT)
TX = optimizer.AdamW(b1=0.9, b2=0.95, weight_decay=0.1, clip_norm=1.0).build(DECLARED)


def _named(mesh):
  return ' '.join(f'{name}={size}' for name, size in mesh.items())


def _loss(student, remat='none'):
  return functools.partial(
      losses.next_token_loss,
      student=student,
      dtype=jnp.float32,
      attention='auto',
      remat=remat,
      chunk_len=4,
  )


def _assert_close(tree, other, atol):
  compare = functools.partial(np.testing.assert_allclose, rtol=0, atol=atol)
  jax.tree.map(compare, jax.device_get(tree), jax.device_get(other))


def test_tied_heads_and_remat_do_not_depend_on_the_mesh():
  loss_fn = jax.jit(jax.value_and_grad(_loss(TIED, remat='full'), has_aux=True))
  found = []
  for mesh in ({}, MESHES[-1]):
    with tiny.mesh(**mesh):
      batch = partitioning.put_batch(tiny.batch(8, 12))
      found.append(loss_fn(tiny.put_params(TIED), batch))
  _assert_close(*found, atol=2e-4)


def _train(mesh, num_steps=2):
  """Losses, and the state after some steps of 2 micro-batches."""
  step = jax.jit(
      functools.partial(
          program_lib.train_step, loss_fn=_loss(STUDENT), tx=TX, declarations=DECLARED
      ),
      donate_argnums=0,
  )
  found = []
  with tiny.mesh(**mesh):
    state = program_lib.init_state(tiny.put_params(STUDENT), TX, DECLARED)
    layout = jax.tree.map(lambda x: x.sharding, state)
    for seed in range(num_steps):
      batch = partitioning.put_batch(tiny.batch(2, 8, 12, seed=seed))
      state, metrics = step(state, batch, 1e-2)
      found.append(jax.device_get(metrics))
  assert jax.tree.map(lambda x: x.sharding, state) == layout
  assert step._cache_size() == 1  # Also of the states: compiled once.
  return found, state


@functools.cache
def _trained_on_one_device():
  return jax.device_get(_train({}))


@pytest.mark.parametrize('mesh', MESH_PARAMS, ids=_named)
def test_train_steps_do_not_depend_on_the_mesh(mesh):
  found, state = _train(mesh)
  expected, one = _trained_on_one_device()
  _assert_close(found, expected, 1e-4)  # Losses and norms of gradients.
  _assert_close(state, one, 1e-4)  # Gradients, too: they are in the moments.


def test_parameters_and_moments_lie_as_the_table_says():
  with tiny.mesh(fsdp=4, tp=2):
    state = program_lib.init_state(tiny.put_params(STUDENT), TX, DECLARED)
  moments = state.opt_state[1]
  for tree in (state.params, moments.mu, moments.nu):
    pieces = {
        name: x.addressable_shards[0].data.shape
        for name, x in {**tree, **tree['blocks']}.items()
        if isinstance(x, jax.Array)
    }
    assert pieces == {
        'embed_VD': (10, 8),
        'head_DV': (4, 20),
        'q_DKGH': (2, 4, 1, 3, 8),
        'k_DKH': (2, 4, 1, 8),
        'v_DKH': (2, 4, 1, 8),
        'out_KGHD': (2, 1, 3, 8, 4),
        'q_bias_KGH': (2, 1, 3, 8),
        'k_bias_KH': (2, 1, 8),
        'v_bias_KH': (2, 1, 8),
        'gate_DF': (2, 4, 16),
        'up_DF': (2, 4, 16),
        'down_FD': (2, 16, 4),
    }
    assert tree['final_norm']['scale'].sharding.is_fully_replicated


def test_a_batch_is_cut_along_data_and_fsdp():
  with tiny.mesh(data=2, fsdp=2, tp=2):
    batch = partitioning.put_batch(tiny.batch(3, 8, 12))
  for x in batch.values():
    assert x.addressable_shards[0].data.shape == (3, 2, 12)


def test_a_batch_is_cut_along_cp():
  with tiny.mesh(fsdp=2, cp=2, tp=2):
    batch = partitioning.put_batch(tiny.batch(3, 8, 12))
  for x in batch.values():
    assert x.addressable_shards[0].data.shape == (3, 4, 6)


def test_a_row_that_the_devices_cannot_share_is_refused():
  with tiny.mesh(cp=8):
    with pytest.raises(ValueError, match='12 positions.* cp = 8.*max_len'):
      partitioning.put_batch(tiny.batch(1, 8, 12))


@dataclasses.dataclass(frozen=True)
class _Device:
  """A device of a system that is not there."""

  id: int
  slice_index: int
  platform: str = 'gpu'
  device_kind: str = 'none'
  process_index: int = 0


def test_only_the_data_axis_crosses_slices():
  # In an order in which neighbours are of unlike slices.
  devices = [_Device(id=i, slice_index=i % 2) for i in range(16)]
  mesh = partitioning.make_mesh(data=4, cp=2, tp=2, slices=2, devices=devices)
  assert mesh.devices.shape == (4, 1, 2, 2)
  slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
  assert (slices[:2] == slices[0, 0, 0, 0]).all()
  assert (slices[2:] == 1 - slices[0, 0, 0, 0]).all()


@pytest.mark.parametrize(
    'sizes, message',
    [
        ({'data': 4, 'slices': 4}, 'slices=4, but the devices are of 2'),
        ({'data': 1, 'slices': 2}, 'data=1 is not a multiple of slices=2'),
    ],
)
def test_slices_that_are_not_there_are_refused(sizes, message):
  devices = [_Device(id=i, slice_index=i // 4) for i in range(8)]
  with pytest.raises(ValueError, match=message):
    partitioning.make_mesh(**sizes, devices=devices)


def test_a_tpu_of_several_slices_is_not_taken_for_one():
  devices = [_Device(i, i // 4, platform='tpu') for i in range(8)]
  with pytest.raises(ValueError, match='slices=1, but the devices are of 2'):
    partitioning.make_mesh(devices=devices)


def test_rows_that_the_devices_cannot_share_are_refused():
  with tiny.mesh(data=2, fsdp=2):
    with pytest.raises(ValueError, match='6 rows.* 4 devices.*batch_size'):
      partitioning.put_batch(tiny.batch(1, 6, 12))


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
  with pytest.raises(ValueError, match='tp=3 needs 6 .* there are 8'):
    partitioning.make_mesh(data=1, fsdp=-1, tp=3)
  assert partitioning.make_mesh(data=2, fsdp=-1).devices.shape == (2, 4, 1, 1)


REQUESTS = [samples_lib.Request(f'p{i}', 0, tuple(range(1 + i, 9 + 2 * i))) for i in range(11)]


def _sample(mesh, method):
  with tiny.mesh(**mesh):
    engine = tiny.engine(STUDENT, method=method, end_token=0)
    samples = list(engine.draw_samples(REQUESTS))
  return {s.request.problem_id: (s.tokens, s.finish_reason, s.log_prob) for s in samples}


@functools.cache
def _sampled_on_one_device(method):
  return _sample({}, method)


@pytest.mark.parametrize('mesh', MESH_PARAMS, ids=_named)
def test_samples_do_not_depend_on_the_mesh(mesh):
  method = methods.Sampling(top_p=0.8) if len(mesh) == 3 else methods.Greedy()
  samples, expected = _sample(mesh, method), _sampled_on_one_device(method)
  assert samples.keys() == expected.keys()
  for name, (tokens, reason, log_prob) in expected.items():
    assert samples[name][:2] == (tokens, reason)
    np.testing.assert_allclose(samples[name][2], log_prob, atol=1e-3)


def test_a_mesh_that_cannot_cut_the_student_names_the_parameter():
  with tiny.mesh(tp=4), pytest.raises(ValueError, match='tp=4.*config.mesh'):
    parameters.init_params(tiny.student(), jax.random.key(0))


@pytest.mark.parametrize(
    'shape, parts',
    [
        ((4, 1, 1), [0, 1, 2, 3]),
        ((2, 2, 1), [0, 1, 2, 3]),
        ((1, 4, 2), [0, 1, 2, 3]),  # Two devices a process, of one row.
        ((1, 8, 1), [0, 1, 2, 3]),
        ((2, 1, 4), [0, 0, 1, 1]),  # `tp` spans two processes,
        ((1, 1, 8), [0, 0, 0, 0]),  # and four.
    ],
)
def test_each_of_four_processes_loads_the_rows_of_its_devices(shape, parts):
  processes = np.repeat(np.arange(4), np.prod(shape) // 4).reshape(shape)
  assert partitioning.assign_batch_parts(processes) == dict(enumerate(parts))


@pytest.mark.parametrize('processes', [[0, 1, 0, 1], [0, 0, 0, 1]])
def test_processes_that_share_rows_unevenly_are_refused(processes):
  with pytest.raises(ValueError, match='side by side: change config.mesh'):
    partitioning.assign_batch_parts(np.array(processes).reshape(1, 4, 1))
