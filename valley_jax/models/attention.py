"""Attention: one door, and behind it one file for each way to compute it.

What is computed is always the same: a token attends to the tokens of its own
segment that are not after it, scores and softmax in float32. Who computes it
is a name (config.attention):

    dense    all scores at once: the reference, short rows, decoding
    blocks   plain JAX, a block of keys at a time: memory linear in length
    auto     dense for short rows; else what suits the mesh's devices

A way that cannot do what is asked of it raises; none ignores segments.

Letters as in `transformer.py`, and N = K x G query heads. Mesh axis `cp` cuts
the positions of a row: queries stay where they are, keys and values of the
whole row are gathered. The cut is into runs of neighbours, and the last run
attends to the most keys: with a causal kernel it works (2 cp - 1) / cp times
the mean. Cutting rows into 2 cp runs and giving every device an early and a
late one would win that back; it would have to be done to the batch.
"""

import functools

import jax
from jax import ad_checkpoint
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import partitioning
from valley_jax.models import blocks

_MASKED = -1e30  # Finite, so that a row without any key gives no NaN.

# Positions of a device's part of a row up to which `auto` is `dense`.
_DENSE_UP_TO = 512


def causal_mask(
    positions_BL: jax.Array,
    segments_BL: jax.Array,
    positions_BM: jax.Array,
    segments_BM: jax.Array,
) -> jax.Array:
  """Returns mask_BLM: attend within one's segment, and not to the future.

  Segment 0 is padding; a padded query attends to padding only, and its output
  is never used.
  """
  same_BLM = segments_BL[:, :, None] == segments_BM[:, None, :]
  past_BLM = positions_BL[:, :, None] >= positions_BM[:, None, :]
  return same_BLM & past_BLM


def attend_masked(
    q_BLKGH: jax.Array,
    k_BMKH: jax.Array,
    v_BMKH: jax.Array,
    mask_BLM: jax.Array,
) -> jax.Array:
  """Returns y_BLKGH by all scores at once, under any mask."""
  cut = jax.typeof(q_BLKGH).sharding.spec[1]
  logits_BKGLM = jnp.einsum(
      'BLKGH,BMKH->BKGLM',
      q_BLKGH * (q_BLKGH.shape[-1] ** -0.5),
      k_BMKH,
      preferred_element_type=jnp.float32,
      out_sharding=P(partitioning.BATCH, 'tp', None, cut, None),
  )
  logits_BKGLM = jnp.where(mask_BLM[:, None, None], logits_BKGLM, _MASKED)
  weights_BKGLM = jax.nn.softmax(logits_BKGLM, axis=-1).astype(v_BMKH.dtype)
  return jnp.einsum(
      'BKGLM,BMKH->BLKGH',
      weights_BKGLM,
      v_BMKH,
      out_sharding=P(partitioning.BATCH, cut, 'tp', None, None),
  )


def _dense(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL) -> jax.Array:
  whole = P(partitioning.BATCH, None)
  heads = P(partitioning.BATCH, None, 'tp', None)
  mask_BLM = causal_mask(
      positions_BL,
      segments_BL,
      jax.sharding.reshard(positions_BL, whole),
      jax.sharding.reshard(segments_BL, whole),
  )
  k_BMKH = jax.sharding.reshard(k_BLKH, heads)
  v_BMKH = jax.sharding.reshard(v_BLKH, heads)
  y_BLKGH = attend_masked(q_BLKGH, k_BMKH, v_BMKH, mask_BLM)
  return ad_checkpoint.checkpoint_name(y_BLKGH, 'attention')


def _gather(x: jax.Array) -> jax.Array:
  """Gathers a device's positions to whole rows, inside of a shard_map."""
  return jax.lax.all_gather(x, 'cp', axis=1, tiled=True)


def _blocks(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL) -> jax.Array:
  """Runs `blocks` on each device's rows, heads and queries."""
  queries = P(partitioning.BATCH, 'cp', 'tp', None, None)
  keys = P(partitioning.BATCH, 'cp', 'tp', None)
  rows = P(partitioning.BATCH, 'cp')

  @functools.partial(
      jax.shard_map,
      in_specs=(queries, keys, keys, rows, rows),
      out_specs=queries,
      check_vma=False,
  )
  def local(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL):
    return blocks.attend(
        q_BLKGH,
        _gather(k_BLKH),
        _gather(v_BLKH),
        (positions_BL, segments_BL),
        (_gather(positions_BL), _gather(segments_BL)),
    )

  return local(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL)


IMPLEMENTATIONS = {'dense': _dense, 'blocks': _blocks}


def resolve(implementation: str, length: int) -> str:
  """Returns the name of what computes rows of this length on this mesh.

  By the mesh's devices and not by the default backend: a step is also
  compiled for devices that are not there.

  Raises:
    ValueError: the name is unknown.
  """
  if implementation in IMPLEMENTATIONS:
    return implementation
  if implementation != 'auto':
    raise ValueError(
        f'config.attention={implementation!r}: want auto or one of'
        f' {", ".join(IMPLEMENTATIONS)}.'
    )
  if length <= _DENSE_UP_TO * partitioning.num_cuts():
    return 'dense'
  return 'blocks'


def attend(
    q_BLKGH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    positions_BL: jax.Array,
    segments_BL: jax.Array,
    *,
    implementation: str = 'auto',
) -> jax.Array:
  """Returns y_BLKGH: causal softmax attention within segments.

  Args:
    q_BLKGH: Queries, not scaled.
    k_BLKH: Keys of the same positions.
    v_BLKH: Values.
    positions_BL: Positions, rising within each segment.
    segments_BL: Segments, each a run of neighbours; 0 is padding, whose
      output means nothing.
    implementation: A name, as in the module's docstring.

  Raises:
    ValueError: the name is unknown, or what it names cannot do this.
  """
  name = resolve(implementation, q_BLKGH.shape[1])
  return IMPLEMENTATIONS[name](
      q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL
  )
