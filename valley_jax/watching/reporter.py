"""What is written of each step, and when: one step late, with its speed and MFU."""

import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import re
import statistics
import time
from typing import Any

import jax
import numpy as np
import tqdm

from valley_jax import errors
from valley_jax.models import student as student_lib
from valley_jax.runtime import metrics
from valley_jax.training import flops

_COUNTS = ('num_supervised', 'num_tokens', 'squared_lengths')
_PACE_STEPS = 32  # Steps that a step is compared with.
_MIN_PACE_STEPS = 4  # With fewer steps before it, no step is called slow.
_SLOW_FACTOR = 2.0  # Times the median.


def compute_speeds(
    student: student_lib.Student,
    devices: Sequence[Any],
    seconds: float,
    counts: Mapping[str, float],
) -> dict[str, float]:
  """Returns the speeds of a step.

  Args:
    student: Gives the FLOPs of a step.
    devices: All devices that took part.
    seconds: Time from the end of the step before to the end of this one.
    counts: num_supervised, num_tokens and squared_lengths of the batch.

  Returns:
    Seconds; tokens a second (of examples, not of padding; supervised ones over all chips, all of
    them per chip); and `mfu`, the share of the chips' peak, unless the peak is unknown, as on CPUs.
  """
  chips = flops.count_chips(devices)
  speeds = {
      'step_seconds': seconds,
      'supervised_tokens_per_second': counts['num_supervised'] / seconds,
      'tokens_per_second_per_chip': counts['num_tokens'] / seconds / chips,
  }
  if peak := flops.find_peak_flops(devices[0].device_kind):
    needed = flops.count_step_flops(student, counts['num_tokens'], counts['squared_lengths'])
    speeds['mfu'] = needed / seconds / (chips * peak)
  return speeds


def measure_peak_gib(devices: Sequence[Any]) -> dict[str, float]:
  """Returns the most memory that one of this process's devices has used.

  Empty where a device does not count it, as on a CPU.
  """
  stats = [d.memory_stats() or {} for d in devices]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  return {'hbm_peak_gib': max(peaks) / 2**30} if peaks else {}


class SlowStepDetector:
  """Finds steps that took far longer than those before them."""

  def __init__(self):
    self._seconds: collections.deque[float] = collections.deque(maxlen=_PACE_STEPS)
    self.num_slow = 0  # Slow steps until now.

  def add_step(self, seconds: float) -> float | None:
    """Returns how many medians a slow step took, None if it was not slow."""
    median = statistics.median(self._seconds) if self._seconds else seconds
    is_known = len(self._seconds) >= _MIN_PACE_STEPS
    self._seconds.append(seconds)
    if is_known and seconds > _SLOW_FACTOR * median:
      self.num_slow += 1
      return seconds / median
    return None


class StepReporter:
  """Writes steps' metrics, with the learning rate and the speed.

  The loop passes a step when the next one is already on the device: reading its metrics waits for
  the step, and never keeps the device waiting. The time between two such reads is the time of a
  step. It is not measured where there was more than a step between them (compilation, a checkpoint,
  a look at held-out traces): those rows have no speeds.
  """

  def __init__(
      self,
      writer: metrics.Writer | None,
      bar: tqdm.tqdm,
      schedule: Callable[[int], Any],
      student: student_lib.Student,
  ):
    """Starts untimed, since the first step compiles.

    Args:
      writer: None in all processes but one.
      bar: Progress bar of the run's steps.
      schedule: The learning rate by the number of steps done.
      student: Gives the FLOPs of a step.
    """
    self._writer, self._bar = writer, bar
    self._schedule, self._student = schedule, student
    self._devices = jax.sharding.get_mesh().devices.flatten().tolist()
    self._own_devices = [d for d in self._devices if d in jax.local_devices()]
    self._slow_steps = SlowStepDetector()
    self._last_time: float | None = None

  def pause_timing(self) -> None:
    """Leaves the next step that is written untimed."""
    self._last_time = None

  def write_step(self, step: int, values: Mapping[str, jax.Array | float]) -> None:
    """Waits for the step and writes what it measured.

    Raises:
      UserError: the run has diverged.
    """
    scalars = jax.device_get(dict(values))
    for name in ('loss', 'grad_norm'):
      if not np.isfinite(scalars[name]):
        raise errors.UserError(
            f'Step {step}: {name} is {scalars[name]}; the run has diverged. Lower'
            ' train.learning_rate or raise train.warmup_fraction, and take another --workdir.'
        )
    counts = {name: float(scalars.pop(name)) for name in _COUNTS}
    # A mean over no tokens is NaN, such as the loss of thinking where no trace thinks.
    scalars = {k: float(v) for k, v in scalars.items() if not np.isnan(v)}
    scalars['learning_rate'] = float(self._schedule(step - 1))
    scalars |= self._time_step(step, counts)
    if self._writer:
      self._writer.write(step, scalars)
    self._bar.set_postfix(loss=f'{scalars["loss"]:.3f}', refresh=False)
    self._bar.update(1)

  def _time_step(self, step: int, counts: Mapping[str, float]) -> dict[str, float]:
    scalars = measure_peak_gib(self._own_devices)
    last, self._last_time = self._last_time, time.perf_counter()
    if last is None:
      return scalars
    seconds = self._last_time - last
    scalars |= compute_speeds(self._student, self._devices, seconds, counts)
    if num_medians := self._slow_steps.add_step(seconds):
      self._bar.write(
          f'train: step {step} took {seconds:.2f} s, {num_medians:.1f} times the median of the'
          ' steps before.'
      )
    return {**scalars, 'num_slow_steps': self._slow_steps.num_slow}

  def close(self) -> None:
    if self._writer:
      self._writer.close()
    self._bar.close()


class StepProfile:
  """Records steps START to STOP - 1, counted from 1 as in metrics.jsonl."""

  def __init__(self, directory: str | os.PathLike, spec: str, num_steps: int):
    """Records nothing before the first of the steps.

    Args:
      directory: Directory of the profiler's trace.
      spec: `START:STOP`, or '' for no trace.
      num_steps: Steps of the run.

    Raises:
      UserError: the run has no such steps.
    """
    match = re.fullmatch(r'(\d+):(\d+)', spec)
    if spec and not (match and 1 <= int(match[1]) < int(match[2])):
      raise errors.UserError(
          f'watch.profile={spec!r} is not START:STOP with 1 <= START < STOP; write 10:15 for steps'
          ' 10 to 14.'
      )
    self._steps = range(int(match[1]), int(match[2])) if match else range(0)
    if self._steps and self._steps.stop > num_steps + 1:
      raise errors.UserError(
          f'watch.profile={spec!r} goes beyond the {num_steps:,} steps of this run; name earlier'
          ' ones.'
      )
    self._directory = str(directory)
    self._is_on = False

  def start_step(self, step: int) -> contextlib.AbstractContextManager[Any]:
    """Returns the context that a step runs in: its name in the trace, if it is recorded."""
    if step not in self._steps:
      return contextlib.nullcontext()
    if not self._is_on:
      jax.profiler.start_trace(self._directory)
      self._is_on = True
    return jax.profiler.StepTraceAnnotation('train', step_num=step)

  def end_step(self, step: int, result: Any) -> None:
    """Ends the trace after its last step, once the devices have finished it."""
    if self._is_on and step + 1 >= self._steps.stop:
      jax.block_until_ready(result)
      self.close()

  def close(self) -> None:
    """Writes the trace, if one is being recorded."""
    if self._is_on:
      self._is_on = False
      jax.profiler.stop_trace()
