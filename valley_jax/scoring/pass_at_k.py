"""pass@k: the chance that at least one of k samples solves a problem.

The estimator is the one of *Evaluating Large Language Models Trained on Code*
(Chen et al., 2107.03374, eq. 1): of n samples of a problem, c are correct, and

    pass@k = 1 - C(n - c, k) / C(n, k)

is the share of the k-subsets of the n samples that hold a correct one, which
makes it unbiased. `1 - (1 - c / n) ** k` is not. The binomials are integers of
any size here, so the only rounding is that of the last division.
"""

from collections.abc import Sequence
import math

import numpy as np

from valley_jax import errors


def estimate(num_samples: int, num_correct: int, k: int) -> float:
  """Returns pass@k of one problem, to the last bit.

  Example:
    >>> estimate(num_samples=4, num_correct=1, k=2)  # 3 of the 6 pairs.
    0.5

  Raises:
    ValueError: k outside 1..n, or c outside 0..n.
  """
  if not 1 <= k <= num_samples:
    raise errors.UserError(
        f'pass@{k} needs 1 <= k <= n, but n={num_samples} samples a problem;'
        f' draw at least {max(k, 1)} (sample.num_samples) or take k out of'
        ' `ks`.'
    )
  if not 0 <= num_correct <= num_samples:
    raise errors.UserError(
        f'{num_correct} correct of {num_samples} samples is impossible; look'
        ' for a sample that was judged twice.'
    )
  total = math.comb(num_samples, k)
  return (total - math.comb(num_samples - num_correct, k)) / total


def per_problem(
    num_samples: Sequence[int], num_correct: Sequence[int], k: int, *, allow_unequal: bool = False
) -> np.ndarray:
  """Returns pass@k of every problem, as float64 of shape (problems,).

  Args:
    num_samples: n of each problem.
    num_correct: c of each problem.
    k: How many samples one may hand in.
    allow_unequal: Accept problems with different n. Each estimate stays
      unbiased, but they differ in variance, and usually a sample is missing.

  Raises:
    ValueError: no problems, unequal n, or k > n.
  """
  sizes = sorted(set(num_samples))
  if not sizes:
    raise errors.UserError('pass@k of no problems is undefined; give at least one.')
  if len(sizes) > 1 and not allow_unequal:
    raise errors.UserError(
        f'Problems have between {sizes[0]} and {sizes[-1]} samples; draw the'
        ' missing ones, or say allow_unequal=True.'
    )
  return np.array([estimate(n, c, k) for n, c in zip(num_samples, num_correct, strict=True)])


def mean(values: np.ndarray) -> float:
  """Returns the mean over problems, whatever their order, to the last bit."""
  return math.fsum(values) / len(values)
