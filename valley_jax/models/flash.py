"""Attention by the Pallas kernel that comes with JAX, for GPU (Triton).

Of the public packed routes on GPU it is the one that honours segments, is part
of JAX from 0.10 to 0.12, and can be interpreted without a GPU. Others, for the
day when a GPU decides (`benchmarks/attention.py`):

    tokamax.dot_product_attention with Mask(k_start=..., is_causal=True): a
        segment's first position, in place of segment ids; a private path
    cuDNN with q_offsets and kv_offsets: a row's segments as a ragged batch; a
        private path, and the number of segments is a shape
    attention_mgpu (Hopper's own): no segments

It keeps every key and value once for each query head.
"""

import functools
from typing import Any
import warnings

import jax
from jax import ad_checkpoint
import jax.numpy as jnp

from valley_jax import errors

_BLOCK_LEN = 128  # Queries, and keys, of the kernel's largest block.


@functools.cache
def _kernels() -> Any:
  """Returns JAX's module; imported where it is used, as it is for GPU alone."""
  with warnings.catch_warnings():
    # It points to tokamax, which has segments on a private path only.
    warnings.simplefilter('ignore', DeprecationWarning)
    from jax.experimental.pallas.ops.gpu import attention
  return attention


def check(length: int, num_heads: int, head_dim: int, cuts: int) -> None:
  """Raises a ValueError where the kernel cannot do these sizes."""
  if length % _BLOCK_LEN:
    raise errors.UserError(
        f'config.attention=flash wants rows of a multiple of {_BLOCK_LEN}'
        f' positions, not {length}; change config.data.max_len, or take'
        ' config.attention=blocks.'
    )
  if num_heads % cuts:
    raise errors.UserError(
        f'config.attention=flash shares {num_heads} query heads of a device'
        f' among cp = {cuts}; change config.mesh, or take'
        ' config.attention=blocks.'
    )
  if head_dim < 16:
    raise errors.UserError(
        f'config.attention=flash wants a head_dim of 16 or more, not'
        f' {head_dim}; take config.attention=blocks.'
    )


def heads_of(x_BMKH: jax.Array, group: int, cuts: int) -> jax.Array:
  """Returns the key or value head of each query head that a device has.

  Inside of a shard_map: of K x `group` query heads, device i of `cp` has the
  i-th part.
  """
  n = x_BMKH.shape[2] * group // cuts
  at_N = jax.lax.axis_index('cp') * n + jnp.arange(n)
  return jnp.take(x_BMKH, at_N // group, axis=2)


def _arguments(scale: float, interpret: bool) -> tuple[Any, ...]:
  """Returns what the kernel takes beside arrays, in its order."""
  return (
      scale,
      True,  # Causal.
      _kernels().BlockSizes.get_default(),
      'triton',
      None,  # num_warps: the kernel's choice.
      2,  # num_stages
      None,  # grid
      interpret,
      False,  # debug
      False,  # return_residuals
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend(
    q_BMNH: jax.Array, k_BMNH: jax.Array, v_BMNH: jax.Array, segments_BM: jax.Array, interpret: bool
) -> jax.Array:
  """Returns y_BMNH of whole rows that lie on one device."""
  return _forward(q_BMNH, k_BMNH, v_BMNH, segments_BM, interpret)[0]


# The kernel's own two halves and not its own gradient, so that the output and
# the softmax's sums have a name, and a remat policy can keep them.
def _forward(q_BMNH, k_BMNH, v_BMNH, segments_BM, interpret):
  arguments = _arguments(q_BMNH.shape[-1] ** -0.5, interpret)
  _, residuals = _kernels()._mha_forward(q_BMNH, k_BMNH, v_BMNH, segments_BM, *arguments)
  *arrays, y_BMNH, lse_BNM = residuals
  y_BMNH, lse_BNM = ad_checkpoint.checkpoint_name((y_BMNH, lse_BNM), 'attention')
  return y_BMNH, (*arrays, y_BMNH, lse_BNM)


def _backward(interpret, residuals, dy_BMNH):
  arguments = _arguments(dy_BMNH.shape[-1] ** -0.5, interpret)
  return _kernels()._mha_backward(*arguments, residuals, dy_BMNH)


attend.defvjp(_forward, _backward)
