"""Lanes: slots that step together, and which of them hold a sample."""

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
    method: How the next token is drawn.
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
