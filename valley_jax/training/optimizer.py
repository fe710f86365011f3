"""Optimisers by optax, and learning-rate schedules.

Every optimiser is made for a learning rate of 1: `train_step` multiplies by it,
as an argument, so that runs of all lengths share one compiled step. Weight
decay is decoupled, and of matrices alone.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from valley_jax import errors


def schedule(
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
    shape: cosine or linear, down to the last rate; constant; or wsd, constant
      and then linear (warmup, stable, decay: 2404.06395).
    decay_fraction: Share of the steps that wsd decays in, at the end.

  Raises:
    ValueError: no such shape.
  """
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


def _is_matrix(params: Any) -> Any:
  """Norm scales and biases are not decayed."""
  return jax.tree_util.tree_map_with_path(
      lambda path, _: not any(part in str(path[-1]) for part in ('scale', 'bias')), params
  )


def _with_nu_in(tx: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
  """Keeps Adam's second moment in `dtype`; it is computed in float32."""
  if dtype == 'float32':
    return tx

  def cast(state: Any, dtype: Any) -> Any:
    return state._replace(nu=optax.tree.cast(state.nu, dtype))

  def update(updates, state, params=None):
    updates, state = tx.update(updates, cast(state, jnp.float32), params)
    return updates, cast(state, dtype)

  return optax.GradientTransformation(lambda params: cast(tx.init(params), dtype), update)


def _adam(b1: float, b2: float, mu_dtype: str, nu_dtype: str):
  tx = optax.scale_by_adam(b1=b1, b2=b2, mu_dtype=mu_dtype)
  return _with_nu_in(tx, nu_dtype)


def adamw(
    *,
    b1: float,
    b2: float,
    weight_decay: float,
    clip_norm: float,
    mu_dtype: str = 'float32',
    nu_dtype: str = 'float32',
) -> optax.GradientTransformation:
  """Clips by global norm, then AdamW (Loshchilov & Hutter, 1711.05101).

  Args:
    b1: Decay of the mean of gradients.
    b2: Decay of the mean of their squares. Where it is .99 or more, bfloat16
      is too coarse for `nu_dtype`: what a step adds is rounded away.
    weight_decay: Of matrices, times the learning rate.
    clip_norm: Longest gradient, over all parameters.
    mu_dtype: Dtype of the first mean between steps.
    nu_dtype: Dtype of the second.
  """
  return optax.chain(
      optax.clip_by_global_norm(clip_norm),
      _adam(b1, b2, mu_dtype, nu_dtype),
      optax.add_decayed_weights(weight_decay, mask=_is_matrix),
  )


def adafactor(
    *,
    b1: float,
    decay_rate: float,
    weight_decay: float,
    clip_norm: float,
    mu_dtype: str = 'float32',
) -> optax.GradientTransformation:
  """Second moments as rows times columns (Shazeer & Stern, 1804.04235).

  As in 2106.04560, with a first moment and without the scale of the parameter,
  so that learning rates mean what they mean for AdamW.

  Args:
    b1: Decay of the mean of updates; 0: none is kept.
    decay_rate: The second moment's mean decays with 1 - step^-decay_rate.
    weight_decay: Of matrices, times the learning rate.
    clip_norm: Longest gradient, over all parameters.
    mu_dtype: Dtype of the mean of updates.
  """
  mean = optax.ema(b1, debias=False, accumulator_dtype=mu_dtype)
  return optax.chain(
      optax.clip_by_global_norm(clip_norm),
      optax.scale_by_factored_rms(decay_rate=decay_rate),
      optax.clip_by_block_rms(1.0),
      mean if b1 else optax.identity(),
      optax.add_decayed_weights(weight_decay, mask=_is_matrix),
  )


def _sides(params: Any) -> Any:
  """Returns which axes of a matrix are its inputs and which its outputs.

  By name: D, or LoRA's rank R, is one side and the other letters are the other;
  whichever comes first is the input. Stacked layers lead and are matrices of
  their own.
  """

  def sides(path, x):
    letters = path[-1].key.split('_')[-1]
    axes = tuple(range(x.ndim - len(letters), x.ndim))
    cut = 1 if letters[0] in 'DR' else len(axes) - 1
    return contrib.MuonDimensionNumbers(axes[:cut], axes[cut:])

  return jax.tree_util.tree_map_with_path(sides, params)


def _label(path: tuple[Any, ...], x: jax.Array) -> str:
  """Matrices of layers go to Muon; embedding, head, norms, biases to Adam."""
  del x
  name = path[-1].key
  is_inside = len(path) > 1 and 'bias' not in name and 'scale' not in name
  return 'muon' if is_inside else 'adam'


def _scale_to_rms(rms: float) -> optax.GradientTransformation:
  """Gives orthogonal updates the RMS that Adam's have (Liu, 2502.16982)."""

  def scale(x, sides):
    sizes = (functools.reduce(lambda n, axis: n * x.shape[axis], axes, 1) for axes in sides)
    return x * (rms * max(sizes) ** 0.5)

  return optax.stateless(lambda xs, _: jax.tree.map(scale, xs, _sides(xs)))


def _automatic(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """Lets the compiler lay out what happens inside `tx.update`.

  Newton-Schulz reshapes parameters and multiplies them with themselves, without
  saying how the products lie. Updates and state come back as they lay.
  """

  def update(updates, state, params=None):
    like = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (updates, state))
    automatic: Any = jax.sharding.auto_axes(tx.update, out_sharding=like)
    return automatic(updates, state, params)

  return optax.GradientTransformation(tx.init, update)


def muon(
    *,
    beta: float,
    b1: float,
    b2: float,
    weight_decay: float,
    clip_norm: float,
    mu_dtype: str = 'float32',
    nu_dtype: str = 'float32',
) -> optax.GradientTransformation:
  """Muon for the matrices of layers, AdamW for the rest (2502.16982).

  Updates are scaled to the RMS of Adam's, .2, so that one learning rate and one
  weight decay serve both.

  Args:
    beta: Decay of Muon's mean of gradients.
    b1: Adam's.
    b2: Adam's.
    weight_decay: Of matrices, times the learning rate.
    clip_norm: Longest gradient, over all parameters.
    mu_dtype: Dtype of the means of gradients, Muon's and Adam's.
    nu_dtype: Dtype of Adam's mean of squares.
  """
  orthogonal = contrib.scale_by_muon(beta=beta, mu_dtype=mu_dtype, weight_dimension_numbers=_sides)
  return optax.chain(
      optax.clip_by_global_norm(clip_norm),
      optax.partition(
          {
              'muon': optax.chain(_automatic(orthogonal), _scale_to_rms(0.2)),
              'adam': _adam(b1, b2, mu_dtype, nu_dtype),
          },
          lambda params: jax.tree_util.tree_map_with_path(_label, params),
      ),
      optax.add_decayed_weights(weight_decay, mask=_is_matrix),
  )


# What a config may name, with the names of its fields there.
_CHOICES: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    'adamw': (adamw, {'b1': 'b1', 'b2': 'b2', 'nu_dtype': 'nu_dtype'}),
    'adafactor': (adafactor, {'b1': 'b1', 'decay_rate': 'adafactor_decay'}),
    'muon': (muon, {'beta': 'muon_beta', 'b1': 'b1', 'b2': 'b2', 'nu_dtype': 'nu_dtype'}),
}
_ALL = {name: name for name in ('weight_decay', 'clip_norm', 'mu_dtype')}


def fields(train: Any) -> tuple[tuple[str, Any], ...]:
  """Picks an optimiser's fields from config.train; hashable, for `of`.

  Raises:
    ValueError: no such optimiser.
  """
  if train['optimizer'] not in _CHOICES:
    raise errors.UserError(f'train.optimizer={train["optimizer"]!r}: want one of {list(_CHOICES)}.')
  _, names = _CHOICES[train['optimizer']]
  found = {name: train[field] for name, field in {**_ALL, **names}.items()}
  return ('optimizer', train['optimizer']), *found.items()


def of(chosen: tuple[tuple[str, Any], ...]) -> optax.GradientTransformation:
  """Returns the optimiser that `fields` has picked."""
  (_, name), *rest = chosen
  return _CHOICES[name][0](**dict(rest))
