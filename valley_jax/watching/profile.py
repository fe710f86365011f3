"""A profiler's trace of some steps, on request.

Look at it in TensorBoard (with tensorboard-plugin-profile) or in xprof.
"""

import contextlib
import os
import re
from typing import Any

import jax

from valley_jax import errors


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
