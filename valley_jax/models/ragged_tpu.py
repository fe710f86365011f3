"""Attention of decoding as a Pallas kernel for TPU; see `ragged.py`.

The grid is slots x blocks of keys. A block behind a slot's length has the index
of the slot's last one, so that the pipeline does not fetch it again; and
nothing is computed for it. Lengths are fetched ahead of the grid, since the
indices depend on them.
"""

import functools

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

_MASKED = -1e30
_LANES = 128
_BYTES = 1 << 20  # Of a block of keys, at most; twice two are in VMEM.


def _block_len(cache_len: int, width: int, itemsize: int) -> int:
  """Returns the largest block that cuts a slot evenly and is not too large."""
  sizes = [n for n in range(64, cache_len + 1, 64) if cache_len % n == 0]
  fitting = [n for n in sizes if n * width * itemsize <= _BYTES]
  return max(fitting or sizes[:1])


def _kernel(length_B, q, k, v, y, top, total, sum_y, *, block_len: int):
  """Adds one block of one slot's keys; at the slot's last block, writes y."""
  slot, block = pl.program_id(0), pl.program_id(1)
  length = length_B[slot]

  @pl.when(block == 0)
  def _begin():
    top[...] = jnp.full_like(top, _MASKED)
    total[...] = jnp.zeros_like(total)
    sum_y[...] = jnp.zeros_like(sum_y)

  @pl.when(block * block_len < length)
  def _add():
    scores_Nm = jax.lax.dot_general(
        q[0], k[0], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    )
    at_Nm = jax.lax.broadcasted_iota(jnp.int32, scores_Nm.shape, 1)
    is_live_Nm = block * block_len + at_Nm < length
    scores_Nm = jnp.where(is_live_Nm, scores_Nm, _MASKED)
    # A column that is repeated over the lanes: a vector's usual form on TPU.
    old_N1 = top[:, :1]
    new_N1 = jnp.maximum(old_N1, scores_Nm.max(axis=1, keepdims=True))
    weights_Nm = jnp.exp(scores_Nm - new_N1)
    shrink_N1 = jnp.exp(old_N1 - new_N1)
    sum_N1 = total[:, :1] * shrink_N1 + weights_Nm.sum(axis=1, keepdims=True)
    sum_y[...] = sum_y[...] * shrink_N1 + jnp.dot(
        weights_Nm.astype(v.dtype), v[0], preferred_element_type=jnp.float32
    )
    top[...] = jnp.broadcast_to(new_N1, top.shape)
    total[...] = jnp.broadcast_to(sum_N1, total.shape)

  @pl.when(block == pl.num_programs(1) - 1)
  def _end():
    y[0] = sum_y[...] / total[:, :1]


def attend(
    q_BNJ: jax.Array,
    k_BMJ: jax.Array,
    v_BMJ: jax.Array,
    length_B: jax.Array,
    interpret: bool = False,
) -> jax.Array:
  """Returns y_BNJ, float32, of arrays that lie on one device.

  Args:
    q_BNJ: Queries, spread and scaled.
    k_BMJ: Keys.
    v_BMJ: Values.
    length_B: Positions of each slot that count, at least 1.
    interpret: Compute what the kernel would, without a TPU.
  """
  b, n, j = q_BNJ.shape
  block_len = _block_len(k_BMJ.shape[1], j, k_BMJ.dtype.itemsize)
  whole = pl.BlockSpec((1, n, j), lambda slot, block, length_B: (slot, 0, 0))

  def at(slot, block, length_B):
    last = (length_B[slot] - 1) // block_len
    return slot, jnp.minimum(block, last), 0

  keys = pl.BlockSpec((1, block_len, j), at)
  column = pltpu.VMEM((n, _LANES), jnp.float32)
  return pl.pallas_call(
      functools.partial(_kernel, block_len=block_len),
      grid_spec=pltpu.PrefetchScalarGridSpec(
          num_scalar_prefetch=1,
          grid=(b, k_BMJ.shape[1] // block_len),
          in_specs=[whole, keys, keys],
          out_specs=whole,
          scratch_shapes=[column, column, pltpu.VMEM((n, j), jnp.float32)],
      ),
      out_shape=jax.ShapeDtypeStruct((b, n, j), jnp.float32),
      interpret=interpret,
  )(length_B.astype(jnp.int32), q_BNJ, k_BMJ, v_BMJ)
