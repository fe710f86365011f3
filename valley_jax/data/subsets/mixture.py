"""Mixtures by weight: how many of each source.

A fixed number is shared out, exactly; a larger number only adds to each
source's share, so mixtures nest.
"""

from collections.abc import Sequence
import heapq


def counts(weights: Sequence[float], number: int, limits: Sequence[int]) -> list[int]:
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
