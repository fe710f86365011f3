"""From a run's settings to the optimiser, the loss and the compiled step: a `TrainProgram`.

The step is a pure function of state, batch and learning rate. Parameters kept in bfloat16 are
rounded stochastically: a step of 8e-5 on a weight near 1 is far below half of bfloat16's spacing
there, .004, and rounded to the nearest it would be lost, every time. Rounded up or down with a
probability in proportion to the distance, it arrives in the mean (as in 2010.06192).
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from valley_jax.models import parameters
from valley_jax.models import student as student_lib
from valley_jax.training import flops
from valley_jax.training import losses
from valley_jax.training import optimizer as optimizer_lib

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

# Sums over tokens with their denominators, keyed by metric; reported as means.
Pairs = dict[str, tuple[jax.Array, jax.Array]]
# loss_fn(params, micro_batch) -> (sum to be minimised, what to report); `loss` is among the latter,
# and its denominator counts the supervised tokens.
LossFn = Callable[[Any, dict[str, jax.Array]], tuple[jax.Array, Pairs]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
  """How a run trains: the fields of config.train that change its bits, and config.attention."""

  attention: str
  batch_size: int
  accumulate: int
  epochs: int
  steps_of: int
  learning_rate: float
  schedule: str
  warmup_fraction: float
  final_fraction: float
  decay_fraction: float
  optimizer: str
  b1: float
  b2: float
  muon_beta: float
  adafactor_decay: float
  weight_decay: float
  clip_norm: float
  mu_dtype: str
  nu_dtype: str
  param_dtype: str
  lora_rank: int
  lora_alpha: float
  lora_matrices: tuple[str, ...]
  dtype: str
  remat: str
  loss_chunk_len: int
  z_loss: float

  @classmethod
  def from_config(cls, group: Mapping[str, Any], attention: str) -> 'TrainSettings':
    """Returns the settings of config.train."""
    names = (field.name for field in dataclasses.fields(cls) if field.name != 'attention')
    return cls(attention=attention, **{name: group[name] for name in names})

  @property
  def lora(self) -> student_lib.Lora | None:
    return student_lib.choose_lora(self.lora_rank, self.lora_alpha, self.lora_matrices)

  def build_schedule(self, num_steps: int) -> optax.Schedule:
    """Returns the learning rates of a run of this many steps."""
    return optimizer_lib.build_schedule(
        self.learning_rate,
        num_steps,
        self.warmup_fraction,
        self.final_fraction,
        self.schedule,
        self.decay_fraction,
    )


class TrainState(NamedTuple):
  """All that training carries from step to step; a plain tree."""

  step: jax.Array  # Steps done, int32.
  params: Any
  opt_state: Any  # State of the parameters that learn; with LoRA not all of them.


class TrainProgram(NamedTuple):
  """What trains a student: optimiser, loss and the compiled step."""

  tx: optax.GradientTransformation
  loss_fn: LossFn
  init_state: Callable[[Any], TrainState]  # From parameters.
  step: Any  # Jitted: (state, batch, learning rate) -> (state, metrics).


def choose_program(settings: TrainSettings, student: student_lib.Student) -> TrainProgram:
  """Returns the program of a run; learning rates and lengths of runs are no part of it."""
  return build_program(
      student,
      settings.dtype,
      settings.param_dtype,
      settings.attention,
      settings.remat,
      settings.loss_chunk_len,
      settings.z_loss,
      optimizer_lib.choose_optimizer(settings),
  )


@functools.lru_cache(maxsize=4)
def build_program(
    student: student_lib.Student,
    dtype: str,
    param_dtype: str,
    attention: str,
    remat: str,
    loss_chunk_len: int,
    z_loss: float,
    optimizer: optimizer_lib.Optimizer,
) -> TrainProgram:
  """Returns a program; the same one for equal arguments, so that a study compiles it once."""
  declarations = parameters.describe_parameters(student)
  tx = optimizer.build(declarations)
  loss_fn = functools.partial(
      losses.next_token_loss,
      student=student,
      dtype=DTYPES[dtype],
      attention=attention,
      remat=remat,
      chunk_len=loss_chunk_len,
      z_loss=z_loss,
  )
  init = functools.partial(init_state, tx=tx, declarations=declarations, dtype=DTYPES[param_dtype])
  step = functools.partial(train_step, loss_fn=loss_fn, tx=tx, declarations=declarations)
  return TrainProgram(tx, loss_fn, init, jax.jit(step, donate_argnums=0))


def _to_float32(tree: Any) -> Any:
  return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def init_state(
    params: Any, tx: optax.GradientTransformation, declarations: Any, dtype: Any = jnp.float32
) -> TrainState:
  """Returns the state before the first step, its moments laid out as params.

  Args:
    params: Parameters to begin with.
    tx: The optimiser.
    declarations: The tree of `parameters.describe_parameters`.
    dtype: Dtype, between steps, of the parameters that learn: float32 or bfloat16. The optimiser
      sees them, and their gradients, in float32.
  """

  @jax.jit
  def init(params):
    params = _to_float32(params)
    state = tx.init(params)
    # Some of it, such as factored moments, finds its place in the first step.
    _, after = jax.eval_shape(tx.update, params, state, params)
    state = jax.tree.map(lambda x, like: jax.sharding.reshard(x, like.sharding.spec), state, after)
    return jnp.zeros((), jnp.int32), state

  learning, frozen = parameters.split_adapters(declarations, params)
  step, opt_state = init(learning)
  if dtype != jnp.float32:
    learning = jax.tree.map(lambda x: x.astype(dtype), learning)
  return TrainState(step, parameters.join_adapters(learning, frozen), opt_state)


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    learning_rate: jax.Array | float,
    *,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    declarations: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one optimiser step on the micro-batches of a batch.

  The gradient is that of (sum of losses) / (sum of weights), both over *all* micro-batches and
  devices: accumulating changes memory, not the result. With LoRA, only its matrices have gradients,
  and change.

  Args:
    state: The state before.
    batch: Arrays ABL: A micro-batches.
    learning_rate: Learning rate of this step.
    loss_fn: Sums of one micro-batch.
    tx: The optimiser, for a learning rate of 1.
    declarations: The tree of `parameters.describe_parameters`.

  Returns:
    The state after, and scalars: loss (nats a supervised token) and the other means of `loss_fn`,
    NaN where there are no such tokens; grad_norm before clipping, num_supervised tokens, and what
    `flops.count_batch` counts.
  """
  learning, frozen = parameters.split_adapters(declarations, state.params)
  grad_fn = jax.value_and_grad(
      lambda learning, rows: loss_fn(parameters.join_adapters(learning, frozen), rows), has_aux=True
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
  updates, opt_state = tx.update(grads, state.opt_state, _to_float32(learning))
  metrics = {
      **{name: x / n for name, (x, n) in pairs.items()},
      'loss': pairs['loss'][0] / count,
      'grad_norm': optax.tree.norm(grads),
      'num_supervised': weight,
      **flops.count_batch(batch),
  }
  updates = jax.tree.map(lambda u: -learning_rate * u, updates)
  learning = _apply_updates(learning, updates, state.step)
  params = parameters.join_adapters(learning, frozen)
  return TrainState(state.step + 1, params, opt_state), metrics


def round_stochastically(x: jax.Array, key: jax.Array) -> jax.Array:
  """Rounds float32 up or down to bfloat16; the mean over keys is `x`."""
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  spec = jax.typeof(x).sharding.spec
  chance = jax.random.bits(key, x.shape, jnp.uint16, out_sharding=spec)
  # A bfloat16 is the upper half of a float32: the lower half, as a share of the spacing, is the
  # probability of a carry.
  bits = (bits + chance.astype(jnp.uint32)) & jnp.uint32(0xFFFF0000)
  rounded = jax.lax.bitcast_convert_type(bits, jnp.float32)
  return rounded.astype(jnp.bfloat16)


def _apply_updates(params: Any, updates: Any, step: jax.Array) -> Any:
  """Adds float32 updates to float32 or bfloat16 parameters."""
  leaves, tree = jax.tree.flatten(params)
  # The key depends on the step alone, so that a resumed run rounds as an uninterrupted one.
  key = jax.random.fold_in(jax.random.key(0), step)

  def add(i, x, update):
    if x.dtype == jnp.float32:
      return x + update
    total = x.astype(jnp.float32) + update
    return round_stochastically(total, jax.random.fold_in(key, i))

  added = map(add, range(len(leaves)), leaves, jax.tree.leaves(updates))
  return jax.tree.unflatten(tree, added)
