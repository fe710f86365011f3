"""Whoever computes attention, and on however many devices: it is the same."""

import functools

import jax
import numpy as np
import pytest

from tests import tiny
from valley_jax.models import attention
from valley_jax.models import attention_blocks
from valley_jax.models import attention_kernels

ROWS = jax.P(('data', 'fsdp'), 'cp')
KEYS = jax.P(*ROWS, 'tp', None)
QUERIES = jax.P(*KEYS, None)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
  """Several blocks of each kind in a short row."""
  monkeypatch.setattr(attention_kernels, 'MAX_BLOCK_LEN', 128)
  monkeypatch.setattr(attention_blocks, 'BLOCK_LEN', 64)


def _inputs(length, k=2, g=2, h=16):
  """q, k, v, positions, segments of two rows, and what to weigh outputs by."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=(2, length, *shape)).astype(np.float32)
  lengths = np.array([length // 2 + 5, 1, length // 4 - 9])
  lengths = [*lengths, length - lengths.sum()]  # The last is padding.
  segments = np.repeat([1, 2, 3, 0], lengths)
  positions = np.concatenate([np.arange(n) for n in lengths])
  rows = [np.stack([x, x]).astype(np.int32) for x in (positions, segments)]
  # The second row is not padded: its last segment goes on.
  rows[1][1] = np.where(segments == 0, 3, segments)
  rows[0][1, lengths[0] + 1 :] = np.arange(length - lengths[0] - 1)
  weights = draw(k, g, h) * (rows[1] > 0)[..., None, None, None]
  return (draw(k, g, h), draw(k, h), draw(k, h), *rows), weights


def _run(implementation, length, inputs=None, **mesh):
  """The weighed sum, the outputs that count, and gradients of q, k and v."""
  inputs, weights = inputs or _inputs(length)
  attend = functools.partial(attention.attend_causally, implementation=implementation)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
  def value_and_grads(q, k, v, positions, segments, weights):
    y = attend(q, k, v, positions, segments)
    return (y * weights).sum(), y * (weights != 0)

  specs = QUERIES, KEYS, KEYS, ROWS, ROWS, QUERIES
  with tiny.mesh(**mesh):
    arrays = [
        jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), spec))
        for x, spec in zip((*inputs, weights), specs, strict=True)
    ]
    return jax.device_get(value_and_grads(*arrays))


def _assert_close(found, expected, atol=1e-5):
  (total, y), grads = found
  (expected_total, expected_y), expected_grads = expected
  np.testing.assert_allclose(total, expected_total, rtol=1e-5, atol=1e-4)
  for one, other in zip((y, *grads), (expected_y, *expected_grads)):
    np.testing.assert_allclose(one, other, rtol=0, atol=atol)


_reference = functools.cache(functools.partial(_run, 'dense'))


@pytest.mark.parametrize('mesh', [{}, {'cp': 2}, {'data': 2, 'tp': 2, 'cp': 2}])
@pytest.mark.parametrize('length', [96, 256])
def test_blocks_equal_the_reference(length, mesh):
  _assert_close(_run('blocks', length, **mesh), _reference(length))


@pytest.mark.parametrize('is_fused', [True, False])
def test_the_tpu_kernel_equals_the_reference(is_fused, monkeypatch):
  monkeypatch.setattr(attention_kernels, 'UNFUSED_FROM', 257 if is_fused else 0)
  _assert_close(_run('splash', 256), _reference(256))


def test_the_tpu_kernel_equals_the_reference_on_cut_rows_and_heads():
  _assert_close(_run('splash', 256, cp=2, tp=2), _reference(256))


@pytest.mark.parametrize('mesh', [{}, {'cp': 2, 'tp': 2}])
def test_the_gpu_kernel_equals_the_reference(mesh):
  _assert_close(_run('flash', 128, **mesh), _reference(128))


def test_the_reference_does_not_depend_on_the_mesh():
  found = _run('dense', 96, data=2, tp=2, cp=2)
  _assert_close(found, _reference(96))


@pytest.mark.parametrize(
    'implementation, length, mesh, message',
    [
        ('cudnn', 128, {}, "'cudnn': want auto or one of dense, blocks, spl"),
        ('splash', 192, {}, 'multiple of 128 x cp = 128 .* not 192.*max_len'),
        ('splash', 384, {'cp': 2}, '128 x cp = 256 positions, not 384'),
        ('flash', 192, {}, 'multiple of 128 positions, not 192'),
        ('flash', 384, {'cp': 3}, '4 query heads .* cp = 3'),
    ],
)
def test_what_cannot_be_honoured_is_refused(implementation, length, mesh, message):
  with pytest.raises(ValueError, match=message):
    _run(implementation, length, **mesh)


def _abstract_mesh(platform):
  device = jax.sharding.AbstractDevice(platform, None, platform)
  return jax.sharding.AbstractMesh(
      (1, 1, 1, 1),
      ('data', 'fsdp', 'cp', 'tp'),
      (jax.sharding.AxisType.Explicit,) * 4,
      abstract_device=device,
  )


@pytest.mark.parametrize('platform, name', [('tpu', 'splash'), ('gpu', 'flash'), ('cpu', 'blocks')])
def test_auto_goes_by_the_devices_of_the_mesh(platform, name):
  with jax.sharding.use_abstract_mesh(_abstract_mesh(platform)):
    assert attention.choose_implementation('auto', 32_768) == name
    assert attention.choose_implementation('auto', 192) == 'dense'


def test_a_kernel_for_another_accelerator_is_refused():
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in _inputs(128)[0]]
  with jax.sharding.use_abstract_mesh(_abstract_mesh('gpu')):
    with pytest.raises(ValueError, match='splash is for tpu.* mesh is of gpu'):
      jax.eval_shape(functools.partial(attention.attend_causally, implementation='splash'), *shapes)
