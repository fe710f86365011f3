"""Slots that step together, and which of them are taken."""

from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning
from valley_jax.sampling import decode
from valley_jax.sampling import methods
from valley_jax.sampling import request as request_lib

_SMALLEST_BUCKET = 64

# Slots of a lane on a CPU. A product's bits depend on its shape there; with
# lanes of one size a sample does not depend on how many of them there are. More
# rows would cost as much more: a product of 16 is as fast as a core computes.
_CPU_SLOTS = 16


def width(num_slots: int) -> int:
  """Returns the slots of a lane on the current mesh: all, but for CPUs.

  Args:
    num_slots: Of a stage.
  """
  devices = partitioning.count_batch_parts()
  platform = jax.sharding.get_mesh().devices.flat[0].platform
  if platform == 'cpu':
    return _CPU_SLOTS * devices
  return -(-num_slots // devices) * devices


def bucket(length: int, cache_len: int) -> int:
  """Returns the padded length of a prompt: two to an octave, so few programs.

  64, 96, 128, 192, 256, 384 and so on, but no more than a slot has.
  """
  octave = max(_SMALLEST_BUCKET, 1 << (length - 1).bit_length())
  between = octave * 3 // 4
  is_between = between >= max(length, _SMALLEST_BUCKET)
  return min(cache_len, between if is_between else octave)


def _number(problem_id: str) -> int:
  """Returns a problem's number among 2^32."""
  digest = hashlib.blake2b(problem_id.encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'little')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What all lanes of an engine share.

  Attributes:
    student: Sizes.
    params: Unstacked, or as they are trained; laid out over the current mesh.
    method: How tokens are drawn.
    seed: Of all samples.
    chunk_len: Steps between two looks of the host.
    prefill_tokens: Of one call of prefill, padding included, at least.
    dtype: Of computation and cache.
  """

  student: student_lib.Student
  params: Any
  method: methods.Method
  seed: int
  chunk_len: int
  prefill_tokens: int
  dtype: Any

  def prefill_rows(self, bucket: int) -> int:
    """Returns how many prompts of this length one call takes."""
    devices = partitioning.count_batch_parts()
    return -(-max(1, self.prefill_tokens // bucket) // devices) * devices


class Lane:
  """A fixed number of slots of one length."""

  def __init__(self, settings: Settings, cache_len: int, num_slots: int, num_used: int):
    """Allocates the cache.

    Args:
      settings: Of the engine.
      cache_len: Positions of a slot.
      num_slots: That step together.
      num_used: Of them, so many are ever filled.
    """
    self._settings, self._cache_len = settings, cache_len
    self._slots = decode.empty_slots(settings.student, num_slots, cache_len, settings.dtype)
    self._num_slots = num_slots
    self._free = list(range(num_used))[::-1]
    self._live: dict[int, request_lib.Sample] = {}

  @property
  def num_free(self) -> int:
    """Slots that can be filled."""
    return len(self._free)

  @property
  def num_live(self) -> int:
    """Slots that hold a sample."""
    return len(self._live)

  def live(self) -> list[tuple[int, request_lib.Sample]]:
    """Returns the samples here, and their slots."""
    return list(self._live.items())

  def empty(self, slot: int) -> None:
    """Takes a sample out."""
    del self._live[slot]
    self._free.append(slot)

  def fill(self, samples: Sequence[request_lib.Sample]) -> None:
    """Puts samples into free slots; those with the same tokens share a row."""
    groups: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for sample in samples:
      slot = self._free.pop()
      self._live[slot] = sample
      tokens = (*sample.request.prompt, *sample.tokens)
      group = groups.setdefault(bucket(len(tokens), self._cache_len), {})
      group.setdefault(tokens, []).append(slot)
    for length, group in groups.items():
      prompts, rows = list(group.items()), self._settings.prefill_rows(length)
      for first in range(0, len(prompts), rows):
        self._prefill(length, rows, prompts[first : first + rows])

  def _prefill(
      self, length: int, rows: int, prompts: Sequence[tuple[tuple[int, ...], Sequence[int]]]
  ) -> None:
    """Puts samples, by tokens and slots, into one call."""
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
        problem_T[t] = _number(request.problem_id)
        index_T[t] = request.sample_index
        t += 1
    self._slots = decode.prefill(
        self._settings.student,
        self._settings.params,
        self._slots,
        tokens_BL,
        length_B,
        decode.Places(slot_T, row_T, np.int32(t)),
        np.uint32(self._settings.seed % 2**32),
        decode.Names(problem_T, index_T),
    )

  def step(self) -> tuple[jax.Array, jax.Array]:
    """Starts a chunk; returns its tokens and log-probabilities to wait for."""
    s = self._settings
    is_live_B = np.array([slot in self._live for slot in range(self._num_slots)])
    self._slots, tokens, log_probs = decode.decode_chunk(
        s.student, s.params, self._slots, is_live_B, s.method, s.chunk_len
    )
    return tokens, log_probs
