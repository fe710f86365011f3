"""Words claim what the intervals support, and no more."""

import dataclasses

import pytest

from valley_jax.analysis import comparison
from valley_jax.analysis import findings
from valley_jax.analysis import presentation


def _make_group(name, value, num_seeds=1):
  return comparison.GroupResult(
      name=name,
      num_traces=(name, name) if isinstance(name, int) else (8, 8),
      seeds=tuple(range(num_seeds)),
      pass_at_1=value,
      interval=(value - 0.05, value + 0.05),
      by_seed=(value,) * num_seeds,
  )


def _make_difference(interval, among_all, by_seed=(), name='a', other='b', num_compared=6):
  return comparison.Difference(
      name=name,
      other=other,
      difference=sum(interval) / 2,
      interval=interval,
      among_all=among_all,
      num_compared=num_compared,
      by_seed=by_seed,
  )


def _make_curve(lowest, largest, edge=None):
  """Sizes 16 and 64 against a base of 30 %; (difference, low, high) each."""
  changes = tuple(
      dataclasses.replace(
          _make_difference((low, high), (low, high), name=size, other=0, num_compared=2),
          difference=difference,
      )
      for size, (difference, low, high) in ((16, lowest), (64, largest))
  )
  return comparison.Comparison(
      num_problems=10,
      base=_make_group(0, 0.3),
      groups=(_make_group(16, 0.3 + lowest[0]), _make_group(64, 0.3 + largest[0])),
      against_base=changes,
      pairs=(),
      edge=edge,
  )


_FALL, _RISE = (-0.2, -0.3, -0.1), (0.1, 0.05, 0.15)
_DIP, _GAIN = (-0.01, -0.1, 0.08), (0.01, -0.1, 0.12)


def test_a_fall_beyond_the_noise_is_a_valley():
  curve = _make_curve(_FALL, _RISE)
  assert findings.summarize_curve(curve).headline == 'There is a valley, 20.0 points deep.'
  assert 'corrected for picking the lowest of 2 sizes' in findings.summarize_curve(curve).verdict
  assert '64 traces beat the base student' in findings.summarize_curve(curve).verdict


def test_a_dip_within_the_noise_is_not_called_a_valley():
  curve = _make_curve(_DIP, _GAIN)
  assert findings.summarize_curve(curve).headline == 'A dip, but not beyond the noise.'
  assert 'not shown to differ' in findings.summarize_curve(curve).verdict


def test_a_curve_that_may_fall_is_not_said_to_have_no_valley():
  assert findings.summarize_curve(_make_curve(_GAIN, _RISE)).headline == (
      'No dip is seen, nor ruled out.'
  )


def test_a_curve_that_never_falls_has_no_valley():
  curve = _make_curve(_RISE, _RISE)
  assert findings.summarize_curve(curve).headline == 'There is no valley at these sizes.'
  assert 'no size is below' in findings.summarize_curve(curve).verdict


def test_a_curve_that_ends_below_says_so():
  curve = _make_curve(_FALL, _FALL)
  assert 'does not re-cross' in findings.summarize_curve(curve).verdict
  assert '64 traces stay below' in findings.summarize_curve(curve).verdict


def test_an_open_end_of_the_edge_is_said_in_words():
  edge = comparison.Edge(num_traces=32.0, low=None, high=None)
  verdict = findings.summarize_curve(_make_curve(_FALL, _RISE, edge)).verdict
  assert '32 traces (below the smallest size to beyond the largest size)' in verdict


def test_nothing_known_is_a_dash_and_not_zero():
  assert presentation.format_percent(None) == '–'
  assert presentation.format_percent(0.0) == '0.0\N{NO-BREAK SPACE}%'


_TOLD = _make_difference((0.02, 0.06), (0.01, 0.07), (0.03, 0.05))
_ALONE = _make_difference((0.01, 0.05), (-0.01, 0.07))
_NOT = _make_difference((-0.02, 0.03), (-0.03, 0.04))


@pytest.mark.parametrize(
    ('gap', 'said'),
    [
        (_TOLD, 'told from zero'),
        (_ALONE, 'told from zero alone, but not among 6 pairs'),
        (_NOT, 'not told from zero: it may be up to 3.0 points'),
        (
            dataclasses.replace(_TOLD, by_seed=(0.1, -0.02)),
            'told from zero, though not by every seed',
        ),
    ],
)
def test_a_gap_is_told_from_zero_only_as_far_as_its_intervals_go(gap, said):
  assert findings.describe_significance(gap) == said


def _make_subsets(*pairs, base=None, against_base=()):
  names = 'ab' if pairs else 'a'
  return comparison.Comparison(
      num_problems=2,
      base=base,
      groups=tuple(_make_group(name, 0.5) for name in names),
      against_base=against_base,
      pairs=pairs,
      edge=None,
  )


def test_the_headline_names_the_better_one_of_two():
  assert findings.summarize_subsets(_make_subsets(_TOLD)).headline == 'a beats b by 4.0 points.'
  back = dataclasses.replace(
      _TOLD, difference=-0.04, interval=(-0.06, -0.02), among_all=(-0.07, -0.01)
  )
  assert findings.summarize_subsets(_make_subsets(back)).headline == 'b beats a by 4.0 points.'


def test_a_gap_within_the_noise_is_no_headline():
  assert findings.summarize_subsets(_make_subsets(_NOT)).headline == 'a and b are not told apart.'


def test_of_many_pairs_only_those_that_hold_among_all_are_counted():
  compared = _make_subsets(_TOLD, _ALONE, _NOT)
  assert (
      findings.summarize_subsets(compared).headline == 'Of 3 pairs of subsets, 1 can be told apart.'
  )


def test_one_subset_is_compared_with_the_base_student():
  gain = _make_difference((0.1, 0.3), (0.1, 0.3), other=0)
  compared = _make_subsets(base=_make_group(0, 0.3), against_base=(gain,))
  summary = findings.summarize_subsets(compared)
  assert summary.headline == 'One subset, a.'
  assert 'a against the base student: +20.0' in summary.verdict


def test_a_single_seed_is_pointed_out():
  notes = findings.summarize_subsets(_make_subsets(_TOLD)).notes
  assert notes[0].startswith('One seed a subset')
