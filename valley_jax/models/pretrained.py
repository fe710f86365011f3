"""Reads Hugging Face checkpoints: sharded safetensors, through Orbax v1.

Every process reads only the rows that its devices hold, a layer at a time, and puts them into the
stacked parameters in place: besides the result, memory holds one layer, in the dtype of the files.
"""

from collections.abc import Mapping
import functools
import json
import os
from typing import Any

from etils import epath
from flax import traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
from orbax.checkpoint import v1 as ocp

from valley_jax import errors
from valley_jax.models import hf_config
from valley_jax.models import hf_weights
from valley_jax.models import parameters
from valley_jax.models import student as student_lib

_READ_BYTES = 64 * 2**20  # On their way from files, at a time.
_MAX_NAMED = 5  # Faults of a kind that an error lists.


def read_student(directory: str | os.PathLike) -> student_lib.Student:
  """Returns the student that DIR/config.json describes.

  Raises:
    UserError: there is none, or it has what this decoder does not compute.
  """
  path = epath.Path(directory) / 'config.json'
  if not path.exists():
    raise errors.UserError(
        f'{path} does not exist; download the whole repository of the checkpoint from Hugging Face,'
        ' and name its directory.'
    )
  return hf_config.parse_student_config(json.loads(path.read_text()), str(path))


def _build_context() -> ocp.Context:
  context = ocp.Context()
  context.checkpoint_layout = ocp.options.CheckpointLayout.SAFETENSORS
  context.memory.read_concurrent_bytes = _READ_BYTES
  return context


def _list_names(names: Any) -> str:
  names = sorted(names)
  rest = len(names) - _MAX_NAMED
  listed = ', '.join(map(str, names[:_MAX_NAMED]))
  return f'{listed} and {rest} more' if rest > 0 else listed


def _read_metadata(directory: epath.Path) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns what the files hold, by name.

  Raises:
    UserError: files that the index names are not there, or none at all.
  """
  index = directory / 'model.safetensors.index.json'
  files = {path.name for path in directory.glob('*.safetensors')}
  named = files or {'model.safetensors'}
  if index.exists():
    named = set(json.loads(index.read_text())['weight_map'].values())
  if missing := named - files:
    raise errors.UserError(f'{directory} lacks {_list_names(missing)}; download what is missing.')
  with _build_context():
    metadata: Any = ocp.metadata(str(directory)).metadata
  return metadata


def has_separate_head(directory: str | os.PathLike) -> bool:
  """Returns whether the files hold a head besides the embedding."""
  return hf_weights.HEAD in _read_metadata(epath.Path(os.fspath(directory)))


def _check_shapes(
    directory: epath.Path,
    saved: Mapping[str, jax.ShapeDtypeStruct],
    wanted: Mapping[str, tuple[int, ...]],
) -> None:
  """Raises ValueError unless the files hold what is wanted and nothing else."""
  both = saved.keys() & wanted.keys()
  shapes = [
      f'{name} {saved[name].shape} instead of {wanted[name]}'
      for name in both
      if saved[name].shape != wanted[name]
  ]
  dtypes = [
      f'{name} {saved[name].dtype}'
      for name in both
      if saved[name].dtype not in (jnp.bfloat16, jnp.float16, jnp.float32)
  ]
  kinds = {
      'lacks': wanted.keys() - saved.keys(),
      'has, and no parameter takes,': saved.keys() - wanted.keys(),
      'has in another shape': shapes,
      'has quantised or in another dtype': dtypes,
  }
  if faults := [f'{kind} {_list_names(v)}' for kind, v in kinds.items() if v]:
    raise errors.UserError(
        f'{directory} {"; ".join(faults)}. Its config.json describes another model than its files'
        ' hold; download the checkpoint again, or take another.'
    )


def _choose_row_axes(tensor: hf_weights.HfTensor) -> tuple[list[str], list[str]]:
  """Returns along which axes rows are cut for reading: to exchange, to gather.

  Rows are contiguous in a file, columns are not. A process therefore reads whole rows, cut along
  all of the mesh's axes that divide them; the devices exchange the rest. The axes that the tensor
  is to be cut along come first.
  """
  mesh = jax.sharding.get_abstract_mesh()
  lasting = [axis for axis in tensor.their_spec if axis]
  passing = [axis for axis in mesh.axis_names if axis not in lasting]
  rows, kept = tensor.their_shape[0], []
  for axis in (*lasting, *passing):
    if rows % mesh.shape[axis] == 0:
      kept.append(axis)
      rows //= mesh.shape[axis]
  return [a for a in lasting if a in kept], [a for a in passing if a in kept]


def _row_spec(tensor: hf_weights.HfTensor, axes: list[str]) -> P:
  return P(tuple(axes), *[None] * (len(tensor.their_shape) - 1))


def _read_tensors(
    directory: epath.Path,
    saved: Mapping[str, jax.ShapeDtypeStruct],
    tensors: Mapping[str, hf_weights.HfTensor],
) -> dict[str, jax.Array]:
  """Reads tensors, given by their names, in the dtype of the files."""
  mesh = jax.sharding.get_mesh()

  def like(name: str) -> jax.ShapeDtypeStruct:
    lasting, passing = _choose_row_axes(tensors[name])
    spec = _row_spec(tensors[name], lasting + passing)
    sharding = jax.sharding.NamedSharding(mesh, spec)
    at = saved[name]
    return jax.ShapeDtypeStruct(at.shape, at.dtype, sharding=sharding)

  with _build_context():
    loaded: Any = ocp.load(str(directory), {name: like(name) for name in tensors})
  return loaded


@functools.partial(jax.jit, static_argnums=(0, 2))
def _convert_to_ours(tensor: hf_weights.HfTensor, x: jax.Array, dtype: Any) -> jax.Array:
  # Gathered first and exchanged then: at once, XLA would replicate it.
  x = jax.sharding.reshard(x, _row_spec(tensor, _choose_row_axes(tensor)[0]))
  x = jax.sharding.reshard(x, tensor.their_spec)
  return tensor.to_ours(x).astype(dtype)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _place_layer(
    tensors: tuple[hf_weights.HfTensor, ...],
    stacked: list[jax.Array],
    layer: list[jax.Array],
    number: jax.Array,
) -> list[jax.Array]:
  """Puts the tensors of one layer into the stacked parameters."""
  return [
      jax.lax.dynamic_update_index_in_dim(into, _convert_to_ours(tensor, x, into.dtype), number, 0)
      for tensor, into, x in zip(tensors, stacked, layer, strict=True)
  ]


def _check_tied(
    directory: epath.Path, saved: Mapping[str, jax.ShapeDtypeStruct], embed: hf_weights.HfTensor
) -> None:
  """Refuses a head that the embedding is not, where config.json says it is."""
  pair = _read_tensors(directory, saved, {embed.theirs: embed, hf_weights.HEAD: embed})
  if not jax.jit(jnp.array_equal)(*pair.values()):
    raise errors.UserError(
        f'{directory}: config.json ties the head to the embedding, but {hf_weights.HEAD} is not'
        f' {embed.theirs}; set tie_word_embeddings to false there if the head is meant.'
    )


def load_params(
    directory: str | os.PathLike, student: student_lib.Student, like: Any = None
) -> Any:
  """Loads a checkpoint's parameters.

  Args:
    directory: A directory of *.safetensors, and an index if they are several.
    student: Sizes, without LoRA.
    like: Shapes, dtypes and shardings of the parameters, on the current mesh; default: float32.

  Raises:
    UserError: a tensor is missing, left over, or of another shape.
  """
  directory = epath.Path(os.fspath(directory))
  like = parameters.abstract_params(student) if like is None else like
  top, layer = hf_weights.list_tensors(student, like)
  numbers = range(student.num_layers)
  saved = _read_metadata(directory)
  if hf_weights.is_without_wrapper(saved):
    top, layer = map(hf_weights.rename_without_wrapper, (top, layer))
  wanted = {tensor.theirs: tensor for tensor in top}
  for n in numbers:
    wanted.update({tensor.theirs.format(n): tensor for tensor in layer})
  checked = dict(saved)
  is_tied = hf_weights.HEAD in saved and hf_weights.HEAD not in wanted
  if is_tied:
    del checked[hf_weights.HEAD]
  _check_shapes(directory, checked, {n: t.their_shape for n, t in wanted.items()})
  if is_tied:
    _check_tied(directory, saved, top[0])
  placed = {}
  for tensor in top:  # One by one: two of them are as large as many layers.
    (x,) = _read_tensors(directory, saved, {tensor.theirs: tensor}).values()
    dtype = hf_weights.find_param(like, tensor.ours).dtype
    placed[tensor.ours] = _convert_to_ours(tensor, x, dtype)
  leaves = [hf_weights.find_param(like['blocks'], tensor.ours) for tensor in layer]
  stacked = [jnp.zeros(x.shape, x.dtype, device=x.sharding) for x in leaves]
  for n in numbers:
    names = {tensor.theirs.format(n): tensor for tensor in layer}
    tensors = _read_tensors(directory, saved, names)
    stacked = _place_layer(tuple(layer), stacked, [tensors[name] for name in names], np.int32(n))
    # Reading runs ahead of placing otherwise, and layers pile up.
    jax.block_until_ready(stacked)
  for tensor, x in zip(layer, stacked, strict=True):
    placed[f'blocks/{tensor.ours}'] = x
  return traverse_util.unflatten_dict(placed, sep='/')
