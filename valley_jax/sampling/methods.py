"""How the next token is drawn: methods as values.

A method is hashable, so it can be a static argument of the compiled decoder.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from valley_jax import errors

_MAX_DRAWS = 64
_BLOCK_LEN = 512  # Tokens of the vocabulary.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
  """The likeliest token."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """Draws at a temperature from the tokens that pass three filters.

  The order is that of transformers: temperature, top-k, top-p of what top-k leaves, min-p. Equally
  likely tokens pass or fail together.

  Attributes:
    temperature: Divisor of the logits.
    top_p: Keeps the smallest set with at least this mass (nucleus; Holtzman et al., 1904.09751);
      1: all.
    top_k: Keeps the k likeliest tokens; 0: all.
    min_p: Keeps tokens at least this many times as likely as the likeliest (Nguyen et al.,
      2407.01082); 0: all.
  """

  temperature: float = 1.0
  top_p: float = 1.0
  top_k: int = 0
  min_p: float = 0.0

  def __post_init__(self):
    if self.temperature <= 0:
      raise errors.UserError(
          f'temperature={self.temperature} is not above 0; use 0 in a config, or Greedy(), for'
          ' greedy decoding.'
      )
    if not 0 < self.top_p <= 1 or self.top_k < 0 or not 0 <= self.min_p <= 1:
      raise errors.UserError(
          f'top_p={self.top_p}, top_k={self.top_k}, min_p={self.min_p}: they must be within'
          ' 0 < top_p <= 1, 0 <= top_k, 0 <= min_p <= 1.'
      )


Method = Greedy | Sampling


def make_method(temperature: float, top_p: float, top_k: int = 0, min_p: float = 0.0) -> Method:
  """Returns the method of a config's numbers; temperature 0 is greedy."""
  if not temperature:
    return Greedy()
  return Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)


class _LikelierTokens(NamedTuple):
  """The tokens that are strictly likelier than a token, or than each token."""

  number: jax.Array
  mass: jax.Array


def _passes_filters(
    method: Sampling, probs_V: jax.Array, prob: jax.Array, likelier: _LikelierTokens
) -> jax.Array:
  """Returns whether tokens of this probability pass the filters."""
  passes = prob > 0
  if method.top_p < 1:
    mass = 1.0
    if method.top_k:  # The share that top-k leaves.
      k = min(method.top_k, probs_V.shape[-1])
      least = jax.lax.top_k(probs_V, k)[0][-1]
      mass = jnp.where(probs_V >= least, probs_V, 0).sum()
    passes &= likelier.mass < method.top_p * mass
  if method.top_k:
    passes &= likelier.number < method.top_k
  if method.min_p:
    passes &= prob >= method.min_p * probs_V.max()
  return passes


def _pick_index(probs: jax.Array, u: jax.Array) -> jax.Array:
  cumulative = jnp.cumsum(probs)
  at = jnp.searchsorted(cumulative, u * cumulative[-1], side='right')
  return jnp.minimum(at, probs.shape[0] - 1)


def draw_by_inverse_cdf(probs_V: jax.Array, key: jax.Array) -> jax.Array:
  """Draws a block of the vocabulary, then a token of the block.

  One cumulative sum over a whole vocabulary is too coarse in float32: it skips tens of thousands of
  the less likely tokens, and is not monotonic, so that tokens of probability 0 can be drawn.
  """
  free = -probs_V.shape[0] % _BLOCK_LEN
  blocks = jnp.pad(probs_V, (0, free)).reshape(-1, _BLOCK_LEN)
  u = jax.random.uniform(key, (2,))
  block = _pick_index(blocks.sum(axis=-1), u[0])
  token = block * _BLOCK_LEN + _pick_index(blocks[block], u[1])
  return jnp.minimum(token, probs_V.shape[0] - 1).astype(jnp.int32)


def _draw_by_rejection(
    method: Sampling, probs_V: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Draws until a token passes; returns it, and whether one did.

  Nothing is sorted: a token's rank and the mass before it take one pass over the vocabulary.
  """

  def draw_once(carry):
    unused_token, unused_passes, n = carry
    token = draw_by_inverse_cdf(probs_V, jax.random.fold_in(key, n))
    prob = probs_V[token]
    is_likelier_V = probs_V > prob
    likelier = _LikelierTokens(is_likelier_V.sum(), jnp.where(is_likelier_V, probs_V, 0).sum())
    return token, _passes_filters(method, probs_V, prob, likelier), n + 1

  token, passes, _ = jax.lax.while_loop(
      lambda carry: ~carry[1] & (carry[2] < _MAX_DRAWS),
      draw_once,
      (jnp.int32(0), jnp.bool_(False), jnp.int32(0)),
  )
  return token, passes


class _SortedVocabulary(NamedTuple):
  """A vocabulary, the likeliest token first, so that those that pass are the first few."""

  order_V: jax.Array
  kept_V: jax.Array  # Probabilities; 0 for tokens that do not pass.
  num_passing: jax.Array


def sort_and_filter(method: Sampling, probs_V: jax.Array) -> _SortedVocabulary:
  """Returns the vocabulary by probability, with 0 for the tokens that do not pass."""
  order_V = jnp.argsort(-probs_V)
  sorted_V = probs_V[order_V]
  number_V = jnp.searchsorted(-sorted_V, -sorted_V, side='left')
  mass_V = (jnp.cumsum(sorted_V) - sorted_V)[number_V]
  passes_V = _passes_filters(method, sorted_V, sorted_V, _LikelierTokens(number_V, mass_V))
  num_passing = jnp.maximum(passes_V.sum(), 1)
  kept_V = jnp.where(jnp.arange(len(probs_V)) < num_passing, sorted_V, 0)
  return _SortedVocabulary(order_V, kept_V, num_passing)


def filter_probs(method: Sampling, probs_V: jax.Array) -> jax.Array:
  """Returns the probabilities with 0 for tokens that do not pass, not normalised.

  Args:
    method: The filters.
    probs_V: Probabilities at the method's temperature.
  """
  order_V, kept_V, _ = sort_and_filter(method, probs_V)
  return jnp.zeros_like(probs_V).at[order_V].set(kept_V)


def _draw_by_sorting(method: Sampling, probs_V: jax.Array, key: jax.Array) -> jax.Array:
  """Draws from the tokens that pass: slow, but in one draw."""
  order_V, kept_V, num_passing = sort_and_filter(method, probs_V)
  at = draw_by_inverse_cdf(kept_V, jax.random.fold_in(key, _MAX_DRAWS))
  return order_V[jnp.minimum(at, num_passing - 1)].astype(jnp.int32)


def draw_tokens(method: Method, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
  """Draws a token per row, each with its own key: int32 [B].

  The distribution is exact to float32. Where tokens of mass 1 - m pass the filters, a share m^64 of
  the rows has no draw that passes after 64; those rows are drawn by sorting.
  """
  if isinstance(method, Greedy):
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  probs_BV = jax.nn.softmax(logits_BV / method.temperature)
  reject = jax.vmap(lambda probs_V, key: _draw_by_rejection(method, probs_V, key))
  sort = jax.vmap(lambda probs_V, key: _draw_by_sorting(method, probs_V, key))
  token_B, passes_B = reject(probs_BV, keys_B)
  if method.top_p == 1 and not method.top_k and not method.min_p:
    return token_B
  return jax.lax.cond(
      passes_B.all(), lambda: token_B, lambda: jnp.where(passes_B, token_B, sort(probs_BV, keys_B))
  )


def compute_log_probs(
    method: Method, logits_BV: jax.Array, token_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns log p of tokens in nats: raw, and at the method's temperature.

  Filters are ignored. For greedy decoding both are raw.
  """
  is_token_BV = jnp.arange(logits_BV.shape[-1]) == token_B[:, None]
  logit_B = jnp.where(is_token_BV, logits_BV, 0).sum(axis=-1)
  raw_B = logit_B - jax.nn.logsumexp(logits_BV, axis=-1)
  if isinstance(method, Greedy) or method.temperature == 1:
    return raw_B, raw_B
  t = method.temperature
  return raw_B, logit_B / t - jax.nn.logsumexp(logits_BV / t, axis=-1)
