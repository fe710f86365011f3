"""Matched arms: traces that differ in one label and, little else.

*The Valley of Code Reasoning* compares correct with incorrect traces, and hard
with easy ones; but correct ones are easier and shorter. Here each arm has the
same number of traces in each stratum of the other labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from valley_jax.data.subsets import mixture


def strata(values: Sequence[Any], bins: int) -> list[Any]:
  """Returns the stratum of each value: a label is its own, numbers are binned.

  The edges of bins are quantiles, taken from the values themselves and not
  between them, so that no rounding moves a value into another bin.
  """
  if not values or isinstance(values[0], (str, bool)):
    return list(values)
  ranked = sorted(values)
  edges = [ranked[i * len(ranked) // bins] for i in range(1, bins)]
  return np.searchsorted(edges, values, side='right').tolist()


def matched(
    rows: Sequence[int],
    classes: Sequence[Any],
    arms: tuple[Any, Any],
    columns: Sequence[Sequence[Any]],
    *,
    bins: int,
    most: int = 0,
) -> tuple[list[int], list[int]]:
  """Returns two arms of equal size, and of equal size in every stratum.

  A stratum gives each arm as many traces as its rarer class has; where `most`
  is less than all of these, its part of `most`, so that arms nest.

  Args:
    rows: To choose from; of a class and stratum the first are chosen. Rows
      whose class or any of whose columns is None are in neither arm.
    classes: Of every row, the label that tells the arms apart.
    arms: The label of the one, and of the other.
    columns: Of every row, the labels that make the strata.
    bins: Strata that a number is cut into, by quantiles of both classes.
    most: Traces an arm at most; 0: all there are.
  """
  known = [row for row in rows if classes[row] in arms and all(c[row] is not None for c in columns)]
  cut = [strata([column[row] for row in known], bins) for column in columns]
  pairs: dict[tuple[Any, ...], tuple[list[int], list[int]]] = {}
  for i, row in enumerate(known):
    pair = pairs.setdefault(tuple(c[i] for c in cut), ([], []))
    pair[arms.index(classes[row])].append(row)
  # In an order that does not depend on that of the rows.
  found = [pairs[key] for key in sorted(pairs)]
  limits = [min(len(one), len(other)) for one, other in found]
  counts = mixture.counts(limits, most or sum(limits), limits)
  ones = [one[:n] for (one, _), n in zip(found, counts, strict=True)]
  others = [other[:n] for (_, other), n in zip(found, counts, strict=True)]
  return sum(ones, []), sum(others, [])
