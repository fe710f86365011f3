"""One decoder that is Qwen2, Qwen2.5, Qwen3 and Llama 3.

RMSNorm, rotary positions, grouped-query attention, SwiGLU. The parts are Flax
NNX modules used as plain pytrees: layers are stacked by `jax.vmap` over their
constructor and run by `jax.lax.scan` over the stacked module.

Letters of all shapes, here and in training and sampling:

    B rows of a batch, or slots    L positions of a row (queries)
    M positions of keys            D model width
    K key/value heads              G query heads for each of them
    H width of a head              F width of the MLP
    V vocabulary                   Y layers
    C chunks of positions          A accumulated micro-batches
    R rank of LoRA
"""

import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax.models import attention as attention_lib
from valley_jax.models import lora as lora_lib
from valley_jax.models import product
from valley_jax.models import remat as remat_lib
from valley_jax.models import rope
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning


class RMSNorm(nnx.Module):
  """Root-mean-square norm over the last dimension, in float32."""

  def __init__(self, dim: int, eps: float):
    self.scale = nnx.Param(jnp.ones(dim))
    self.eps = eps

  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    return (y * self.scale[...]).astype(x.dtype)


class Block(nnx.Module):
  """Attention and MLP, each with its norm in front, on a residual stream."""

  def __init__(self, s: student_lib.Student, rngs: nnx.Rngs):
    k, g, h = s.num_kv_heads, s.num_heads // s.num_kv_heads, s.head_dim
    residual = 1 / math.sqrt(2 * s.num_layers)  # 2 additions a layer.

    def normal(fan_in: int, *shape: int, scale: float = 1.0) -> nnx.Param:
      w = jax.random.normal(rngs.params(), shape) * scale / math.sqrt(fan_in)
      return nnx.Param(w)

    self.student = s
    self.attention_norm = RMSNorm(s.embed_dim, s.norm_eps)
    self.q_DKGH = normal(s.embed_dim, s.embed_dim, k, g, h)
    self.k_DKH = normal(s.embed_dim, s.embed_dim, k, h)
    self.v_DKH = normal(s.embed_dim, s.embed_dim, k, h)
    self.out_KGHD = normal(k * g * h, k, g, h, s.embed_dim, scale=residual)
    if s.qkv_bias:
      self.q_bias_KGH = nnx.Param(jnp.zeros((k, g, h)))
      self.k_bias_KH = nnx.Param(jnp.zeros((k, h)))
      self.v_bias_KH = nnx.Param(jnp.zeros((k, h)))
    if s.qk_norm:
      self.q_norm = RMSNorm(h, s.norm_eps)
      self.k_norm = RMSNorm(h, s.norm_eps)
    self.mlp_norm = RMSNorm(s.embed_dim, s.norm_eps)
    self.gate_DF = normal(s.embed_dim, s.embed_dim, s.mlp_dim)
    self.up_DF = normal(s.embed_dim, s.embed_dim, s.mlp_dim)
    self.down_FD = normal(s.mlp_dim, s.mlp_dim, s.embed_dim, scale=residual)
    if s.lora:
      for name in s.lora.matrices:
        shape = getattr(self, lora_lib.matrix(name)).shape
        num_ins = len(lora_lib.MATRICES[name][0])
        ins, outs = shape[:num_ins], shape[num_ins:]
        a_name, b_name = lora_lib.pair(name)
        setattr(self, a_name, normal(math.prod(ins), *ins, s.lora.rank))
        setattr(self, b_name, nnx.Param(jnp.zeros((s.lora.rank, *outs))))

  def _times(self, x: jax.Array, name: str) -> jax.Array:
    """Returns x times the matrix of that name, in the dtype of x."""

    def times(x, param):
      spec = partitioning.spec_in_use(f'blocks/{param}')
      w = product.use(getattr(self, param), x.dtype, spec)
      return product.times(x, w, spec)

    y = times(x, lora_lib.matrix(name))
    lora = self.student.lora
    if lora and name in lora.matrices:
      a, b = lora_lib.pair(name)
      y += lora.scale * times(times(x, a), b)
    return y

  def qkv(
      self, x_BLD: jax.Array, positions_BL: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns q_BLKGH, k_BLKH (both turned to their positions) and v_BLKH."""
    s, dtype = self.student, x_BLD.dtype
    x_BLD = self.attention_norm(x_BLD)
    q_BLKGH = self._times(x_BLD, 'q')
    k_BLKH = self._times(x_BLD, 'k')
    v_BLKH = self._times(x_BLD, 'v')
    if s.qkv_bias:
      q_BLKGH += self.q_bias_KGH[...].astype(dtype)
      k_BLKH += self.k_bias_KH[...].astype(dtype)
      v_BLKH += self.v_bias_KH[...].astype(dtype)
    if s.qk_norm:
      q_BLKGH, k_BLKH = self.q_norm(q_BLKGH), self.k_norm(k_BLKH)
    q_BLKGH = rope.rope(q_BLKGH, positions_BL, s.rope_theta, s.rope_scaling)
    k_BLKH = rope.rope(k_BLKH, positions_BL, s.rope_theta, s.rope_scaling)
    return q_BLKGH, k_BLKH, v_BLKH

  def finish(self, x_BLD: jax.Array, y_BLKGH: jax.Array) -> jax.Array:
    """Adds what attention found, then what the MLP makes of it."""
    x_BLD += self._times(y_BLKGH, 'out')
    y_BLD = self.mlp_norm(x_BLD)
    gate_BLF = self._times(y_BLD, 'gate')
    up_BLF = self._times(y_BLD, 'up')
    return x_BLD + self._times(jax.nn.silu(gate_BLF) * up_BLF, 'down')

  def __call__(
      self, x_BLD: jax.Array, positions_BL: jax.Array, segments_BL: jax.Array, implementation: str
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the stream after this layer, and the layer's keys and values."""
    x_BLD = remat_lib.name(x_BLD, 'layer_input')
    qkv = self.qkv(x_BLD, positions_BL)
    q_BLKGH, k_BLKH, v_BLKH = remat_lib.name(qkv, 'qkv')
    y_BLKGH = attention_lib.attend(
        q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL, implementation=implementation
    )
    return self.finish(x_BLD, y_BLKGH), (k_BLKH, v_BLKH)


class Transformer(nnx.Module):
  """The student: tokens in, final hidden states out; logits on request."""

  def __init__(self, s: student_lib.Student, rngs: nnx.Rngs):
    self.student = s
    # Unit rows where the embedding is also the head, so that logits begin at
    # unit scale; else unit entries: small ones take most of a short run to
    # grow.
    scale = s.embed_dim**-0.5 if s.tied_head else 1.0
    shape = (s.vocab_size, s.embed_dim)
    self.embed_VD = nnx.Param(scale * jax.random.normal(rngs.params(), shape))
    keys = jax.random.split(rngs.params(), s.num_layers)
    self.blocks = jax.vmap(lambda key: Block(s, nnx.Rngs(params=key)))(keys)
    self.final_norm = RMSNorm(s.embed_dim, s.norm_eps)
    if not s.tied_head:
      shape = (s.embed_dim, s.vocab_size)
      self.head_DV = nnx.Param(jax.random.normal(rngs.params(), shape) / math.sqrt(s.embed_dim))

  def embed(self, tokens_BL: jax.Array, dtype: Any) -> jax.Array:
    """Looks tokens up: x_BLD."""
    table_VD = product.use(self.embed_VD, dtype, P(None, 'tp'))
    cut = P(*product.rows_of(tokens_BL), 'tp')
    x_BLD = table_VD.at[tokens_BL].get(out_sharding=cut)
    return jax.sharding.reshard(x_BLD, product.rows_of(x_BLD))

  def head(self, dtype: Any = None) -> jax.Array:
    """Returns head_DV: for one use, or without a dtype as it lies."""
    if dtype is None:
      tied = self.student.tied_head
      return self.embed_VD[...].T if tied else self.head_DV[...]
    if self.student.tied_head:
      return product.use(self.embed_VD, dtype, P('tp', None)).T
    return product.use(self.head_DV, dtype, P(None, 'tp'))

  def __call__(
      self,
      tokens_BL: jax.Array,
      positions_BL: jax.Array,
      segments_BL: jax.Array,
      *,
      dtype: Any = jnp.float32,
      attention: str = 'auto',
      remat: str = 'none',
      return_kv: bool = False,
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
    """Runs all layers.

    Args:
      tokens_BL: Token ids.
      positions_BL: Positions, restarting at 0 in each segment.
      segments_BL: Which example of a packed row a token belongs to, each a run
        of neighbours; 0 = pad.
      dtype: Compute dtype; norms, softmax and RoPE are float32 inside.
      attention: Who computes it, as in `attention.py`.
      remat: What is kept for the backward pass, as in `remat.py`.
      return_kv: Also return k_YBLKH and v_YBLKH, for a decoding cache.

    Returns:
      hidden_BLD after the final norm, cut along `cp` as everything BL… is, and
      the keys and values or None.

    Raises:
      ValueError: a choice is unknown, or cannot do this.
    """
    partitioning.check_length(tokens_BL.shape[1])
    rows = (tokens_BL, positions_BL, segments_BL)
    tokens_BL, positions_BL, segments_BL = (
        jax.sharding.reshard(x_BL, product.rows_of(x_BL)) for x_BL in rows
    )
    x_BLD = self.embed(tokens_BL, dtype)

    def layer(x_BLD, block):
      x_BLD, kv = block(x_BLD, positions_BL, segments_BL, attention)
      return x_BLD, kv if return_kv else None

    step = remat_lib.checkpoint(layer, remat)
    x_BLD, kv_YBLKH = jax.lax.scan(step, x_BLD, self.blocks)
    return self.final_norm(x_BLD), kv_YBLKH
