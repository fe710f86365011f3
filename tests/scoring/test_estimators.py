"""pass@k is exact and unbiased; intervals are over problems and as wide as they claim."""

import fractions
import itertools

import numpy as np
import pytest

from valley_jax.scoring import estimators


def test_interval_covers_the_truth_as_often_as_it_claims():
  # Problems differ in difficulty, so that samples of one problem agree.
  rng = np.random.default_rng(0)
  covered = 0
  for study in range(400):
    rates = rng.beta(0.5, 0.5, size=100)
    values = rng.binomial(8, rates) / 8
    low, high = estimators.estimate_mean_interval(values, num_draws=1000, seed=study)
    covered += low <= 0.5 <= high
  assert 0.92 <= covered / 400 <= 0.98


def test_resamples_draw_whole_problems():
  means = estimators.resample_means(np.array([[0.0], [1.0]]), 1000, 0)
  assert set(means[:, 0]) == {0.0, 0.5, 1.0}
  assert means.mean() == pytest.approx(0.5, abs=0.05)


def test_columns_see_the_same_resamples():
  values = np.array([[0.1, 1.1], [0.5, 1.5], [0.9, 1.9]])
  means = estimators.resample_means(values, 100, 0)
  np.testing.assert_allclose(means[:, 1] - means[:, 0], 1.0)


def test_blocks_of_draws_change_nothing_but_memory(monkeypatch):
  values = np.arange(5.0)[:, None]
  whole = estimators.resample_means(values, 7, 0)
  monkeypatch.setattr(estimators, 'MAX_INDICES', 10)  # Two draws a block.
  np.testing.assert_array_equal(estimators.resample_means(values, 7, 0), whole)


def test_same_seed_same_interval():
  values = np.arange(20) % 3
  assert estimators.estimate_mean_interval(values, 100, 1) == estimators.estimate_mean_interval(
      values, 100, 1
  )
  assert estimators.estimate_mean_interval(values, 100, 1) != estimators.estimate_mean_interval(
      values, 100, 2
  )


def test_certain_values_have_no_width():
  assert estimators.estimate_mean_interval(np.ones(5), 10) == (1.0, 1.0)


def test_a_difference_of_columns_cancels_the_difficulty_of_problems():
  values = np.stack([np.arange(100) / 100, np.arange(100) / 100 + 0.01], axis=1)
  means = estimators.resample_means(values, 1000)
  interval = estimators.central_interval(means[:, 1] - means[:, 0])
  assert interval == pytest.approx((0.01, 0.01))


def test_without_problems_there_is_no_interval():
  with pytest.raises(ValueError, match='at least one problem'):
    estimators.estimate_mean_interval(np.array([]), 10)


@pytest.mark.parametrize('n', range(1, 7))
def test_estimator_equals_enumeration(n):
  for c in range(n + 1):
    for k in range(1, n + 1):
      subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
      share = fractions.Fraction(sum(map(any, subsets)), len(subsets))
      assert estimators.estimate_pass_at_k(n, c, k) == float(share)


def test_estimator_is_exact_where_a_product_of_floats_is_not():
  value = estimators.estimate_pass_at_k(num_samples=2000, num_correct=3, k=1)
  assert value == 3 / 2000


def test_more_samples_than_were_drawn_is_an_error():
  with pytest.raises(ValueError, match='n=4 .* draw at least 5'):
    estimators.estimate_pass_at_k(num_samples=4, num_correct=4, k=5)


def test_more_correct_than_samples_is_an_error():
  with pytest.raises(ValueError, match='5 correct of 4'):
    estimators.estimate_pass_at_k(num_samples=4, num_correct=5, k=1)


def test_unequal_samples_are_an_error_unless_allowed():
  with pytest.raises(ValueError, match='between 2 and 4'):
    estimators.estimate_each_problem([4, 2], [1, 1], 1)
  values = estimators.estimate_each_problem([4, 2], [1, 1], 1, allow_unequal=True)
  assert values.tolist() == [0.25, 0.5]


def test_mean_does_not_depend_on_the_order_of_problems():
  values = [0.1] * 10 + [0.7, 1e-17]
  assert estimators.average_problems(values) == estimators.average_problems(values[::-1])


def test_without_problems_there_is_no_pass_at_k():
  with pytest.raises(ValueError, match='no problems'):
    estimators.estimate_each_problem([], [], 1)
