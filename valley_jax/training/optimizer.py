"""Optimisers by optax, and learning-rate schedules.

Every optimiser is built for a learning rate of 1: `train_step` multiplies by it, as an argument, so
that runs of all lengths share one compiled step. Weight decay is decoupled, and of matrices alone.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from valley_jax import errors
from valley_jax.models import declarations as declarations_lib


def build_schedule(
    learning_rate: float,
    num_steps: int,
    warmup_fraction: float,
    final_fraction: float,
    shape: str = 'cosine',
    decay_fraction: float = 0.1,
) -> optax.Schedule:
  """Linear warmup to the peak, then what `shape` names.

  Args:
    learning_rate: The peak.
    num_steps: Optimiser steps of the whole run.
    warmup_fraction: Share of the steps spent on warmup.
    final_fraction: Last learning rate, as a share of the peak.
    shape: cosine or linear, down to the last rate; constant; or wsd, constant and then linear
      (warmup, stable, decay: 2404.06395).
    decay_fraction: Share of the steps that wsd decays in, at the end.

  Raises:
    UserError: no such shape.
  """
  # At least one step of warmup, and one after it: a run of one step learns, too.
  warmup = max(1, round(warmup_fraction * num_steps))
  num_steps = max(num_steps, warmup + 1)
  final = final_fraction * learning_rate
  first = learning_rate / warmup  # Step 0 learns, too.
  if shape == 'cosine':
    return optax.warmup_cosine_decay_schedule(
        init_value=first,
        peak_value=learning_rate,
        warmup_steps=warmup,
        decay_steps=num_steps,
        end_value=final,
    )
  decay = max(1, round(decay_fraction * num_steps))
  starts = {'linear': warmup, 'constant': num_steps, 'wsd': max(warmup, num_steps - decay)}
  if shape not in starts:
    raise errors.UserError(f'train.schedule={shape!r}: want cosine, linear, constant or wsd.')
  start = starts[shape]
  down = final if start < num_steps else learning_rate
  return optax.join_schedules(
      [
          optax.linear_schedule(first, learning_rate, warmup),
          optax.constant_schedule(learning_rate),
          optax.linear_schedule(learning_rate, down, max(1, num_steps - start)),
      ],
      [warmup, start],
  )


def _keep_nu_in(tx: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
  """Keeps Adam's second moment in `dtype`; it is computed in float32."""
  if dtype == 'float32':
    return tx

  def cast(state: Any, dtype: Any) -> Any:
    return state._replace(nu=optax.tree.cast(state.nu, dtype))

  def update(updates, state, params=None):
    updates, state = tx.update(updates, cast(state, jnp.float32), params)
    return updates, cast(state, dtype)

  return optax.GradientTransformation(lambda params: cast(tx.init(params), dtype), update)


def _scale_by_adam(b1: float, b2: float, mu_dtype: str, nu_dtype: str):
  tx = optax.scale_by_adam(b1=b1, b2=b2, mu_dtype=mu_dtype)
  return _keep_nu_in(tx, nu_dtype)


def _decay_declared(weight_decay: float, declarations: Any) -> optax.GradientTransformation:
  """Decays the parameters that declare it."""

  def mask(params: Any) -> Any:
    return declarations_lib.map_declared(lambda declared, _: declared.decay, declarations, params)

  return optax.add_decayed_weights(weight_decay, mask=mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
  """Clips by global norm, then AdamW (Loshchilov & Hutter, 1711.05101).

  Attributes:
    b1: Decay of the mean of gradients.
    b2: Decay of the mean of their squares. Where it is .99 or more, bfloat16 is too coarse for
      `nu_dtype`: what a step adds is rounded away.
    weight_decay: Weight decay of matrices, times the learning rate.
    clip_norm: Longest gradient, over all parameters.
    mu_dtype: Dtype of the first mean between steps.
    nu_dtype: Dtype of the second.
  """

  b1: float
  b2: float
  weight_decay: float
  clip_norm: float
  mu_dtype: str = 'float32'
  nu_dtype: str = 'float32'

  def build(self, declarations: Any) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(self.clip_norm),
        _scale_by_adam(self.b1, self.b2, self.mu_dtype, self.nu_dtype),
        _decay_declared(self.weight_decay, declarations),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor:
  """Second moments as rows times columns (Shazeer & Stern, 1804.04235).

  As in 2106.04560, with a first moment and without the scale of the parameter, so that learning
  rates mean what they mean for AdamW.

  Attributes:
    b1: Decay of the mean of updates; 0: none is kept.
    adafactor_decay: The second moment's mean decays with 1 - step^-adafactor_decay.
    weight_decay: Weight decay of matrices, times the learning rate.
    clip_norm: Longest gradient, over all parameters.
    mu_dtype: Dtype of the mean of updates.
  """

  b1: float
  adafactor_decay: float
  weight_decay: float
  clip_norm: float
  mu_dtype: str = 'float32'

  def build(self, declarations: Any) -> optax.GradientTransformation:
    mean = optax.ema(self.b1, debias=False, accumulator_dtype=self.mu_dtype)
    return optax.chain(
        optax.clip_by_global_norm(self.clip_norm),
        optax.scale_by_factored_rms(decay_rate=self.adafactor_decay),
        optax.clip_by_block_rms(1.0),
        mean if self.b1 else optax.identity(),
        _decay_declared(self.weight_decay, declarations),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon:
  """Muon for the matrices of layers, AdamW for the rest (2502.16982).

  Updates are scaled to the RMS of Adam's, .2, so that one learning rate and one weight decay serve
  both. A matrix is flattened to its inputs times its outputs; each layer is a matrix of its own.

  Attributes:
    muon_beta: Decay of Muon's mean of gradients.
    b1: Decay of Adam's mean of gradients.
    b2: Decay of Adam's mean of squares.
    weight_decay: Weight decay of matrices, times the learning rate.
    clip_norm: Longest gradient, over all parameters.
    mu_dtype: Dtype of the means of gradients, Muon's and Adam's.
    nu_dtype: Dtype of Adam's mean of squares.
  """

  muon_beta: float
  b1: float
  b2: float
  weight_decay: float
  clip_norm: float
  mu_dtype: str = 'float32'
  nu_dtype: str = 'float32'

  def build(self, declarations: Any) -> optax.GradientTransformation:
    def find_sides(params: Any) -> Any:
      return declarations_lib.map_declared(
          lambda declared, _: contrib.MuonDimensionNumbers(*declared.input_and_output_dims()),
          declarations,
          params,
      )

    def choose_labels(params: Any) -> Any:
      # Embedding and head are no layer's; they go to Adam, as norms and biases do.
      return declarations_lib.map_declared(
          lambda declared, _: 'muon' if declared.is_matrix and declared.is_stacked else 'adam',
          declarations,
          params,
      )

    orthogonal = contrib.scale_by_muon(
        beta=self.muon_beta, mu_dtype=self.mu_dtype, weight_dimension_numbers=find_sides
    )
    adam = _scale_by_adam(self.b1, self.b2, self.mu_dtype, self.nu_dtype)
    scaled = optax.chain(_let_compiler_partition(orthogonal), _scale_to_rms(0.2, find_sides))
    return optax.chain(
        optax.clip_by_global_norm(self.clip_norm),
        optax.partition({'muon': scaled, 'adam': adam}, choose_labels),
        _decay_declared(self.weight_decay, declarations),
    )


def _scale_to_rms(rms: float, find_sides: Callable[[Any], Any]) -> optax.GradientTransformation:
  """Gives orthogonal updates the RMS that Adam's have (Liu, 2502.16982)."""

  def scale(x, sides):
    sizes = (functools.reduce(lambda n, axis: n * x.shape[axis], axes, 1) for axes in sides)
    return x * (rms * max(sizes) ** 0.5)

  return optax.stateless(lambda xs, _: jax.tree.map(scale, xs, find_sides(xs)))


def _let_compiler_partition(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """Lets the compiler lay out what happens inside `tx.update`.

  Newton-Schulz reshapes parameters and multiplies them with themselves, without saying how the
  products lie. Updates and state come back as they lay.
  """

  def update(updates, state, params=None):
    like = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (updates, state))
    automatic: Any = jax.sharding.auto_axes(tx.update, out_sharding=like)
    return automatic(updates, state, params)

  return optax.GradientTransformation(tx.init, update)


Optimizer = AdamW | Adafactor | Muon
OPTIMIZERS: dict[str, type[Optimizer]] = {'adamw': AdamW, 'adafactor': Adafactor, 'muon': Muon}


def choose_optimizer(settings: Any) -> Optimizer:
  """Returns the optimiser that `settings.optimizer` names, with its fields of `settings`.

  Raises:
    UserError: no such optimiser.
  """
  if settings.optimizer not in OPTIMIZERS:
    raise errors.UserError(
        f'train.optimizer={settings.optimizer!r}: want one of {list(OPTIMIZERS)}.'
    )
  kind = OPTIMIZERS[settings.optimizer]
  return kind(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)})
