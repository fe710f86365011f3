"""Mixtures have their weights."""

import hypothesis
from hypothesis import strategies as st

from valley_jax.data.subsets import mixture

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
