"""One decoder that is Qwen2, Qwen2.5, Qwen3 and Llama 3.

RMSNorm, rotary positions, grouped-query attention, SwiGLU. The parts are Flax NNX modules used as
plain pytrees: layers are stacked by `jax.vmap` over their constructor and run by `jax.lax.scan`
over the stacked module.

Letters of all shapes, here and in training and sampling:

    B rows of a batch, or slots    L positions of a row (queries)
    M positions of keys            D model width
    K key/value heads              G query heads for each of them
    H width of a head              F width of the MLP
    V vocabulary                   Y layers
    C chunks of positions          A accumulated micro-batches
    R rank of LoRA
"""

from collections.abc import Callable
import math
from typing import Any

from flax import nnx
import jax
from jax import ad_checkpoint
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import errors
from valley_jax.models import attention as attention_lib
from valley_jax.models import declarations
from valley_jax.models import rope
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning

_policies = jax.checkpoint_policies

# What the forward pass of a layer keeps for the backward pass (config.train.remat); None keeps
# everything. A kernel names its output and its softmax's sums 'attention': with the output alone it
# would run again. One 32k row of Qwen2.5-7B on each of 8 v5p chips takes 39 GB of a chip with full,
# 46 with attention, 53 with qkv.
REMAT_POLICIES = {
    'none': None,
    # The layer's input; the rest is computed again.
    'full': _policies.nothing_saveable,
    'attention': _policies.save_only_these_names('attention'),
    'qkv': _policies.save_only_these_names('attention', 'qkv'),
    # As full, and the inputs wait in the host's memory.
    'offload': _policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=['layer_input'],
        offload_src='device',
        offload_dst='pinned_host',
    ),
}


def checkpoint_layer(layer: Callable[..., Any], remat: str) -> Callable[..., Any]:
  """Wraps a layer so that its forward pass keeps what the policy of that name says.

  Raises:
    UserError: the choice is unknown.
  """
  if remat not in REMAT_POLICIES:
    raise errors.UserError(
        f'config.train.remat={remat!r}: want one of {", ".join(REMAT_POLICIES)}.'
    )
  if remat == 'none':
    return layer
  return jax.checkpoint(layer, policy=REMAT_POLICIES[remat])


class RMSNorm(nnx.Module):
  """Root-mean-square norm over the last dimension, in float32."""

  def __init__(self, letter: str, dim: int, eps: float):
    self.scale = declarations.declare_vector(jnp.ones(dim), letter, P(None))
    self.eps = eps

  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    return (y * self.scale[...]).astype(x.dtype)


# Which mesh axis cuts which axis of a layer's parameters; the others stay whole.
_CUT_ALONG = {'D': 'fsdp', 'K': 'tp', 'F': 'tp'}


def _layer_spec(axes: str) -> P:
  return P(*(_CUT_ALONG.get(letter) for letter in axes.replace(' ', '')))


class Block(nnx.Module):
  """Attention and MLP, each with its norm in front, on a residual stream."""

  def __init__(self, s: student_lib.Student, rngs: nnx.Rngs):
    sizes = s.axis_sizes()
    residual = 1 / math.sqrt(2 * s.num_layers)  # Two additions a layer.

    def shape_of(letters: str) -> tuple[int, ...]:
      return tuple(sizes[letter] for letter in letters)

    def matrix(axes: str, scale: float = 1.0, kind: type[nnx.Param] = nnx.Param) -> nnx.Param:
      fan_in = math.prod(shape_of(axes.split()[0]))
      shape = shape_of(axes.replace(' ', ''))
      w = jax.random.normal(rngs.params(), shape) * scale / math.sqrt(fan_in)
      return declarations.declare_matrix(w, axes, _layer_spec(axes), kind)

    def bias(axes: str) -> nnx.Param:
      return declarations.declare_vector(jnp.zeros(shape_of(axes)), axes, _layer_spec(axes))

    # The order of the matrices is that of the random draws: a seed's student depends on it.
    self.student = s
    self.attention_norm = RMSNorm('D', s.embed_dim, s.norm_eps)
    self.q_DKGH = matrix('D KGH')
    self.k_DKH = matrix('D KH')
    self.v_DKH = matrix('D KH')
    self.out_KGHD = matrix('KGH D', residual)
    if s.qkv_bias:
      self.q_bias_KGH = bias('KGH')
      self.k_bias_KH = bias('KH')
      self.v_bias_KH = bias('KH')
    if s.qk_norm:
      self.q_norm = RMSNorm('H', s.head_dim, s.norm_eps)
      self.k_norm = RMSNorm('H', s.head_dim, s.norm_eps)
    self.mlp_norm = RMSNorm('D', s.embed_dim, s.norm_eps)
    self.gate_DF = matrix('D F')
    self.up_DF = matrix('D F')
    self.down_FD = matrix('F D', residual)
    if s.lora:
      sizes['R'] = s.lora.rank
      for name in s.lora.matrices:
        ins, outs = student_lib.ADAPTABLE_MATRICES[name].split()
        a_name, b_name = student_lib.adapter_names(name)
        setattr(self, a_name, matrix(f'{ins} R', kind=nnx.LoRAParam))
        zeros, axes = jnp.zeros(shape_of(f'R{outs}')), f'R {outs}'
        b = declarations.declare_matrix(zeros, axes, _layer_spec(axes), nnx.LoRAParam)
        setattr(self, b_name, b)

  def _multiply(self, x: jax.Array, name: str) -> jax.Array:
    """Returns x times the matrix of that name, LoRA's part included, in the dtype of x."""
    y = declarations.multiply_matrix(x, getattr(self, student_lib.matrix_name(name)))
    lora = self.student.lora
    if lora and name in lora.matrices:
      a, b = (getattr(self, part) for part in student_lib.adapter_names(name))
      y += lora.scale * declarations.multiply_matrix(declarations.multiply_matrix(x, a), b)
    return y

  def project_qkv(
      self, x_BLD: jax.Array, positions_BL: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns q_BLKGH, k_BLKH (both turned to their positions) and v_BLKH."""
    s, dtype = self.student, x_BLD.dtype
    x_BLD = self.attention_norm(x_BLD)
    q_BLKGH = self._multiply(x_BLD, 'q')
    k_BLKH = self._multiply(x_BLD, 'k')
    v_BLKH = self._multiply(x_BLD, 'v')
    if s.qkv_bias:
      q_BLKGH += self.q_bias_KGH[...].astype(dtype)
      k_BLKH += self.k_bias_KH[...].astype(dtype)
      v_BLKH += self.v_bias_KH[...].astype(dtype)
    if s.qk_norm:
      q_BLKGH, k_BLKH = self.q_norm(q_BLKGH), self.k_norm(k_BLKH)
    q_BLKGH = rope.rotate_pairs(q_BLKGH, positions_BL, s.rope_theta, s.rope_scaling)
    k_BLKH = rope.rotate_pairs(k_BLKH, positions_BL, s.rope_theta, s.rope_scaling)
    return q_BLKGH, k_BLKH, v_BLKH

  def add_attention_and_mlp(self, x_BLD: jax.Array, y_BLKGH: jax.Array) -> jax.Array:
    """Adds the projected output of attention to the stream, then the MLP's."""
    x_BLD += self._multiply(y_BLKGH, 'out')
    y_BLD = self.mlp_norm(x_BLD)
    gate_BLF = self._multiply(y_BLD, 'gate')
    up_BLF = self._multiply(y_BLD, 'up')
    return x_BLD + self._multiply(jax.nn.silu(gate_BLF) * up_BLF, 'down')

  def __call__(
      self, x_BLD: jax.Array, positions_BL: jax.Array, segments_BL: jax.Array, implementation: str
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the stream after this layer, and the layer's keys and values."""
    x_BLD = ad_checkpoint.checkpoint_name(x_BLD, 'layer_input')
    qkv = self.project_qkv(x_BLD, positions_BL)
    q_BLKGH, k_BLKH, v_BLKH = ad_checkpoint.checkpoint_name(qkv, 'qkv')
    y_BLKGH = attention_lib.attend_causally(
        q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL, implementation=implementation
    )
    return self.add_attention_and_mlp(x_BLD, y_BLKGH), (k_BLKH, v_BLKH)


class Transformer(nnx.Module):
  """The student: tokens in, final hidden states out; logits on request."""

  def __init__(self, s: student_lib.Student, rngs: nnx.Rngs):
    self.student = s
    # Unit rows where the embedding is also the head, so that logits begin at unit scale; else unit
    # entries: small ones take most of a short run to grow.
    scale = s.embed_dim**-0.5 if s.tied_head else 1.0
    shape = (s.vocab_size, s.embed_dim)
    table_VD = scale * jax.random.normal(rngs.params(), shape)
    self.embed_VD = declarations.declare_matrix(table_VD, 'V D', P('fsdp', 'tp'))
    keys = jax.random.split(rngs.params(), s.num_layers)
    self.blocks = jax.vmap(lambda key: Block(s, nnx.Rngs(params=key)))(keys)
    self.final_norm = RMSNorm('D', s.embed_dim, s.norm_eps)
    if not s.tied_head:
      shape = (s.embed_dim, s.vocab_size)
      w_DV = jax.random.normal(rngs.params(), shape) / math.sqrt(s.embed_dim)
      self.head_DV = declarations.declare_matrix(w_DV, 'D V', P('fsdp', 'tp'))

  def embed_tokens(self, tokens_BL: jax.Array, dtype: Any) -> jax.Array:
    """Looks tokens up: x_BLD."""
    table_VD = declarations.gather_param(self.embed_VD, dtype)
    cut = P(*declarations.partition_rows(tokens_BL), 'tp')
    x_BLD = table_VD.at[tokens_BL].get(out_sharding=cut)
    return jax.sharding.reshard(x_BLD, declarations.partition_rows(x_BLD))

  def output_head(self, dtype: Any = None) -> jax.Array:
    """Returns head_DV, gathered for one use; without a dtype as it is stored on the mesh."""
    if dtype is None:
      tied = self.student.tied_head
      return self.embed_VD[...].T if tied else self.head_DV[...]
    if self.student.tied_head:
      return declarations.gather_param(self.embed_VD, dtype, P('tp', None)).T
    return declarations.gather_param(self.head_DV, dtype)

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
      segments_BL: Number of the example that a token belongs to, each a run of neighbours; 0 =
        pad.
      dtype: Compute dtype; norms, softmax and RoPE are float32 inside.
      attention: Name of the implementation, as in `attention.py`.
      remat: Name of what is kept for the backward pass, one of `REMAT_POLICIES`.
      return_kv: Also return k_YBLKH and v_YBLKH, for a decoding cache.

    Returns:
      hidden_BLD after the final norm, cut along `cp` as everything BL… is, and the keys and values
      or None.

    Raises:
      ValueError: a choice is unknown, or cannot do this.
    """
    partitioning.check_row_length(tokens_BL.shape[1])
    rows = (tokens_BL, positions_BL, segments_BL)
    tokens_BL, positions_BL, segments_BL = (
        jax.sharding.reshard(x_BL, declarations.partition_rows(x_BL)) for x_BL in rows
    )
    x_BLD = self.embed_tokens(tokens_BL, dtype)

    def layer(x_BLD, block):
      x_BLD, kv = block(x_BLD, positions_BL, segments_BL, attention)
      return x_BLD, kv if return_kv else None

    # A scan compiles one layer, whatever their number; each step gets its slice of the stacked
    # parameters as a `Block`.
    step = checkpoint_layer(layer, remat)
    x_BLD, kv_YBLKH = jax.lax.scan(step, x_BLD, self.blocks)
    return self.final_norm(x_BLD), kv_YBLKH
