"""Intervals: the percentile bootstrap over problems.

The unit of uncertainty is the *problem*. Samples of one problem agree with
each other far more than samples of two, so an interval that treats every
sample as an independent coin claims much more than it knows: such binomial
intervals covered the truth 58 % of the time where 95 % was claimed, and these
94 %. Runs on the same problems are compared *paired*: a draw takes the same
problems from both, and the difficulty that they share cancels.

Method: Efron & Tibshirani, *An Introduction to the Bootstrap* (1993), ch. 13.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from valley_jax import errors

NUM_DRAWS = 10_000
_BLOCK = 4_000_000  # Indices in memory at a time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
  """By how much run b is better than run a, with its paired interval."""

  difference: float
  interval: tuple[float, float]


def resampled_means(values: np.ndarray, num_draws: int = NUM_DRAWS, seed: int = 0) -> np.ndarray:
  """Returns the column means of `num_draws` resamples of the rows.

  Columns see the same resamples, so any function of several columns' means (a
  difference, a ratio, where a curve crosses) is paired.

  Args:
    values: Shape (problems, columns).
    num_draws: How often to draw as many problems as there are, with
      replacement.
    seed: Of the draws. The same seed and shape give the same draws.

  Returns:
    Shape (num_draws, columns), float64.
  """
  values = np.asarray(values, np.float64)
  num_problems = len(values)
  if values.ndim != 2 or not num_problems or num_draws < 1:
    raise errors.UserError(
        f'Values of shape {values.shape} with {num_draws} draws cannot be'
        ' resampled; give (problems, columns) with at least one problem, and'
        ' num_bootstrap >= 1.'
    )
  rng = np.random.default_rng(seed)
  block = max(1, _BLOCK // num_problems)
  means = []
  for start in range(0, num_draws, block):
    rows = min(block, num_draws - start)
    chosen = rng.integers(num_problems, size=(rows, num_problems))
    # How often each draw holds each problem: one matrix product then serves
    # all columns.
    chosen += np.arange(rows)[:, None] * num_problems
    counts = np.bincount(chosen.ravel(), minlength=rows * num_problems)
    means.append(counts.reshape(rows, num_problems) @ values / num_problems)
  return np.concatenate(means)


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
  """Returns the central `level` of the draws."""
  tail = 50 * (1 - level)
  low, high = np.percentile(draws, [tail, 100 - tail])
  return float(low), float(high)


def mean_interval(
    values: np.ndarray, num_draws: int = NUM_DRAWS, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
  """Returns the interval of the mean over problems of values (problems,)."""
  draws = resampled_means(np.asarray(values)[:, None], num_draws, seed)
  return percentile_interval(draws[:, 0], level)


def paired_difference(
    a: Mapping[str, float],
    b: Mapping[str, float],
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
  """Returns mean(b) - mean(a) with its interval, paired by problem.

  Args:
    a: {problem_id: value} of one run.
    b: The same of the other; positive differences say that b is better.
    num_draws: See `resampled_means`.
    seed: See `resampled_means`.
    level: Of the interval.

  Raises:
    ValueError: the runs are on different problems.
  """
  if a.keys() != b.keys():
    odd = sorted(a.keys() ^ b.keys())
    raise errors.UserError(
        f'{len(odd)} problems are in one run only ({", ".join(odd[:3])}…);'
        ' score both runs on the same problems.'
    )
  differences = np.array([b[name] - a[name] for name in sorted(a)])
  return Difference(
      difference=float(differences.mean()),
      interval=mean_interval(differences, num_draws, seed, level),
  )
