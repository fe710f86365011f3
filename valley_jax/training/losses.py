"""Next-token loss over chunks of the supervised tokens.

The logits of a 32k row of Qwen2.5 are 20 GB; those of a chunk are small. Every device takes the
tokens that are supervised out of its rows, and computes logits for these alone, a chunk at a time:
a prompt or padding costs nothing. While a chunk's logits are in memory, its gradient is computed,
too (as in Liger, 2410.10989): they are computed once and never kept, and the gradient of the head
is summed over a device's chunks before it is summed over devices.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax.models import parameters
from valley_jax.models import student as student_lib

# From a batch, by name, the weights of a part of the loss.
Parts = Callable[[dict[str, jax.Array]], dict[str, jax.Array]]

_VOCAB = 'tp'  # The mesh axis that cuts the vocabulary.
_FSDP = 'fsdp'  # The one that cuts the head's gradient, and rows.


class _LossSums(NamedTuple):
  """Sums of one chunk, or of all; T tokens. A gradient that is not wanted is None."""

  total: Any
  loss_T: Any
  hidden_grad_TD: Any
  head_grad_DV: Any


def _compute_chunk(
    hidden_TD: jax.Array,
    head_DV: jax.Array,
    targets_T: jax.Array,
    weights_T: jax.Array,
    *,
    z_loss: float,
    wanted: tuple[bool, bool],
) -> _LossSums:
  """Computes one chunk where the vocabulary is cut over `tp`, inside shard_map.

  GEMM inputs are in the compute dtype, sums and softmax in float32.
  """
  dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  logits_TV = dot('TD,DV->TV', hidden_TD, head_DV)
  # Each device has some columns of the vocabulary: peak, sum and target are over all of them.
  peak_T = jax.lax.pmax(logits_TV.max(-1), _VOCAB)
  exp_TV = jnp.exp(logits_TV - peak_T[:, None])
  sum_T = jax.lax.psum(exp_TV.sum(-1), _VOCAB)
  lse_T = jnp.log(sum_T) + peak_T
  num_ids = head_DV.shape[-1]
  ids_V = jnp.arange(num_ids) + jax.lax.axis_index(_VOCAB) * num_ids
  chosen_TV = ids_V == targets_T[:, None]
  target_T = jnp.sum(jnp.where(chosen_TV, logits_TV, 0), axis=-1)
  loss_T = lse_T - jax.lax.psum(target_T, _VOCAB)
  total_T, slope_T = loss_T, weights_T / sum_T
  if z_loss:
    total_T = loss_T + z_loss * lse_T**2
    slope_T = slope_T * (1 + 2 * z_loss * lse_T)
  # The gradient of the logits: softmax less one-hot, times the weight.
  grad_TV = exp_TV * slope_T[:, None]
  grad_TV = grad_TV + jnp.where(chosen_TV, -weights_T[:, None], 0)
  grad_TV = grad_TV.astype(hidden_TD.dtype)
  hidden_grad_TD = head_grad_DV = None
  if wanted[0]:
    hidden_grad_TD = dot('TV,DV->TD', grad_TV, head_DV)
    hidden_grad_TD = jax.lax.psum(hidden_grad_TD, _VOCAB)
    hidden_grad_TD = hidden_grad_TD.astype(hidden_TD.dtype)
  if wanted[1]:
    head_grad_DV = dot('TD,TV->DV', hidden_TD, grad_TV)
  loss_T = jnp.where(weights_T != 0, loss_T, 0)
  total = jnp.sum(total_T * weights_T)
  return _LossSums(total, loss_T, hidden_grad_TD, head_grad_DV)


def _compute_chunks(
    hidden_TD: jax.Array,
    head_DV: jax.Array,
    targets_T: jax.Array,
    weights_T: jax.Array,
    *,
    chunk_len: int,
    z_loss: float,
    wanted: tuple[bool, bool],
) -> _LossSums:
  """Computes a device's tokens, the supervised ones alone, chunk by chunk."""
  num_tokens = targets_T.shape[0]
  chunk = functools.partial(_compute_chunk, z_loss=z_loss, wanted=wanted)
  if chunk_len >= num_tokens:
    return chunk(hidden_TD, head_DV, targets_T, weights_T)
  # Supervised tokens first, each group in its order; ids past the end fill the last chunk up.
  order_T = jnp.argsort(weights_T == 0, stable=True)
  filled = -(-num_tokens // chunk_len) * chunk_len
  order_T = jnp.append(order_T, jnp.arange(num_tokens, filled))

  def add_chunk(i: jax.Array, sums: _LossSums) -> _LossSums:
    at_T = jax.lax.dynamic_slice_in_dim(order_T, i * chunk_len, chunk_len)
    take = lambda x: x.at[at_T].get(mode='fill', fill_value=0)
    put = lambda x, new: x.at[at_T].set(new, mode='drop', unique_indices=True)
    new = chunk(take(hidden_TD), head_DV, take(targets_T), take(weights_T))
    return _LossSums(
        sums.total + new.total,
        put(sums.loss_T, new.loss_T),
        put(sums.hidden_grad_TD, new.hidden_grad_TD) if wanted[0] else None,
        sums.head_grad_DV + new.head_grad_DV if wanted[1] else None,
    )

  # The number of chunks is a value, not a shape. Reverse differentiation has no answer to such a
  # loop, and needs none: the gradient is among the sums.
  num_chunks = -(-jnp.count_nonzero(weights_T) // chunk_len)
  zeros = _LossSums(
      jnp.zeros((), jnp.float32),
      jnp.zeros(num_tokens, jnp.float32),
      jnp.zeros_like(hidden_TD) if wanted[0] else None,
      jnp.zeros(head_DV.shape, jnp.float32) if wanted[1] else None,
  )
  return jax.lax.fori_loop(0, num_chunks, add_chunk, zeros)


def _list_axes(spec: P) -> tuple[str, ...]:
  """Returns the mesh axes of a spec."""
  entries = (e if isinstance(e, tuple) else (e,) for e in spec)
  return tuple(axis for entry in entries for axis in entry if axis)


def _compute_on_mesh(
    hidden_BLD: jax.Array,
    head_DV: jax.Array,
    targets_BL: jax.Array,
    weights_BL: jax.Array,
    chunk_len: int,
    z_loss: float,
    wanted: tuple[bool, bool],
) -> _LossSums:
  """Runs `_compute_chunks` on every device's part of the rows and the vocabulary."""
  rows = jax.typeof(weights_BL).sharding.spec
  rows = P(*rows, *[None] * (2 - len(rows)))
  hidden_BLD = jax.sharding.reshard(hidden_BLD, P(*rows, None))
  # Cast, then gathered: half the bytes travel. The sums below are float32.
  head_DV = head_DV.astype(hidden_BLD.dtype)
  head_DV = jax.sharding.reshard(head_DV, P(None, _VOCAB))

  # Variance over devices is not tracked: nothing differentiates through this.
  @functools.partial(
      jax.shard_map,
      in_specs=(P(*rows, None), P(None, _VOCAB), rows, rows),
      out_specs=_LossSums(P(), rows, P(*rows, None), P(_FSDP, _VOCAB)),
      check_vma=False,
  )
  def compute_part(hidden_BLD, head_DV, targets_BL, weights_BL):
    b, length, dim = hidden_BLD.shape
    result = _compute_chunks(
        hidden_BLD.reshape(b * length, dim),
        head_DV,
        targets_BL.reshape(-1),
        weights_BL.reshape(-1),
        chunk_len=b * min(chunk_len, length),
        z_loss=z_loss,
        wanted=wanted,
    )
    total, loss_T, hidden_grad_TD, head_grad_DV = result
    if wanted[0]:
      hidden_grad_TD = hidden_grad_TD.reshape(hidden_BLD.shape)
    if wanted[1]:
      # To each device its part of the sum: the whole would be 2 GB.
      head_grad_DV = jax.lax.psum_scatter(head_grad_DV, _FSDP, tiled=True)
      others = tuple(axis for axis in _list_axes(rows) if axis != _FSDP)
      head_grad_DV = jax.lax.psum(head_grad_DV, others)
    total = jax.lax.psum(total, _list_axes(rows))
    loss_BL = loss_T.reshape(b, length)
    return _LossSums(total, loss_BL, hidden_grad_TD, head_grad_DV)

  return compute_part(hidden_BLD, head_DV, targets_BL, weights_BL)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _cross_entropy(hidden_BLD, head_DV, targets_BL, weights_BL, chunk_len, z_loss):
  args = hidden_BLD, head_DV, targets_BL, weights_BL, chunk_len, z_loss
  total, loss_BL, *_ = _compute_on_mesh(*args, wanted=(False, False))
  return total, loss_BL


def _cross_entropy_forward(hidden_BLD, head_DV, targets_BL, weights_BL, chunk_len, z_loss):
  """Makes the gradient along with the loss; nothing else is kept."""
  # A frozen head, as under LoRA, gets no gradient and no memory for one.
  wanted = hidden_BLD.perturbed, head_DV.perturbed
  total, loss_BL, *grads = _compute_on_mesh(
      hidden_BLD.value, head_DV.value, targets_BL.value, weights_BL.value, chunk_len, z_loss, wanted
  )
  for i, like in enumerate((hidden_BLD.value, head_DV.value)):
    if wanted[i]:
      grad = jax.sharding.reshard(grads[i], jax.typeof(like).sharding.spec)
      grads[i] = grad.astype(like.dtype)
  return (total, loss_BL), grads


def _cross_entropy_backward(chunk_len, z_loss, grads, cotangents):
  del chunk_len, z_loss
  scale = cotangents[0]  # No gradient goes through `loss_BL`.
  hidden_grad_BLD, head_grad_DV = jax.tree.map(lambda grad: grad * scale.astype(grad.dtype), grads)
  return hidden_grad_BLD, head_grad_DV, None, None


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward, symbolic_zeros=True)


def cross_entropy(
    hidden_BLD: jax.Array,
    head_DV: jax.Array,
    targets_BL: jax.Array,
    weights_BL: jax.Array,
    chunk_len: int,
    z_loss: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
  """Returns the weighted *sum* of -log p(target), and each token's, in nats.

  Differentiable in the hidden states and in the head, not in the weights.

  Args:
    hidden_BLD: Final hidden states, cut like the weights.
    head_DV: Output head as it is stored on the mesh; cast to the dtype of `hidden_BLD`, while its
      gradient is summed in float32.
    targets_BL: Token ids.
    weights_BL: Loss weights; where one is 0, nothing is computed.
    chunk_len: Positions of a row whose logits exist at a time: of a device's tokens, this many
      times its rows.
    z_loss: Adds this times (log of the softmax's denominator)^2 to the sum, for each token (PaLM,
      2204.02311); 0: off.

  Returns:
    The sum to be minimised, and loss_BL, without the weights and the z-loss, 0 where the weight is
    0; no gradient goes through it. All float32.
  """
  total, loss_BL = _cross_entropy(hidden_BLD, head_DV, targets_BL, weights_BL, chunk_len, z_loss)
  return total, jax.lax.stop_gradient(loss_BL)


def weigh_think_and_answer(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns the weights of the whole loss and of its two parts."""
  weights_BL = batch['weights']
  answers_BL = weights_BL * batch['answers']
  return {'loss': weights_BL, 'loss_think': weights_BL - answers_BL, 'loss_answer': answers_BL}


def next_token_loss(
    params: Any,
    batch: dict[str, jax.Array],
    *,
    student: student_lib.Student,
    dtype: Any,
    attention: str,
    remat: str,
    chunk_len: int,
    z_loss: float = 0.0,
    parts: Parts = weigh_think_and_answer,
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
  """Returns the sum to be minimised, and what to report, of one micro-batch.

  Sums and not means: a mean is taken over the *global* number of supervised tokens, or short
  examples would weigh more than long ones.

  Returns:
    The sum over tokens of loss and z-loss, and for each of `parts`, by name, the pair (sum of loss
    in nats, sum of weights).
  """
  model = parameters.bind_transformer(student, params)
  hidden_BLD, _ = model(
      batch['inputs'],
      batch['positions'],
      batch['segments'],
      dtype=dtype,
      attention=attention,
      remat=remat,
  )
  total, loss_BL = cross_entropy(
      hidden_BLD, model.output_head(), batch['targets'], batch['weights'], chunk_len, z_loss
  )
  return total, {
      name: (jnp.sum(loss_BL * part_BL), jnp.sum(part_BL)) for name, part_BL in parts(batch).items()
  }
