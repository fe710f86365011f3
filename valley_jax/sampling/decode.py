"""Prefill and decode on the device, over a fixed number of slots.

Each slot holds one sample on its way. A chunk is a fixed number of steps
without a look of the host and without an early exit; then the host takes
finished samples out and puts new ones in. To put one in is to prefill its
prompt and what it has written so far, whether it begins, goes on after a
crash, or has outgrown its slot.

Letters as in `models/transformer.py`, and T slots that samples are put into.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from valley_jax.models import cache as cache_lib
from valley_jax.models import parameters
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning
from valley_jax.sampling import methods


class Heads(NamedTuple):
  """What there is of each slot besides its keys and values."""

  token_B: jax.Array  # Fed next.
  position_B: jax.Array  # Of that token; all before it are in the cache.
  key_B: jax.Array  # The sample's own key.


class Slots(NamedTuple):
  """What the device holds of the samples on their way."""

  heads: Heads
  cache: cache_lib.Cache


class Places(NamedTuple):
  """Which rows of a prefill go into which slots; several may share a row."""

  slot_T: Any
  row_T: Any
  count: Any  # So many count.


class Names(NamedTuple):
  """Which sample is put into each of T slots; its key depends on no more."""

  problem_T: Any  # A number for each sample's problem, uint32.
  index_T: Any  # Which sample of the problem it is, uint32.


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def empty_slots(student: student_lib.Student, num_slots: int, cache_len: int, dtype: Any) -> Slots:
  """Returns slots with nothing in them."""

  def cut(x: jax.Array) -> jax.Array:
    return jax.sharding.reshard(x, cache_lib.SLOTS)

  heads = Heads(
      cut(jnp.zeros(num_slots, jnp.int32)),
      cut(jnp.zeros(num_slots, jnp.int32)),
      cut(jax.random.split(jax.random.key(0), num_slots)),
  )
  return Slots(heads, cache_lib.empty_cache(student, num_slots, cache_len, dtype))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed(student: student_lib.Student, dtype: Any, ends: Any, tokens_BL: jax.Array) -> jax.Array:
  rows = jax.P(partitioning.BATCH, 'cp')
  model = parameters.bind_without_blocks(student, ends)
  return model.embed_tokens(jax.sharding.reshard(tokens_BL, rows), dtype)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(2, 4, 5))
def _prefill_layer(
    student: student_lib.Student,
    layer: Any,
    x_BLD: jax.Array,
    length_B: jax.Array,
    k_BMJ: jax.Array,
    v_BMJ: jax.Array,
    places: Places,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Runs prompts through a layer; puts its keys and values into slots."""
  rows = jax.P(partitioning.BATCH, 'cp')
  position_BL = jnp.broadcast_to(jnp.arange(x_BLD.shape[1]), x_BLD.shape[:2])
  segment_BL = (position_BL < length_B[:, None]).astype(jnp.int32)
  block, x_BLD = cache_lib.bind_layer(student, layer, x_BLD)
  x_BLD, kv = block(
      x_BLD, jax.sharding.reshard(position_BL, rows), jax.sharding.reshard(segment_BL, rows), 'auto'
  )
  k_BMJ, v_BMJ = (
      cache_lib.copy_prompts(into_BMJ, new_BLKH, *places)
      for into_BMJ, new_BLKH in zip((k_BMJ, v_BMJ), kv, strict=True)
  )
  return x_BLD, k_BMJ, v_BMJ


@functools.partial(jax.jit, donate_argnums=0)
def _put_heads(
    heads: Heads,
    tokens_BL: jax.Array,
    length_B: jax.Array,
    places: Places,
    seed: jax.Array,
    names: Names,
) -> Heads:
  num_slots = heads.token_B.shape[0]
  counts_T = jnp.arange(len(places.slot_T)) < places.count
  slot_T = jnp.where(counts_T, places.slot_T, num_slots)  # Past the end.
  length_T = length_B[places.row_T]
  token_T = tokens_BL[places.row_T, length_T - 1]
  fold = jax.vmap(jax.random.fold_in)
  key_T = jnp.broadcast_to(jax.random.key(seed), names.problem_T.shape)
  key_T = fold(fold(key_T, names.problem_T), names.index_T)
  new = Heads(token_T, length_T - 1, key_T)
  return Heads(
      *(cache_lib.replace_slots(into, slot_T, x) for into, x in zip(heads, new, strict=True))
  )


def prefill(
    student: student_lib.Student,
    params: Any,
    slots: Slots,
    tokens_BL: Any,
    length_B: Any,
    places: Places,
    seed: Any,
    names: Names,
) -> Slots:
  """Puts samples into slots.

  Decoding starts by feeding the last token again, so no logits are computed
  here, and the token's keys and values are written twice. Layer by layer, each
  a call: so a program is one layer, soon compiled, whatever the student.

  Args:
    student: Sizes.
    params: Unstacked, or as they are trained.
    slots: Donated.
    tokens_BL: Prompts and what follows, padded at the end to a common length.
    length_B: Their lengths.
    places: Where they go.
    seed: Of all samples.
    names: Of the samples.
  """
  ends = {name: x for name, x in params.items() if name != 'blocks'}
  x_BLD = _embed(student, slots.cache.k_BMJ[0].dtype, ends, tokens_BL)
  ks, vs = [], []
  layers = cache_lib.list_layers(params)
  for layer, k_BMJ, v_BMJ in zip(layers, *slots.cache, strict=True):
    x_BLD, k_BMJ, v_BMJ = _prefill_layer(student, layer, x_BLD, length_B, k_BMJ, v_BMJ, places)
    ks.append(k_BMJ)
    vs.append(v_BMJ)
  heads = _put_heads(slots.heads, tokens_BL, length_B, places, seed, names)
  return Slots(heads, cache_lib.Cache(tuple(ks), tuple(vs)))


@functools.partial(jax.jit, static_argnums=(0, 4, 5), donate_argnums=2)
def decode_chunk(
    student: student_lib.Student,
    params: Any,
    slots: Slots,
    is_live_B: jax.Array,
    method: methods.Method,
    chunk_len: int,
) -> tuple[Slots, jax.Array, jax.Array]:
  """Takes `chunk_len` steps in every slot.

  Args:
    student: Static.
    params: Unstacked, or as they are trained.
    slots: Donated; the cache is written in place.
    is_live_B: Which slots hold a sample; what the others draw means nothing.
    method: Static. How tokens are drawn.
    chunk_len: Static.

  Returns:
    The slots after, and of each step and slot the token drawn,
    [chunk_len, slots], and its log-probability, raw and tempered,
    [chunk_len, 2, slots]; on every device: each process of a run has to know
    what all slots drew.
  """
  # By hand: a loop that ends when the slowest slot ends must not be shared.
  draw = jax.shard_map(
      functools.partial(methods.draw, method),
      in_specs=(cache_lib.ROWS, cache_lib.SLOTS),
      out_specs=cache_lib.SLOTS,
      check_vma=False,
  )
  cache_len = slots.cache.k_BMJ[0].shape[1]
  is_live_B = jax.sharding.reshard(is_live_B, cache_lib.SLOTS)

  def step(slots: Slots, _) -> tuple[Slots, tuple[jax.Array, jax.Array]]:
    heads = slots.heads
    # A slot that is done but not yet emptied may run past the end: harmless.
    position_B = jnp.minimum(heads.position_B, cache_len - 1)
    cache, logits_BV = cache_lib.decode_step(
        student,
        params,
        slots.cache,
        heads.token_B,
        position_B,
        jnp.where(is_live_B, position_B + 1, 1),
    )
    # The key depends on the sample and the position, and on nothing else.
    keys_B = jax.vmap(jax.random.fold_in)(heads.key_B, position_B)
    token_B = draw(logits_BV, keys_B)
    both = jnp.stack(methods.log_probs(method, logits_BV, token_B))
    heads = Heads(token_B, heads.position_B + 1, heads.key_B)
    return Slots(heads, cache), (token_B, both)

  slots, (tokens, log_probs) = jax.lax.scan(step, slots, length=chunk_len)
  tokens, log_probs = (jax.sharding.reshard(x, jax.P()) for x in (tokens, log_probs))
  return slots, tokens, log_probs
