"""How Hugging Face names and lays out each of our parameters, and writing them so.

They keep a tensor a layer, [out, in], heads flattened; we stack the layers (a leading Y) and keep
heads apart. A line of the table says it in the letters of `transformer.py`: our `q_DKGH` is their
'KGH D', a matrix whose rows run over K, G and H, whose columns over D.

Weights are written as sharded safetensors and an index. One tensor of one layer is gathered at a
time and goes straight to its file: a host needs no room for the model, nor for a file of it.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import json
import math
import os
import pathlib
from typing import Any, NamedTuple

from flax import traverse_util
import jax
from jax.sharding import PartitionSpec as P
import numpy as np

from valley_jax import errors
from valley_jax.models import parameters
from valley_jax.models import student as student_lib

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

_SAFETENSORS_DTYPES = {'float32': 'F32', 'bfloat16': 'BF16'}


@dataclasses.dataclass(frozen=True)
class HfTensor:
  """One of their tensors: a whole parameter of ours, or one layer of it.

  `letters`, `shape` and `spec` are ours, without the leading Y.
  """

  ours: str
  theirs: str  # With {} for the number of the layer.
  groups: str
  letters: str
  shape: tuple[int, ...]
  spec: tuple[str | None, ...]

  def _in_their_order(self, ours: Sequence[Any]) -> list[Any]:
    at = dict(zip(self.letters, ours, strict=True))
    return [at[letter] for letter in self.groups.replace(' ', '')]

  @property
  def their_shape(self) -> tuple[int, ...]:
    """What its file says."""
    size = dict(zip(self.letters, self.shape, strict=True))
    return tuple(math.prod(size[letter] for letter in group) for group in self.groups.split())

  @property
  def their_spec(self) -> P:
    """How their tensor is cut if each device is to keep what it needs."""
    axis = dict(zip(self.letters, self.spec, strict=True))
    # Where letters are flattened together, only the first may be partitioned.
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


def is_without_wrapper(names: Collection[str]) -> bool:
  """Says whether a decoder was saved without what is around it.

  Embedding models are saved like this: `embed_tokens.weight`, not `model.embed_tokens…`.
  """
  return 'embed_tokens.weight' in names


def rename_without_wrapper(named: Sequence[HfTensor]) -> list[HfTensor]:
  """Returns the tensors under the names that they have there."""
  return [
      dataclasses.replace(tensor, theirs=tensor.theirs.removeprefix('model.')) for tensor in named
  ]


def list_tensors(
    student: student_lib.Student, params: Any
) -> tuple[list[HfTensor], list[HfTensor]]:
  """Returns their tensors for a tree of parameters, in their order.

  Args:
    student: Sizes.
    params: Arrays or abstract arrays with shardings.

  Returns:
    Those outside of the layers, and those of each layer.

  Raises:
    UserError: a parameter that Hugging Face's families do not have.
  """
  flatten: Any = functools.partial(traverse_util.flatten_dict, sep='/')
  leaves, declared = flatten(params), flatten(parameters.describe_parameters(student))

  def build_tensor(path: str, row: tuple[str, str, str], prefix: str) -> HfTensor:
    leaf, declaration = leaves.pop(path), declared[path]
    spec = leaf.sharding.spec
    spec = (*spec, *[None] * (leaf.ndim - len(spec)))
    first = int(declaration.is_stacked)
    ours, theirs, groups = row
    return HfTensor(
        ours, prefix + theirs, groups, declaration.letters, leaf.shape[first:], spec[first:]
    )

  top = [build_tensor(row[0], row, '') for row in _TOP if row[0] in leaves]
  layer = [
      build_tensor(f'blocks/{row[0]}', row, 'model.layers.{}.')
      for row in _LAYER
      if f'blocks/{row[0]}' in leaves
  ]
  if leaves:
    raise errors.UserError(
        f'Parameters {sorted(leaves)} have no name in Hugging Face checkpoints; add them to the'
        ' table in models/hf_weights.py.'
    )
  return top, layer


def find_param(params: Any, ours: str) -> Any:
  """Returns the parameter named `attention_norm/scale`."""
  for name in ours.split('/'):
    params = params[name]
  return params


class _FileEntry(NamedTuple):
  """A tensor of a file: its name there, its shape, and how to come by it."""

  name: str
  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]


@functools.partial(jax.jit, static_argnums=2)
def _cut_layer(stacked: jax.Array, number: jax.Array, dtype: str) -> jax.Array:
  one = jax.lax.dynamic_index_in_dim(stacked, number, 0, keepdims=False)
  return one.astype(dtype)


def _list_entries(student: student_lib.Student, params: Any, dtype: str) -> Iterator[_FileEntry]:
  """Yields all tensors, layer by layer, as their files have them."""
  top, layer = list_tensors(student, params)

  def read_whole(tensor: HfTensor) -> np.ndarray:
    x = find_param(params, tensor.ours)
    return tensor.to_theirs(np.asarray(x.astype(dtype)))

  def read_layer(tensor: HfTensor, number: int) -> np.ndarray:
    x = find_param(params['blocks'], tensor.ours)
    return tensor.to_theirs(np.asarray(_cut_layer(x, np.int32(number), dtype)))

  for tensor in top:
    read = functools.partial(read_whole, tensor)
    yield _FileEntry(tensor.theirs, tensor.their_shape, read)
  for number in range(student.num_layers):
    for tensor in layer:
      read = functools.partial(read_layer, tensor, number)
      name = tensor.theirs.format(number)
      yield _FileEntry(name, tensor.their_shape, read)


def write_file(path: pathlib.Path, entries: list[_FileEntry], dtype: str) -> None:
  """Writes one safetensors file, a tensor at a time."""
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  end = 0
  for entry in entries:
    start, end = end, end + _count_bytes(entry, dtype)
    header[entry.name] = {
        'dtype': _SAFETENSORS_DTYPES[dtype],
        'shape': list(entry.shape),
        'data_offsets': [start, end],
    }
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)  # Data begins at a multiple of 8.
  with open(path, 'wb') as f:
    f.write(len(text).to_bytes(8, 'little') + text)
    for entry in entries:
      f.write(np.ascontiguousarray(entry.read()).view(np.uint8).data)
    f.flush()
    os.fsync(f.fileno())


def _count_bytes(entry: _FileEntry, dtype: str) -> int:
  return math.prod(entry.shape) * np.dtype(dtype).itemsize


def write_weights(
    directory: str | os.PathLike,
    student: student_lib.Student,
    params: Any,
    dtype: str = 'bfloat16',
    max_file_bytes: int = 5 * 10**9,
) -> None:
  """Writes model.safetensors; or several files, and an index that names them.

  Args:
    directory: An existing directory.
    student: Sizes.
    params: Parameters, over however many devices of this process.
    dtype: float32 or bfloat16.
    max_file_bytes: No file is larger, unless for a single larger tensor.
  """
  if dtype not in _SAFETENSORS_DTYPES:
    raise errors.UserError(f'dtype={dtype!r}: want one of {", ".join(_SAFETENSORS_DTYPES)}.')
  directory = pathlib.Path(directory)
  files: list[list[_FileEntry]] = [[]]
  room = max_file_bytes
  for entry in _list_entries(student, params, dtype):
    size = _count_bytes(entry, dtype)
    if size > room and files[-1]:
      files.append([])
      room = max_file_bytes
    files[-1].append(entry)
    room -= size
  if len(files) == 1:
    write_file(directory / 'model.safetensors', files[0], dtype)
    return
  weight_map, total_size = {}, 0
  for number, entries in enumerate(files, start=1):
    name = f'model-{number:05d}-of-{len(files):05d}.safetensors'
    write_file(directory / name, entries, dtype)
    weight_map.update({entry.name: name for entry in entries})
    total_size += sum(_count_bytes(entry, dtype) for entry in entries)
  index = {'metadata': {'total_size': total_size}, 'weight_map': weight_map}
  path = directory / 'model.safetensors.index.json'
  path.write_text(json.dumps(index, indent=2) + '\n')
