"""The data-scaling curve: pass@1 against the number of distilled traces.

    scores of runs (sizes x seeds) -> one value per problem and size
                                   -> points, the valley's depth and edge

*The Valley of Code Reasoning* (2510.06101) finds that pass@1 first falls below
the base student's and then rises past it. Here every such statement comes with
an interval. All of them are read off one set of resamples of the problems,
which all sizes share, so every comparison is paired.

A problem's value at a size is its mean over that size's seeds. The intervals
say how sure one can be about *other problems*; with few seeds, the spread over
seeds is shown as points and is not part of the interval.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from valley_jax import errors
from valley_jax.analysis import values as values_lib

Interval = values_lib.Interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """One size of the curve; the base student is the point of 0 traces."""

  num_traces: int
  seeds: tuple[int, ...]
  pass_at_1: float
  interval: Interval
  by_seed: tuple[float, ...]  # pass@1 of each seed.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
  """pass@1 of a size minus the base's, paired by problem."""

  num_traces: int
  difference: float
  interval: Interval
  num_compared: int = 1  # Sizes among which this one was picked.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edge:
  """The size at which the curve re-crosses the baseline.

  An end of the interval is None where it lies off the measured sizes: `low`
  where the resampled curve has no valley, `high` where it never re-crosses.
  """

  num_traces: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
  """A study's result. What needs a base run, or sizes, is None without."""

  num_problems: int
  baseline: Point | None
  points: tuple[Point, ...]  # By size, without the base.
  changes: tuple[Change, ...]  # Of each point; empty without a base.
  lowest: Change | None  # The deepest point.
  edge: Edge | None  # None also where the curve never re-crosses.
  below_half: tuple[int, ...]  # Sizes with less than half of the base's.

  @property
  def has_valley(self) -> bool:
    """Is the lowest point below the base, with its whole interval?"""
    return self.lowest is not None and self.lowest.interval[1] < 0

  @property
  def largest(self) -> Change | None:
    """Returns what the largest size is worth."""
    return self.changes[-1] if self.changes else None


def measure(
    scores: Sequence[Mapping[str, Any]], resampled_means: Callable[[np.ndarray], np.ndarray]
) -> Curve:
  """Returns the curve of a study.

  Args:
    scores: The contents of scores.json of every run, of random subsets all.
    resampled_means: Resamples rows (problems): (problems, sizes) -> (draws,
      sizes), as `scoring.estimators.resample_means` does.

  Raises:
    ValueError: no runs, two runs of one size and seed, or runs on different
      problems.
  """
  if not scores:
    raise errors.UserError('A curve of no runs is undefined; score a run first.')
  runs = values_lib.by_group(sorted(scores, key=lambda s: s['seed']))
  sizes = sorted(size for size in runs if isinstance(size, int))
  by_size = [np.stack(list(runs[s].values()), axis=1) for s in sizes]
  values = np.stack([v.mean(axis=1) for v in by_size], axis=1)
  draws = resampled_means(values)
  points = tuple(
      Point(
          num_traces=size,
          seeds=tuple(runs[size]),
          pass_at_1=float(values[:, i].mean()),
          interval=values_lib.interval(draws[:, i]),
          by_seed=tuple(by_size[i].mean(axis=0).tolist()),
      )
      for i, size in enumerate(sizes)
  )
  if sizes[0] != 0 or len(sizes) == 1:
    baseline = points[0] if sizes[0] == 0 else None
    return Curve(
        num_problems=len(values),
        baseline=baseline,
        points=points[1:] if baseline else points,
        changes=(),
        lowest=None,
        edge=None,
        below_half=(),
    )
  means = values.mean(axis=0)
  return Curve(
      num_problems=len(values),
      baseline=points[0],
      points=points[1:],
      changes=tuple(_change(size, means, draws, i) for i, size in enumerate(sizes[1:], start=1)),
      lowest=_lowest(sizes[1:], means, draws),
      edge=_edge(sizes[1:], means, draws),
      below_half=tuple(p.num_traces for p in points[1:] if p.pass_at_1 < means[0] / 2),
  )


def crossing(sizes: Sequence[int], gaps: np.ndarray) -> float:
  """Returns where a curve re-crosses 0 upwards, behind its lowest point.

  Interpolates between the two sizes around it, linearly in log(size).

  Args:
    sizes: Increasing, > 0.
    gaps: pass@1 minus the base's at each size.

  Returns:
    The size; 0 if the curve is nowhere below 0, inf if it stays below.

  Example:
    >>> crossing([1000, 10_000], np.array([-0.05, 0.05]))  # doctest: +ELLIPSIS
    3162.27...
  """
  lowest = int(np.argmin(gaps))
  if gaps[lowest] >= 0:
    return 0.0
  for i in range(lowest + 1, len(sizes)):
    if gaps[i] >= 0:
      share = -gaps[i - 1] / (gaps[i] - gaps[i - 1])
      left, right = math.log(sizes[i - 1]), math.log(sizes[i])
      return math.exp(left + share * (right - left))
  return math.inf


def _change(size, means, draws, i, level=0.95, num_compared=1) -> Change:
  return Change(
      num_traces=size,
      difference=float(means[i] - means[0]),
      interval=values_lib.interval(draws[:, i] - draws[:, 0], level),
      num_compared=num_compared,
  )


def _lowest(sizes, means, draws) -> Change:
  """The deepest point was picked for being low: Bonferroni pays for that."""
  i = int(np.argmin(means[1:])) + 1
  level = 1 - 0.05 / len(sizes)
  return _change(sizes[i - 1], means, draws, i, level, len(sizes))


def _edge(sizes, means, draws) -> Edge | None:
  edge = crossing(sizes, means[1:] - means[0])
  if not 0 < edge < math.inf:
    return None
  gaps = draws[:, 1:] - draws[:, :1]
  # Sorted, because 0 and inf are places on the axis and not to be averaged.
  edges = sorted(crossing(sizes, row) for row in gaps)
  low = edges[int(0.025 * (len(edges) - 1))]
  high = edges[math.ceil(0.975 * (len(edges) - 1))]
  return Edge(num_traces=edge, low=low if low > 0 else None, high=high if high < math.inf else None)
