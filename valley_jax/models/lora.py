"""Low-rank adaptation: matrices W + (alpha / rank) A B, of which A, B learn.

A begins random and B at zero, so that the student begins as it was (Hu et al.,
2106.09685). Everything else is frozen: it has no gradient and no moments, and
its matrices are kept in the dtype that they are used in.

A run's parameters hold both, A and B under the name of their matrix: beside
`q_DKGH` there are `q_lora_a_DR` and `q_lora_b_RKGH`, R being the rank. When
training is over they are merged, and there is nothing but a student again.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp

from valley_jax import errors

# The matrices of a layer, by what a config calls them. Letters as in
# transformer.py: inputs, then outputs.
MATRICES = {
    'q': ('D', 'KGH'),
    'k': ('D', 'KH'),
    'v': ('D', 'KH'),
    'out': ('KGH', 'D'),
    'gate': ('D', 'F'),
    'up': ('D', 'F'),
    'down': ('F', 'D'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
  """Which matrices are adapted, and how much; hashable."""

  rank: int
  alpha: float
  matrices: tuple[str, ...] = tuple(MATRICES)

  def __post_init__(self):
    if self.rank < 1:
      raise errors.UserError(f'lora_rank={self.rank}: want 1 or more, or 0 for none.')
    names = set(self.matrices)
    if not names or names - set(MATRICES) or len(names) < len(self.matrices):
      raise errors.UserError(
          f'lora_matrices={list(self.matrices)}: want some of' f' {", ".join(MATRICES)}, each once.'
      )

  @property
  def scale(self) -> float:
    """The factor of A B."""
    return self.alpha / self.rank


def of(fields: Mapping[str, Any]) -> Lora | None:
  """Returns what config.train asks for; None if all parameters learn."""
  if not fields.get('lora_rank'):
    return None
  return Lora(
      rank=fields['lora_rank'], alpha=fields['lora_alpha'], matrices=tuple(fields['lora_matrices'])
  )


def matrix(name: str) -> str:
  """Returns the name of a matrix among the parameters of a layer: `q_DKGH`."""
  return f'{name}_{"".join(MATRICES[name])}'


def pair(name: str) -> tuple[str, str]:
  """Returns the names of its A and its B: `q_lora_a_DR`, `q_lora_b_RKGH`."""
  ins, outs = MATRICES[name]
  return f'{name}_lora_a_{ins}R', f'{name}_lora_b_R{outs}'


def split(params: Any) -> tuple[Any, Any]:
  """Returns the parameters that learn, and those that are frozen.

  Without any A and B all learn.
  """
  flat = traverse_util.flatten_dict(params)
  learning = {path: x for path, x in flat.items() if '_lora_' in path[-1]}
  if not learning:
    return params, {}
  frozen = {path: x for path, x in flat.items() if path not in learning}
  unflatten = traverse_util.unflatten_dict
  return unflatten(learning), unflatten(frozen)


def join(learning: Any, frozen: Any) -> Any:
  """Undoes `split`."""
  if not frozen:
    return learning
  flat = traverse_util.flatten_dict(frozen)
  flat.update(traverse_util.flatten_dict(learning))
  return traverse_util.unflatten_dict(flat)


def cast_matrices(frozen: Any, dtype: Any) -> Any:
  """Casts frozen matrices to the dtype that they are used in.

  Norms and biases are small, and stay as they are.

  Args:
    frozen: Arrays, or their descriptions.
    dtype: Of the computation.
  """

  def cast(path, x):
    if any(part in path[-1].key for part in ('scale', 'bias')):
      return x
    is_array = isinstance(x, jax.Array)
    return x.astype(dtype) if is_array else x.update(dtype=jnp.dtype(dtype))

  return jax.tree_util.tree_map_with_path(cast, frozen)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _merge(lora: Lora, frozen: Any, learning: Any) -> Any:
  blocks = dict(frozen['blocks'])
  for name in lora.matrices:
    a, b = (learning['blocks'][part] for part in pair(name))
    ins, outs = MATRICES[name]
    w = blocks[matrix(name)]
    added = jnp.einsum(
        f'Y{ins}R,YR{outs}->Y{ins}{outs}',
        a.astype(jnp.float32),
        b.astype(jnp.float32),
        precision='highest',
        out_sharding=jax.typeof(w).sharding.spec,
    )
    blocks[matrix(name)] = (w + lora.scale * added).astype(w.dtype)
  return {**frozen, 'blocks': blocks}


def merge(lora: Lora | None, params: Any) -> Any:
  """Returns parameters without A and B, their products added; donates.

  The sums are float32; the results have the dtype of the matrices.
  """
  if lora is None:
    return params
  learning, frozen = split(params)
  return _merge(lora, frozen, learning)


def num_params(lora: Lora | None, sizes: Mapping[str, int]) -> int:
  """Returns how many parameters the As and Bs of one layer have.

  Args:
    lora: Or None, for 0.
    sizes: Of the letters D, K, G, H and F.
  """
  if lora is None:
    return 0
  size = lambda letters: math.prod(sizes[letter] for letter in letters)
  return sum(
      lora.rank * (size(ins) + size(outs)) for ins, outs in map(MATRICES.__getitem__, lora.matrices)
  )
