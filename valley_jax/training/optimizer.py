"""AdamW with linear warmup and cosine decay, by optax."""

from typing import Any

import jax
import optax


def schedule(
    learning_rate: float,
    num_steps: int,
    warmup_fraction: float,
    final_fraction: float,
) -> optax.Schedule:
  """Linear warmup to the peak, then a cosine down to a fraction of it.

  Args:
    learning_rate: The peak.
    num_steps: Optimiser steps of the whole run.
    warmup_fraction: Share of the steps spent on warmup.
    final_fraction: Last learning rate, as a share of the peak.
  """
  warmup = max(1, round(warmup_fraction * num_steps))
  return optax.warmup_cosine_decay_schedule(
      init_value=learning_rate / warmup,  # Step 0 learns, too.
      peak_value=learning_rate,
      warmup_steps=warmup,
      decay_steps=max(num_steps, warmup + 1),
      end_value=final_fraction * learning_rate,
  )


def _is_matrix(params: Any) -> Any:
  """Norm scales and biases are not decayed."""
  return jax.tree_util.tree_map_with_path(
      lambda path, _: not any(
          part in str(path[-1]) for part in ('scale', 'bias')
      ),
      params,
  )


def adamw(
    *, b1: float, b2: float, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
  """Clips by global norm, then AdamW (Loshchilov & Hutter, 1711.05101).

  Without the learning rate: `train_step` multiplies by it, as an argument, so
  that runs of all lengths share one compiled step.
  """
  return optax.chain(
      optax.clip_by_global_norm(clip_norm),
      optax.scale_by_adam(b1=b1, b2=b2),
      optax.add_decayed_weights(weight_decay, mask=_is_matrix),
  )
