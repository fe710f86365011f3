"""Named subsets are compared problem by problem, and claims are no larger."""

import dataclasses
import functools

import pytest

from valley_jax.analysis import subset_findings
from valley_jax.analysis import subsets
from valley_jax.scoring import estimators

_resample = functools.partial(estimators.resample_means, num_draws=500)


def _scores(subset, correct, seed=0, num_samples=1, num_traces=8):
  return {
      'subset': subset,
      'num_traces': num_traces if subset else 0,
      'seed': seed,
      'problems': [
          {'problem_id': f'p{i}', 'num_samples': num_samples, 'num_correct': c}
          for i, c in enumerate(correct)
      ],
  }


def _measure(*scores):
  return subsets.measure(scores, _resample)


def test_two_subsets_of_one_size_are_two_arms_and_a_pair():
  found = _measure(_scores('b', [1, 0, 0, 0]), _scores('a', [1, 1, 1, 0]))
  assert [arm.name for arm in found.arms] == ['b', 'a']  # As the runs come.
  (pair,) = found.pairs
  assert (pair.name, pair.other, pair.difference) == ('b', 'a', -0.5)


def test_the_interval_of_a_gap_is_paired():
  # Every problem gains exactly one of four samples, easy ones and hard ones.
  found = _measure(
      _scores('a', [1, 2, 3, 4], num_samples=4), _scores('b', [0, 1, 2, 3], num_samples=4)
  )
  assert found.pairs[0].interval == pytest.approx((0.25, 0.25))
  assert found.arms[0].interval[0] < found.arms[0].interval[1]


def test_a_gap_is_of_means_over_seeds_and_is_told_by_seed():
  found = _measure(
      _scores('a', [1, 1], seed=0),
      _scores('a', [0, 1], seed=1),
      _scores('b', [0, 0], seed=1),
      _scores('b', [0, 1], seed=0),
      _scores('b', [0, 0], seed=2),
  )
  (pair,) = found.pairs
  assert pair.difference == pytest.approx(3 / 4 - 1 / 6)
  assert pair.by_seed == (0.5, 0.5)


def test_the_base_student_is_what_all_subsets_are_held_against():
  found = _measure(_scores('a', [1, 1]), _scores('b', [1, 0]), _scores('', [0, 0]))
  assert found.base is not None and found.base.pass_at_1 == 0
  assert [arm.name for arm in found.arms] == ['a', 'b']
  assert [(g.name, g.other) for g in found.against_base] == [
      ('a', 'base'), ('b', 'base'),
  ]  # fmt: skip
  assert [(g.name, g.other) for g in found.pairs] == [('a', 'b')]


def test_without_a_base_student_subsets_are_compared_all_the_same():
  found = _measure(_scores('a', [1, 1]), _scores('b', [1, 0]))
  assert found.base is None and not found.against_base and found.pairs


def test_who_looks_at_many_pairs_gets_wider_intervals():
  answers = {
      'a': [1, 0, 1, 1, 0, 1, 1, 1],
      'b': [0, 1, 1, 0, 0, 1, 0, 1],
      'c': [0, 0, 1, 0, 1, 0, 1, 0],
  }
  runs = [_scores(name, correct * 8) for name, correct in answers.items()]
  for gap in _measure(*runs).pairs:
    assert gap.num_compared == 3
    assert gap.among_all[0] < gap.interval[0]
    assert gap.among_all[1] > gap.interval[1]
  (alone,) = _measure(*runs[:2]).pairs
  assert alone.among_all == pytest.approx(alone.interval)


def test_a_subset_may_have_another_size_with_another_seed():
  found = _measure(
      _scores('', [0]), _scores('a', [1], num_traces=7), _scores('a', [1], 1, num_traces=9)
  )
  assert found.arms[0].num_traces == (7, 9)


def test_two_runs_of_one_subset_and_seed_are_an_error():
  with pytest.raises(ValueError, match="Two runs have subset 'a' and seed 0"):
    _measure(_scores('a', [1]), _scores('a', [0], num_traces=4))


def test_subsets_are_not_compared_on_different_problems():
  with pytest.raises(ValueError, match="subset 'b', seed 0, .* 1 problems"):
    _measure(_scores('a', [1, 0]), _scores('b', [1]))


def _gap(interval, among_all, by_seed=()):
  return subsets.Gap(
      name='a',
      other='b',
      difference=sum(interval) / 2,
      interval=interval,
      among_all=among_all,
      num_compared=6,
      by_seed=by_seed,
  )


_TOLD = _gap((0.02, 0.06), (0.01, 0.07), (0.03, 0.05))
_ALONE = _gap((0.01, 0.05), (-0.01, 0.07))
_NOT = _gap((-0.02, 0.03), (-0.03, 0.04))


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
  assert subset_findings.claim(gap) == said


def _compared(*pairs):
  found = _measure(_scores('a', [1, 1]), _scores('b', [1, 0]))
  return dataclasses.replace(found, pairs=pairs)


def test_the_headline_names_the_better_one_of_two():
  assert subset_findings.headline(_compared(_TOLD)) == ('a beats b by 4.0 points.')
  back = dataclasses.replace(
      _TOLD, difference=-0.04, interval=(-0.06, -0.02), among_all=(-0.07, -0.01)
  )
  assert subset_findings.headline(_compared(back)) == ('b beats a by 4.0 points.')


def test_a_gap_within_the_noise_is_no_headline():
  assert subset_findings.headline(_compared(_NOT)) == ('a and b are not told apart.')


def test_of_many_pairs_only_those_that_hold_among_all_are_counted():
  said = subset_findings.headline(_compared(_TOLD, _ALONE, _NOT))
  assert said == 'Of 3 pairs of subsets, 1 can be told apart.'


def test_one_subset_is_held_against_the_base_student():
  found = _measure(_scores('', [0, 0]), _scores('a', [1, 1]))
  assert subset_findings.headline(found) == 'One subset, a.'
  assert 'a against the base student: +100.0' in subset_findings.verdict(found)


def test_one_seed_is_said_to_be_one():
  found = _measure(_scores('a', [1, 1]), _scores('b', [1, 0]))
  assert subset_findings.notes(found)[0].startswith('One seed a subset')
