"""From a config's numbers to the optimiser, the loss and the compiled step."""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from valley_jax.models import student as student_lib
from valley_jax.training import losses
from valley_jax.training import optimizer
from valley_jax.training import step as step_lib

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class Recipe(NamedTuple):
  """What a student is trained with."""

  tx: optax.GradientTransformation
  loss_fn: step_lib.LossFn
  step: Any  # Jitted: (state, batch, learning rate) -> (state, metrics).


def of(fields: Mapping[str, Any], attention: str, student: student_lib.Student) -> Recipe:
  """Returns the recipe of a config; the same one for equal fields.

  Args:
    fields: config.train.
    attention: config.attention.
    student: Sizes.
  """
  return _recipe(
      student,
      fields['dtype'],
      attention,
      fields['remat'],
      fields['loss_chunk_len'],
      fields['z_loss'],
      optimizer.fields(fields),
  )


@functools.lru_cache(maxsize=4)
def _recipe(
    student: student_lib.Student,
    dtype: str,
    attention: str,
    remat: str,
    loss_chunk_len: int,
    z_loss: float,
    chosen: tuple[tuple[str, Any], ...],
) -> Recipe:
  """Makes it once for all runs of a study, so that they compile once."""
  tx = optimizer.of(chosen)
  loss_fn = functools.partial(
      losses.next_token,
      student=student,
      dtype=DTYPES[dtype],
      attention=attention,
      remat=remat,
      chunk_len=loss_chunk_len,
      z_loss=z_loss,
  )
  step = functools.partial(step_lib.train_step, loss_fn=loss_fn, tx=tx)
  return Recipe(tx, loss_fn, jax.jit(step, donate_argnums=0))


def schedule(fields: Mapping[str, Any], num_steps: int) -> optax.Schedule:
  """Returns the learning rates of a run of config.train."""
  return optimizer.schedule(
      fields['learning_rate'],
      num_steps,
      fields['warmup_fraction'],
      fields['final_fraction'],
      fields['schedule'],
      fields['decay_fraction'],
  )
