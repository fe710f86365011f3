"""The host's side of sampling: requests into slots, finished samples out.

Slots come in stages. Most samples end early, and a slot as long as the longest
would keep memory from others; so all begin in many short slots, and those that
outgrow them go on, once all are there, in fewer and longer ones
(`benchmarks/stages.py` says of what lengths).
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses

import jax
import numpy as np

from valley_jax import errors
from valley_jax.sampling import lanes as lanes_lib
from valley_jax.sampling import request as request_lib
from valley_jax.sampling import stages as stages_lib
from valley_jax.sampling import stops as stops_lib


@dataclasses.dataclass
class State:
  """What an engine is doing, for those who watch it."""

  stage: int = 0  # Slots' length.
  num_live: int = 0  # Slots that hold a sample.
  num_tokens: int = 0  # Drawn since it began, and kept.


class Engine:
  """Stages of slots, refilled as samples finish.

  A sample is a function of (parameters, prompt, problem id, sample index,
  seed, method, stages' lengths): it does not depend on what else is sampled,
  on the order, the slots, or how many tokens come at a time. (The same bits
  need the same kind of machine, and on accelerators as many slots; what is
  drawn is the same distribution always.)
  """

  def __init__(
      self,
      settings: lanes_lib.Settings,
      stages: Sequence[stages_lib.Stage],
      *,
      end_token: int,
      max_new_tokens: int,
      stops: stops_lib.Stops | None = None,
  ):
    """Allocates nothing yet.

    Args:
      settings: Of student, method and computation.
      stages: From short slots to those that the longest sample fits into.
      end_token: Ends a sample; not part of it.
      max_new_tokens: A sample this long is truncated: finish reason `length`.
      stops: What else ends a sample.
    """
    self._settings, self._stages = settings, tuple(stages)
    self._end_token, self._max_new_tokens = end_token, max_new_tokens
    self._stops = stops or stops_lib.Stops()
    self.state = State()
    self._lanes: list[lanes_lib.Lane] = []

  def run(
      self,
      requests: Sequence[request_lib.Request],
      begun: Sequence[request_lib.Sample] = (),
      watch: Callable[[], None] = lambda: None,
  ) -> Iterator[request_lib.Sample]:
    """Yields samples as they finish.

    And, with finish reason None, those that have outgrown a stage and will go
    on in the next: whoever keeps them can hand them in again.

    Args:
      requests: To be drawn from the beginning.
      begun: Samples that an earlier run yielded unfinished.
      watch: Called after every chunk; `state` and `live` tell what there is.

    Raises:
      ValueError: the longest will not fit into the last stage.
    """
    waiting = [*begun, *map(request_lib.Sample, requests)]
    for sample in waiting:
      self._check_fits(sample)
      if sample.tokens:
        sample.opened = self._stops.opened(sample.tokens, 0)
    for stage in self._stages:
      here = [s for s in waiting if s.length < stage.length]
      waiting = [s for s in waiting if s.length >= stage.length]
      for sample in self._run(stage, here, watch):
        if sample.finish_reason is None:
          waiting.append(sample)
          sample = dataclasses.replace(sample, tokens=[*sample.tokens])
        yield sample

  def _check_fits(self, sample: request_lib.Sample) -> None:
    last, request = self._stages[-1].length, sample.request
    limit = self._limit(request)
    if len(request.prompt) + limit > last:
      raise errors.UserError(
          f'Problem {request.problem_id} has a prompt of'
          f' {len(request.prompt):,} tokens, with max_new_tokens ='
          f' {limit:,} more than the {last:,} of the last stage.'
      )

  def _limit(self, request: request_lib.Request) -> int:
    """Returns at how many tokens a sample is truncated."""
    own = request.max_new_tokens
    return self._max_new_tokens if own is None else own

  def programs(self, requests: Sequence[request_lib.Request]) -> dict[str, int]:
    """Returns how many programs will be compiled at most, by name.

    It goes by the lengths of prompts and stages, not by how many samples there
    are; at most, since samples may all end before the last stage.
    """
    shapes: set[tuple[int, int, int]] = set()
    before = 0
    for stage in self._stages:
      starts = {before} if before else set()
      starts |= {
          len(request.prompt)
          for request in requests
          if before <= len(request.prompt) < stage.length
      }
      width = lanes_lib.width(stage.num_slots)
      buckets = {lanes_lib.bucket(n, stage.length) for n in starts}
      shapes |= {(stage.length, width, bucket) for bucket in buckets}
      before = stage.length
    stages = {(length, width) for length, width, _ in shapes}
    return {
        'empty_slots': len(stages),
        '_embed': len({bucket for _, _, bucket in shapes}),
        '_prefill_layer': len(shapes),
        '_put_heads': len({(width, bucket) for _, width, bucket in shapes}),
        'decode_chunk': len(stages),
    }

  def live(self) -> list[request_lib.Sample]:
    """Returns the samples in its slots, as far as they have come."""
    return [sample for lane in self._lanes for _, sample in lane.live()]

  def describe(self, requests: Sequence[request_lib.Request]) -> str:
    """Returns its stages and the number of its programs, in a line."""
    settings = self._settings
    stages = stages_lib.describe(settings.student, self._stages, settings.dtype)
    return f'{stages}; {sum(self.programs(requests).values())} programs.'

  def _run(
      self,
      stage: stages_lib.Stage,
      samples: Sequence[request_lib.Sample],
      watch: Callable[[], None],
  ) -> Iterator[request_lib.Sample]:
    """Runs samples in one stage until each has ended or outgrown it."""
    if not samples:
      return
    self.state.stage = stage.length
    waiting = collections.deque(samples)
    lanes = self._lanes = self._allocate(stage, len(samples))
    while waiting or any(lane.num_live for lane in lanes):
      for lane in lanes:
        n = min(lane.num_free, len(waiting))
        lane.fill([waiting.popleft() for _ in range(n)])
      self.state.num_live = sum(lane.num_live for lane in lanes)
      # All begin before the first is waited for.
      chunks = [(lane, lane.step()) for lane in lanes if lane.num_live]
      for lane, arrays in chunks:
        tokens, log_probs = jax.device_get(arrays)
        for slot, sample in lane.live():
          drawn = tokens[:, slot], log_probs[:, :, slot]
          self._take(sample, *drawn, stage.length)
          if sample.finish_reason or sample.length == stage.length:
            lane.empty(slot)
            yield sample
      watch()
    self._lanes = []  # Its memory is the next stage's.
    self.state.num_live = 0

  def _allocate(self, stage: stages_lib.Stage, num_samples: int) -> list[lanes_lib.Lane]:
    """Allocates as many slots as there are, or are samples."""
    width = lanes_lib.width(stage.num_slots)
    num_slots = min(stage.num_slots, num_samples)
    return [
        lanes_lib.Lane(self._settings, stage.length, width, min(width, num_slots - first))
        for first in range(0, num_slots, width)
    ]

  def _take(
      self, sample: request_lib.Sample, tokens: np.ndarray, log_probs: np.ndarray, stage_len: int
  ) -> None:
    """Adds a chunk's tokens to a sample, up to its end or the stage's."""
    before = len(sample.tokens)
    counted = sample.take(
        tokens[: stage_len - sample.length].tolist(),
        limit=self._limit(sample.request),
        end_tokens=(self._end_token,),
        stops=self._stops,
    )
    for raw, tempered in log_probs[:counted].tolist():
      sample.log_prob += raw
      sample.log_prob_tempered += tempered
    self.state.num_tokens += len(sample.tokens) - before
