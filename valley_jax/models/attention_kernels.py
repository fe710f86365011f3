"""Attention by the Pallas kernels that come with JAX: Splash for TPU, flash (Triton) for GPU.

On a CPU mesh both are interpreted: slow, for tests. Each refuses sizes that it cannot compute.

Splash never reads keys after the last query of a block; keys of other segments are read and masked.

Flash keeps every key and value once for each query head. Among the public packed routes on GPU it
is the one that honours segments, is part of JAX from 0.10 to 0.12, and can be interpreted without a
GPU. Others, once measured on a GPU (`benchmarks/attention.py`):

    tokamax.dot_product_attention with Mask(k_start=..., is_causal=True): a segment's first
        position, in place of segment ids; a private path
    cuDNN with q_offsets and kv_offsets: a row's segments as a ragged batch; a private path, and the
        number of segments is a shape
    attention_mgpu (Hopper's own): no segments
"""

import functools
from typing import Any
import warnings

import jax
from jax import ad_checkpoint
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel_lib
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as mask_lib
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import errors

_LANES = 128  # A TPU vector's: block lengths are multiples.

# Queries, and keys, of a block of Splash. Keys beyond 2048 overflow the chip's VMEM.
MAX_BLOCK_LEN = 1024

# From this length on Splash's backward pass is two kernels and not one. The fused one is faster and
# keeps a copy of the queries' gradient for every block of keys: at 32k tokens of Qwen2.5-7B 7.9 GB
# a chip, against 1.2 GB.
UNFUSED_FROM = 16_384

_FLASH_BLOCK_LEN = 128  # Queries, and keys, of flash's largest block.


def _largest_block(length: int, largest: int) -> int:
  """Returns the largest block that cuts a length evenly."""
  sizes = range(_LANES, min(length, largest) + 1, _LANES)
  return max(size for size in sizes if length % size == 0)


def _check_splash_length(length: int, cuts: int) -> None:
  """Raises a ValueError where the kernel cannot cut rows into blocks."""
  if length % (_LANES * cuts):
    raise errors.UserError(
        f'config.attention=splash wants rows of a multiple of {_LANES} x cp = {_LANES * cuts}'
        f' positions, not {length}; change config.data.max_len, or take config.attention=blocks.'
    )


def _block_sizes(length: int, cuts: int) -> kernel_lib.BlockSizes:
  q = _largest_block(length // cuts, MAX_BLOCK_LEN)
  kv = _largest_block(length, MAX_BLOCK_LEN)
  is_fused = length < UNFUSED_FROM
  return kernel_lib.BlockSizes(
      block_q=q,
      block_kv=kv,
      block_q_dkv=q,
      block_kv_dkv=kv,
      block_q_dq=None if is_fused else q,
      block_kv_dq=None if is_fused else kv,
      use_fused_bwd_kernel=is_fused,
  )


def build_splash_kernel(
    length: int, num_heads: int, cuts: int, interpret: bool
) -> tuple[kernel_lib.SplashAttentionKernel, Any]:
  """Returns the kernel of one row, and how `cp` cuts the arrays that it holds.

  They say which blocks are masked, and are laid out over the mesh.

  Args:
    length: Positions of a row.
    num_heads: Query heads of one device.
    cuts: Devices that share a row's queries.
    interpret: Compute what the kernel would, without a TPU.

  Raises:
    UserError: the row cannot be cut into blocks.
  """
  _check_splash_length(length, cuts)
  mask = mask_lib.MultiHeadMask([mask_lib.CausalMask((length, length)) for _ in range(num_heads)])
  kernel = kernel_lib.make_splash_mha(
      mask,
      block_sizes=_block_sizes(length, cuts),
      head_shards=1,
      q_seq_shards=cuts,
      residual_checkpoint_name='attention',
      interpret=interpret,
  )
  # Cut by hand: `manual_sharding_spec` wants a mesh of devices that are there.
  specs = jax.tree.map(lambda x: P(None, 'cp', None) if x.ndim == 3 else P('cp'), kernel)
  return jax.tree.map(jax.sharding.reshard, kernel, specs), specs


def attend_by_splash(
    kernel: kernel_lib.SplashAttentionKernel,
    q_BLKGH: jax.Array,
    k_BMKH: jax.Array,
    v_BMKH: jax.Array,
    segments_BL: jax.Array,
    segments_BM: jax.Array,
) -> jax.Array:
  """Returns y_BLKGH of arrays on one device."""
  b, length, k, g, h = q_BLKGH.shape
  q_BLKGH = q_BLKGH * (h**-0.5)
  q_BNLH = jnp.moveaxis(q_BLKGH.reshape(b, length, k * g, h), 1, 2)
  k_BKMH, v_BKMH = (jnp.moveaxis(x, 1, 2) for x in (k_BMKH, v_BMKH))
  segments = kernel_lib.SegmentIds(segments_BL, segments_BM)
  y_BNLH: Any = jax.vmap(kernel)(q_BNLH, k_BKMH, v_BKMH, segments)
  return jnp.moveaxis(y_BNLH, 1, 2).reshape(q_BLKGH.shape)


@functools.cache
def _import_flash() -> Any:
  """Returns JAX's module; imported where it is used, as it is for GPU alone."""
  with warnings.catch_warnings():
    # It points to tokamax, which has segments on a private path only.
    warnings.simplefilter('ignore', DeprecationWarning)
    from jax.experimental.pallas.ops.gpu import attention
  return attention


def check_flash_sizes(length: int, num_heads: int, head_dim: int, cuts: int) -> None:
  """Raises a ValueError where the kernel cannot do these sizes."""
  if length % _FLASH_BLOCK_LEN:
    raise errors.UserError(
        f'config.attention=flash wants rows of a multiple of {_FLASH_BLOCK_LEN} positions, not'
        f' {length}; change config.data.max_len, or take config.attention=blocks.'
    )
  if num_heads % cuts:
    raise errors.UserError(
        f'config.attention=flash shares {num_heads} query heads of a device among cp = {cuts};'
        ' change config.mesh, or take config.attention=blocks.'
    )
  if head_dim < 16:
    raise errors.UserError(
        f'config.attention=flash wants a head_dim of 16 or more, not {head_dim}; take'
        ' config.attention=blocks.'
    )


def take_heads(x_BMKH: jax.Array, group: int, cuts: int) -> jax.Array:
  """Returns the key or value head of each query head that a device has.

  Inside of a shard_map: of K x `group` query heads, device i of `cp` has the i-th part.
  """
  n = x_BMKH.shape[2] * group // cuts
  at_N = jax.lax.axis_index('cp') * n + jnp.arange(n)
  return jnp.take(x_BMKH, at_N // group, axis=2)


def _flash_arguments(scale: float, interpret: bool) -> tuple[Any, ...]:
  """Returns the kernel's arguments that are no arrays, in its order."""
  return (
      scale,
      True,  # Causal.
      _import_flash().BlockSizes.get_default(),
      'triton',
      None,  # num_warps: the kernel's choice.
      2,  # num_stages
      None,  # grid
      interpret,
      False,  # debug
      False,  # return_residuals
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend_by_flash(
    q_BMNH: jax.Array, k_BMNH: jax.Array, v_BMNH: jax.Array, segments_BM: jax.Array, interpret: bool
) -> jax.Array:
  """Returns y_BMNH of whole rows on one device."""
  return _flash_forward(q_BMNH, k_BMNH, v_BMNH, segments_BM, interpret)[0]


# The kernel's own two halves and not its own gradient, so that the output and the softmax's sums
# have a name, and a remat policy can keep them.
def _flash_forward(q_BMNH, k_BMNH, v_BMNH, segments_BM, interpret):
  arguments = _flash_arguments(q_BMNH.shape[-1] ** -0.5, interpret)
  _, residuals = _import_flash()._mha_forward(q_BMNH, k_BMNH, v_BMNH, segments_BM, *arguments)
  *arrays, y_BMNH, lse_BNM = residuals
  y_BMNH, lse_BNM = ad_checkpoint.checkpoint_name((y_BMNH, lse_BNM), 'attention')
  return y_BMNH, (*arrays, y_BMNH, lse_BNM)


def _flash_backward(interpret, residuals, dy_BMNH):
  arguments = _flash_arguments(dy_BMNH.shape[-1] ** -0.5, interpret)
  return _import_flash()._mha_backward(*arguments, residuals, dy_BMNH)


attend_by_flash.defvjp(_flash_forward, _flash_backward)
