"""What each parameter declares of itself, and products with it that follow from that.

A parameter is a `nnx.Param` with metadata: the letters of its axes, how the mesh cuts it, whether
weight decay shrinks it, and whether it is cast to the compute dtype. Partitioning, optimisers,
LoRA, Hugging Face's layout and casting read this and never a parameter's name, so a new parameter
works everywhere as soon as it is declared.

Letters as in `transformer.py`; N rows, I inputs and O outputs, each flattened to one dimension.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
from flax import traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax.runtime import partitioning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
  """What one parameter declares; hashable.

  Attributes:
    axes: Letters of one layer's axes. A matrix has inputs and outputs with a space between them: 'D
      KGH'; a vector has no space: 'KGH'.
    spec: Partition spec of all dimensions, that of stacked layers included.
    decay: Whether weight decay shrinks it.
    cast: Whether it is kept in the compute dtype where nothing trains it.
    is_adapter: Whether LoRA has added it (`nnx.LoRAParam`).
    is_stacked: Whether its first dimension is layers.
  """

  axes: str
  spec: P
  decay: bool
  cast: bool
  is_adapter: bool = False
  is_stacked: bool = False

  @property
  def is_matrix(self) -> bool:
    return ' ' in self.axes

  @property
  def letters(self) -> str:
    """The axes of one layer, without the space."""
    return self.axes.replace(' ', '')

  @property
  def layer_spec(self) -> P:
    """Partition spec of one layer."""
    return P(*self.spec[self.is_stacked :])

  def input_and_output_dims(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns which dimensions of a matrix are inputs and which are outputs."""
    dims = tuple(range(self.is_stacked, self.is_stacked + len(self.letters)))
    num_inputs = self.axes.index(' ')
    return dims[:num_inputs], dims[num_inputs:]


def declare_matrix(
    value: jax.Array, axes: str, spec: P, kind: type[nnx.Param] = nnx.Param
) -> nnx.Param:
  """Declares a matrix, 'D KGH': it decays, and is cast to the compute dtype."""
  return kind(value, axes=axes, spec=spec, decay=True, cast=True)


def declare_vector(value: jax.Array, axes: str, spec: P) -> nnx.Param:
  """Declares a norm's scale or a bias: it does not decay, and stays in float32."""
  return nnx.Param(value, axes=axes, spec=spec, decay=False, cast=False)


def describe_module(module: nnx.Module) -> Any:
  """Returns a tree like the module's parameters, of their declarations.

  Raises:
    ValueError: a parameter declares too little.
  """

  def describe(path: tuple[Any, ...], variable: Any) -> Declaration:
    metadata = variable.get_metadata()
    names = 'axes', 'spec', 'decay', 'cast'
    if missing := [name for name in names if name not in metadata]:
      raise ValueError(
          f'Parameter {"/".join(map(str, path))!r} does not declare {", ".join(missing)}; create it'
          ' by declare_matrix or declare_vector of models/declarations.py.'
      )
    axes, spec, decay, cast = (metadata[name] for name in names)
    num_stacked = len(variable.shape) - len(axes.replace(' ', ''))
    return Declaration(
        axes=axes,
        spec=P(*[None] * num_stacked, *spec),
        decay=decay,
        cast=cast,
        is_adapter=isinstance(variable, nnx.LoRAParam),
        is_stacked=bool(num_stacked),
    )

  variables = nnx.to_flat_state(nnx.state(module))
  return traverse_util.unflatten_dict({path: describe(path, x) for path, x in variables})


def map_declared(function: Callable[[Declaration, Any], Any], declarations: Any, tree: Any) -> Any:
  """Returns function(declaration, leaf) of each leaf of a tree of parameters.

  Args:
    function: Applied to a declaration and the leaf of the same path.
    declarations: The tree of `describe_module`.
    tree: Parameters, or some of them at the same paths.
  """

  def apply(path, leaf):
    keys = (entry.key for entry in path)
    return function(functools.reduce(lambda node, key: node[key], keys, declarations), leaf)

  return jax.tree_util.tree_map_with_path(apply, tree)


def cast_matrices(declarations: Any, tree: Any, dtype: Any) -> Any:
  """Casts the parameters that are used in the compute dtype; the others are small.

  Args:
    declarations: The tree of `describe_module`.
    tree: Arrays, or their abstract shapes.
    dtype: The compute dtype.
  """

  def cast(declaration: Declaration, x: Any) -> Any:
    if not declaration.cast:
      return x
    is_array = isinstance(x, jax.Array)
    return x.astype(dtype) if is_array else x.update(dtype=jnp.dtype(dtype))

  return map_declared(cast, declarations, tree)


def partition_rows(x: jax.Array) -> P:
  """Returns the spec of an array BL…: cut along `cp` unless L is 1.

  L is 1 in a step of decoding; `cp` devices then do the same.
  """
  cut = 'cp' if x.shape[1] > 1 else None
  return P(partitioning.BATCH, cut, *[None] * (x.ndim - 2))


def spec_in_use(param: nnx.Param) -> P:
  """Returns the spec of one layer's parameter while it is used: gathered from `fsdp`."""
  return P(*(None if axis == 'fsdp' else axis for axis in param.spec))


def gather_param(param: nnx.Param, dtype: Any, spec: P | None = None) -> jax.Array:
  """Gathers a parameter from `fsdp` for one use, in the compute dtype.

  The cast comes first: half the bytes travel, and the gradient is summed over devices in the dtype
  of the parameter's own copy.

  Args:
    param: A parameter of one layer.
    dtype: The compute dtype.
    spec: Its partition spec in use; default: `spec_in_use`.
  """
  spec = spec_in_use(param) if spec is None else spec
  return jax.sharding.reshard(param.get_value().astype(dtype), spec)


def multiply_matrix(x: jax.Array, param: nnx.Param) -> jax.Array:
  """Returns activations BL… times a matrix, over all dimensions but B and L.

  It is one product of two matrices, unless positions are cut and cannot be joined with rows: to sum
  over B and L, for the gradient of the matrix, XLA would transpose both operands on a CPU.
  """
  num_ins, rows, reshape = x.ndim - 2, partition_rows(x)[:2], jax.lax.reshape
  spec = spec_in_use(param)
  w = gather_param(param, x.dtype, spec)
  outs = w.shape[num_ins:]
  if partitioning.count_position_cuts() > 1:
    i, o = 'xyz'[:num_ins], 'tuv'[: len(outs)]
    cut = P(*rows, *spec[num_ins:])
    return jnp.einsum(f'BL{i},{i}{o}->BL{o}', x, w, out_sharding=cut)
  first, last = spec[0], spec[num_ins]
  n, i, o = math.prod(x.shape[:2]), math.prod(x.shape[2:]), math.prod(outs)
  x_NI = reshape(x, (n, i), out_sharding=P(rows[0], first))
  w_IO = reshape(w, (i, o), out_sharding=P(first, last))
  y_NO = jnp.dot(x_NI, w_IO, out_sharding=P(rows[0], last))
  return reshape(y_NO, (*x.shape[:2], *outs), out_sharding=P(*rows, *spec[num_ins:]))
