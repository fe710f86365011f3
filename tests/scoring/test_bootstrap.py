"""Intervals are over problems, reproducible, and as wide as they claim."""

import numpy as np
import pytest

from valley_jax.scoring import bootstrap


def test_interval_covers_the_truth_as_often_as_it_claims():
  # Problems differ in difficulty, so that samples of one problem agree.
  rng = np.random.default_rng(0)
  covered = 0
  for study in range(400):
    rates = rng.beta(0.5, 0.5, size=100)
    values = rng.binomial(8, rates) / 8
    low, high = bootstrap.mean_interval(values, num_draws=1000, seed=study)
    covered += low <= 0.5 <= high
  assert 0.92 <= covered / 400 <= 0.98


def test_resamples_draw_whole_problems():
  means = bootstrap.resampled_means(np.array([[0.0], [1.0]]), 1000, 0)
  assert set(means[:, 0]) == {0.0, 0.5, 1.0}
  assert means.mean() == pytest.approx(0.5, abs=0.05)


def test_columns_see_the_same_resamples():
  values = np.array([[0.1, 1.1], [0.5, 1.5], [0.9, 1.9]])
  means = bootstrap.resampled_means(values, 100, 0)
  np.testing.assert_allclose(means[:, 1] - means[:, 0], 1.0)


def test_blocks_of_draws_change_nothing_but_memory(monkeypatch):
  values = np.arange(5.0)[:, None]
  whole = bootstrap.resampled_means(values, 7, 0)
  monkeypatch.setattr(bootstrap, '_BLOCK', 10)  # Two draws a block.
  np.testing.assert_array_equal(bootstrap.resampled_means(values, 7, 0), whole)


def test_same_seed_same_interval():
  values = np.arange(20) % 3
  assert bootstrap.mean_interval(values, 100, 1) == bootstrap.mean_interval(values, 100, 1)
  assert bootstrap.mean_interval(values, 100, 1) != bootstrap.mean_interval(values, 100, 2)


def test_certain_values_have_no_width():
  assert bootstrap.mean_interval(np.ones(5)) == (1.0, 1.0)


def test_pairing_cancels_the_difficulty_of_problems():
  a = {f'p{i}': i / 100 for i in range(100)}
  b = {name: value + 0.01 for name, value in a.items()}
  found = bootstrap.paired_difference(a, b)
  assert found.difference == pytest.approx(0.01)
  assert found.interval == pytest.approx((0.01, 0.01))


def test_runs_on_different_problems_do_not_compare():
  with pytest.raises(ValueError, match='2 problems are in one run only'):
    bootstrap.paired_difference({'p': 1.0, 'q': 0.0}, {'p': 1.0, 'r': 0.0})


def test_no_problems_have_no_interval():
  with pytest.raises(ValueError, match='at least one problem'):
    bootstrap.mean_interval(np.array([]))
