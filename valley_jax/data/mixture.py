"""Mixtures by weight: how many of each source, or which one is next.

`counts` shares a fixed number out, exactly; a larger number only adds to each
source's share, so mixtures nest. `source` draws one source a step, by weights
that may be others at every step: a recipe that changes its weights as it goes
keeps no state but the step.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import heapq


def counts(
    weights: Sequence[float], number: int, limits: Sequence[int]
) -> list[int]:
  """Shares `number` out by weight, one after the other (Webster's method).

  Args:
    weights: One a share, not below 0.
    number: What is shared out.
    limits: What each share can take at most; the others get the rest.

  Returns:
    The shares; their sum is `number`, or less if all are at their limits.

  Example:
    >>> counts([3, 1], 8, [100, 100])
    [6, 2]
  """
  shares = [0] * len(weights)
  heap = [(-w, i) for i, w in enumerate(weights) if w > 0 and limits[i] > 0]
  heapq.heapify(heap)
  for _ in range(number):
    if not heap:
      break
    _, i = heapq.heappop(heap)
    shares[i] += 1
    if shares[i] < limits[i]:
      heapq.heappush(heap, (-weights[i] / (2 * shares[i] + 1), i))
  return shares


def source(weights: Mapping[str, float], seed: int, step: int) -> str:
  """Draws the source of one step, a pure function of its arguments.

  The number drawn depends on seed and step alone, and the sources divide the
  numbers from 0 to 1 by name: weights that change a little change the source of
  few steps, and a run that goes on draws what it would have drawn.

  Args:
    weights: Of the sources by name, at this step; they need not sum to 1.
    seed: Of the run.
    step: Number of the step, or of whatever is drawn one by one.

  Raises:
    ValueError: a weight is below 0, or none is above.
  """
  total = sum(weights.values())
  if total <= 0 or min(weights.values()) < 0:
    raise ValueError(
        f'Weights {dict(weights)}: want none below 0, and one above.'
    )
  digest = hashlib.blake2b(f'mixture:{seed}:{step}'.encode()).digest()
  drawn = int.from_bytes(digest[:7]) / 2**56 * total
  names = sorted(name for name in weights if weights[name] > 0)
  for name in names:
    drawn -= weights[name]
    if drawn < 0:
      return name
  return names[-1]  # Rounding.
