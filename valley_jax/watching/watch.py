"""All that a run tells while it trains, in the order of its loop."""

from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Any

import jax

from valley_jax.runtime import metrics
from valley_jax.watching import held_out as held_out_lib
from valley_jax.watching import profile as profile_lib
from valley_jax.watching import reporter as reporter_lib
from valley_jax.watching import samples as samples_lib


@dataclasses.dataclass(kw_only=True)
class Watch:
  """For each step: `begin`, `look`, and one step later `report`.

  Nothing of it changes a bit of the student. A look is part of its step, so
  that a run which is killed and goes on writes it once, with the same values.
  """

  writer: metrics.Writer | None  # None in all processes but one.
  reporter: reporter_lib.Reporter
  profile: profile_lib.Profile
  num_steps: int
  held_out: held_out_lib.HeldOut | None = None
  held_out_every: int = 0  # Steps; and at the end.
  samples: samples_lib.Samples | None = None
  prompts_every: int = 0

  def begin(self, step: int) -> contextlib.AbstractContextManager[Any]:
    """Returns what step number `step`, counted from 1, runs in."""
    return self.profile.begin(step)

  def _is_due(self, step: int, every: int) -> bool:
    return step == self.num_steps or step % every == 0

  def look(self, step: int, params: Any) -> dict[str, Any]:
    """Looks at the student after a step; most often there is nothing to do.

    Returns:
      Scalars by name, to be written with the step's own.
    """
    self.profile.end(step, params)
    found: dict[str, Any] = {}
    if self.held_out and self._is_due(step, self.held_out_every):
      found |= self.held_out(params)
    if self.samples and self._is_due(step, self.prompts_every):
      rates, pages = self.samples(params)
      found |= rates
      for name, page in pages.items():
        if self.writer:
          self.writer.write_text(step, name, page)
    if found:
      self.reporter.pause()
    return found

  def report(self, step: int, values: Mapping[str, jax.Array | float]) -> None:
    """Waits for the step, and writes what it measured and what was seen."""
    self.reporter.write(step, values)

  def pause(self) -> None:
    """Says that something else than steps took time."""
    self.reporter.pause()

  def close(self) -> None:
    """Flushes."""
    self.profile.close()
    self.reporter.close()
