"""Products are counted as often as they run."""

import jax
from jax.experimental import pallas
import jax.numpy as jnp
import numpy as np

from tests import tiny
from valley_jax.planning import arithmetic

_X = np.ones((8, 16), np.float32)
_WS = np.ones((3, 16, 16), np.float32)
_ONE = 2 * 8 * 16 * 16  # FLOPs of a product of these.


def _layers(x, ws):
  return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, ws)[0].sum()


def test_a_scan_counts_by_its_length():
  assert arithmetic.count_jaxpr_flops(jax.make_jaxpr(_layers)(_X, _WS)) == 3 * _ONE


def test_a_gradient_counts_twice_more_and_remat_once_more():
  grad = jax.grad(_layers, argnums=(0, 1))
  assert arithmetic.count_jaxpr_flops(jax.make_jaxpr(grad)(_X, _WS)) == 9 * _ONE

  def remat(x, ws):
    layer = jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), None))
    return jax.lax.scan(layer, x, ws)[0].sum()

  jaxpr = jax.make_jaxpr(jax.grad(remat, argnums=(0, 1)))(_X, _WS)
  assert arithmetic.count_jaxpr_flops(jaxpr) == 12 * _ONE


def test_a_branch_counts_once_and_a_loop_on_data_as_often_as_it_may():
  def f(x, n):
    x = jax.lax.cond(n > 2, lambda: x @ x.T, lambda: (x @ x.T) @ (x @ x.T))
    return jax.lax.fori_loop(0, n, lambda _, x: x @ x, x)

  jaxpr = jax.make_jaxpr(f)(_X, 5)
  one = 2 * 8 * 8 * 16
  assert arithmetic.count_jaxpr_flops(jaxpr, 7) == 2 * one + (1 + 7) * 2 * 8**3


def test_a_shard_mapped_product_counts_on_every_device():
  with tiny.mesh(data=4):

    @jax.shard_map(out_specs=jax.P('data', None))
    def product(x, w):
      return x @ w

    def f(x, w):
      return product(jax.sharding.reshard(x, jax.P('data', None)), w)

    assert arithmetic.count_jaxpr_flops(jax.make_jaxpr(f)(_X, _WS[0])) == _ONE


def test_a_kernel_counts_by_its_grid_and_the_share_that_it_computes():
  def kernel(x_ref, w_ref, y_ref):
    y_ref[...] = x_ref[...] @ w_ref[...]

  f = pallas.pallas_call(
      kernel, out_shape=jax.ShapeDtypeStruct((8, 16), jnp.float32), grid=(6,), interpret=True
  )
  jaxpr = jax.make_jaxpr(f)(_X, _WS[0])
  assert arithmetic.count_jaxpr_flops(jaxpr) == 6 * _ONE
  assert arithmetic.count_jaxpr_flops(jaxpr, kernel_share=0.5) == 3 * _ONE
