"""Next-token loss, over chunks of positions.

The logits of a 32k row of Qwen2.5 are 20 GB; those of a chunk are small. Each
chunk is computed again in the backward pass, so memory does not depend on the
row's length times the vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import partitioning
from valley_jax.models import params as params_lib
from valley_jax.models import student as student_lib

_CHUNKS = P(None, partitioning.BATCH, None)


def _chunk(x_BL: jax.Array, num_chunks: int) -> jax.Array:
  """Cuts positions: BL… -> CBl…, to be scanned over C."""
  b, length = x_BL.shape[:2]
  x = x_BL.reshape(b, num_chunks, length // num_chunks, *x_BL.shape[2:])
  return jnp.moveaxis(x, 1, 0)


def cross_entropy(
    hidden_BLD: jax.Array,
    head_DV: jax.Array,
    targets_BL: jax.Array,
    weights_BL: jax.Array,
    chunk_len: int,
) -> jax.Array:
  """Returns the weighted *sum* of -log p(target), in nats, float32.

  Args:
    hidden_BLD: Final hidden states.
    head_DV: Output head; cast to the dtype of `hidden_BLD` in each chunk, so
      that its gradient is summed over chunks in its own dtype.
    targets_BL: Token ids.
    weights_BL: Loss weights.
    chunk_len: Positions of a row whose logits exist at a time; at least one
      chunk, and the largest divisor of the length up to this.
  """
  length = targets_BL.shape[1]
  chunk_len = max(n for n in range(1, chunk_len + 1) if length % n == 0)
  num_chunks = length // chunk_len

  @jax.checkpoint
  def body(total, xs):
    hidden_BLD, targets_BL, weights_BL = xs
    logits_BLV = jnp.einsum(
        'BLD,DV->BLV',
        hidden_BLD,
        head_DV.astype(hidden_BLD.dtype),
        preferred_element_type=jnp.float32,
        out_sharding=P(partitioning.BATCH, None, 'tp'),
    )
    # Not a gather: the vocabulary may be cut up over `tp`.
    ids_V = jnp.arange(logits_BLV.shape[-1])
    chosen_BLV = ids_V == targets_BL[..., None]
    target_BL = jnp.sum(jnp.where(chosen_BLV, logits_BLV, 0), axis=-1)
    loss_BL = jax.nn.logsumexp(logits_BLV, axis=-1) - target_BL
    return total + jnp.sum(loss_BL * weights_BL), None

  xs = tuple(
      _chunk(x, num_chunks) for x in (hidden_BLD, targets_BL, weights_BL)
  )
  total, _ = jax.lax.scan(body, jnp.zeros((), jnp.float32), xs)
  return total


def next_token(
    params: Any,
    batch: dict[str, jax.Array],
    *,
    student: student_lib.Student,
    dtype: Any,
    remat: bool,
    chunk_len: int,
) -> tuple[jax.Array, jax.Array]:
  """Returns (loss sum in nats, sum of weights) of one micro-batch.

  Sums and not a mean: the mean is taken over the *global* number of supervised
  tokens, or short examples would weigh more than long ones.
  """
  model = params_lib.bind(student, params)
  hidden_BLD, _ = model(
      batch['inputs'],
      batch['positions'],
      batch['segments'],
      dtype=dtype,
      remat=remat,
  )
  total = cross_entropy(
      hidden_BLD,
      model.head(jnp.float32),
      batch['targets'],
      batch['weights'],
      chunk_len,
  )
  return total, jnp.sum(batch['weights'])
