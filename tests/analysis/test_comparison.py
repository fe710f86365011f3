"""Groups are compared by problem: the curve's depth, edge and gain; gaps between subsets."""

import functools
import math

import numpy as np
import pytest

from valley_jax.analysis import comparison
from valley_jax.scoring import estimators

_resample = functools.partial(estimators.resample_means, num_draws=500)


def _make_scores(num_traces, correct, seed=0, num_samples=1, subset=''):
  return {
      'subset': subset,
      'num_traces': num_traces,
      'seed': seed,
      'problems': [
          {'problem_id': f'p{i}', 'difficulty': '', 'num_samples': num_samples, 'num_correct': c}
          for i, c in enumerate(correct)
      ],
  }


def _compare(scores):
  return comparison.compare_groups(scores, _resample)


def _valley_scores():
  """64 problems: base 1/4, then 1/16, 3/8 and 3/4."""
  return [
      _make_scores(size, [1] * n + [0] * (64 - n))
      for size, n in [(0, 16), (100, 4), (1000, 24), (10_000, 48)]
  ]


def test_edge_of_the_published_curve():
  # Qwen2.5-7B-Instruct, 2510.06101, table 1: about 3.5K by interpolation.
  gaps = np.array([0.055, 0.188, 0.264]) - 0.127
  assert comparison.find_crossing([1000, 10_000, 30_000], gaps) == pytest.approx(3478, abs=1)


def test_edge_is_sought_after_the_lowest_point():
  gaps = np.array([-0.1, 0.1, -0.2, 0.2])
  assert 100 < comparison.find_crossing([1, 10, 100, 1000], gaps) < 1000


def test_a_curve_that_never_recrosses_has_its_edge_at_infinity():
  assert comparison.find_crossing([1, 10], np.array([-0.2, -0.1])) == math.inf


def test_a_curve_that_is_never_below_has_no_edge():
  assert comparison.find_crossing([1, 10], np.array([0.0, 0.1])) == 0.0


def test_depth_edge_and_gain_of_a_clear_valley_scores():
  curve = _compare(_valley_scores())
  assert curve.base.pass_at_1 == 0.25
  assert curve.has_valley
  assert curve.lowest.name == 100
  assert curve.lowest.difference == pytest.approx(-12 / 64)
  assert curve.lowest.num_compared == 3
  # -12/64 at 100 and +8/64 at 1000: 3/5 of the way in log size.
  assert curve.edge.num_traces == pytest.approx(100 * 10**0.6)
  assert curve.edge.low < curve.edge.num_traces < curve.edge.high
  assert curve.largest.name == 10_000
  assert curve.largest.difference == 0.5
  assert curve.largest.interval[0] > 0
  assert curve.below_half == (100,)


def test_a_rising_curve_has_no_valley_scores():
  scores = [_make_scores(0, [1, 0, 0, 0]), _make_scores(10, [1, 1, 0, 0])]
  curve = _compare(scores)
  assert not curve.has_valley
  assert curve.edge is None
  assert curve.below_half == ()


def test_a_dip_inside_the_noise_is_no_valley_scores():
  scores = [
      _make_scores(0, [1, 1, 0, 0] * 4),
      _make_scores(10, [0, 1, 0, 0] + [1, 1, 0, 0] * 3),
      _make_scores(100, [1, 1, 1, 0] * 4),
  ]
  curve = _compare(scores)
  assert curve.lowest.difference < 0
  assert not curve.has_valley
  assert curve.edge.low is None  # Many resamples have no valley.


def test_an_edge_off_the_measured_sizes_has_an_open_interval():
  scores = [
      _make_scores(0, [1, 1, 0, 0] * 4),
      _make_scores(10, [0, 0, 0, 0] * 4),
      _make_scores(100, [1, 1, 0, 0] * 3 + [0, 1, 1, 1]),
  ]
  assert _compare(scores).edge.high is None


def test_a_problem_is_averaged_over_seeds():
  scores = [_make_scores(8, [1, 0], seed=1), _make_scores(8, [1, 1], seed=0)]
  (point,) = _compare(scores).groups
  assert point.seeds == (0, 1)
  assert point.by_seed == (1.0, 0.5)
  assert point.pass_at_1 == 0.75


def test_the_interval_of_a_change_is_paired():
  # Every problem gains exactly one of four samples, easy ones and hard ones.
  scores = [
      _make_scores(0, [0, 1, 2, 3], num_samples=4),
      _make_scores(10, [1, 2, 3, 4], num_samples=4),
  ]
  curve = _compare(scores)
  assert curve.largest.interval == pytest.approx((0.25, 0.25))


def test_the_order_of_problems_and_runs_does_not_matter():
  scores = _valley_scores()
  mixed = [{**run, 'problems': run['problems'][::-1]} for run in reversed(scores)]
  assert _compare(mixed) == _compare(scores)


def test_a_single_run_is_a_point():
  curve = _compare([_make_scores(8, [1, 0])])
  assert curve.base is None
  assert [p.size for p in curve.groups] == [8]
  assert curve.lowest is None


def test_a_base_run_alone_is_a_baseline():
  curve = _compare([_make_scores(0, [1, 0])])
  assert curve.base.pass_at_1 == 0.5
  assert curve.groups == ()


def test_runs_on_different_problems_are_no_curve():
  with pytest.raises(ValueError, match='differ in 1 problems'):
    _compare([_make_scores(0, [1, 0]), _make_scores(8, [1])])


def test_two_runs_of_one_size_and_seed_are_an_error():
  with pytest.raises(ValueError, match='8 traces and seed 0'):
    _compare([_make_scores(8, [1]), _make_scores(8, [0])])


def test_no_runs_are_an_error():
  with pytest.raises(ValueError, match='no runs'):
    _compare([])


def _make_subset(subset, correct, seed=0, num_samples=1, num_traces=8):
  return _make_scores(num_traces if subset else 0, correct, seed, num_samples, subset)


def _compare_subsets(*scores):
  return _compare(scores)


def test_two_subsets_of_one_size_are_two_groups_and_a_pair():
  compared = _compare_subsets(_make_subset('b', [1, 0, 0, 0]), _make_subset('a', [1, 1, 1, 0]))
  assert [group.name for group in compared.groups] == ['b', 'a']  # As the runs come.
  (pair,) = compared.pairs
  assert (pair.name, pair.other, pair.difference) == ('b', 'a', -0.5)


def test_the_interval_of_a_difference_is_paired():
  # Every problem gains exactly one of four samples, easy ones and hard ones.
  compared = _compare_subsets(
      _make_subset('a', [1, 2, 3, 4], num_samples=4), _make_subset('b', [0, 1, 2, 3], num_samples=4)
  )
  assert compared.pairs[0].interval == pytest.approx((0.25, 0.25))
  assert compared.groups[0].interval[0] < compared.groups[0].interval[1]


def test_a_difference_is_of_means_over_seeds_and_is_given_by_seed():
  compared = _compare_subsets(
      _make_subset('a', [1, 1], seed=0),
      _make_subset('a', [0, 1], seed=1),
      _make_subset('b', [0, 0], seed=1),
      _make_subset('b', [0, 1], seed=0),
      _make_subset('b', [0, 0], seed=2),
  )
  (pair,) = compared.pairs
  assert pair.difference == pytest.approx(3 / 4 - 1 / 6)
  assert pair.by_seed == (0.5, 0.5)


def test_the_base_student_is_what_all_subsets_are_held_against():
  compared = _compare_subsets(
      _make_subset('a', [1, 1]), _make_subset('b', [1, 0]), _make_subset('', [0, 0])
  )
  assert compared.base is not None and compared.base.pass_at_1 == 0
  assert [group.name for group in compared.groups] == ['a', 'b']
  assert [(g.name, g.other) for g in compared.against_base] == [('a', 0), ('b', 0)]
  assert [(g.name, g.other) for g in compared.pairs] == [('a', 'b')]


def test_without_a_base_student_subsets_are_compared_all_the_same():
  compared = _compare_subsets(_make_subset('a', [1, 1]), _make_subset('b', [1, 0]))
  assert compared.base is None and not compared.against_base and compared.pairs


def test_who_looks_at_many_pairs_gets_wider_intervals():
  answers = {
      'a': [1, 0, 1, 1, 0, 1, 1, 1],
      'b': [0, 1, 1, 0, 0, 1, 0, 1],
      'c': [0, 0, 1, 0, 1, 0, 1, 0],
  }
  runs = [_make_subset(name, correct * 8) for name, correct in answers.items()]
  for gap in _compare_subsets(*runs).pairs:
    assert gap.num_compared == 3
    assert gap.among_all[0] < gap.interval[0]
    assert gap.among_all[1] > gap.interval[1]
  (alone,) = _compare_subsets(*runs[:2]).pairs
  assert alone.among_all == pytest.approx(alone.interval)


def test_a_subset_may_have_another_size_with_another_seed():
  compared = _compare_subsets(
      _make_subset('', [0]),
      _make_subset('a', [1], num_traces=7),
      _make_subset('a', [1], 1, num_traces=9),
  )
  assert compared.groups[0].num_traces == (7, 9)


def test_two_runs_of_one_subset_and_seed_are_an_error():
  with pytest.raises(ValueError, match="Two runs have subset 'a' and seed 0"):
    _compare_subsets(_make_subset('a', [1]), _make_subset('a', [0], num_traces=4))


def test_subsets_are_not_compared_on_different_problems():
  with pytest.raises(ValueError, match="subset 'b', seed 0, .* 1 problems"):
    _compare_subsets(_make_subset('a', [1, 0]), _make_subset('b', [1]))
