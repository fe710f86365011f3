"""How long the slots of an engine are, and how many fit the memory.

A stage is a number of slots of one length. Stages follow one another and use the same memory, so
shorter slots are more slots.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from valley_jax import errors
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning

# Share of a device's free memory that slots take; the rest is for prefill, logits and what the
# compiler keeps.
_SLOT_MEMORY_SHARE = 0.85


@dataclasses.dataclass(frozen=True)
class Stage:
  """Slots of one length."""

  length: int  # Positions of a slot.
  num_slots: int


def _round_slot_len(length: int) -> int:
  """Returns the next length that kernels can split into blocks."""
  multiple = 64 if length < 1024 else 512
  return -(-length // multiple) * multiple


def compute_slot_bytes(student: student_lib.Student, length: int, dtype: Any) -> int:
  """Returns the bytes of a slot on one device, which holds 1 / tp of the heads."""
  tp = jax.sharding.get_mesh().shape['tp']
  heads = student.num_kv_heads // tp
  per_token = 2 * student.num_layers * heads * student.head_dim
  return per_token * jnp.dtype(dtype).itemsize * length


def measure_free_bytes() -> int | None:
  """Returns the bytes that each device has free; None where devices do not report it (CPU)."""
  devices = jax.sharding.get_mesh().local_devices
  stats = [device.memory_stats() for device in devices]
  if not all(s and 'bytes_limit' in s for s in stats):
    return None
  return min(s['bytes_limit'] - s['bytes_in_use'] for s in stats)


def plan_stages(
    student: student_lib.Student,
    *,
    lengths: Sequence[int],
    longest_prompt: int,
    max_new_tokens: int,
    num_slots: int,
    dtype: Any,
    free_bytes: float | None = None,
) -> tuple[Stage, ...]:
  """Returns the stages of an engine on the current mesh.

  Args:
    student: Sizes of the student.
    lengths: Positions of the slots of all stages but the last, into whose slots the longest sample
      fits; lengths that are not shorter than those are left out.
    longest_prompt: Tokens of the longest prompt.
    max_new_tokens: Tokens of the longest sample, without its prompt.
    num_slots: Slots of the first stage; the others have as many as fit the same memory. 0: as many
      as fit beside the student.
    dtype: Type of the cache.
    free_bytes: Bytes that each device has free; needed where `num_slots` is 0.

  Raises:
    UserError: the number of slots is neither given nor computable, or not one slot fits.
  """
  last = _round_slot_len(longest_prompt + max_new_tokens)
  slot_lens = [*sorted(_round_slot_len(n) for n in set(lengths) if _round_slot_len(n) < last), last]
  devices = partitioning.count_batch_parts()
  if num_slots:
    room = num_slots * compute_slot_bytes(student, slot_lens[0], dtype) // devices
  elif free_bytes is None:
    raise errors.UserError(
        'sample.num_slots=0 means as many as fit the memory, but these devices do not report how'
        ' much they have; set it.'
    )
  else:
    room = int(_SLOT_MEMORY_SHARE * free_bytes)
  stages = []
  for length in slot_lens:
    size = compute_slot_bytes(student, length, dtype)
    fitting = room // size
    if not num_slots and not fitting:
      raise errors.UserError(
          f'A slot of {length:,} positions takes {size / 1e9:.1f} GB, and each device has'
          f' {room / 1e9:.1f} GB left for slots; lower sample.max_new_tokens, or raise sample.tp.'
      )
    stages.append(Stage(length, max(1, fitting) * devices))
  if num_slots:
    stages[0] = Stage(slot_lens[0], num_slots)
  return tuple(stages)


def describe_stages(student: student_lib.Student, stages: Sequence[Stage], dtype: Any) -> str:
  """Returns a line: `64 slots of 8,192 (3.8 GB) → 32 of 16,384 (3.8 GB)`."""
  devices = partitioning.count_batch_parts()
  sizes = [s.num_slots * compute_slot_bytes(student, s.length, dtype) / devices for s in stages]
  return ' → '.join(
      f'{s.num_slots:,} slots of {s.length:,} positions ({size / 1e9:.2f} GB a device)'
      for s, size in zip(stages, sizes, strict=True)
  )
