"""How long the slots of a sampler are, and how many fit the memory.

A stage is a number of slots of one length. Stages follow one another and use
the same memory; so the shorter the slots, the more of them.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from valley_jax import errors
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning

# Of what a device has left beside the student, for slots; the rest is for
# prefill, logits and what the compiler keeps.
_SHARE = 0.85


@dataclasses.dataclass(frozen=True)
class Stage:
  """Slots of one length."""

  length: int  # Positions of a slot.
  num_slots: int


def _round(length: int) -> int:
  """Returns a length that kernels can cut into blocks."""
  multiple = 64 if length < 1024 else 512
  return -(-length // multiple) * multiple


def slot_bytes(student: student_lib.Student, length: int, dtype: Any) -> int:
  """Returns the bytes of a slot, on one device where `tp` cuts the heads."""
  tp = jax.sharding.get_mesh().shape['tp']
  heads = student.num_kv_heads // tp
  per_token = 2 * student.num_layers * heads * student.head_dim
  return per_token * jnp.dtype(dtype).itemsize * length


def free_bytes() -> int | None:
  """Returns what each device has left; None where it does not say (CPU)."""
  devices = jax.sharding.get_mesh().local_devices
  stats = [device.memory_stats() for device in devices]
  if not all(s and 'bytes_limit' in s for s in stats):
    return None
  return min(s['bytes_limit'] - s['bytes_in_use'] for s in stats)


def plan(
    student: student_lib.Student,
    *,
    lengths: Sequence[int],
    longest_prompt: int,
    max_new_tokens: int,
    num_slots: int,
    dtype: Any,
    free: float | None = None,
) -> tuple[Stage, ...]:
  """Returns the stages of an engine on the current mesh.

  Args:
    student: Sizes.
    lengths: Of slots, beside the last stage's, into which the longest sample
      fits; those that are not shorter are left out.
    longest_prompt: Tokens.
    max_new_tokens: Of a sample.
    num_slots: Of the first stage; the others have as many as fit the same
      memory. 0: as many as fit beside the student.
    dtype: Of the cache.
    free: Bytes that each device has left; needed where `num_slots` is 0.

  Raises:
    ValueError: nobody says how many slots, or not one fits.
  """
  last = _round(longest_prompt + max_new_tokens)
  chosen = [*sorted(_round(n) for n in set(lengths) if _round(n) < last), last]
  devices = partitioning.count_batch_parts()
  if num_slots:
    room = num_slots * slot_bytes(student, chosen[0], dtype) // devices
  elif free is None:
    raise errors.UserError(
        'sample.num_slots=0 means as many as fit the memory, and these devices'
        ' do not say how much they have; set it.'
    )
  else:
    room = int(_SHARE * free)
  stages = []
  for length in chosen:
    size = slot_bytes(student, length, dtype)
    fitting = room // size
    if not num_slots and not fitting:
      raise errors.UserError(
          f'A slot of {length:,} positions takes {size / 1e9:.1f} GB, and each'
          f' device has {room / 1e9:.1f} GB left for slots; lower'
          ' sample.max_new_tokens, or raise mesh.tp.'
      )
    stages.append(Stage(length, max(1, fitting) * devices))
  if num_slots:
    stages[0] = Stage(chosen[0], num_slots)
  return tuple(stages)


def describe(student: student_lib.Student, stages: Sequence[Stage], dtype: Any) -> str:
  """Returns a line: `64 slots of 8,192 (3.8 GB) → 32 of 16,384 (3.8 GB)`."""
  devices = partitioning.count_batch_parts()
  sizes = [s.num_slots * slot_bytes(student, s.length, dtype) / devices for s in stages]
  return ' → '.join(
      f'{s.num_slots:,} slots of {s.length:,} positions' f' ({size / 1e9:.2f} GB a device)'
      for s, size in zip(stages, sizes, strict=True)
  )
