"""The host's side of sampling: requests go into slots, finished samples come out.

Slots come in stages. Most samples end early, and a slot as long as the longest sample would keep
memory from others; so all begin in many short slots, and those that outgrow them go on, once all
have left, in fewer and longer ones (`benchmarks/stages.py` measures which lengths are best).
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from valley_jax import errors
from valley_jax.models import cache
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning
from valley_jax.sampling import lanes as lanes_lib
from valley_jax.sampling import samples as samples_lib
from valley_jax.sampling import settings as settings_lib


@dataclasses.dataclass
class EngineState:
  """What an engine is doing."""

  stage_len: int = 0  # Positions of a slot of the current stage.
  num_live: int = 0  # Slots that hold a sample.
  num_tokens: int = 0  # Tokens drawn and kept so far.


class Engine:
  """Stages of slots, refilled as samples finish.

  A sample is a function of (parameters, prompt, problem id, sample index, seed, method, stages'
  lengths): it does not depend on what else is sampled, on the order, the slots, or how many tokens
  come at a time. (The same bits need the same kind of machine, and on accelerators as many slots;
  the distribution is always the same.)
  """

  def __init__(
      self,
      settings: lanes_lib.DecodeSettings,
      stages: Sequence[lanes_lib.Stage],
      *,
      end_token: int,
      max_new_tokens: int,
      stops: samples_lib.Stops | None = None,
  ):
    """Allocates nothing yet.

    Args:
      settings: Student, method and computation.
      stages: Stages from short slots to those that the longest sample fits into.
      end_token: Token that ends a sample and is not part of it.
      max_new_tokens: Tokens at which a sample is truncated: finish reason `length`.
      stops: Strings and loops that end a sample.
    """
    self._settings, self._stages = settings, tuple(stages)
    self._end_token, self._max_new_tokens = end_token, max_new_tokens
    self._stops = stops or samples_lib.Stops()
    self.state = EngineState()
    self._lanes: list[lanes_lib.Lane] = []

  def draw_samples(
      self,
      requests: Sequence[samples_lib.Request],
      begun: Sequence[samples_lib.Sample] = (),
      on_chunk: Callable[[], None] = lambda: None,
  ) -> Iterator[samples_lib.Sample]:
    """Yields samples as they finish.

    Also yields, with finish reason None, the samples that have outgrown a stage and will go on in
    the next one: whoever stores them can resume from them.

    Args:
      requests: Samples to be drawn from the beginning.
      begun: Samples that an earlier run yielded unfinished.
      on_chunk: Called after every chunk, when `state` and `list_live` are up to date.

    Raises:
      UserError: the longest sample does not fit into the last stage.
    """
    waiting = [*begun, *map(samples_lib.Sample, requests)]
    for sample in waiting:
      self._check_fits(sample)
      if sample.tokens:
        sample.opening = self._stops.find_opening(sample.tokens, 0)
    for stage in self._stages:
      fitting = [s for s in waiting if s.length < stage.length]
      waiting = [s for s in waiting if s.length >= stage.length]
      for sample in self._run_stage(stage, fitting, on_chunk):
        if sample.finish_reason is None:
          waiting.append(sample)
          # A copy: the sample itself grows on in the next stage.
          sample = dataclasses.replace(sample, tokens=[*sample.tokens])
        yield sample

  def _check_fits(self, sample: samples_lib.Sample) -> None:
    last, request = self._stages[-1].length, sample.request
    limit = self._get_limit(request)
    if len(request.prompt) + limit > last:
      raise errors.UserError(
          f'Problem {request.problem_id} has a prompt of {len(request.prompt):,} tokens, with'
          f' max_new_tokens = {limit:,} more than the {last:,} of the last stage.'
      )

  def _get_limit(self, request: samples_lib.Request) -> int:
    limit = request.max_new_tokens
    return self._max_new_tokens if limit is None else limit

  def count_programs(self, requests: Sequence[samples_lib.Request]) -> dict[str, int]:
    """Returns how many programs will be compiled at most, by function name.

    The number depends on the lengths of prompts and stages, not on how many samples there are.
    It is a maximum, since all samples may end before the last stage.
    """
    shapes: set[tuple[int, int, int]] = set()
    length_before = 0
    for stage in self._stages:
      starts = {length_before} if length_before else set()
      starts |= {
          len(request.prompt)
          for request in requests
          if length_before <= len(request.prompt) < stage.length
      }
      width = lanes_lib.compute_lane_width(stage.num_slots)
      buckets = {lanes_lib.round_up_to_bucket(n, stage.length) for n in starts}
      shapes |= {(stage.length, width, bucket) for bucket in buckets}
      length_before = stage.length
    stages = {(length, width) for length, width, _ in shapes}
    return {
        'allocate_slots': len(stages),
        'embed_prompts': len({bucket for _, _, bucket in shapes}),
        'prefill_layer': len(shapes),
        'write_heads': len({(width, bucket) for _, width, bucket in shapes}),
        'decode_chunk': len(stages),
    }

  def list_live(self) -> list[samples_lib.Sample]:
    """Returns the samples in the slots, as far as they have come."""
    return [sample for lane in self._lanes for _, sample in lane.list_live()]

  def describe_stages(self, requests: Sequence[samples_lib.Request]) -> str:
    """Returns the stages and the number of programs in a line."""
    settings = self._settings
    stages = lanes_lib.describe_stages(settings.student, self._stages, settings.dtype)
    return f'{stages}; {sum(self.count_programs(requests).values())} programs.'

  def _run_stage(
      self,
      stage: lanes_lib.Stage,
      samples: Sequence[samples_lib.Sample],
      on_chunk: Callable[[], None],
  ) -> Iterator[samples_lib.Sample]:
    """Runs samples in one stage until each has ended or outgrown it."""
    if not samples:
      return
    self.state.stage_len = stage.length
    waiting = collections.deque(samples)
    lanes = self._lanes = self._allocate_lanes(stage, len(samples))
    while waiting or any(lane.num_live for lane in lanes):
      for lane in lanes:
        n = min(lane.num_free, len(waiting))
        lane.fill_slots([waiting.popleft() for _ in range(n)])
      self.state.num_live = sum(lane.num_live for lane in lanes)
      # All lanes start before the first is waited for.
      chunks = [(lane, lane.start_chunk()) for lane in lanes if lane.num_live]
      for lane, arrays in chunks:
        tokens, log_probs = jax.device_get(arrays)
        for slot, sample in lane.list_live():
          self._append_chunk(sample, tokens[:, slot], log_probs[:, :, slot], stage.length)
          if sample.finish_reason or sample.length == stage.length:
            lane.release_slot(slot)
            yield sample
      on_chunk()
    self._lanes = []  # Frees their memory for the next stage.
    self.state.num_live = 0

  def _allocate_lanes(self, stage: lanes_lib.Stage, num_samples: int) -> list[lanes_lib.Lane]:
    """Allocates the stage's slots, or only as many as there are samples."""
    width = lanes_lib.compute_lane_width(stage.num_slots)
    num_slots = min(stage.num_slots, num_samples)
    return [
        lanes_lib.Lane(self._settings, stage.length, width, min(width, num_slots - first))
        for first in range(0, num_slots, width)
    ]

  def _append_chunk(
      self, sample: samples_lib.Sample, tokens: np.ndarray, log_probs: np.ndarray, stage_len: int
  ) -> None:
    """Appends a chunk's tokens to a sample, up to its end or the stage's."""
    num_before = len(sample.tokens)
    num_counted = sample.append_tokens(
        tokens[: stage_len - sample.length].tolist(),
        limit=self._get_limit(sample.request),
        end_tokens=(self._end_token,),
        stops=self._stops,
    )
    # One by one, in order: the sum's bits must not depend on how many tokens come at a time.
    for raw, tempered in log_probs[:num_counted].tolist():
      sample.log_prob += raw
      sample.log_prob_tempered += tempered
    self.state.num_tokens += len(sample.tokens) - num_before


def make_local_mesh(tp: int) -> jax.sharding.Mesh:
  """Returns the mesh of this process's devices: slots on `data`, heads on `tp`."""
  return partitioning.make_mesh(data=-1, fsdp=1, tp=tp, devices=jax.local_devices())


def build_engine(
    settings: settings_lib.SampleSettings,
    student: student_lib.Student,
    params: Any,
    tokenizer: Any,
    *,
    longest_prompt: int,
    delete_params: bool = False,
    copy_params: bool = True,
) -> Engine:
  """Returns an engine on the current mesh.

  Args:
    settings: Settings of sampling.
    student: Sizes of the student.
    params: Its parameters as they are trained, laid out over the mesh.
    tokenizer: The student's tokenizer.
    longest_prompt: Tokens of the longest prompt.
    delete_params: Whether to delete `params` while they are copied, so that memory holds them once.
    copy_params: Whether to decode with a copy laid out for it. Without, decoding is slower and
      takes the memory of a layer or two.

  Raises:
    UserError: the stages do not fit the memory, or a stop is out of range.
  """
  if copy_params:
    params = cache.unstack_layers(student, params, settings.dtype, delete_params)
  decode_settings = lanes_lib.DecodeSettings(
      student=student,
      params=params,
      method=settings.method,
      seed=settings.seed,
      chunk_len=settings.chunk_len,
      prefill_tokens=settings.prefill_tokens,
      dtype=settings.dtype,
  )
  stages = lanes_lib.plan_stages(
      student,
      lengths=settings.stages,
      longest_prompt=longest_prompt,
      max_new_tokens=settings.max_new_tokens,
      num_slots=settings.num_slots,
      dtype=settings.dtype,
      free_bytes=lanes_lib.measure_free_bytes(),
  )
  return Engine(
      decode_settings,
      stages,
      end_token=tokenizer.eos_token_id,
      max_new_tokens=settings.max_new_tokens,
      stops=settings.make_stops(tokenizer),
  )
