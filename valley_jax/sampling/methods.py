"""How the next token is drawn: methods as values.

A method is hashable, so it is a static argument of the compiled decoder.
"""

import dataclasses

import jax
import jax.numpy as jnp

_MAX_DRAWS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
  """The likeliest token."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopP:
  """Nucleus sampling: the smallest set of tokens with mass >= p.

  Temperature comes before top-p, as in transformers and vLLM; p=1 is plain
  temperature sampling (Holtzman et al., 1904.09751).
  """

  p: float = 0.95
  temperature: float = 0.6

  def __post_init__(self):
    if not 0 < self.p <= 1 or self.temperature <= 0:
      raise ValueError(
          f'TopP(p={self.p}, temperature={self.temperature}): want 0 < p <= 1'
          ' and temperature > 0; greedy decoding is Greedy().'
      )


Method = Greedy | TopP


def of(temperature: float, top_p: float) -> Method:
  """Returns the method that a config's two numbers mean."""
  return TopP(p=top_p, temperature=temperature) if temperature else Greedy()


def _nucleus(method: TopP, logits_V: jax.Array, key: jax.Array) -> jax.Array:
  """Draws from the nucleus exactly, without sorting the vocabulary.

  Draw by inverse CDF; accept if the tokens that are strictly likelier have
  mass < p, which is what being in the nucleus means; else draw again. At least
  a share p of draws is accepted, so 64 of them fail with (1-p)^64; then the
  likeliest token is taken.
  """
  probs_V = jax.nn.softmax(logits_V / method.temperature)
  cumulative_V = jnp.cumsum(probs_V)

  def draw(carry):
    unused_token, unused_accepted, n = carry
    u = jax.random.uniform(jax.random.fold_in(key, n)) * cumulative_V[-1]
    token = jnp.searchsorted(cumulative_V, u, side='right')
    token = jnp.minimum(token, logits_V.shape[-1] - 1).astype(jnp.int32)
    likelier = jnp.where(probs_V > probs_V[token], probs_V, 0).sum()
    return token, likelier < method.p, n + 1

  token, accepted, _ = jax.lax.while_loop(
      lambda carry: ~carry[1] & (carry[2] < _MAX_DRAWS),
      draw,
      (jnp.int32(0), jnp.bool_(False), jnp.int32(0)),
  )
  return jnp.where(accepted, token, jnp.argmax(logits_V).astype(jnp.int32))


def draw(method: Method, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
  """Draws a token a row, each with its own key: int32 [B]."""
  if isinstance(method, Greedy):
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  return jax.vmap(lambda logits_V, key: _nucleus(method, logits_V, key))(
      logits_BV, keys_B
  )
