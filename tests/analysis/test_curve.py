"""The curve finds depth, edge and gain, and says when there is none."""

import functools
import math

import numpy as np
import pytest

from valley_jax.analysis import curve
from valley_jax.scoring import estimators

_resample = functools.partial(estimators.resample_means, num_draws=500)


def _scores(num_traces, correct, seed=0, num_samples=1):
  return {
      'num_traces': num_traces,
      'seed': seed,
      'problems': [
          {'problem_id': f'p{i}', 'difficulty': '', 'num_samples': num_samples, 'num_correct': c}
          for i, c in enumerate(correct)
      ],
  }


def _valley():
  """64 problems: base 1/4, then 1/16, 3/8 and 3/4."""
  return [
      _scores(size, [1] * n + [0] * (64 - n))
      for size, n in [(0, 16), (100, 4), (1000, 24), (10_000, 48)]
  ]


def test_edge_of_the_published_curve():
  # Qwen2.5-7B-Instruct, 2510.06101, table 1: about 3.5K by interpolation.
  gaps = np.array([0.055, 0.188, 0.264]) - 0.127
  assert curve.crossing([1000, 10_000, 30_000], gaps) == pytest.approx(3478, abs=1)


def test_edge_is_sought_behind_the_lowest_point():
  gaps = np.array([-0.1, 0.1, -0.2, 0.2])
  assert 100 < curve.crossing([1, 10, 100, 1000], gaps) < 1000


def test_a_curve_that_never_recrosses_has_its_edge_at_infinity():
  assert curve.crossing([1, 10], np.array([-0.2, -0.1])) == math.inf


def test_a_curve_that_is_never_below_has_no_edge():
  assert curve.crossing([1, 10], np.array([0.0, 0.1])) == 0.0


def test_depth_edge_and_gain_of_a_clear_valley():
  found = curve.measure(_valley(), _resample)
  assert found.baseline.pass_at_1 == 0.25
  assert found.has_valley
  assert found.lowest.num_traces == 100
  assert found.lowest.difference == pytest.approx(-12 / 64)
  assert found.lowest.num_compared == 3
  # -12/64 at 100 and +8/64 at 1000: 3/5 of the way in log size.
  assert found.edge.num_traces == pytest.approx(100 * 10**0.6)
  assert found.edge.low < found.edge.num_traces < found.edge.high
  assert found.largest.num_traces == 10_000
  assert found.largest.difference == 0.5
  assert found.largest.interval[0] > 0
  assert found.below_half == (100,)


def test_a_rising_curve_has_no_valley():
  scores = [_scores(0, [1, 0, 0, 0]), _scores(10, [1, 1, 0, 0])]
  found = curve.measure(scores, _resample)
  assert not found.has_valley
  assert found.edge is None
  assert found.below_half == ()


def test_a_dip_inside_the_noise_is_no_valley():
  scores = [
      _scores(0, [1, 1, 0, 0] * 4),
      _scores(10, [0, 1, 0, 0] + [1, 1, 0, 0] * 3),
      _scores(100, [1, 1, 1, 0] * 4),
  ]
  found = curve.measure(scores, _resample)
  assert found.lowest.difference < 0
  assert not found.has_valley
  assert found.edge.low is None  # Many resamples have no valley.


def test_an_edge_off_the_measured_sizes_has_an_open_interval():
  scores = [
      _scores(0, [1, 1, 0, 0] * 4),
      _scores(10, [0, 0, 0, 0] * 4),
      _scores(100, [1, 1, 0, 0] * 3 + [0, 1, 1, 1]),
  ]
  assert curve.measure(scores, _resample).edge.high is None


def test_a_problem_is_averaged_over_seeds():
  scores = [_scores(8, [1, 0], seed=1), _scores(8, [1, 1], seed=0)]
  (point,) = curve.measure(scores, _resample).points
  assert point.seeds == (0, 1)
  assert point.by_seed == (1.0, 0.5)
  assert point.pass_at_1 == 0.75


def test_the_interval_of_a_change_is_paired():
  # Every problem gains exactly one of four samples, easy ones and hard ones.
  scores = [_scores(0, [0, 1, 2, 3], num_samples=4), _scores(10, [1, 2, 3, 4], num_samples=4)]
  found = curve.measure(scores, _resample)
  assert found.largest.interval == pytest.approx((0.25, 0.25))


def test_the_order_of_problems_and_runs_does_not_matter():
  scores = _valley()
  mixed = [{**run, 'problems': run['problems'][::-1]} for run in reversed(scores)]
  assert curve.measure(mixed, _resample) == curve.measure(scores, _resample)


def test_a_single_run_is_a_point():
  found = curve.measure([_scores(8, [1, 0])], _resample)
  assert found.baseline is None
  assert [p.num_traces for p in found.points] == [8]
  assert found.lowest is None


def test_a_base_run_alone_is_a_baseline():
  found = curve.measure([_scores(0, [1, 0])], _resample)
  assert found.baseline.pass_at_1 == 0.5
  assert found.points == ()


def test_runs_on_different_problems_are_no_curve():
  with pytest.raises(ValueError, match='differ in 1 problems'):
    curve.measure([_scores(0, [1, 0]), _scores(8, [1])], _resample)


def test_two_runs_of_one_size_and_seed_are_an_error():
  with pytest.raises(ValueError, match='8 traces and seed 0'):
    curve.measure([_scores(8, [1]), _scores(8, [0])], _resample)


def test_no_runs_are_an_error():
  with pytest.raises(ValueError, match='no runs'):
    curve.measure([], _resample)
