"""A matrix gives the same products whichever way it lies."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from valley_jax.models import product
from valley_jax.runtime import partitioning

# Of a layer's matrices: dimensions of inputs, and all dimensions.
_MATRICES = {'q_DKGH': (1, (16, 2, 3, 8)), 'out_KGHD': (3, (2, 3, 8, 16))}


def _normal(*shape: int) -> jax.Array:
  return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize('mesh', [{}, {'data': 2, 'fsdp': 2, 'tp': 2}])
@pytest.mark.parametrize('length', [1, 48])  # Of decoding, of prefill.
@pytest.mark.parametrize('name', _MATRICES)
def test_a_turned_matrix_has_the_same_products(name, length, mesh):
  num_ins, shape = _MATRICES[name]
  spec = partitioning.spec_in_use(f'blocks/{name}')

  @jax.jit
  def both(x, w):
    x = jax.sharding.reshard(x, product.rows_of(x))
    lies = nnx.Param(w), nnx.Param(product.turn(w, num_ins, spec))
    used = (product.use(param, jnp.float32, spec) for param in lies)
    return [product.times(x, w, spec) for w in used]

  with tiny.mesh(**mesh):
    x = _normal(4, length, *shape[:num_ins])
    straight, turned = both(x, _normal(*shape))
  assert straight.shape == (4, length, *shape[num_ins:])
  np.testing.assert_allclose(turned, straight, rtol=1e-5, atol=1e-5)


def test_the_compiler_leaves_a_turned_matrix_on_the_left():
  times = functools.partial(product.outputs_first, rows=None, outs=None, dtype=jnp.float32)
  with tiny.mesh():
    lowered = jax.jit(lambda x, w: jnp.exp(times(x, w))).lower(_normal(16, 32), _normal(640, 32))
  products = [line for line in lowered.compile().as_text().splitlines()
              if ' dot(' in line]  # fmt: skip
  assert len(products) == 1
  assert 'f32[640,16]' in products[0].partition(' dot(')[0]
