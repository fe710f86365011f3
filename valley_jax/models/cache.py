"""Keys and values of samples on their way, and one step that uses them.

The cache of a layer is an array MKH for each of B slots. Layers are unrolled
here and not scanned: a scan would copy the cache.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import partitioning
from valley_jax.models import attention
from valley_jax.models import student as student_lib
from valley_jax.models import transformer

ROWS = P(partitioning.BATCH, None)
SLOTS = P(partitioning.BATCH)
_CACHE = P(partitioning.BATCH, None, 'tp', None)
_NEW = P(partitioning.BATCH, 'tp', None)


class Cache(NamedTuple):
  """Keys and values, an array a layer."""

  k_BMKH: tuple[jax.Array, ...]
  v_BMKH: tuple[jax.Array, ...]


def num_parts() -> int:
  """Returns into how many parts the current mesh cuts the slots."""
  return partitioning.num_batch_devices()


def empty(
    student: student_lib.Student, num_slots: int, cache_len: int, dtype: Any
) -> Cache:
  """Returns a cache of zeros: slots cut along the batch axes, heads on `tp`."""
  shape = (num_slots, cache_len, student.num_kv_heads, student.head_dim)

  def layers():
    return tuple(
        jax.sharding.reshard(jnp.zeros(shape, dtype), _CACHE)
        for _ in range(student.num_layers)
    )

  return Cache(layers(), layers())


def put_rows(into: jax.Array, slot_B: jax.Array, rows: jax.Array) -> jax.Array:
  """Replaces whole slots of an array; a slot number past the end is dropped.

  The new rows are few: every device sees them all and keeps its own.
  """
  spec = jax.typeof(into).sharding.spec
  rows = jax.sharding.reshard(rows, P(None, *spec[1:]))
  return into.at[slot_B].set(rows, mode='drop', out_sharding=spec)


def put_prompts(
    cache: Cache, slot_B: jax.Array, k_YBLKH: jax.Array, v_YBLKH: jax.Array
) -> Cache:
  """Puts the keys and values of whole prompts into slots."""

  def put(cache_BMKH: jax.Array, new_BLKH: jax.Array) -> jax.Array:
    new_BLKH = jax.sharding.reshard(new_BLKH, _CACHE)  # Whole, if cut by cp.
    free = cache_BMKH.shape[1] - new_BLKH.shape[1]
    new_BMKH = jnp.pad(new_BLKH, ((0, 0), (0, free), (0, 0), (0, 0)))
    return put_rows(cache_BMKH, slot_B, new_BMKH)

  return Cache(
      tuple(put(c, k) for c, k in zip(cache.k_BMKH, k_YBLKH, strict=True)),
      tuple(put(c, v) for c, v in zip(cache.v_BMKH, v_YBLKH, strict=True)),
  )


def _write(
    cache_BMKH: jax.Array, new_BKH: jax.Array, position_B: jax.Array
) -> jax.Array:
  """Writes one position of every slot, in place where the cache is donated."""

  @functools.partial(
      jax.shard_map, in_specs=(_CACHE, _NEW, SLOTS), out_specs=_CACHE
  )
  def write(cache_BMKH, new_BKH, position_B):
    slots_B = jnp.arange(cache_BMKH.shape[0])
    return cache_BMKH.at[slots_B, position_B].set(
        new_BKH, unique_indices=True, indices_are_sorted=True
    )

  return write(cache_BMKH, new_BKH, position_B)


def unstack(model: transformer.Transformer) -> list[transformer.Block]:
  """Returns the layers one by one; do this outside of a loop over steps."""
  return [
      jax.tree.map(lambda stacked, layer=layer: stacked[layer], model.blocks)
      for layer in range(model.student.num_layers)
  ]


def step(
    model: transformer.Transformer,
    blocks: list[transformer.Block],
    cache: Cache,
    token_B: jax.Array,
    position_B: jax.Array,
) -> tuple[Cache, jax.Array]:
  """Feeds one token a slot.

  Args:
    model: The student.
    blocks: Its layers, unstacked.
    cache: Keys and values of all positions before `position_B`.
    token_B: Tokens.
    position_B: Their positions; the cache's length at most.

  Returns:
    The cache with this position in it, and logits_BV of the next one, float32.
  """
  cache_len = cache.k_BMKH[0].shape[1]
  mask_BLM = jnp.arange(cache_len)[None, None] <= position_B[:, None, None]
  x_BLD = model.embed(token_B[:, None], cache.k_BMKH[0].dtype)
  ks, vs = [], []
  for block, k_BMKH, v_BMKH in zip(blocks, *cache, strict=True):
    q_BLKGH, k_BLKH, v_BLKH = block.qkv(x_BLD, position_B[:, None])
    ks.append(_write(k_BMKH, k_BLKH[:, 0], position_B))
    vs.append(_write(v_BMKH, v_BLKH[:, 0], position_B))
    y_BLKGH = attention.attend_masked(q_BLKGH, ks[-1], vs[-1], mask_BLM)
    x_BLD = block.finish(x_BLD, y_BLKGH)
  hidden_BD = model.final_norm(x_BLD)[:, 0]
  logits_BV = jnp.einsum(
      'BD,DV->BV',
      hidden_BD,
      model.head(hidden_BD.dtype),
      preferred_element_type=jnp.float32,
      out_sharding=ROWS,
  )
  return Cache(tuple(ks), tuple(vs)), logits_BV
