"""Subsets nest, and depend on nothing but the seed and the trace ids."""

import hypothesis
from hypothesis import strategies as st
import pytest

from valley_jax.data.subsets import subset

IDS = [f'trace-{i}' for i in range(200)]


@hypothesis.given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 99))
def test_the_smaller_is_the_beginning_of_the_larger(n, m, seed):
  small, large = sorted([n, m])
  rows = subset.nested(IDS, large, seed)
  assert len(set(rows.tolist())) == large
  assert subset.nested(IDS, small, seed).tolist() == rows[:small].tolist()


@hypothesis.given(st.permutations(IDS[:20]), st.integers(0, 20))
def test_the_order_of_the_shards_does_not_matter(shuffled, n):
  expected = [IDS[i] for i in subset.nested(IDS[:20], n, seed=0)]
  assert [shuffled[i] for i in subset.nested(shuffled, n, 0)] == expected


def test_more_traces_in_the_shards_only_add_to_the_order():
  before = [IDS[i] for i in subset.nested(IDS[:100], 100, seed=0)]
  after = [IDS[i] for i in subset.nested(IDS, 200, seed=0)]
  assert [i for i in after if i in set(before)] == before


def test_another_seed_is_another_subset():
  draws = {tuple(subset.nested(IDS, 20, seed)) for seed in range(10)}
  assert len(draws) == 10


def test_every_trace_is_as_likely_as_any_other():
  counts = [0] * 20
  for seed in range(1000):
    for i in subset.nested(IDS[:20], 5, seed):
      counts[i] += 1
  # Binomial, 250 +- 13.7: five standard deviations.
  assert 180 < min(counts) and max(counts) < 320


def test_a_subset_is_the_same_on_every_machine_and_version():
  assert subset.nested(IDS, 5, seed=0).tolist() == [159, 167, 41, 14, 181]


@pytest.mark.parametrize('n', [201, -1])
def test_what_cannot_be_had_names_both_numbers(n):
  with pytest.raises(ValueError, match=f'num_traces={n} .* hold 200'):
    subset.nested(IDS, n, seed=0)
