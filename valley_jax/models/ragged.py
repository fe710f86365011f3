"""Attention of decoding: one query a slot, to as much as its slot holds.

Slots are filled to different lengths, and what lies behind a slot's length is
not read. Reading keys and values is nearly all of the time, so they lie as they
are read: J is K x H, the heads of a token side by side. Queries are spread: N
rows for K x G heads, each at its own head's part of J and 0 elsewhere, so that
all heads of a slot are one product of two matrices. That multiplies K times as
much as it must, which is cheap where memory is waited for.

Who computes it goes by the mesh's devices:

    tpu    a Pallas kernel, `ragged_tpu.py`
    gpu    cuDNN by JAX, in bfloat16 or float16
    else   blocks of keys in plain JAX, up to the longest slot of a device

Letters as in `transformer.py`, and C blocks of m keys.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import partitioning
from valley_jax.models import ragged_tpu

BLOCK_LEN = 64  # Keys of a block in plain JAX; slots are multiples of it.
_MASKED = -1e30

CACHE = P(partitioning.BATCH, None, 'tp')
_QUERIES = P(partitioning.BATCH, 'tp', None, None)
_SLOTS = P(partitioning.BATCH)


def spread(q_BKGH: jax.Array) -> jax.Array:
  """Returns q_BNJ, each head's query at its own part of J.

  q_BKGH = [[[[1, 2]], [[3, 4]]]]     two heads of width 2
  q_BNJ  = [[[1, 2, 0, 0],
             [0, 0, 3, 4]]]
  """
  b, k, g, h = q_BKGH.shape
  own_KK = jnp.eye(k, dtype=q_BKGH.dtype)[:, None, :, None]
  return (q_BKGH[:, :, :, None] * own_KK).reshape(b, k * g, k * h)


def own_parts(y_BNJ: jax.Array, num_kv_heads: int) -> jax.Array:
  """Returns y_BKGH: of every head its own part of J."""
  b, n, j = y_BNJ.shape
  k = num_kv_heads
  y_BKGKH = y_BNJ.reshape(b, k, n // k, k, j // k)
  return jnp.moveaxis(jnp.diagonal(y_BKGKH, axis1=1, axis2=3), -1, 1)


def blocks(
    q_BNJ: jax.Array, k_BMJ: jax.Array, v_BMJ: jax.Array, length_B: jax.Array
) -> jax.Array:
  """Returns y_BNJ, a block of keys of every slot at a time.

  The number of blocks goes by the longest slot; what is masked adds an exact 0,
  so that the others do not notice.

  Args:
    q_BNJ: Queries, spread and scaled.
    k_BMJ: Keys; M is a multiple of `BLOCK_LEN`.
    v_BMJ: Values.
    length_B: Positions of each slot that count, at least 1.
  """
  num_blocks = (length_B.max() + BLOCK_LEN - 1) // BLOCK_LEN

  def add(i, carry):
    top_BN, sum_BN, y_BNJ = carry
    k_BmJ, v_BmJ = (
        jax.lax.dynamic_slice_in_dim(x, i * BLOCK_LEN, BLOCK_LEN, 1)
        for x in (k_BMJ, v_BMJ)
    )
    scores_BNm = jnp.einsum(
        'BNJ,BmJ->BNm', q_BNJ, k_BmJ, preferred_element_type=jnp.float32
    )
    at_m = i * BLOCK_LEN + jnp.arange(BLOCK_LEN)
    is_live_Bm = at_m < length_B[:, None]
    scores_BNm = jnp.where(is_live_Bm[:, None], scores_BNm, _MASKED)
    new_BN = jnp.maximum(top_BN, scores_BNm.max(axis=-1))
    weights_BNm = jnp.exp(scores_BNm - new_BN[..., None])
    old_BN = jnp.exp(top_BN - new_BN)
    sum_BN = sum_BN * old_BN + weights_BNm.sum(axis=-1)
    y_BNJ = y_BNJ * old_BN[..., None] + jnp.einsum(
        'BNm,BmJ->BNJ',
        weights_BNm.astype(v_BmJ.dtype),
        v_BmJ,
        preferred_element_type=jnp.float32,
    )
    return new_BN, sum_BN, y_BNJ

  zeros_BNJ = jnp.zeros(q_BNJ.shape, jnp.float32)
  zeros_BN = zeros_BNJ[..., 0]
  carry = zeros_BN + _MASKED, zeros_BN, zeros_BNJ
  _, sum_BN, y_BNJ = jax.lax.fori_loop(0, num_blocks, add, carry)
  return y_BNJ / sum_BN[..., None]


def dot_product(
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


def attend(
    q_BKGH: jax.Array,
    k_BMJ: jax.Array,
    v_BMJ: jax.Array,
    length_B: jax.Array,
    platform: str,
) -> jax.Array:
  """Returns y_BKGH: softmax attention to the first positions of each slot.

  Args:
    q_BKGH: Queries, not scaled.
    k_BMJ: Keys, cut as `CACHE` says.
    v_BMJ: Values.
    length_B: Positions of each slot that count, at least 1.
    platform: Of the mesh's devices.
  """

  def local(q_BKGH, k_BMJ, v_BMJ, length_B):
    q_BKGH = q_BKGH * (q_BKGH.shape[-1] ** -0.5)
    is_half = q_BKGH.dtype in (jnp.bfloat16, jnp.float16)
    if platform == 'gpu' and is_half:
      return dot_product(q_BKGH, k_BMJ, v_BMJ, length_B)
    attend = ragged_tpu.attend if platform == 'tpu' else blocks
    y_BNJ = attend(spread(q_BKGH), k_BMJ, v_BMJ, length_B)
    return own_parts(y_BNJ, q_BKGH.shape[1]).astype(q_BKGH.dtype)

  return jax.shard_map(
      local,
      in_specs=(_QUERIES, CACHE, CACHE, _SLOTS),
      out_specs=_QUERIES,
      check_vma=False,
  )(q_BKGH, k_BMJ, v_BMJ, length_B)
