"""How fast a run goes: tokens a second, MFU, and steps that stand out."""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import statistics
from typing import Any

from valley_jax.models import student as student_lib
from valley_jax.training import flops

_LAST = 32  # Steps that a step is compared with.
_FEWEST = 4  # Before that many, nothing is said.
_SLOW = 2.0  # Times the median.


def speeds(
    student: student_lib.Student,
    devices: Sequence[Any],
    seconds: float,
    counts: Mapping[str, float],
) -> dict[str, float]:
  """Returns the speeds of a step.

  Args:
    student: For its FLOPs, by `flops.count_step_flops`.
    devices: All that took part.
    seconds: From the end of the step before to the end of this.
    counts: num_supervised, num_tokens and squared_lengths of the batch.

  Returns:
    Seconds, tokens a second (of examples, not of padding; supervised ones over
    all chips, all of them by chip), and `mfu`, the share of the chips' peak;
    left out where the peak is not known, as on a CPU.
  """
  chips = flops.count_chips(devices)
  found = {
      'step_seconds': seconds,
      'supervised_tokens_per_second': counts['num_supervised'] / seconds,
      'tokens_per_second_per_chip': counts['num_tokens'] / seconds / chips,
  }
  if peak := flops.find_peak_flops(devices[0].device_kind):
    needed = flops.count_step_flops(student, counts['num_tokens'], counts['squared_lengths'])
    found['mfu'] = needed / seconds / (chips * peak)
  return found


def peak_gib(devices: Sequence[Any]) -> dict[str, float]:
  """Returns the most memory that one of this process's devices has used.

  Nothing where a device does not count, as on a CPU.
  """
  stats = [d.memory_stats() or {} for d in devices]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  return {'hbm_peak_gib': max(peaks) / 2**30} if peaks else {}


class Pace:
  """Tells steps that took far longer than those before them."""

  def __init__(self):
    self._seconds: collections.deque[float] = collections.deque(maxlen=_LAST)
    self.num_slow = 0  # So far.

  def add(self, seconds: float) -> float | None:
    """Returns how many medians a slow step took, None if it was not slow."""
    median = statistics.median(self._seconds) if self._seconds else seconds
    is_known = len(self._seconds) >= _FEWEST
    self._seconds.append(seconds)
    if is_known and seconds > _SLOW * median:
      self.num_slow += 1
      return seconds / median
    return None
