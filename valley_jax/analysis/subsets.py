"""Named subsets side by side: pass@1 of each, and the gap of every two.

    scores of runs (subsets x seeds) -> one value per problem and subset
                                     -> arms, gaps to the base and of pairs

RQ2 and RQ3 of *The Valley of Code Reasoning* (2510.06101) and the table of
corpora of *Beyond Scaling Law* (2508.09883) compare students of one size that
differ in what they were trained on. Their gaps are small, so each comes with
its paired interval: all are read off one set of resamples of the problems.

A gap may be chosen for being large among many. So a pair has two intervals: one
for a question that was asked beforehand, and a wider one (Bonferroni's) under
which all pairs together are right 95 % of the time.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from valley_jax.analysis import values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """One subset; or the base student, whose name is 'base'."""

  name: str
  num_traces: tuple[int, int]  # The least and the most of its seeds.
  seeds: tuple[int, ...]
  pass_at_1: float
  interval: values.Interval
  by_seed: tuple[float, ...]  # pass@1 of each seed.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
  """pass@1 of one arm minus another's, paired by problem."""

  name: str
  other: str
  difference: float
  interval: values.Interval
  among_all: values.Interval  # Wider: of all `num_compared` gaps together.
  num_compared: int
  by_seed: tuple[float, ...]  # Of the seeds that both have.

  @property
  def is_told(self) -> bool:
    """Does the interval of this gap, asked for alone, leave out zero?"""
    return not self.interval[0] <= 0 <= self.interval[1]

  @property
  def is_told_among_all(self) -> bool:
    """Does the wider interval leave out zero, too?"""
    return not self.among_all[0] <= 0 <= self.among_all[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """All named subsets of a study, on the same problems."""

  num_problems: int
  base: Arm | None
  arms: tuple[Arm, ...]
  against_base: tuple[Gap, ...]  # Of each arm; empty without a base.
  pairs: tuple[Gap, ...]  # Of every two arms, the earlier minus the later.


def measure(
    scores: Sequence[Mapping[str, Any]], resampled_means: Callable[[np.ndarray], np.ndarray]
) -> Comparison:
  """Compares the named subsets of a study, in the order of the runs.

  Args:
    scores: The contents of scores.json of every run of a named subset, and of
      the base student's if there is one.
    resampled_means: Resamples rows (problems): (problems, arms) -> (draws,
      arms), as `scoring.estimators.resample_means` does.

  Raises:
    ValueError: two runs of one subset and seed, or runs on different problems.
  """
  runs = values.by_group(scores)
  groups = sorted(runs, key=lambda g: g != 0)  # The base student's first.
  means = np.stack([np.mean(list(runs[g].values()), axis=0) for g in groups], axis=1)
  draws = resampled_means(means)
  arms = [_arm(g, runs[g], scores, values.interval(draws[:, i])) for i, g in enumerate(groups)]
  first = int(groups[0] == 0)

  def gaps(pairs: list[tuple[int, int]]) -> tuple[Gap, ...]:
    return tuple(_gap(arms[i], arms[j], draws[:, i] - draws[:, j], len(pairs)) for i, j in pairs)

  named = range(first, len(arms))
  return Comparison(
      num_problems=len(means),
      base=arms[0] if first else None,
      arms=tuple(arms[first:]),
      against_base=gaps([(i, 0) for i in named] if first else []),
      pairs=gaps(list(itertools.combinations(named, 2))),
  )


def _arm(of: values.Group, by_seed, scores, interval) -> Arm:
  sizes = [run['num_traces'] for run in scores if values.group(run) == of]
  means = tuple(float(shares.mean()) for shares in by_seed.values())
  return Arm(
      name=of if isinstance(of, str) else 'base',
      num_traces=(min(sizes), max(sizes)),
      seeds=tuple(by_seed),
      pass_at_1=float(np.mean(means)),
      interval=interval,
      by_seed=means,
  )


def _gap(one: Arm, other: Arm, draws: np.ndarray, num_compared: int) -> Gap:
  ours = dict(zip(one.seeds, one.by_seed, strict=True))
  theirs = dict(zip(other.seeds, other.by_seed, strict=True))
  shared = [seed for seed in ours if seed in theirs]
  return Gap(
      name=one.name,
      other=other.name,
      difference=one.pass_at_1 - other.pass_at_1,
      interval=values.interval(draws),
      among_all=values.interval(draws, 1 - 0.05 / num_compared),
      num_compared=num_compared,
      by_seed=tuple(ours[seed] - theirs[seed] for seed in shared),
  )
