"""Attention: one function, in plain JAX.

Letters as in `transformer.py`. Kernels for TPU and GPU come behind this same
function and will have to honour the mask that it describes.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import partitioning

_MASKED = -1e30  # Finite, so that a row without any key gives no NaN.


def causal_mask(positions_BL: jax.Array, segments_BL: jax.Array) -> jax.Array:
  """Returns mask_BLM: attend within one's segment, and not to the future.

  Segment 0 is padding; a padded query attends to padding only, and its output
  is never used.
  """
  same_BLM = segments_BL[:, :, None] == segments_BL[:, None, :]
  past_BLM = positions_BL[:, :, None] >= positions_BL[:, None, :]
  return same_BLM & past_BLM


def attend(
    q_BLKGH: jax.Array,
    k_BMKH: jax.Array,
    v_BMKH: jax.Array,
    mask_BLM: jax.Array,
) -> jax.Array:
  """Returns y_BLKGH: softmax attention, scores and softmax in float32."""
  spec = P(partitioning.BATCH, 'tp', None, None, None)
  logits_BKGLM = jnp.einsum(
      'BLKGH,BMKH->BKGLM',
      q_BLKGH * (q_BLKGH.shape[-1] ** -0.5),
      k_BMKH,
      preferred_element_type=jnp.float32,
      out_sharding=spec,
  )
  logits_BKGLM = jnp.where(mask_BLM[:, None, None], logits_BKGLM, _MASKED)
  weights_BKGLM = jax.nn.softmax(logits_BKGLM, axis=-1).astype(v_BMKH.dtype)
  return jnp.einsum(
      'BKGLM,BMKH->BLKGH',
      weights_BKGLM,
      v_BMKH,
      out_sharding=P(partitioning.BATCH, None, 'tp', None, None),
  )
