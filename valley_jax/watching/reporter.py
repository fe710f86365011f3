"""What is written of each step, and when: one step late."""

from collections.abc import Callable
from collections.abc import Mapping
import time
from typing import Any

import jax
import numpy as np
import tqdm

from valley_jax import errors
from valley_jax.models import student as student_lib
from valley_jax.runtime import metrics
from valley_jax.watching import speed

_COUNTS = ('num_supervised', 'num_tokens', 'squared_lengths')


class Reporter:
  """Writes steps' metrics, with the learning rate and the speed.

  The loop hands a step in when the next one is already on the device: to read
  its metrics waits for the step, and never for the device to be fed again. The
  time between two such reads is what a step takes. It is not taken where there
  was more than a step between them: compilation, a checkpoint, a look at
  held-out traces. Those rows have no speeds.
  """

  def __init__(
      self,
      writer: metrics.Writer | None,
      bar: tqdm.tqdm,
      schedule: Callable[[int], Any],
      student: student_lib.Student,
  ):
    """Begins with the step that compiles, which is not timed.

    Args:
      writer: None in all processes but one.
      bar: The progress of the run, a step a step.
      schedule: The learning rate by steps done.
      student: For the FLOPs of a step.
    """
    self._writer, self._bar = writer, bar
    self._schedule, self._student = schedule, student
    self._devices = jax.sharding.get_mesh().devices.flatten().tolist()
    self._own = [d for d in self._devices if d in jax.local_devices()]
    self._pace = speed.Pace()
    self._last: float | None = None

  def pause(self) -> None:
    """Says that the next step to be written cannot be timed."""
    self._last = None

  def write(self, step: int, values: Mapping[str, jax.Array | float]) -> None:
    """Waits for the step and writes what it measured.

    Raises:
      ValueError: the run has diverged.
    """
    scalars = jax.device_get(dict(values))
    for name in ('loss', 'grad_norm'):
      if not np.isfinite(scalars[name]):
        raise errors.UserError(
            f'Step {step}: {name} is {scalars[name]}; the run has diverged.'
            ' Lower train.learning_rate or raise train.warmup_fraction, and'
            ' take another --workdir.'
        )
    counts = {name: float(scalars.pop(name)) for name in _COUNTS}
    # A mean over no tokens is nothing, as that of thinking where nobody thinks.
    scalars = {k: float(v) for k, v in scalars.items() if not np.isnan(v)}
    scalars['learning_rate'] = float(self._schedule(step - 1))
    scalars |= self._speeds(step, counts)
    if self._writer:
      self._writer.write(step, scalars)
    self._bar.set_postfix(loss=f'{scalars["loss"]:.3f}', refresh=False)
    self._bar.update(1)

  def _speeds(self, step: int, counts: Mapping[str, float]) -> dict[str, float]:
    found = speed.peak_gib(self._own)
    last, self._last = self._last, time.perf_counter()
    if last is None:
      return found
    seconds = self._last - last
    found |= speed.speeds(self._student, self._devices, seconds, counts)
    if times := self._pace.add(seconds):
      self._bar.write(
          f'train: step {step} took {seconds:.2f} s, {times:.1f} times the'
          ' median of the steps before.'
      )
    return {**found, 'num_slow_steps': self._pace.num_slow}

  def close(self) -> None:
    """Flushes."""
    if self._writer:
      self._writer.close()
    self._bar.close()
