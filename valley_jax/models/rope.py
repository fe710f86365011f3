"""Rotary positions, plain and stretched to longer contexts."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from valley_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
  """Llama 3.1's stretching: slow turns slower, fast ones kept, a blend between.

  A turn is slow if it is done less than `low_freq_factor` times within the original context, fast
  if more than `high_freq_factor` times.
  """

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_positions: int

  def __post_init__(self):
    _check_factor(self.factor)
    if self.high_freq_factor <= self.low_freq_factor:
      raise errors.UserError(
          f'high_freq_factor={self.high_freq_factor} is not above'
          f' low_freq_factor={self.low_freq_factor}; between them is the blend.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class YarnScaling:
  """YaRN (Peng et al., 2309.00071), as transformers has it.

  `attention_factor` multiplies queries and keys; None is the paper's .1 ln(factor) + 1. `truncate`
  rounds the blend's bounds outwards.
  """

  factor: float
  original_max_positions: int
  beta_fast: float = 32.0
  beta_slow: float = 1.0
  attention_factor: float | None = None
  truncate: bool = True

  def __post_init__(self):
    _check_factor(self.factor)


Scaling = Llama3Scaling | YarnScaling


def _check_factor(factor: float) -> None:
  if factor < 1:
    raise errors.UserError(
        f'A RoPE scaling of factor={factor} would shorten the context; want 1 or more.'
    )


def _scale_by_llama3(frequency: jax.Array, s: Llama3Scaling) -> jax.Array:
  turns = s.original_max_positions * frequency / (2 * math.pi)
  blend = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
  blend = jnp.clip(blend, 0.0, 1.0)
  return (1 - blend) * frequency / s.factor + blend * frequency


def _scale_by_yarn(frequency: jax.Array, theta: float, s: YarnScaling) -> jax.Array:
  half = frequency.shape[0]

  def pair_that_turns(times: float) -> float:
    """Which pair turns so often within the original context, a real number."""
    length = s.original_max_positions / (times * 2 * math.pi)
    return half * math.log(length) / math.log(theta)

  # Pairs below `low` turn fast and are kept, those above `high` slow and are stretched.
  low, high = pair_that_turns(s.beta_fast), pair_that_turns(s.beta_slow)
  if s.truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, 2 * half - 1)
  width = high - low or 0.001
  ramp = jnp.clip((jnp.arange(half, dtype=jnp.float32) - low) / width, 0, 1)
  return frequency / s.factor * ramp + frequency * (1 - ramp)


def yarn_attention_factor(factor: float, scale: float = 1.0) -> float:
  """Returns what YaRN multiplies queries and keys by."""
  return 0.1 * scale * math.log(factor) + 1.0


def compute_frequencies(
    head_dim: int, theta: float, scaling: Scaling | None
) -> tuple[jax.Array, float]:
  """Returns each pair's radians a position, and a factor for cos and sin."""
  half = head_dim // 2
  frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  match scaling:
    case None:
      return frequency, 1.0
    case Llama3Scaling():
      return _scale_by_llama3(frequency, scaling), 1.0
    case YarnScaling():
      given = scaling.attention_factor
      factor = yarn_attention_factor(scaling.factor) if given is None else given
      return _scale_by_yarn(frequency, theta, scaling), factor


def rotate_pairs(
    x: jax.Array, positions_BL: jax.Array, theta: float, scaling: Scaling | None = None
) -> jax.Array:
  """Turns the halves of the last dimension (Su et al., 2104.09864).

  Halves, not neighbours, as in the Hugging Face checkpoints. `x` is BL…H.
  """
  frequency, factor = compute_frequencies(x.shape[-1], theta, scaling)
  angle = positions_BL.astype(jnp.float32)[..., None] * frequency
  angle = jnp.expand_dims(angle, range(2, x.ndim - 1))
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  if factor != 1:
    cos, sin = cos * factor, sin * factor
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return turned.astype(x.dtype)
