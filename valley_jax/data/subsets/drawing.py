"""How traces are drawn: by hash, shared out by weight, or as matched arms.

Every trace has a seeded hash, and the random subset of size n is the n traces of smallest hash. So
subsets nest whatever the sizes (RQ1 of *The Valley of Code Reasoning*: 30K ⊃ 10K ⊃ 1K), do not
depend on the order of the traces, and are the same on any machine.
"""

from collections.abc import Sequence
import hashlib
import heapq
from typing import Any

import numpy as np

from valley_jax import errors


def _hash_trace(seed: int | str, trace_id: str) -> bytes:
  return hashlib.blake2b(f'{seed}:{trace_id}'.encode()).digest()


def order_by_hash(ids: Sequence[str], seed: int | str) -> list[int]:
  """Returns the rows of all traces, smallest hash first.

  A seed that is a text, such as 'per_question:0', gives an order that is independent of the nested
  subsets.
  """
  return sorted(range(len(ids)), key=lambda i: _hash_trace(seed, ids[i]))


def draw_nested(ids: Sequence[str], n: int, seed: int) -> np.ndarray:
  """Returns the rows of the subset of size `n`, smallest hash first.

  Args:
    ids: Trace ids, all different.
    n: Size of the subset.
    seed: Seed of the hash; each seed gives another family of nested subsets.

  Raises:
    UserError: there are fewer than `n` traces, or `n` is negative.
  """
  if not 0 <= n <= len(ids):
    raise errors.UserError(
        f'num_traces={n:,} but the shards hold {len(ids):,}; ask for at most that many, or shard'
        ' more.'
    )
  return np.asarray(order_by_hash(ids, seed)[:n], np.int64)


def draw_held_out(ids: Sequence[str], n: int, num_traces: int, seed: int) -> np.ndarray:
  """Returns the rows of the `n` traces of largest hash, which are never trained on.

  They are the same for every `num_traces`, as `draw_nested` takes from the other end.

  Raises:
    UserError: the subset of size `num_traces` needs some of them.
  """
  if n < 0 or num_traces + n > len(ids):
    raise errors.UserError(
        f'watch.held_out={n:,} and num_traces={num_traces:,} are more than the {len(ids):,} traces'
        ' of the shards; lower one of them, or shard more.'
    )
  return np.asarray(order_by_hash(ids, seed)[len(ids) - n :], np.int64)


def share_out(weights: Sequence[float], number: int, limits: Sequence[int]) -> list[int]:
  """Shares `number` out by weight, one unit after another (Webster's method).

  The sum is exact, and a larger number only adds to each share, so mixtures nest.

  Args:
    weights: Weight of each share, at least 0.
    number: Units to share out.
    limits: Largest size of each share; what exceeds it goes to the others.

  Returns:
    The shares; their sum is `number`, or less if all are at their limits.

  Example:
    >>> share_out([3, 1], 8, [100, 100])
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


def assign_strata(values: Sequence[Any], bins: int) -> list[Any]:
  """Returns the stratum of each value: labels are their own strata, numbers are binned.

  The edges of bins are quantiles, taken from the values themselves and not between them, so that no
  rounding moves a value into another bin.
  """
  if not values or isinstance(values[0], (str, bool)):
    return list(values)
  ranked = sorted(values)
  edges = [ranked[i * len(ranked) // bins] for i in range(1, bins)]
  return np.searchsorted(edges, values, side='right').tolist()


def match_arms(
    rows: Sequence[int],
    classes: Sequence[Any],
    arms: tuple[Any, Any],
    columns: Sequence[Sequence[Any]],
    *,
    bins: int,
    most: int = 0,
) -> tuple[list[int], list[int]]:
  """Returns two arms that differ in one label and have equal sizes in every stratum of the others.

  *The Valley of Code Reasoning* compares correct with incorrect traces, and hard with easy ones;
  but correct traces are easier and shorter. Here a stratum gives each arm as many traces as its
  rarer class has; if `most` is less than the sum of these, its share of `most`, so that arms nest.

  Args:
    rows: Rows to choose from; the first of each class and stratum are chosen. Rows whose class or
      any of whose columns is None are in neither arm.
    classes: Per row of the table, the label that distinguishes the arms.
    arms: The labels of the two arms.
    columns: Per row of the table, the labels that make the strata.
    bins: Strata of a numeric column, by quantiles over both classes.
    most: Largest number of traces in an arm; 0 for no limit.
  """
  known = [row for row in rows if classes[row] in arms and all(c[row] is not None for c in columns)]
  strata = [assign_strata([column[row] for row in known], bins) for column in columns]
  pairs: dict[tuple[Any, ...], tuple[list[int], list[int]]] = {}
  for i, row in enumerate(known):
    pair = pairs.setdefault(tuple(stratum[i] for stratum in strata), ([], []))
    pair[arms.index(classes[row])].append(row)
  # Sorted, so that the order of the rows does not matter.
  ordered = [pairs[key] for key in sorted(pairs)]
  limits = [min(len(one), len(other)) for one, other in ordered]
  counts = share_out(limits, most or sum(limits), limits)
  ones = [one[:n] for (one, _), n in zip(ordered, counts, strict=True)]
  others = [other[:n] for (_, other), n in zip(ordered, counts, strict=True)]
  return sum(ones, []), sum(others, [])
