"""Mixtures have their weights, in counts and step by step."""

import collections

import hypothesis
from hypothesis import strategies as st
import pytest

from valley_jax.data import mixture

WEIGHTS = st.lists(st.integers(1, 100), min_size=1, max_size=5)


@hypothesis.given(WEIGHTS, st.integers(0, 200))
def test_shares_are_exact_to_one_and_only_grow(weights, number):
  limits = [1000] * len(weights)
  shares = mixture.counts(weights, number, limits)
  more = mixture.counts(weights, number + 1, limits)
  assert sum(shares) == number
  assert sum(b - a for a, b in zip(shares, more)) == 1
  assert all(a <= b for a, b in zip(shares, more))
  if len(weights) == 2:
    assert abs(shares[0] - number * weights[0] / sum(weights)) <= 1


@hypothesis.given(WEIGHTS, st.integers(0, 200))
def test_a_share_at_its_limit_leaves_the_rest_to_the_others(weights, number):
  limits = [7] * len(weights)
  shares = mixture.counts(weights, number, limits)
  assert sum(shares) == min(number, 7 * len(weights))
  assert max(shares) <= 7


def test_a_source_is_drawn_as_often_as_its_weight_says():
  weights = {'a': 6.0, 'b': 3.0, 'c': 1.0, 'never': 0.0}
  drawn = [mixture.source(weights, 0, step) for step in range(10_000)]
  counts = collections.Counter(drawn)
  # Binomial: 5 standard deviations are below 250.
  expected = {'a': 6000, 'b': 3000, 'c': 1000}
  assert counts.keys() == expected.keys()
  assert all(abs(counts[name] - n) < 250 for name, n in expected.items())


def test_the_source_of_a_step_is_the_same_on_every_machine_and_version():
  weights = {'a': 0.5, 'b': 0.5}
  assert ''.join(mixture.source(weights, 0, i) for i in range(12)) == (
      'abababbabbbb'
  )


def test_weights_that_change_a_little_change_few_steps():
  one, other = {'a': 0.50, 'b': 0.50}, {'a': 0.51, 'b': 0.49}
  changed = [
      (mixture.source(one, 3, step), mixture.source(other, 3, step))
      for step in range(5_000)
      if mixture.source(one, 3, step) != mixture.source(other, 3, step)
  ]
  assert 0 < len(changed) < 100 and set(changed) == {('b', 'a')}


def test_the_order_in_which_weights_are_named_does_not_matter():
  one, other = {'a': 1, 'b': 2, 'c': 3}, {'c': 3, 'a': 1, 'b': 2}
  for step in range(100):
    assert mixture.source(one, 0, step) == mixture.source(other, 0, step)


@pytest.mark.parametrize('weights', [{}, {'a': 0}, {'a': 1, 'b': -1}])
def test_weights_that_are_none_are_refused(weights):
  with pytest.raises(ValueError, match='none below 0'):
    mixture.source(weights, 0, 0)
