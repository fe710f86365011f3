"""Attention while decoding: one query a slot, to the positions that its slot holds.

Slots are filled to different lengths, and what comes after a slot's length is not read. Reading
keys and values is nearly all of the time, so they are stored in the order in which they are read: J
is K x H, the heads of a token side by side. Queries are spread: N rows for K x G heads, each at its
own head's part of J and 0 elsewhere, so that all heads of a slot are one product of two matrices.
The product multiplies K times as much as needed, which is cheap where memory is the bottleneck.

What computes it depends on the mesh's devices:

    tpu    a Pallas kernel
    gpu    cuDNN by JAX, in bfloat16 or float16
    else   blocks of keys in plain JAX, slot by slot

Letters as in `transformer.py`; m keys of a block.
"""

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax.runtime import partitioning

_BLOCK_LEN = 128  # Keys of a block in plain JAX, where it cuts a slot.
_MASKED = -1e30
_LANES = 128  # Width of a TPU vector.
MAX_BLOCK_BYTES = 1 << 20  # A block of keys in the TPU kernel; twice two are in VMEM.

CACHE = P(partitioning.BATCH, None, 'tp')
_QUERIES = P(partitioning.BATCH, 'tp', None, None)
_SLOTS = P(partitioning.BATCH)


def spread_queries(q_BKGH: jax.Array) -> jax.Array:
  """Returns q_BNJ, each head's query at its own part of J.

  q_BKGH = [[[[1, 2]], [[3, 4]]]]     two heads of width 2
  q_BNJ  = [[[1, 2, 0, 0],
             [0, 0, 3, 4]]]
  """
  b, k, g, h = q_BKGH.shape
  own_KK = jnp.eye(k, dtype=q_BKGH.dtype)[:, None, :, None]
  return (q_BKGH[:, :, :, None] * own_KK).reshape(b, k * g, k * h)


def take_own_parts(y_BNJ: jax.Array, num_kv_heads: int) -> jax.Array:
  """Returns y_BKGH: of every head its own part of J."""
  b, n, j = y_BNJ.shape
  k = num_kv_heads
  y_BKGKH = y_BNJ.reshape(b, k, n // k, k, j // k)
  return jnp.moveaxis(jnp.diagonal(y_BKGKH, axis1=1, axis2=3), -1, 1)


def attend_slot_by_slot(
    q_BNJ: jax.Array, k_BMJ: jax.Array, v_BMJ: jax.Array, length_B: jax.Array
) -> jax.Array:
  """Returns y_BNJ, a slot after another and a block of keys at a time.

  Each slot to its own length, and in products of one shape: neither how many slots there are nor
  how long the others are changes a bit.

  Args:
    q_BNJ: Queries, spread and scaled.
    k_BMJ: Keys; M is a multiple of 64.
    v_BMJ: Values.
    length_B: Positions of each slot that count, at least 1.
  """
  block_len = _BLOCK_LEN if k_BMJ.shape[1] % _BLOCK_LEN == 0 else 64

  def attend_slot(slot, y_BNJ):
    q_NJ, length = q_BNJ[slot], length_B[slot]

    def add(i, carry):
      top_N, sum_N, y_NJ = carry
      at, size = (slot, i * block_len, 0), (1, block_len, k_BMJ.shape[2])
      k_mJ = jax.lax.dynamic_slice(k_BMJ, at, size)[0]
      v_mJ = jax.lax.dynamic_slice(v_BMJ, at, size)[0]
      scores_Nm = jnp.einsum('NJ,mJ->Nm', q_NJ, k_mJ, preferred_element_type=jnp.float32)
      is_live_m = i * block_len + jnp.arange(block_len) < length
      scores_Nm = jnp.where(is_live_m, scores_Nm, _MASKED)
      new_N = jnp.maximum(top_N, scores_Nm.max(axis=-1))
      weights_Nm = jnp.exp(scores_Nm - new_N[:, None])
      old_N = jnp.exp(top_N - new_N)
      y_NJ = y_NJ * old_N[:, None] + jnp.dot(
          weights_Nm.astype(v_mJ.dtype), v_mJ, preferred_element_type=jnp.float32
      )
      return new_N, sum_N * old_N + weights_Nm.sum(axis=-1), y_NJ

    zeros_NJ = jnp.zeros(q_NJ.shape, jnp.float32)
    zeros_N = zeros_NJ[:, 0]
    carry = zeros_N + _MASKED, zeros_N, zeros_NJ
    num_blocks = (length + block_len - 1) // block_len
    _, sum_N, y_NJ = jax.lax.fori_loop(0, num_blocks, add, carry)
    return y_BNJ.at[slot].set(y_NJ / sum_N[:, None])

  zeros_BNJ = jnp.zeros(q_BNJ.shape, jnp.float32)
  return jax.lax.fori_loop(0, q_BNJ.shape[0], attend_slot, zeros_BNJ)


def attend_by_cudnn(
    q_BKGH: jax.Array,
    k_BMJ: jax.Array,
    v_BMJ: jax.Array,
    length_B: jax.Array,
    implementation: Any = 'cudnn',
) -> jax.Array:
  """Returns y_BKGH by JAX's own call; by name, since only cuDNN reads less."""
  b, k, g, h = q_BKGH.shape
  q_BLNH = q_BKGH.reshape(b, 1, k * g, h)
  k_BMKH, v_BMKH = (x.reshape(b, -1, k, h) for x in (k_BMJ, v_BMJ))
  y_BLNH = jax.nn.dot_product_attention(
      q_BLNH,
      k_BMKH,
      v_BMKH,
      scale=1.0,
      query_seq_lengths=jnp.ones(b, jnp.int32),
      key_value_seq_lengths=length_B.astype(jnp.int32),
      implementation=implementation,
  )
  return y_BLNH.reshape(b, k, g, h)


def pallas_block_len(cache_len: int, width: int, itemsize: int) -> int:
  """Returns the largest block that cuts a slot evenly and is not too large."""
  sizes = [n for n in range(64, cache_len + 1, 64) if cache_len % n == 0]
  fitting = [n for n in sizes if n * width * itemsize <= MAX_BLOCK_BYTES]
  return max(fitting or sizes[:1])


def _pallas_kernel(length_B, q, k, v, y, top, total, sum_y, *, block_len: int):
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


def attend_by_pallas(
    q_BNJ: jax.Array,
    k_BMJ: jax.Array,
    v_BMJ: jax.Array,
    length_B: jax.Array,
    interpret: bool = False,
) -> jax.Array:
  """Returns y_BNJ, float32, of arrays on one device.

  Args:
    q_BNJ: Queries, spread and scaled.
    k_BMJ: Keys.
    v_BMJ: Values.
    length_B: Positions of each slot that count, at least 1.
    interpret: Compute what the kernel would, without a TPU.
  """
  b, n, j = q_BNJ.shape
  block_len = pallas_block_len(k_BMJ.shape[1], j, k_BMJ.dtype.itemsize)
  whole = pl.BlockSpec((1, n, j), lambda slot, block, length_B: (slot, 0, 0))

  def at(slot, block, length_B):
    # A block after a slot's length has the index of the slot's last one, so that the pipeline does
    # not fetch it again. Lengths are fetched ahead of the grid, since the indices depend on them.
    last = (length_B[slot] - 1) // block_len
    return slot, jnp.minimum(block, last), 0

  keys = pl.BlockSpec((1, block_len, j), at)
  column = pltpu.VMEM((n, _LANES), jnp.float32)
  return pl.pallas_call(
      functools.partial(_pallas_kernel, block_len=block_len),
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


def attend_to_slots(
    q_BKGH: jax.Array, k_BMJ: jax.Array, v_BMJ: jax.Array, length_B: jax.Array, platform: str
) -> jax.Array:
  """Returns y_BKGH: softmax attention to the first positions of each slot.

  Args:
    q_BKGH: Queries, not scaled.
    k_BMJ: Keys, cut as `CACHE` says.
    v_BMJ: Values.
    length_B: Positions of each slot that count, at least 1.
    platform: Platform of the mesh's devices.
  """

  def attend_on_device(q_BKGH, k_BMJ, v_BMJ, length_B):
    q_BKGH = q_BKGH * (q_BKGH.shape[-1] ** -0.5)
    is_half = q_BKGH.dtype in (jnp.bfloat16, jnp.float16)
    if platform == 'gpu' and is_half:
      return attend_by_cudnn(q_BKGH, k_BMJ, v_BMJ, length_B)
    if platform == 'tpu':
      y_BNJ = attend_by_pallas(spread_queries(q_BKGH), k_BMJ, v_BMJ, length_B)
    else:
      y_BNJ = attend_slot_by_slot(spread_queries(q_BKGH), k_BMJ, v_BMJ, length_B)
    return take_own_parts(y_BNJ, q_BKGH.shape[1]).astype(q_BKGH.dtype)

  return jax.shard_map(
      attend_on_device,
      in_specs=(_QUERIES, CACHE, CACHE, _SLOTS),
      out_specs=_QUERIES,
      check_vma=False,
  )(q_BKGH, k_BMJ, v_BMJ, length_B)
