"""How Hugging Face names and lays out each of our parameters.

They keep a tensor a layer, [out, in], heads flattened; we stack the layers
(a leading Y) and keep heads apart. A line of the table says it in the letters
of `transformer.py`: our `q_DKGH` is their 'KGH D', a matrix whose rows run
over K, G and H, whose columns over D.
"""

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from valley_jax import errors

_TOP = (
    ('embed_VD', 'model.embed_tokens.weight', 'V D'),
    ('final_norm/scale', 'model.norm.weight', 'D'),
    ('head_DV', 'lm_head.weight', 'V D'),
)
_LAYER = (
    ('attention_norm/scale', 'input_layernorm.weight', 'D'),
    ('q_DKGH', 'self_attn.q_proj.weight', 'KGH D'),
    ('k_DKH', 'self_attn.k_proj.weight', 'KH D'),
    ('v_DKH', 'self_attn.v_proj.weight', 'KH D'),
    ('q_bias_KGH', 'self_attn.q_proj.bias', 'KGH'),
    ('k_bias_KH', 'self_attn.k_proj.bias', 'KH'),
    ('v_bias_KH', 'self_attn.v_proj.bias', 'KH'),
    ('q_norm/scale', 'self_attn.q_norm.weight', 'H'),
    ('k_norm/scale', 'self_attn.k_norm.weight', 'H'),
    ('out_KGHD', 'self_attn.o_proj.weight', 'D KGH'),
    ('mlp_norm/scale', 'post_attention_layernorm.weight', 'D'),
    ('gate_DF', 'mlp.gate_proj.weight', 'F D'),
    ('up_DF', 'mlp.up_proj.weight', 'F D'),
    ('down_FD', 'mlp.down_proj.weight', 'D F'),
)
HEAD = 'lm_head.weight'


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One of their tensors: a whole parameter of ours, or one layer of it.

  `shape` and `spec` are ours, without the leading Y.
  """

  ours: str
  theirs: str  # With {} for the number of the layer.
  groups: str
  shape: tuple[int, ...]
  spec: tuple[str | None, ...]

  @property
  def _dims(self) -> str:
    """Our letters, in our order."""
    if self.ours.endswith('scale'):  # Of a norm.
      return self.groups
    return self.ours.rpartition('_')[2]

  def _in_their_order(self, ours: Sequence[Any]) -> list[Any]:
    at = dict(zip(self._dims, ours, strict=True))
    return [at[letter] for letter in self.groups.replace(' ', '')]

  @property
  def their_shape(self) -> tuple[int, ...]:
    """What its file says."""
    size = dict(zip(self._dims, self.shape, strict=True))
    return tuple(math.prod(size[letter] for letter in group) for group in self.groups.split())

  @property
  def their_spec(self) -> P:
    """How their tensor is cut if each device is to keep what it needs."""
    axis = dict(zip(self._dims, self.spec, strict=True))
    # Of letters that are flattened together only the first may be cut.
    assert not [a for g in self.groups.split() for a in g[1:] if axis[a]]
    return P(*(axis[group[0]] for group in self.groups.split()))

  def to_ours(self, x: jax.Array) -> jax.Array:
    """Turns one of their tensors, cut by `their_spec`, into ours."""
    shape = self._in_their_order(self.shape)
    spec = P(*self._in_their_order(self.spec))
    x = jax.lax.reshape(x, shape, out_sharding=spec)
    order = self._in_their_order(range(len(self.shape)))
    return x.transpose([order.index(n) for n in range(len(order))])

  def to_theirs(self, x: Any) -> Any:
    """Turns our array (NumPy) into theirs."""
    order = self._in_their_order(range(len(self.shape)))
    return x.transpose(order).reshape(self.their_shape)


def _leaves(params: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _tensor(ours: str, theirs: str, groups: str, leaf: Any, skip: int):
  spec = leaf.sharding.spec
  spec = (*spec, *[None] * (leaf.ndim - len(spec)))
  return Tensor(ours, theirs, groups, leaf.shape[skip:], spec[skip:])


def is_bare(names: Collection[str]) -> bool:
  """Says whether a decoder was saved without what is around it.

  So are embedding models: `embed_tokens.weight`, not `model.embed_tokens…`.
  """
  return 'embed_tokens.weight' in names


def bare(named: Sequence[Tensor]) -> list[Tensor]:
  """Returns the tensors under the names that they have there."""
  return [
      dataclasses.replace(tensor, theirs=tensor.theirs.removeprefix('model.')) for tensor in named
  ]


def tensors(params: Any) -> tuple[list[Tensor], list[Tensor]]:
  """Returns their tensors for a tree of parameters, in their order.

  Args:
    params: Arrays or abstract arrays with shardings.

  Returns:
    Those outside of the layers, and those of each layer.

  Raises:
    ValueError: a parameter that Hugging Face's families do not have.
  """
  leaves = _leaves(params)
  top = [
      _tensor(ours, theirs, groups, leaves.pop(ours), 0)
      for ours, theirs, groups in _TOP
      if ours in leaves
  ]
  layer = [
      _tensor(ours, f'model.layers.{{}}.{theirs}', groups, leaf, 1)
      for ours, theirs, groups in _LAYER
      if (leaf := leaves.pop(f'blocks/{ours}', None)) is not None
  ]
  if leaves:
    raise errors.UserError(
        f'Parameters {sorted(leaves)} have no name in Hugging Face checkpoints;'
        ' add them to the table in models/hf_names.py.'
    )
  return top, layer


def num_layers(params: Any) -> int:
  """Returns how many layers are stacked."""
  return jax.tree.leaves(params['blocks'])[0].shape[0]


def get(params: Any, ours: str) -> Any:
  """Returns the parameter named `attention_norm/scale`."""
  for name in ours.split('/'):
    params = params[name]
  return params
