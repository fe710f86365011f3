"""The host's side of sampling: requests into slots, finished samples out."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from valley_jax import records
from valley_jax.models import cache as cache_lib
from valley_jax.models import student as student_lib
from valley_jax.sampling import decode
from valley_jax.sampling import methods
from valley_jax.sampling import stops as stops_lib

_SMALLEST_BUCKET = 64


@dataclasses.dataclass(frozen=True)
class Request:
  """One sample to be drawn."""

  problem_id: str
  sample_index: int
  prompt: tuple[int, ...]  # Token ids.


@dataclasses.dataclass
class Sample:
  """A sample on its way, and when it is done."""

  request: Request
  tokens: list[int] = dataclasses.field(default_factory=list)
  log_prob: float = 0.0
  log_prob_tempered: float = 0.0
  finish_reason: records.FinishReason | None = None
  opened: int | None = None  # Behind so many tokens stop strings count.


def _bucket(length: int) -> int:
  """Returns the padded length of a prompt: a power of 2, so few programs."""
  return max(_SMALLEST_BUCKET, 1 << (length - 1).bit_length())


def _number(problem_id: str) -> int:
  """Returns a problem's number among 2^32."""
  digest = hashlib.blake2b(problem_id.encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'little')


class Engine:
  """A fixed number of slots, refilled as samples finish.

  A sample is a function of (parameters, prompt, problem id, sample index,
  seed, method): it does not depend on what else is being sampled, nor on the
  order. (The same bits need the same `num_slots`, `cache_len` and machine.)
  """

  def __init__(
      self,
      student: student_lib.Student,
      params: Any,
      *,
      method: methods.Method,
      seed: int,
      end_token: int,
      max_new_tokens: int,
      cache_len: int,
      num_slots: int,
      chunk_len: int,
      prefill_rows: int,
      dtype: Any,
      stops: stops_lib.Stops | None = None,
  ):
    """Allocates the cache.

    Args:
      student: Sizes.
      params: Parameters, laid out over the current mesh.
      method: How tokens are drawn.
      seed: Of all samples.
      end_token: Ends a sample; not part of it.
      max_new_tokens: A sample this long is truncated: finish reason `length`.
      cache_len: Positions of a slot; at least the longest prompt's bucket, and
        the longest prompt + `max_new_tokens`.
      num_slots: Samples on their way at a time.
      chunk_len: Steps between two looks of the host.
      prefill_rows: Samples put into slots by one call.
      dtype: Of computation and cache.
      stops: What else ends a sample.

    Raises:
      ValueError: the devices cannot share the slots, or a prefill, evenly.
    """
    devices = cache_lib.num_parts()
    for name, n in (('num_slots', num_slots), ('prefill_rows', prefill_rows)):
      if n % devices:
        raise ValueError(
            f'sample.{name}={n} is not a multiple of data x fsdp = {devices}'
            ' devices; change it, or config.mesh.'
        )
    self._student, self._params = student, params
    self._method, self._seed = method, seed
    self._end_token, self._max_new_tokens = end_token, max_new_tokens
    self._chunk_len, self._prefill_rows = chunk_len, prefill_rows
    self._slots = decode.empty_slots(student, num_slots, cache_len, dtype)
    self._stops = stops or stops_lib.Stops()
    self._live: list[Sample | None] = [None] * num_slots

  def _start(self, group: list[tuple[int, Request]]) -> None:
    """Prefills requests of one bucket into their slots."""
    bucket = _bucket(max(len(r.prompt) for _, r in group))
    rows = self._prefill_rows
    tokens_BL = np.zeros((rows, bucket), np.int32)
    lengths_B = np.ones(rows, np.int32)
    slot_B = np.full(rows, len(self._live), np.int32)  # Past the end: dropped.
    problem_B, index_B = np.zeros((2, rows), np.uint32)
    for row, (slot, request) in enumerate(group):
      n = len(request.prompt)
      tokens_BL[row, :n] = request.prompt
      lengths_B[row], slot_B[row] = n, slot
      problem_B[row] = _number(request.problem_id)
      index_B[row] = request.sample_index
    self._slots = decode.prefill(
        self._student,
        self._params,
        self._slots,
        tokens_BL,
        lengths_B,
        slot_B,
        np.uint32(self._seed % 2**32),
        problem_B,
        index_B,
    )

  def _refill(self, waiting: list[Request]) -> None:
    """Fills free slots, in groups of one bucket, from the end of `waiting`."""
    groups: dict[int, list[tuple[int, Request]]] = {}
    for slot, sample in enumerate(self._live):
      if sample is None and waiting:
        request = waiting.pop()
        bucket = groups.setdefault(_bucket(len(request.prompt)), [])
        bucket.append((slot, request))
        self._live[slot] = Sample(request)
    for group in groups.values():
      for at in range(0, len(group), self._prefill_rows):
        self._start(group[at : at + self._prefill_rows])

  def _take(self, sample: Sample, tokens: np.ndarray, log_probs: np.ndarray):
    """Adds a chunk's tokens to a sample, up to its end."""
    before = len(sample.tokens)
    log_probs = log_probs.tolist()
    room = self._max_new_tokens - before
    new = tokens[:room].tolist()
    reason = records.FinishReason.LENGTH if len(new) == room else None
    counted = len(new)
    if self._end_token in new:
      new = new[: new.index(self._end_token)]
      reason, counted = records.FinishReason.EOS, len(new) + 1
    sample.tokens += new
    if stop := self._stop(sample, before):
      end, reason = stop
      del sample.tokens[end:]
      counted = end - before
    for raw, tempered in log_probs[:counted]:
      sample.log_prob += raw
      sample.log_prob_tempered += tempered
    sample.finish_reason = reason

  def _stop(
      self, sample: Sample, before: int
  ) -> tuple[int, records.FinishReason] | None:
    """Returns the first stop behind so many tokens: where it is, and which."""
    stops, tokens = self._stops, sample.tokens
    if sample.opened is None:
      sample.opened = stops.opened(tokens, before)
    found = []
    if sample.opened is not None:
      end = stops.string_end(tokens, before, sample.opened)
      found += [(end, records.FinishReason.STOP)] if end else []
    if end := stops.loop_end(tokens, before):
      found.append((end, records.FinishReason.LOOP))
    return min(found, key=lambda stop: stop[0], default=None)

  def run(self, requests: Sequence[Request]) -> Iterator[Sample]:
    """Yields samples as they finish."""
    waiting = list(requests)[::-1]
    self._refill(waiting)
    while any(self._live):
      self._slots, tokens, log_probs = decode.decode_chunk(
          self._student,
          self._params,
          self._slots,
          self._method,
          self._chunk_len,
      )
      tokens, log_probs = jax.device_get((tokens, log_probs))
      for slot, sample in enumerate(self._live):
        if sample is None:
          continue
        self._take(sample, tokens[:, slot], log_probs[:, :, slot])
        if sample.finish_reason is not None:
          self._live[slot] = None
          yield sample
      self._refill(waiting)


def cache_len(requests: Sequence[Request], max_new_tokens: int) -> int:
  """Returns the positions that every one of the requests fits into."""
  return positions(max(len(r.prompt) for r in requests), max_new_tokens)


def positions(longest: int, max_new_tokens: int) -> int:
  """Returns the positions of a slot for prompts of up to `longest` tokens."""
  needed = max(_bucket(longest), longest + max_new_tokens)
  return -(-needed // 64) * 64
