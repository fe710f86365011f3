"""Random subsets nest, shares are exact, and matched arms differ in one label alone."""

import collections

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import tables
from valley_jax.data.subsets import drawing
from valley_jax.data.subsets import selections

IDS = [f'trace-{i}' for i in range(200)]


@hypothesis.given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 99))
def test_the_smaller_is_the_beginning_of_the_larger(n, m, seed):
  small, large = sorted([n, m])
  rows = drawing.draw_nested(IDS, large, seed)
  assert len(set(rows.tolist())) == large
  assert drawing.draw_nested(IDS, small, seed).tolist() == rows[:small].tolist()


@hypothesis.given(st.permutations(IDS[:20]), st.integers(0, 20))
def test_the_order_of_the_shards_does_not_matter(shuffled, n):
  expected = [IDS[i] for i in drawing.draw_nested(IDS[:20], n, seed=0)]
  assert [shuffled[i] for i in drawing.draw_nested(shuffled, n, 0)] == expected


def test_more_traces_in_the_shards_only_add_to_the_order():
  before = [IDS[i] for i in drawing.draw_nested(IDS[:100], 100, seed=0)]
  after = [IDS[i] for i in drawing.draw_nested(IDS, 200, seed=0)]
  assert [i for i in after if i in set(before)] == before


def test_another_seed_is_another_subset():
  draws = {tuple(drawing.draw_nested(IDS, 20, seed)) for seed in range(10)}
  assert len(draws) == 10


def test_every_trace_is_as_likely_as_any_other():
  counts = [0] * 20
  for seed in range(1000):
    for i in drawing.draw_nested(IDS[:20], 5, seed):
      counts[i] += 1
  # Binomial, 250 +- 13.7: five standard deviations.
  assert 180 < min(counts) and max(counts) < 320


def test_a_subset_is_the_same_on_every_machine_and_version():
  assert drawing.draw_nested(IDS, 5, seed=0).tolist() == [159, 167, 41, 14, 181]


@pytest.mark.parametrize('n', [201, -1])
def test_what_cannot_be_had_names_both_numbers(n):
  with pytest.raises(ValueError, match=f'num_traces={n} .* hold 200'):
    drawing.draw_nested(IDS, n, seed=0)


WEIGHTS = st.lists(st.integers(1, 100), min_size=1, max_size=5)


@hypothesis.given(WEIGHTS, st.integers(0, 200))
def test_shares_are_exact_to_one_and_only_grow(weights, number):
  limits = [1000] * len(weights)
  shares = drawing.share_out(weights, number, limits)
  more = drawing.share_out(weights, number + 1, limits)
  assert sum(shares) == number
  assert sum(b - a for a, b in zip(shares, more)) == 1
  assert all(a <= b for a, b in zip(shares, more))
  if len(weights) == 2:
    assert abs(shares[0] - number * weights[0] / sum(weights)) <= 1


@hypothesis.given(WEIGHTS, st.integers(0, 200))
def test_a_share_at_its_limit_leaves_the_rest_to_the_others(weights, number):
  limits = [7] * len(weights)
  shares = drawing.share_out(weights, number, limits)
  assert sum(shares) == min(number, 7 * len(weights))
  assert max(shares) <= 7


def _arm(table, take, other, *, field='is_correct', on, seed=0, **options):
  chosen = {'match': field, 'take': take, 'other': other, 'on': on, **options}
  rows = selections.select_rows(table, {'it': (chosen,)}, 'it', seed=seed, read_ids=lambda path: [])
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
  counts = collections.Counter(drawing.assign_strata(values, 4))
  assert counts == {0: 25, 1: 25, 2: 25, 3: 25}


def test_equal_values_are_in_one_stratum():
  values = [1, 1, 1, 1, 1, 1, 2, 3]
  found = drawing.assign_strata(values, 4)
  assert len(set(found[:6])) == 1 and found[5] < found[6]
