"""Prefill and decode on the device, over a fixed number of slots.

Each slot holds one sample on its way. A chunk is a fixed number of steps
without a look of the host and without an early exit; then the host takes
finished samples out and puts new ones in.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from valley_jax.models import cache as cache_lib
from valley_jax.models import params as params_lib
from valley_jax.models import student as student_lib
from valley_jax.sampling import methods


class Slots(NamedTuple):
  """What the device holds of the samples on their way."""

  token_B: jax.Array  # Fed next.
  position_B: jax.Array  # Of that token; all before it are in the cache.
  key_B: jax.Array  # The sample's own key.
  cache: cache_lib.Cache


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def empty_slots(
    student: student_lib.Student, num_slots: int, cache_len: int, dtype: Any
) -> Slots:
  """Returns slots with nothing in them."""

  def cut(x: jax.Array) -> jax.Array:
    return jax.sharding.reshard(x, cache_lib.SLOTS)

  return Slots(
      cut(jnp.zeros(num_slots, jnp.int32)),
      cut(jnp.zeros(num_slots, jnp.int32)),
      cut(jax.random.split(jax.random.key(0), num_slots)),
      cache_lib.empty(student, num_slots, cache_len, dtype),
  )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def prefill(
    student: student_lib.Student,
    params: Any,
    slots: Slots,
    tokens_BL: jax.Array,
    lengths_B: jax.Array,
    slot_B: jax.Array,
    seed: jax.Array,
    problem_B: jax.Array,
    index_B: jax.Array,
) -> Slots:
  """Puts new samples into slots.

  Decoding starts by feeding the last prompt token again, so no logits are
  computed here, and the token's keys and values are written twice, alike.

  Args:
    student: Static.
    params: Of the student.
    slots: Donated.
    tokens_BL: Prompts, padded at the end to a bucket's length.
    lengths_B: Their lengths.
    slot_B: Which slot each goes to; a number past the last slot is dropped, so
      that a short group has the shape of a full one.
    seed: Of all samples.
    problem_B: A number for each sample's problem, uint32; and
    index_B: which sample of the problem it is, uint32. A sample's key depends
      on these three alone.
  """
  model = params_lib.bind(student, params)
  length = tokens_BL.shape[1]
  positions_BL = jnp.broadcast_to(jnp.arange(length), tokens_BL.shape)
  segments_BL = (positions_BL < lengths_B[:, None]).astype(jnp.int32)
  _, (k_YBLKH, v_YBLKH) = model(
      *(
          jax.sharding.reshard(x, cache_lib.ROWS)
          for x in (tokens_BL, positions_BL, segments_BL)
      ),
      dtype=slots.cache.k_BMKH[0].dtype,
      return_kv=True,
  )
  last_B = jnp.take_along_axis(tokens_BL, lengths_B[:, None] - 1, axis=1)[:, 0]
  fold = jax.vmap(jax.random.fold_in)
  key_B = jnp.broadcast_to(jax.random.key(seed), problem_B.shape)
  key_B = fold(fold(key_B, problem_B), index_B)
  return Slots(
      cache_lib.put_rows(slots.token_B, slot_B, last_B),
      cache_lib.put_rows(slots.position_B, slot_B, lengths_B - 1),
      cache_lib.put_rows(slots.key_B, slot_B, key_B),
      cache_lib.put_prompts(slots.cache, slot_B, k_YBLKH, v_YBLKH),
  )


@functools.partial(jax.jit, static_argnums=(0, 3, 4), donate_argnums=2)
def decode_chunk(
    student: student_lib.Student,
    params: Any,
    slots: Slots,
    method: methods.Method,
    chunk_len: int,
) -> tuple[Slots, jax.Array, jax.Array]:
  """Takes `chunk_len` steps in every slot.

  Returns:
    The slots after (the cache in place), and of each step and slot the token
    drawn, [chunk_len, slots], and its log-probability, raw and tempered,
    [chunk_len, 2, slots]; on every device: each process of a run has to know
    what all slots drew.
  """
  model = params_lib.bind(student, params)
  blocks = cache_lib.unstack(model)
  # By hand: a loop that ends when the slowest slot ends must not be shared.
  draw = jax.shard_map(
      functools.partial(methods.draw, method),
      in_specs=(cache_lib.ROWS, cache_lib.SLOTS),
      out_specs=cache_lib.SLOTS,
      check_vma=False,
  )
  cache_len = slots.cache.k_BMKH[0].shape[1]

  def step(slots: Slots, _) -> tuple[Slots, tuple[jax.Array, jax.Array]]:
    # A slot that is done but not yet emptied may run past the end: harmless.
    position_B = jnp.minimum(slots.position_B, cache_len - 1)
    cache, logits_BV = cache_lib.step(
        model, blocks, slots.cache, slots.token_B, position_B
    )
    # The key depends on the sample and the position, and on nothing else.
    keys_B = jax.vmap(jax.random.fold_in)(slots.key_B, position_B)
    token_B = draw(logits_BV, keys_B)
    both = jnp.stack(methods.log_probs(method, logits_BV, token_B))
    slots = Slots(token_B, slots.position_B + 1, slots.key_B, cache)
    return slots, (token_B, both)

  slots, (tokens, log_probs) = jax.lax.scan(step, slots, length=chunk_len)
  tokens, log_probs = (
      jax.sharding.reshard(x, jax.P()) for x in (tokens, log_probs)
  )
  return slots, tokens, log_probs
