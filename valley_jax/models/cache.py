"""The cache of keys and values of unfinished samples, and the decoding step that uses it.

The cache of a layer is an array MJ for each of B slots, J = K x H: the heads of a token side by
side. Layers are unrolled here and not scanned, and their parameters are separate arrays: a scan
would copy the cache, and a slice of stacked layers the parameters.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from valley_jax.models import attention
from valley_jax.models import decode_attention
from valley_jax.models import parameters
from valley_jax.models import student as student_lib
from valley_jax.models import transformer
from valley_jax.runtime import partitioning

ROWS = P(partitioning.BATCH, None)
SLOTS = P(partitioning.BATCH)
_NEW = P(partitioning.BATCH, 'tp')


class Cache(NamedTuple):
  """Keys and values, an array a layer."""

  k_BMJ: tuple[jax.Array, ...]
  v_BMJ: tuple[jax.Array, ...]


def empty_cache(student: student_lib.Student, num_slots: int, cache_len: int, dtype: Any) -> Cache:
  """Returns a cache of zeros: slots cut along the batch axes, heads on `tp`."""
  shape = (num_slots, cache_len, student.num_kv_heads * student.head_dim)

  def build_layers():
    return tuple(
        jax.sharding.reshard(jnp.zeros(shape, dtype), decode_attention.CACHE)
        for _ in range(student.num_layers)
    )

  return Cache(build_layers(), build_layers())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _cut_layers(spec: P, dtype: Any, stacked: jax.Array) -> tuple[jax.Array, ...]:
  """Returns the layers of a stacked parameter, each an array cut as `spec` says."""
  layers = (stacked[i].astype(dtype) for i in range(stacked.shape[0]))
  return tuple(jax.sharding.reshard(x, spec) for x in layers)


def unstack_layers(
    student: student_lib.Student, params: Any, dtype: Any, give_up: bool = False
) -> Any:
  """Returns parameters to decode with: `blocks` is a tuple of layers.

  Args:
    student: Sizes.
    params: Parameters as they are trained.
    dtype: The compute dtype, and so that of all matrices. Norms and biases are small and keep
      theirs.
    give_up: Delete each parameter once it is copied, so that the student is not in memory twice.
  """
  layers: list[dict[tuple[str, ...], Any]] = [{} for _ in range(student.num_layers)]
  flat: Any = traverse_util.flatten_dict(params)
  declared: Any = traverse_util.flatten_dict(parameters.describe_parameters(student))
  rest = {}
  for path, x in flat.items():
    declaration = declared[path]
    wanted = jnp.dtype(dtype) if declaration.cast else x.dtype
    if declaration.is_stacked:
      cuts = _cut_layers(declaration.layer_spec, wanted, x)
      for layer, cut in zip(layers, cuts, strict=True):
        layer[path[1:]] = cut
    elif x.dtype == wanted:
      rest[path] = x
      continue
    else:
      rest[path] = x.astype(wanted)
    if give_up:
      # The copy must be there before its source is deleted: dispatch is asynchronous.
      jax.block_until_ready((layers, rest))
      x.delete()
  unflatten = traverse_util.unflatten_dict
  return {**unflatten(rest), 'blocks': tuple(map(unflatten, layers))}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StackedLayer:
  """One of the stacked layers, taken out of the stack only where it is used."""

  blocks: Any  # Parameters of all layers, as they are trained.
  index: Any  # Number of the layer.

  def take_layer(self, x: jax.Array) -> tuple[Any, jax.Array]:
    """Returns the layer's parameters, and its input.

    Neither is there before the other. Otherwise the compiler would cut out all layers at once,
    before the first step: another copy of the student.
    """
    index, x = jax.lax.optimization_barrier((jnp.int32(self.index), x))
    cut = functools.partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
    return jax.tree.map(cut, self.blocks), x


def list_layers(params: Any) -> tuple[Any, ...]:
  """Returns the layers of parameters, unstacked or not."""
  blocks = params['blocks']
  if isinstance(blocks, tuple):
    return blocks
  num_layers = jax.tree.leaves(blocks)[0].shape[0]
  return tuple(StackedLayer(blocks, np.int32(i)) for i in range(num_layers))


def bind_layer(
    student: student_lib.Student, layer: Any, x_BLD: jax.Array
) -> tuple[transformer.Block, jax.Array]:
  """Returns the module of one of `list_layers`, and its input."""
  if isinstance(layer, StackedLayer):
    layer, x_BLD = layer.take_layer(x_BLD)
  return parameters.bind_block(student, layer), x_BLD


def replace_slots(into: jax.Array, slot_T: jax.Array, rows: jax.Array) -> jax.Array:
  """Replaces whole slots of an array; a slot number past the end is dropped.

  The new rows are few: every device sees them all and keeps its own.
  """
  spec = jax.typeof(into).sharding.spec
  rows = jax.sharding.reshard(rows, P(None, *spec[1:]))
  return into.at[slot_T].set(rows, mode='drop', out_sharding=spec)


def copy_prompts(
    cache_BMJ: jax.Array, new_BLKH: jax.Array, slot_T: jax.Array, row_T: jax.Array, count: jax.Array
) -> jax.Array:
  """Copies keys, or values, of whole prompts to the slots that begin with them.

  Args:
    cache_BMJ: Keys, or values, of a layer.
    new_BLKH: Keys, or values, of prompts; L <= M.
    slot_T: Slots that copies go to.
    row_T: Row of the prompt that is copied to each of these slots.
    count: Number of copies; what follows in `slot_T` and `row_T` is ignored.
  """
  b, length, k, h = new_BLKH.shape
  whole = P(None, None, 'tp')
  new_BLKH = jax.sharding.reshard(new_BLKH, P(None, None, 'tp', None))
  new_BLJ = jax.lax.reshape(new_BLKH, (b, length, k * h), out_sharding=whole)

  def put(cache_BMJ, new_BLJ, slot_T, row_T, count):
    num_slots = cache_BMJ.shape[0]
    first = jax.lax.axis_index(partitioning.BATCH) * num_slots

    def copy(t, cache_BMJ):
      slot = slot_T[t] - first
      is_here = (slot >= 0) & (slot < num_slots)
      at = jnp.clip(slot, 0, num_slots - 1), 0, 0
      there_BLJ = jax.lax.dynamic_slice(cache_BMJ, at, (1, *new_BLJ.shape[1:]))
      new = jnp.where(is_here, new_BLJ[row_T[t]], there_BLJ)
      return jax.lax.dynamic_update_slice(cache_BMJ, new, at)

    return jax.lax.fori_loop(0, count, copy, cache_BMJ)

  return jax.shard_map(
      put,
      in_specs=(decode_attention.CACHE, whole, P(), P(), P()),
      out_specs=decode_attention.CACHE,
      check_vma=False,
  )(cache_BMJ, new_BLJ, slot_T, row_T, count)


def _write_position(cache_BMJ: jax.Array, new_BKH: jax.Array, position_B: jax.Array) -> jax.Array:
  """Writes one position a slot, in place where the cache is donated."""
  r, k, h = new_BKH.shape
  new_BJ = jax.lax.reshape(new_BKH, (r, k * h), out_sharding=_NEW)

  @functools.partial(
      jax.shard_map,
      in_specs=(decode_attention.CACHE, _NEW, SLOTS),
      out_specs=decode_attention.CACHE,
  )
  def write(cache_BMJ, new_BJ, position_B):
    slot_B = jnp.arange(cache_BMJ.shape[0])
    return cache_BMJ.at[slot_B, position_B].set(
        new_BJ, unique_indices=True, indices_are_sorted=True
    )

  return write(cache_BMJ, new_BJ, position_B)


def _compute_logits(model: transformer.Transformer, hidden_BD: jax.Array) -> jax.Array:
  """Returns logits_BV in float32, all columns on one device."""
  head_DV = model.output_head(hidden_BD.dtype)
  return jnp.einsum(
      'BD,DV->BV', hidden_BD, head_DV, preferred_element_type=jnp.float32, out_sharding=ROWS
  )


def decode_step(
    student: student_lib.Student,
    params: Any,
    cache: Cache,
    token_B: jax.Array,
    position_B: jax.Array,
    length_B: jax.Array,
) -> tuple[Cache, jax.Array]:
  """Feeds one token a slot.

  Args:
    student: Static.
    params: Unstacked, or as they are trained.
    cache: Keys and values of all positions before `position_B`.
    token_B: Tokens.
    position_B: Their positions, less than the cache's length.
    length_B: Positions to attend to: `position_B` + 1, or 1 in an empty slot.

  Returns:
    The cache with this position in it, and logits_BV of the next one, float32.
  """
  model = parameters.bind_without_blocks(student, params)
  platform = attention.find_platform()
  x_BLD = model.embed_tokens(token_B[:, None], cache.k_BMJ[0].dtype)
  ks, vs = [], []
  for layer, k_BMJ, v_BMJ in zip(list_layers(params), *cache, strict=True):
    block, x_BLD = bind_layer(student, layer, x_BLD)
    q_BLKGH, k_BLKH, v_BLKH = block.project_qkv(x_BLD, position_B[:, None])
    ks.append(_write_position(k_BMJ, k_BLKH[:, 0], position_B))
    vs.append(_write_position(v_BMJ, v_BLKH[:, 0], position_B))
    y_BKGH = decode_attention.attend_to_slots(q_BLKGH[:, 0], ks[-1], vs[-1], length_B, platform)
    x_BLD = block.add_attention_and_mlp(x_BLD, y_BKGH[:, None])
  hidden_BD = model.final_norm(x_BLD)[:, 0]
  return Cache(tuple(ks), tuple(vs)), _compute_logits(model, hidden_BD)
