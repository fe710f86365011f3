"""Attention by the Splash kernel that comes with JAX, for TPU.

Keys after the last query of a block are never read; keys of other segments are
read and masked. On a CPU mesh the kernel is interpreted: slow, for tests.
"""

from typing import Any

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel_lib
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as mask_lib
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import errors

_LANES = 128  # Of a TPU vector: blocks are multiples.

# Queries, and keys, of a block. Keys beyond 2048 overflow the chip's VMEM.
MAX_BLOCK_LEN = 1024

# From this length on the backward pass is two kernels and not one. The fused
# one is faster and keeps a copy of the queries' gradient for every block of
# keys: at 32k tokens of Qwen2.5-7B 7.9 GB a chip, against 1.2 GB.
UNFUSED_FROM = 16_384


def _block(length: int, largest: int) -> int:
  """Returns the largest block that cuts a length evenly."""
  sizes = range(_LANES, min(length, largest) + 1, _LANES)
  return max(size for size in sizes if length % size == 0)


def _check(length: int, cuts: int) -> None:
  """Raises a ValueError where the kernel cannot cut rows into blocks."""
  if length % (_LANES * cuts):
    raise errors.UserError(
        f'config.attention=splash wants rows of a multiple of {_LANES} x'
        f' cp = {_LANES * cuts} positions, not {length}; change'
        ' config.data.max_len, or take config.attention=blocks.'
    )


def _block_sizes(length: int, cuts: int) -> kernel_lib.BlockSizes:
  q = _block(length // cuts, MAX_BLOCK_LEN)
  kv = _block(length, MAX_BLOCK_LEN)
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


def kernel(
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
    ValueError: the row cannot be cut into blocks.
  """
  _check(length, cuts)
  mask = mask_lib.MultiHeadMask([mask_lib.CausalMask((length, length)) for _ in range(num_heads)])
  made = kernel_lib.make_splash_mha(
      mask,
      block_sizes=_block_sizes(length, cuts),
      head_shards=1,
      q_seq_shards=cuts,
      residual_checkpoint_name='attention',
      interpret=interpret,
  )
  # Cut by hand: `manual_sharding_spec` wants a mesh of devices that are there.
  specs = jax.tree.map(lambda x: P(None, 'cp', None) if x.ndim == 3 else P('cp'), made)
  return jax.tree.map(jax.sharding.reshard, made, specs), specs


def attend(
    kernel: kernel_lib.SplashAttentionKernel,
    q_BLKGH: jax.Array,
    k_BMKH: jax.Array,
    v_BMKH: jax.Array,
    segments_BL: jax.Array,
    segments_BM: jax.Array,
) -> jax.Array:
  """Returns y_BLKGH of arrays that lie on one device."""
  b, length, k, g, h = q_BLKGH.shape
  q_BLKGH = q_BLKGH * (h**-0.5)
  q_BNLH = jnp.moveaxis(q_BLKGH.reshape(b, length, k * g, h), 1, 2)
  k_BKMH, v_BKMH = (jnp.moveaxis(x, 1, 2) for x in (k_BMKH, v_BMKH))
  segments = kernel_lib.SegmentIds(segments_BL, segments_BM)
  y_BNLH: Any = jax.vmap(kernel)(q_BNLH, k_BKMH, v_BKMH, segments)
  return jnp.moveaxis(y_BNLH, 1, 2).reshape(q_BLKGH.shape)
