"""Prefill and decode on the device, over a fixed number of slots.

Each slot holds one sample. A chunk is a fixed number of steps without a look of the host and
without an early exit; then the host takes finished samples out and puts new ones in. A sample is
put in by prefilling its prompt and what it has written so far, whether it begins, resumes after a
crash, or has outgrown its slot.

Letters as in `models/transformer.py`, and T samples that are put into slots.
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


class SlotHeads(NamedTuple):
  """The state of each slot besides its keys and values."""

  token_B: jax.Array  # The token that is fed next.
  position_B: jax.Array  # Its position; all before it are in the cache.
  key_B: jax.Array  # The sample's own random key.


class Slots(NamedTuple):
  """The samples in progress, as the device holds them."""

  heads: SlotHeads
  cache: cache_lib.Cache


class PrefillTargets(NamedTuple):
  """Which row of a prefill goes into which slots; several may share a row."""

  slot_T: Any
  row_T: Any
  count: Any  # The first `count` entries are used.


class SampleNumbers(NamedTuple):
  """The two numbers that, with the seed, make a sample's key."""

  problem_T: Any  # Hash of the problem id, uint32.
  index_T: Any  # Sample index, uint32.


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def allocate_slots(
    student: student_lib.Student, num_slots: int, cache_len: int, dtype: Any
) -> Slots:
  """Returns empty slots."""

  def shard_slots(x: jax.Array) -> jax.Array:
    return jax.sharding.reshard(x, cache_lib.SLOTS)

  heads = SlotHeads(
      shard_slots(jnp.zeros(num_slots, jnp.int32)),
      shard_slots(jnp.zeros(num_slots, jnp.int32)),
      shard_slots(jax.random.split(jax.random.key(0), num_slots)),
  )
  return Slots(heads, cache_lib.empty_cache(student, num_slots, cache_len, dtype))


@functools.partial(jax.jit, static_argnums=(0, 1))
def embed_prompts(
    student: student_lib.Student, dtype: Any, ends: Any, tokens_BL: jax.Array
) -> jax.Array:
  """Returns the embeddings of prompts; `ends` are the parameters outside of the layers."""
  rows = jax.P(partitioning.BATCH, 'cp')
  model = parameters.bind_without_blocks(student, ends)
  return model.embed_tokens(jax.sharding.reshard(tokens_BL, rows), dtype)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(2, 4, 5))
def prefill_layer(
    student: student_lib.Student,
    layer: Any,
    x_BLD: jax.Array,
    length_B: jax.Array,
    k_BMJ: jax.Array,
    v_BMJ: jax.Array,
    targets: PrefillTargets,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Runs prompts through a layer and puts its keys and values into slots."""
  rows = jax.P(partitioning.BATCH, 'cp')
  position_BL = jnp.broadcast_to(jnp.arange(x_BLD.shape[1]), x_BLD.shape[:2])
  segment_BL = (position_BL < length_B[:, None]).astype(jnp.int32)
  block, x_BLD = cache_lib.bind_layer(student, layer, x_BLD)
  x_BLD, kv = block(
      x_BLD, jax.sharding.reshard(position_BL, rows), jax.sharding.reshard(segment_BL, rows), 'auto'
  )
  k_BMJ, v_BMJ = (
      cache_lib.copy_prompts(into_BMJ, new_BLKH, *targets)
      for into_BMJ, new_BLKH in zip((k_BMJ, v_BMJ), kv, strict=True)
  )
  return x_BLD, k_BMJ, v_BMJ


@functools.partial(jax.jit, donate_argnums=0)
def write_heads(
    heads: SlotHeads,
    tokens_BL: jax.Array,
    length_B: jax.Array,
    targets: PrefillTargets,
    seed: jax.Array,
    numbers: SampleNumbers,
) -> SlotHeads:
  """Sets the token, position and key of the slots that samples are put into."""
  num_slots = heads.token_B.shape[0]
  is_used_T = jnp.arange(len(targets.slot_T)) < targets.count
  slot_T = jnp.where(is_used_T, targets.slot_T, num_slots)  # Past the end: dropped.
  length_T = length_B[targets.row_T]
  token_T = tokens_BL[targets.row_T, length_T - 1]
  fold = jax.vmap(jax.random.fold_in)
  key_T = jnp.broadcast_to(jax.random.key(seed), numbers.problem_T.shape)
  key_T = fold(fold(key_T, numbers.problem_T), numbers.index_T)
  new = SlotHeads(token_T, length_T - 1, key_T)
  return SlotHeads(
      *(cache_lib.replace_slots(into, slot_T, x) for into, x in zip(heads, new, strict=True))
  )


def prefill_slots(
    student: student_lib.Student,
    params: Any,
    slots: Slots,
    tokens_BL: Any,
    length_B: Any,
    targets: PrefillTargets,
    seed: Any,
    numbers: SampleNumbers,
) -> Slots:
  """Puts samples into slots by a prefill of their tokens.

  Decoding starts by feeding the last token again, so no logits are computed here, and the token's
  keys and values are written twice. Each layer is a call, so the compiled program is one layer,
  however deep the student.

  Args:
    student: Sizes of the student.
    params: Unstacked, or as they are trained.
    slots: Donated.
    tokens_BL: Prompts and what follows them, padded at the end to a common length.
    length_B: Lengths without padding.
    targets: The slots that each row goes to.
    seed: Seed of all samples.
    numbers: The numbers that each sample's key is folded from.
  """
  ends = {name: x for name, x in params.items() if name != 'blocks'}
  x_BLD = embed_prompts(student, slots.cache.k_BMJ[0].dtype, ends, tokens_BL)
  ks, vs = [], []
  layers = cache_lib.list_layers(params)
  for layer, k_BMJ, v_BMJ in zip(layers, *slots.cache, strict=True):
    x_BLD, k_BMJ, v_BMJ = prefill_layer(student, layer, x_BLD, length_B, k_BMJ, v_BMJ, targets)
    ks.append(k_BMJ)
    vs.append(v_BMJ)
  heads = write_heads(slots.heads, tokens_BL, length_B, targets, seed, numbers)
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
    is_live_B: True for slots that hold a sample; what the others draw is ignored.
    method: Static. How the next token is drawn.
    chunk_len: Static.

  Returns:
    The new slots; the tokens drawn, [chunk_len, slots]; and their log-probabilities, raw and
    tempered, [chunk_len, 2, slots]. The last two are on every device, since each process of a run
    has to know what all slots drew.
  """
  # In shard_map, because rejection sampling loops, and devices must not wait for one another's
  # loops.
  draw = jax.shard_map(
      functools.partial(methods.draw_tokens, method),
      in_specs=(cache_lib.ROWS, cache_lib.SLOTS),
      out_specs=cache_lib.SLOTS,
      check_vma=False,
  )
  cache_len = slots.cache.k_BMJ[0].shape[1]
  is_live_B = jax.sharding.reshard(is_live_B, cache_lib.SLOTS)

  def step(slots: Slots, _) -> tuple[Slots, tuple[jax.Array, jax.Array]]:
    heads = slots.heads
    # A slot that is done but not yet released may run past its end, which is harmless.
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
    log_probs_PB = jnp.stack(methods.compute_log_probs(method, logits_BV, token_B))
    heads = SlotHeads(token_B, heads.position_B + 1, heads.key_B)
    return Slots(heads, cache), (token_B, log_probs_PB)

  slots, (tokens, log_probs) = jax.lax.scan(step, slots, length=chunk_len)
  tokens, log_probs = (jax.sharding.reshard(x, jax.P()) for x in (tokens, log_probs))
  return slots, tokens, log_probs
