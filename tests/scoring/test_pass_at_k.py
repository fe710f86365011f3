"""pass@k is the share of the k-subsets that hold a correct sample."""

import fractions
import itertools

import pytest

from valley_jax.scoring import pass_at_k


@pytest.mark.parametrize('n', range(1, 7))
def test_estimator_equals_enumeration(n):
  for c in range(n + 1):
    for k in range(1, n + 1):
      subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
      share = fractions.Fraction(sum(map(any, subsets)), len(subsets))
      assert pass_at_k.estimate(n, c, k) == float(share)


def test_estimator_is_exact_where_a_product_of_floats_is_not():
  value = pass_at_k.estimate(num_samples=2000, num_correct=3, k=1)
  assert value == 3 / 2000


def test_more_samples_than_were_drawn_is_an_error():
  with pytest.raises(ValueError, match='n=4 .* draw at least 5'):
    pass_at_k.estimate(num_samples=4, num_correct=4, k=5)


def test_more_correct_than_samples_is_an_error():
  with pytest.raises(ValueError, match='5 correct of 4'):
    pass_at_k.estimate(num_samples=4, num_correct=5, k=1)


def test_unequal_samples_are_an_error_unless_allowed():
  with pytest.raises(ValueError, match='between 2 and 4'):
    pass_at_k.per_problem([4, 2], [1, 1], 1)
  values = pass_at_k.per_problem([4, 2], [1, 1], 1, allow_unequal=True)
  assert values.tolist() == [0.25, 0.5]


def test_mean_does_not_depend_on_the_order_of_problems():
  values = [0.1] * 10 + [0.7, 1e-17]
  assert pass_at_k.mean(values) == pass_at_k.mean(values[::-1])


def test_no_problems_is_an_error():
  with pytest.raises(ValueError, match='no problems'):
    pass_at_k.per_problem([], [], 1)
