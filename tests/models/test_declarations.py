"""A matrix gives the same products on any mesh, in decoding and in prefill."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from valley_jax.models import declarations

# The axes of a layer's matrices and their sizes.
_MATRICES = {
    'q': ('D KGH', (16, 2, 3, 8), jax.P('fsdp', 'tp', None, None)),
    'out': ('KGH D', (2, 3, 8, 16), jax.P('tp', None, None, 'fsdp')),
}


def _draw_normal(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('mesh', [{}, {'data': 2, 'fsdp': 2, 'tp': 2}, {'cp': 4}])
@pytest.mark.parametrize('length', [1, 48])  # Of decoding, of prefill.
@pytest.mark.parametrize('name', _MATRICES)
def test_a_product_is_over_all_inputs_on_any_mesh(name, length, mesh):
  axes, shape, spec = _MATRICES[name]
  num_ins = axes.index(' ')
  if mesh.get('cp') and length == 1:
    pytest.skip('cp devices share the positions of prefill alone')

  @jax.jit
  def multiply(x, w):
    x = jax.sharding.reshard(x, declarations.partition_rows(x))
    w = jax.sharding.reshard(w, spec)
    return declarations.multiply_matrix(x, declarations.declare_matrix(w, axes, spec))

  x, w = _draw_normal(4, length, *shape[:num_ins]), _draw_normal(*shape)
  with tiny.mesh(**mesh):
    y = np.asarray(multiply(jnp.asarray(x), jnp.asarray(w)))
  np.testing.assert_allclose(y, np.tensordot(x, w, num_ins), rtol=1e-4, atol=1e-4)


def test_inputs_and_outputs_follow_from_the_axes():
  stacked = declarations.Declaration(
      axes='KGH D',
      spec=jax.P(None, 'tp', None, None, 'fsdp'),
      decay=True,
      cast=True,
      is_stacked=True,
  )
  assert stacked.input_and_output_dims() == ((1, 2, 3), (4,))
  assert stacked.layer_spec == jax.P('tp', None, None, 'fsdp')
