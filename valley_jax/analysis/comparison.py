"""Compares groups of runs: pass@1 of each group, and paired differences of every two.

    scores of runs (groups x seeds) -> one value per problem and group
                                    -> pass@1, differences, the valley's edge

A group is a size of the data-scaling curve or a named subset. *The Valley of Code Reasoning*
(2510.06101) finds that pass@1 first falls below the base student's and then rises past it; its RQ2
and RQ3, and the table of corpora of *Beyond Scaling Law* (2508.09883), compare students of one size
that differ in what they were trained on. Here every such statement comes with an interval. All
intervals of a comparison are read off one set of resamples of the problems, which all groups share,
so every difference is paired.

A problem's value in a group is its share of correct samples, averaged over the group's seeds. The
intervals say how sure one can be about *other problems*; with few seeds, the spread over seeds is
shown as points and is not part of the interval.

A difference may be picked for being large, or low, among many. Each therefore has two intervals:
one for a question that was asked beforehand, and a wider one (Bonferroni's) under which all
differences of its kind together are right 95 % of the time.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np

from valley_jax import errors
from valley_jax.analysis import runs as runs_lib

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupResult:
  """pass@1 of one group."""

  name: runs_lib.Group
  num_traces: tuple[int, int]  # The least and the most over its seeds.
  seeds: tuple[int, ...]
  pass_at_1: float
  interval: Interval
  by_seed: tuple[float, ...]  # pass@1 of each seed.

  @property
  def size(self) -> int:
    """Traces of a group that is a size of the curve; 0 for the base student."""
    return self.num_traces[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
  """pass@1 of one group minus another's, paired by problem."""

  name: runs_lib.Group
  other: runs_lib.Group
  difference: float
  interval: Interval
  among_all: Interval  # Wider: all `num_compared` differences hold together.
  num_compared: int
  by_seed: tuple[float, ...]  # One value for each seed that both groups have.

  @property
  def is_significant(self) -> bool:
    """Whether the interval excludes zero, for a question asked beforehand."""
    return not self.interval[0] <= 0 <= self.interval[1]

  @property
  def is_significant_among_all(self) -> bool:
    """Whether the wider interval excludes zero, too."""
    return not self.among_all[0] <= 0 <= self.among_all[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edge:
  """The size at which the curve re-crosses the baseline.

  An end of the interval is None if it is off the measured sizes: `low` if the resampled curve has
  no valley, `high` if it never re-crosses.
  """

  num_traces: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """Groups on the same problems; those of sizes are a curve."""

  num_problems: int
  base: GroupResult | None
  groups: tuple[GroupResult, ...]  # Without the base; sizes in order.
  against_base: tuple[Difference, ...]  # One a group; empty without a base.
  pairs: tuple[Difference, ...]  # Every two groups, the earlier minus the later.
  edge: Edge | None  # None for subsets, and if the curve does not re-cross.

  @property
  def results(self) -> list[tuple[GroupResult, Difference | None]]:
    """The base and all groups, each with its difference from the base."""
    base = [(self.base, None)] if self.base else []
    return base + list(itertools.zip_longest(self.groups, self.against_base))

  @property
  def lowest(self) -> Difference | None:
    """The lowest group; picked for being low, so judged by `among_all`."""
    return min(self.against_base, key=lambda d: d.difference, default=None)

  @property
  def largest(self) -> Difference | None:
    """The largest size of a curve."""
    return self.against_base[-1] if self.against_base else None

  @property
  def has_valley(self) -> bool:
    """Whether the lowest point is below the base with its whole interval."""
    return self.lowest is not None and self.lowest.among_all[1] < 0

  @property
  def below_half(self) -> tuple[int, ...]:
    """Sizes with less than half of the base's pass@1."""
    half = self.base.pass_at_1 / 2 if self.base else 0.0
    return tuple(g.size for g in self.groups if g.pass_at_1 < half)


def compare_groups(
    scores: Sequence[Mapping[str, Any]], resampled_means: Callable[[np.ndarray], np.ndarray]
) -> Comparison:
  """Compares the groups of a study's runs: sizes in order, subsets in the order of the runs.

  Args:
    scores: Contents of scores.json of every run.
    resampled_means: Resamples rows (problems): (problems, groups) -> (draws, groups), as
      `scoring.estimators.resample_means` does.

  Raises:
    UserError: no runs, two runs of one group and seed, or runs on different problems.
  """
  if not scores:
    raise errors.UserError('There are no runs to compare; score a run first.')
  runs = _collect_values(scores)
  # The base student, of 0 traces, comes first; names stay in the order of the runs.
  names = sorted(runs, key=lambda name: name if isinstance(name, int) else math.inf)
  by_seed = [np.stack(list(runs[name].values()), axis=1) for name in names]
  values = np.stack([shares.mean(axis=1) for shares in by_seed], axis=1)
  draws = resampled_means(values)
  means = values.mean(axis=0)
  results = [
      GroupResult(
          name=name,
          num_traces=_find_num_traces(scores, name),
          seeds=tuple(runs[name]),
          pass_at_1=float(values[:, i].mean()),
          interval=find_interval(draws[:, i]),
          by_seed=tuple(by_seed[i].mean(axis=0).tolist()),
      )
      for i, name in enumerate(names)
  ]
  return _assemble_comparison(len(values), results, means, draws)


def _assemble_comparison(
    num_problems: int, results: Sequence[GroupResult], means: np.ndarray, draws: np.ndarray
) -> Comparison:
  """Adds differences and the edge to results of groups, the base first if there is one.

  Args:
    num_problems: Number of problems that all groups share.
    results: pass@1 of each group.
    means: Mean over problems of each group, shape (groups,).
    draws: The same of every resample, shape (draws, groups).
  """
  first = int(results[0].name == 0)  # Index of the first group that is not the base.
  others = range(first, len(results))
  subtract = functools.partial(_subtract_pairs, results, means, draws)
  sizes = [group.name for group in results[first:] if isinstance(group.name, int)]
  # An edge needs a baseline, and an axis on which all groups have a place.
  has_edge = first and sizes and len(sizes) == len(others)
  return Comparison(
      num_problems=num_problems,
      base=results[0] if first else None,
      groups=tuple(results[first:]),
      against_base=subtract([(i, 0) for i in others if first]),
      pairs=subtract(list(itertools.combinations(others, 2))),
      edge=_find_edge(sizes, means, draws) if has_edge else None,
  )


def _collect_values(
    scores: Sequence[Mapping[str, Any]],
) -> dict[runs_lib.Group, dict[int, np.ndarray]]:
  """Returns {group: {seed: (problems,) share of correct samples}}, seeds sorted."""
  runs: dict[runs_lib.Group, dict[int, np.ndarray]] = {}
  ids = sorted(p['problem_id'] for p in scores[0]['problems'])
  for run in scores:
    group, seed = runs_lib.group_of_scores(run), run['seed']
    name = f'subset {group!r}' if isinstance(group, str) else f'{group:,} traces'
    shares = {p['problem_id']: p['num_correct'] / p['num_samples'] for p in run['problems']}
    if sorted(shares) != ids:
      unshared = sorted(shares.keys() ^ set(ids))
      raise errors.UserError(
          f'The run of {name}, seed {seed}, and another differ in {len(unshared)} problems'
          f' ({", ".join(unshared[:3])}…); score all runs of a study on the same problems.'
      )
    if seed in runs.setdefault(group, {}):
      raise errors.UserError(
          f'Two runs have {name} and seed {seed}; keep studies in workdirs of their own, and name a'
          ' part of a subset as a subset.'
      )
    runs[group][seed] = np.array([shares[problem_id] for problem_id in ids])
  return {group: dict(sorted(by_seed.items())) for group, by_seed in runs.items()}


def _find_num_traces(scores, name: runs_lib.Group) -> tuple[int, int]:
  sizes = [run['num_traces'] for run in scores if runs_lib.group_of_scores(run) == name]
  return min(sizes), max(sizes)


def _subtract_pairs(
    results: Sequence[GroupResult],
    means: np.ndarray,
    draws: np.ndarray,
    pairs: Sequence[tuple[int, int]],
) -> tuple[Difference, ...]:
  """Returns the differences of `pairs` of groups; these are all that is compared."""
  differences = []
  for i, j in pairs:
    one, other = (dict(zip(results[k].seeds, results[k].by_seed, strict=True)) for k in (i, j))
    resampled = draws[:, i] - draws[:, j]
    differences.append(
        Difference(
            name=results[i].name,
            other=results[j].name,
            difference=float(means[i] - means[j]),
            interval=find_interval(resampled),
            among_all=find_interval(resampled, 1 - 0.05 / len(pairs)),
            num_compared=len(pairs),
            by_seed=tuple(one[seed] - other[seed] for seed in one if seed in other),
        )
    )
  return tuple(differences)


def find_interval(draws: np.ndarray, level: float = 0.95) -> Interval:
  """Returns the central `level` of the draws."""
  tail = 50 * (1 - level)
  low, high = np.percentile(draws, [tail, 100 - tail])
  return float(low), float(high)


def find_crossing(sizes: Sequence[int], gaps: np.ndarray) -> float:
  """Returns where a curve re-crosses 0 upwards, after its lowest point.

  Interpolates between the two sizes around it, linearly in log(size).

  Args:
    sizes: Sizes > 0, increasing.
    gaps: pass@1 minus the base's at each size.

  Returns:
    The size; 0 if the curve is nowhere below 0, inf if it stays below.

  Example:
    >>> find_crossing([1000, 10_000], np.array([-0.05, 0.05]))  # doctest: +ELLIPSIS
    3162.27...
  """
  # Only after the lowest point: a curve may also cross 0 on its way down, or wiggle there.
  lowest = int(np.argmin(gaps))
  if gaps[lowest] >= 0:
    return 0.0
  for i in range(lowest + 1, len(sizes)):
    if gaps[i] >= 0:
      share = -gaps[i - 1] / (gaps[i] - gaps[i - 1])
      left, right = math.log(sizes[i - 1]), math.log(sizes[i])
      return math.exp(left + share * (right - left))
  return math.inf


def _find_edge(sizes, means, draws) -> Edge | None:
  """Returns the edge; `means` (groups,) and `draws` (draws, groups) begin with the base."""
  edge = find_crossing(sizes, means[1:] - means[0])
  if not 0 < edge < math.inf:
    return None
  gaps = draws[:, 1:] - draws[:, :1]
  # Sorted, because 0 and inf are places on the axis that must not be averaged.
  edges = sorted(find_crossing(sizes, row) for row in gaps)
  low = edges[int(0.025 * (len(edges) - 1))]
  high = edges[math.ceil(0.975 * (len(edges) - 1))]
  return Edge(num_traces=edge, low=low if low > 0 else None, high=high if high < math.inf else None)
