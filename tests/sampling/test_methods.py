"""Methods draw from exactly the distribution that they name."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests import marks
from valley_jax.sampling import methods

# 20,000 draws against exact probabilities.

LOGITS = np.log([0.02, 0.3, 0.08, 0.05, 0.25, 1e-30, 0.2, 0.1]) + 3
NUM_DRAWS = 20_000


def _counts(method, logits=LOGITS):
  keys = jax.random.split(jax.random.key(7), NUM_DRAWS)
  rows = np.broadcast_to(logits.astype(np.float32), (NUM_DRAWS, len(logits)))
  tokens = jax.jit(functools.partial(methods.draw_tokens, method))(rows, keys)
  return np.bincount(tokens, minlength=len(logits))


def _exact(method, logits=LOGITS):
  """Probabilities of a method, filter by filter, each by sorting."""
  probs = np.exp(logits.astype(np.float64) / method.temperature)
  probs /= probs.sum()
  if method.top_k:
    least = np.sort(probs)[::-1][: method.top_k][-1]
    probs = np.where(probs >= least, probs, 0) / probs[probs >= least].sum()
  order = np.argsort(-probs)
  size = 1 + np.searchsorted(np.cumsum(probs[order]), method.top_p - 1e-9)
  nucleus = np.zeros(len(probs), bool)
  nucleus[order[:size]] = True
  nucleus &= probs >= method.min_p * probs.max()
  return np.where(nucleus, probs, 0) / probs[nucleus].sum()


def _assert_draws_from(exact, counts):
  assert not counts[exact == 0].any()
  inside = exact > 0
  if inside.sum() > 1:
    expected = NUM_DRAWS * exact[inside]
    assert scipy.stats.chisquare(counts[inside], expected).pvalue > 1e-3


@pytest.mark.parametrize(
    'p, temperature',
    marks.long_but_first(
        [(0.95, 0.6), (0.6, 1.0), (0.9, 1.0), (1.0, 1.0), (1.0, 3.0), (0.01, 1.0)]
    ),
)
def test_top_p_draws_from_the_renormalised_nucleus(p, temperature):
  method = methods.Sampling(top_p=p, temperature=temperature)
  _assert_draws_from(_exact(method), _counts(method))


@pytest.mark.parametrize(
    'filters, survivors',
    [
        ({'top_k': 1}, [1]),
        ({'top_k': 3}, [1, 4, 6]),
        ({'top_k': 100}, [0, 1, 2, 3, 4, 6, 7]),
        ({'min_p': 0.5}, [1, 4, 6]),
        ({'min_p': 1.0}, [1]),
        # Of the mass that top-k leaves, .75, and not of all.
        ({'top_k': 3, 'top_p': 0.7}, [1, 4]),
        ({'top_p': 0.7}, [1, 4, 6]),
        ({'top_k': 5, 'top_p': 0.9, 'min_p': 0.3}, [1, 4, 6, 7]),
        ({'top_k': 4, 'temperature': 2.0, 'min_p': 0.6}, [1, 4, 6]),
    ],
)
def test_filters_leave_what_they_shall_and_renormalise(filters, survivors):
  method = methods.Sampling(**filters)
  exact = _exact(method)
  assert np.flatnonzero(exact).tolist() == survivors
  _assert_draws_from(exact, _counts(method))


@pytest.mark.parametrize(
    'filters',
    marks.long_but_first(
        [{'top_k': 5, 'top_p': 0.5}, {'top_k': 3}, {'top_p': 0.012}, {'min_p': 0.98}]
    ),
)
def test_a_small_share_of_many_tokens_is_drawn_from_exactly(filters):
  """So small that most rows are drawn by sorting, after 64 draws in vain."""
  logits = np.linspace(1, 0, 400)[np.random.default_rng(0).permutation(400)]
  method = methods.Sampling(**filters)
  exact = _exact(method, logits)
  assert 1 < (exact > 0).sum() < 20
  _assert_draws_from(exact, _counts(method, logits))


@pytest.mark.parametrize(
    'filters', marks.long_but_first([{'top_p': 0.5}, {}, {'top_k': 50}, {'top_k': 3000}]), ids=str
)
def test_a_large_vocabulary_loses_no_token_and_gains_none(filters):
  """One sum over so many would pass over a quarter of them, or step back."""
  size, num_draws = 151_936, 2_000
  rng = np.random.default_rng(0)
  logits = np.where(rng.random(size) < 0.1, rng.normal(size=size), -np.inf)
  method = methods.Sampling(**filters)
  logits_V = jnp.asarray(logits.astype(np.float32))
  keys = jax.random.split(jax.random.key(0), num_draws)
  one = lambda key: methods.draw_tokens(method, logits_V[None], key[None])[0]
  tokens = jax.device_get(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))
  exact = _exact(method, logits)
  assert (exact[tokens] > 0).all()
  # By rank, in tenths of the mass.
  ranks = np.argsort(-exact)
  mass = np.empty(size)
  mass[ranks] = np.cumsum(exact[ranks]) - exact[ranks] / 2
  counts, _ = np.histogram(mass[tokens], bins=10, range=(0, 1))
  edges = np.histogram(mass, bins=10, range=(0, 1), weights=exact)[0]
  expected = num_draws * edges / edges.sum()
  assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize('filters', [{}, {'top_p': 0.9}, {'top_k': 3000}])
def test_no_number_between_0_and_1_leads_outside(filters):
  rng = np.random.default_rng(1)
  logits = rng.normal(size=151_936).astype(np.float32)
  method = methods.Sampling(**filters)
  probs_V = jax.nn.softmax(jnp.asarray(logits))
  _, kept_V, num_passing = methods.sort_and_filter(method, probs_V)
  keys = jax.random.split(jax.random.key(1), 20_000)
  at = jax.jit(jax.vmap(lambda key: methods.draw_by_inverse_cdf(kept_V, key)))(keys)
  outside = np.mean(np.asarray(at) >= int(num_passing))
  assert outside < 1e-3  # And then the last of them is taken.
  # Every token has its share: the 20 % least likely are drawn as often.
  tail = jnp.sum(kept_V[len(logits) * 8 // 10 :])
  share = np.mean(np.asarray(at) >= len(logits) * 8 // 10)
  assert share == pytest.approx(float(tail / kept_V.sum()), abs=2e-3)


def test_equally_likely_tokens_pass_together():
  logits = np.log([0.3, 0.2, 0.2, 0.2, 0.1])
  cases: list[dict[str, Any]] = [{'top_k': 2}, {'top_p': 0.4}, {'min_p': 0.6}]
  for filters in cases:
    counts = _counts(methods.Sampling(**filters), logits)
    assert np.flatnonzero(counts).tolist() == [0, 1, 2, 3], filters


def test_temperature_comes_before_top_p():
  # At temperature 0.5 three tokens have mass .88; at 1 it takes five.
  counts = _counts(methods.Sampling(top_p=0.88, temperature=0.5))
  assert np.flatnonzero(counts).tolist() == [1, 4, 6]
  counts = _counts(methods.Sampling(top_p=0.88, temperature=1.0))
  assert np.flatnonzero(counts).tolist() == [1, 2, 4, 6, 7]


def test_a_token_above_p_is_the_only_one():
  logits = np.log(np.array([0.05, 0.9, 0.05]))
  assert _counts(methods.Sampling(top_p=0.9, temperature=1.0), logits)[1] == NUM_DRAWS


def test_a_certain_token_is_drawn_and_nothing_is_nan():
  logits = np.array([-1e30, 80.0, -1e30, 0.0])
  for method in (methods.Greedy(), methods.Sampling(top_p=0.5), methods.Sampling(top_p=1.0)):
    assert _counts(method, logits)[1] == NUM_DRAWS


def test_temperature_zero_means_greedy():
  assert methods.make_method(0.0, 0.95) == methods.Greedy()
  expected = methods.Sampling(temperature=0.6, top_p=0.95, top_k=5, min_p=0.1)
  assert methods.make_method(0.6, 0.95, 5, 0.1) == expected


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'top_p': 0.0}, 'top_p=0.0.*within 0 < top_p <= 1'),
        ({'top_p': 1.1}, 'within 0 < top_p <= 1'),
        ({'top_k': -1}, 'top_k=-1'),
        ({'min_p': 1.5}, 'min_p=1.5'),
        ({'temperature': -1.0}, 'temperature=-1.0 is not above 0'),
    ],
)
def test_a_method_that_means_nothing_is_refused(changes, said):
  with pytest.raises(ValueError, match=said):
    methods.Sampling(**changes)
