"""Matched arms differ in one label, and not in what they are matched on."""

import collections

import hypothesis
from hypothesis import strategies as st
import numpy as np

from tests import tables
from valley_jax.data.subsets import matching
from valley_jax.data.subsets import selections


def _arm(table, take, other, *, field='is_correct', on, seed=0, **options):
  chosen = {'match': field, 'take': take, 'other': other, 'on': on, **options}
  rows = selections.evaluate(table, {'it': (chosen,)}, 'it', seed=seed, read_ids=lambda path: [])
  return rows.tolist()


TABLE = tables.drawn(400)


def test_each_arm_has_as_many_traces_of_each_difficulty():
  counts = []
  for take in (True, False):
    rows = _arm(TABLE, take, not take, on=('difficulty',))
    assert {TABLE.is_correct[row] for row in rows} == {take}
    counts.append(collections.Counter(TABLE.difficulty[row] for row in rows))
  assert counts[0] == counts[1]
  # As many as the rarer class has.
  every = collections.Counter(zip(TABLE.difficulty, TABLE.is_correct))
  for name in ('easy', 'hard'):
    assert counts[0][name] == min(every[name, True], every[name, False])


def test_correctness_matched_on_length_no_longer_tells_it():
  def gap(of):
    lengths = [np.log(TABLE.num_tokens[of(take)]).mean() for take in (True, False)]
    return abs(lengths[0] - lengths[1])

  correct = np.asarray(TABLE.is_correct)
  before = gap(lambda take: np.flatnonzero(correct == take))
  after = gap(lambda take: _arm(TABLE, take, not take, on=('num_tokens',)))
  assert after < 0.2 * before


def test_difficulty_is_matched_on_correctness():
  counts = [
      collections.Counter(
          TABLE.is_correct[row]
          for row in _arm(TABLE, take, other, field='difficulty', on=('is_correct',))
      )
      for take, other in (('hard', 'easy'), ('easy', 'hard'))
  ]
  assert counts[0] == counts[1]


@hypothesis.given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9))
def test_smaller_arms_lie_in_larger_ones_and_are_matched_too(n, m, seed):
  on = ('difficulty', 'num_tokens')
  sizes = sorted([n, m])
  for take in (True, False):
    small, large = (_arm(TABLE, take, not take, on=on, most=size, seed=seed) for size in sizes)
    assert set(small) <= set(large)
    assert [len(small), len(large)] == sizes


def test_an_unknown_label_is_in_no_arm():
  table = tables.table(
      {'is_correct': True, 'difficulty': 'hard'},
      {'is_correct': False, 'difficulty': 'hard'},
      {'is_correct': True},
      {'is_correct': False},
      {'difficulty': 'hard'},
  )
  assert _arm(table, True, False, on=('difficulty',)) == [0]
  assert _arm(table, False, True, on=('difficulty',)) == [1]


def test_strata_of_a_number_have_equally_many_values():
  values = list(range(100, 0, -1))
  counts = collections.Counter(matching.strata(values, 4))
  assert counts == {0: 25, 1: 25, 2: 25, 3: 25}


def test_equal_values_are_in_one_stratum():
  values = [1, 1, 1, 1, 1, 1, 2, 3]
  found = matching.strata(values, 4)
  assert len(set(found[:6])) == 1 and found[5] < found[6]
