"""Writes weights as Hugging Face has them: sharded safetensors and an index.

One tensor of one layer is gathered at a time and goes straight to its file: a
host needs no room for the model, nor for a file of it.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import json
import math
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from valley_jax import errors
from valley_jax.models import hf_names

_NAMES = {'float32': 'F32', 'bfloat16': 'BF16'}


class _Entry(NamedTuple):
  """A tensor of a file: its name there, its shape, and how to come by it."""

  name: str
  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]


@functools.partial(jax.jit, static_argnums=2)
def _layer(stacked: jax.Array, number: jax.Array, dtype: str) -> jax.Array:
  one = jax.lax.dynamic_index_in_dim(stacked, number, 0, keepdims=False)
  return one.astype(dtype)


def _entries(params: Any, dtype: str) -> Iterator[_Entry]:
  """Yields all tensors, layer by layer, as their files have them."""
  top, layer = hf_names.tensors(params)

  def whole(tensor: hf_names.Tensor) -> np.ndarray:
    x = hf_names.get(params, tensor.ours)
    return tensor.to_theirs(np.asarray(x.astype(dtype)))

  def part(tensor: hf_names.Tensor, number: int) -> np.ndarray:
    x = hf_names.get(params['blocks'], tensor.ours)
    return tensor.to_theirs(np.asarray(_layer(x, np.int32(number), dtype)))

  for tensor in top:
    read = functools.partial(whole, tensor)
    yield _Entry(tensor.theirs, tensor.their_shape, read)
  for number in range(hf_names.num_layers(params)):
    for tensor in layer:
      read = functools.partial(part, tensor, number)
      name = tensor.theirs.format(number)
      yield _Entry(name, tensor.their_shape, read)


def _write_file(path: pathlib.Path, entries: list[_Entry], dtype: str) -> None:
  """Writes one safetensors file, a tensor at a time."""
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  end = 0
  for entry in entries:
    start, end = end, end + _num_bytes(entry, dtype)
    header[entry.name] = {
        'dtype': _NAMES[dtype],
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


def _num_bytes(entry: _Entry, dtype: str) -> int:
  return math.prod(entry.shape) * np.dtype(dtype).itemsize


def write_weights(
    directory: str | os.PathLike,
    params: Any,
    dtype: str = 'bfloat16',
    max_file_bytes: int = 5 * 10**9,
) -> None:
  """Writes model.safetensors; or several files, and an index that names them.

  Args:
    directory: Where to; it exists.
    params: Parameters, over however many devices of this process.
    dtype: float32 or bfloat16.
    max_file_bytes: No file is larger, unless for a single larger tensor.
  """
  if dtype not in _NAMES:
    raise errors.UserError(f'dtype={dtype!r}: want one of {", ".join(_NAMES)}.')
  directory = pathlib.Path(directory)
  files: list[list[_Entry]] = [[]]
  room = max_file_bytes
  for entry in _entries(params, dtype):
    size = _num_bytes(entry, dtype)
    if size > room and files[-1]:
      files.append([])
      room = max_file_bytes
    files[-1].append(entry)
    room -= size
  if len(files) == 1:
    _write_file(directory / 'model.safetensors', files[0], dtype)
    return
  weight_map, total_size = {}, 0
  for number, entries in enumerate(files, start=1):
    name = f'model-{number:05d}-of-{len(files):05d}.safetensors'
    _write_file(directory / name, entries, dtype)
    weight_map.update({entry.name: name for entry in entries})
    total_size += sum(_num_bytes(entry, dtype) for entry in entries)
  index = {'metadata': {'total_size': total_size}, 'weight_map': weight_map}
  path = directory / 'model.safetensors.index.json'
  path.write_text(json.dumps(index, indent=2) + '\n')
