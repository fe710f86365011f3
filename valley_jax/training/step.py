"""One training step, a pure function of (state, batch)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from valley_jax.models import lora
from valley_jax.training import flops
from valley_jax.training import rounding

# By name, a sum over tokens and its denominator, to be reported as a mean.
Pairs = dict[str, tuple[jax.Array, jax.Array]]
# loss_fn(params, micro_batch) -> (sum to be minimised, what to report); `loss`
# is among the latter, and its denominator counts the supervised tokens.
LossFn = Callable[[Any, dict[str, jax.Array]], tuple[jax.Array, Pairs]]


class State(NamedTuple):
  """All that training carries from step to step; a plain tree."""

  step: jax.Array  # Steps done, int32.
  params: Any
  opt_state: Any  # Of the parameters that learn: with LoRA not of all.


def _float32(tree: Any) -> Any:
  return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def init_state(params: Any, tx: optax.GradientTransformation, dtype: Any = jnp.float32) -> State:
  """Returns the state before the first step, its moments laid out as params.

  Args:
    params: Where to begin.
    tx: The optimiser.
    dtype: Of the parameters that learn between steps, float32 or bfloat16; the
      optimiser sees them, and their gradients, in float32.
  """

  @jax.jit
  def init(params):
    params = _float32(params)
    state = tx.init(params)
    # Some of it, such as factored moments, finds its place in the first step.
    _, after = jax.eval_shape(tx.update, params, state, params)
    state = jax.tree.map(lambda x, like: jax.sharding.reshard(x, like.sharding.spec), state, after)
    return jnp.zeros((), jnp.int32), state

  learning, frozen = lora.split(params)
  step, opt_state = init(learning)
  if dtype != jnp.float32:
    learning = jax.tree.map(lambda x: x.astype(dtype), learning)
  return State(step, lora.join(learning, frozen), opt_state)


def train_step(
    state: State,
    batch: dict[str, jax.Array],
    learning_rate: jax.Array | float,
    *,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
) -> tuple[State, dict[str, jax.Array]]:
  """Takes one optimiser step on the micro-batches of a batch.

  The gradient is that of (sum of losses) / (sum of weights), both over *all*
  micro-batches and devices: accumulating changes memory, not the result. With
  LoRA, only its matrices have gradients, and change.

  Args:
    state: Before.
    batch: Arrays ABL: A micro-batches.
    learning_rate: Of this step.
    loss_fn: Sums of one micro-batch.
    tx: The optimiser, for a learning rate of 1.

  Returns:
    The state after, and scalars: loss (nats a supervised token) and the other
    means of `loss_fn`, NaN where there are no such tokens; grad_norm before
    clipping, num_supervised tokens, and what `flops.count` counts.
  """
  learning, frozen = lora.split(state.params)
  grad_fn = jax.value_and_grad(
      lambda learning, rows: loss_fn(lora.join(learning, frozen), rows), has_aux=True
  )

  def accumulate(sums, micro_batch):
    (_, pairs), grads = grad_fn(learning, micro_batch)
    return jax.tree.map(jnp.add, sums, (pairs, grads)), None

  one = jax.tree.map(lambda x: x[0], batch)
  (_, pairs), _ = jax.eval_shape(grad_fn, learning, one)
  # Gradients of bfloat16 parameters, too, are summed in float32.
  zeros = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=jnp.float32), (pairs, learning))
  (pairs, grads), _ = jax.lax.scan(accumulate, zeros, batch)
  weight = pairs['loss'][1]
  count = jnp.maximum(weight, 1.0)
  grads = jax.tree.map(lambda g: g / count, grads)
  updates, opt_state = tx.update(grads, state.opt_state, _float32(learning))
  metrics = {
      **{name: x / n for name, (x, n) in pairs.items()},
      'loss': pairs['loss'][0] / count,
      'grad_norm': optax.tree.norm(grads),
      'num_supervised': weight,
      **flops.count(batch),
  }
  updates = jax.tree.map(lambda u: -learning_rate * u, updates)
  learning = rounding.apply(learning, updates, state.step)
  params = lora.join(learning, frozen)
  return State(state.step + 1, params, opt_state), metrics
