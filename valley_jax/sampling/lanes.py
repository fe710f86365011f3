"""Lanes: slots that step together, and which of them hold a sample; how many slots fit the memory.

A stage is a number of slots of one length. Stages follow one another and use the same memory, so
shorter slots are more slots.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from valley_jax import errors
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning
from valley_jax.sampling import decode
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib

_SMALLEST_BUCKET = 64  # Tokens.

# Slots of a lane on a CPU. There a product's bits depend on its shape; with lanes of one size a
# sample does not depend on how many of them there are. More rows would cost as much more: a product
# of 16 rows is as fast as a core computes.
_CPU_SLOTS = 16


def compute_lane_width(num_slots: int) -> int:
  """Returns the slots of a lane on the current mesh: all of a stage, except on CPUs.

  Args:
    num_slots: Slots of the stage.
  """
  devices = partitioning.count_batch_parts()
  platform = jax.sharding.get_mesh().devices.flat[0].platform
  if platform == 'cpu':
    return _CPU_SLOTS * devices
  return -(-num_slots // devices) * devices


def round_up_to_bucket(length: int, cache_len: int) -> int:
  """Returns the padded length of a prompt: 64, 96, 128, 192, 256, 384 and so on.

  Two lengths an octave keep the number of compiled programs small. A slot's length is the most.
  """
  octave = max(_SMALLEST_BUCKET, 1 << (length - 1).bit_length())
  between = octave * 3 // 4
  is_between = between >= max(length, _SMALLEST_BUCKET)
  return min(cache_len, between if is_between else octave)


def _hash_problem_id(problem_id: str) -> int:
  """Returns 32 bits, from which the keys of a problem's samples are made."""
  digest = hashlib.blake2b(problem_id.encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'little')


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeSettings:
  """What all lanes of an engine share.

  Attributes:
    student: Sizes of the student.
    params: Its parameters, unstacked or as they are trained, on the current mesh.
    method: Method that draws the next token.
    seed: Seed of all samples.
    chunk_len: Decoding steps between two looks of the host.
    prefill_tokens: Least number of tokens of one prefill call, padding included.
    dtype: Type of computation and cache.
  """

  student: student_lib.Student
  params: Any
  method: methods.Method
  seed: int
  chunk_len: int
  prefill_tokens: int
  dtype: Any

  def count_prefill_rows(self, bucket: int) -> int:
    """Returns how many prompts of this padded length one prefill call takes."""
    devices = partitioning.count_batch_parts()
    return -(-max(1, self.prefill_tokens // bucket) // devices) * devices


class Lane:
  """A fixed number of slots of one length."""

  def __init__(self, settings: DecodeSettings, cache_len: int, num_slots: int, num_used: int):
    """Allocates the cache.

    Args:
      settings: Settings of the engine.
      cache_len: Positions of a slot.
      num_slots: Slots that step together.
      num_used: Slots that are ever filled; fewer where samples are few.
    """
    self._settings, self._cache_len = settings, cache_len
    self._slots = decode.allocate_slots(settings.student, num_slots, cache_len, settings.dtype)
    self._num_slots = num_slots
    self._free = list(range(num_used))[::-1]
    self._live: dict[int, samples_lib.Sample] = {}

  @property
  def num_free(self) -> int:
    return len(self._free)

  @property
  def num_live(self) -> int:
    return len(self._live)

  def list_live(self) -> list[tuple[int, samples_lib.Sample]]:
    """Returns the slots that hold a sample, each with its sample."""
    return list(self._live.items())

  def release_slot(self, slot: int) -> None:
    """Takes the sample out of a slot."""
    del self._live[slot]
    self._free.append(slot)

  def fill_slots(self, samples: Sequence[samples_lib.Sample]) -> None:
    """Puts samples into free slots; those with the same tokens share a prefill row."""
    groups: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for sample in samples:
      slot = self._free.pop()
      self._live[slot] = sample
      tokens = (*sample.request.prompt, *sample.tokens)
      group = groups.setdefault(round_up_to_bucket(len(tokens), self._cache_len), {})
      group.setdefault(tokens, []).append(slot)
    for length, group in groups.items():
      prompts, rows = list(group.items()), self._settings.count_prefill_rows(length)
      for first in range(0, len(prompts), rows):
        self._prefill(length, rows, prompts[first : first + rows])

  def _prefill(
      self, length: int, rows: int, prompts: Sequence[tuple[tuple[int, ...], Sequence[int]]]
  ) -> None:
    """Prefills prompts, given as pairs of tokens and slots, in one call."""
    tokens_BL = np.zeros((rows, length), np.int32)
    length_B = np.ones(rows, np.int32)
    slot_T, row_T = np.zeros((2, self._num_slots), np.int32)
    problem_T, index_T = np.zeros((2, self._num_slots), np.uint32)
    t = 0
    for row, (tokens, slots) in enumerate(prompts):
      tokens_BL[row, : len(tokens)] = tokens
      length_B[row] = len(tokens)
      for slot in slots:
        request = self._live[slot].request
        slot_T[t], row_T[t] = slot, row
        problem_T[t] = _hash_problem_id(request.problem_id)
        index_T[t] = request.sample_index
        t += 1
    self._slots = decode.prefill_slots(
        self._settings.student,
        self._settings.params,
        self._slots,
        tokens_BL,
        length_B,
        decode.PrefillTargets(slot_T, row_T, np.int32(t)),
        np.uint32(self._settings.seed % 2**32),
        decode.SampleNumbers(problem_T, index_T),
    )

  def start_chunk(self) -> tuple[jax.Array, jax.Array]:
    """Starts a chunk of steps; returns its tokens and log-probabilities, to wait for."""
    s = self._settings
    is_live_B = np.array([slot in self._live for slot in range(self._num_slots)])
    self._slots, tokens, log_probs = decode.decode_chunk(
        s.student, s.params, self._slots, is_live_B, s.method, s.chunk_len
    )
    return tokens, log_probs


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
