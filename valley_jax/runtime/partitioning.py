"""The device mesh, and how batches are cut along it.

One mesh, built at the entry point, with four explicit axes: `data` (copies of the parameters),
`fsdp` (parameters cut up and gathered where they are used), `cp` (the positions of a row cut up)
and `tp` (heads and MLP columns cut up). With explicit axes a sharding is part of an array's type,
so that a mistake is an error at trace time and `jax.eval_shape` carries shardings along.

The axes are in the order of how much they communicate, the most last: the last axis is laid over
devices that are neighbours.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import PartitionSpec as P
import numpy as np

from valley_jax import errors

AXES = ('data', 'fsdp', 'cp', 'tp')
BATCH = ('data', 'fsdp')  # What the batch dimension is cut along.


def _count_slices(devices: Sequence[Any]) -> int:
  """Returns how many slices the devices are of; 1 where there are none."""
  return len({getattr(device, 'slice_index', None) for device in devices})


def _arrange_devices(sizes: Sequence[int], slices: int, devices: Sequence[Any]) -> np.ndarray:
  """Returns the devices as an array of these sizes, neighbours together."""
  is_tpu = devices[0].platform == 'tpu'
  # Other platforms number what they call a slice each in its own way, and may be one mesh across
  # them; on TPU it would be a mesh across a slow network.
  if (slices > 1 or is_tpu) and (num_slices := _count_slices(devices)) != slices:
    raise errors.UserError(
        f'config.mesh.slices={slices}, but the devices are of {num_slices}; set it to that number'
        ' (a slice is what a fast network joins).'
    )
  if slices > 1:
    return mesh_utils.create_hybrid_device_mesh(
        (sizes[0] // slices, *sizes[1:]),
        (slices, *[1] * (len(sizes) - 1)),
        devices,
        allow_split_physical_axes=True,
    )
  if is_tpu:  # Follow the torus; other platforms keep the order of the devices.
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  return np.asarray(devices).reshape(sizes)


def make_mesh(
    data: int = 1,
    fsdp: int = -1,
    tp: int = 1,
    cp: int = 1,
    slices: int = 1,
    devices: Sequence[Any] | None = None,
) -> jax.sharding.Mesh:
  """Returns the mesh (data, fsdp, cp, tp); one size may be -1, "the rest".

  Args:
    data: Copies of the parameters, over all slices.
    fsdp: Parts of the parameters, and of the rows.
    tp: Parts of heads and MLP columns.
    cp: Parts of the positions of a row.
    slices: Slices of a multi-slice system, which are joined by a slow network. Only `data` crosses
      it: one sum of gradients a step.
    devices: Default all.

  Raises:
    UserError: the sizes do not multiply to the number of devices, the devices are not of this many
      slices, or the slices cannot share the copies.
  """
  devices = list(jax.devices() if devices is None else devices)
  named = {'data': data, 'fsdp': fsdp, 'cp': cp, 'tp': tp}
  sizes = list(named.values())
  if sizes.count(-1) == 1:
    known = -int(np.prod(sizes))
    sizes[sizes.index(-1)] = max(1, len(devices) // known)
  if min(sizes) < 1 or np.prod(sizes) != len(devices):
    sizes_text = ', '.join(f'{name}={size}' for name, size in named.items())
    raise errors.UserError(
        f'Mesh {sizes_text} needs {int(np.prod(sizes))} devices, but there are {len(devices)};'
        ' change config.mesh.'
    )
  if slices < 1 or sizes[0] % slices:
    raise errors.UserError(
        f'config.mesh.data={sizes[0]} is not a multiple of slices={slices}; each slice holds whole'
        ' copies of the parameters.'
    )
  return jax.sharding.Mesh(
      _arrange_devices(sizes, slices, devices),
      AXES,
      axis_types=(jax.sharding.AxisType.Explicit,) * len(AXES),
  )


def check_divides(path: str, shape: tuple[int, ...], spec: P) -> None:
  """Raises a ValueError where the current mesh cannot cut a parameter evenly."""
  mesh = jax.sharding.get_abstract_mesh()
  for size, axis in zip(shape, spec):
    if axis in mesh.shape and size % mesh.shape[axis]:
      raise errors.UserError(
          f'Parameter {path!r} of shape {shape} has a dimension of {size} that mesh axis'
          f' {axis}={mesh.shape[axis]} cannot cut evenly; change config.mesh (or'
          ' config.vocab_multiple for a vocabulary).'
      )


def count_batch_parts() -> int:
  """Returns into how many parts the current mesh cuts a batch."""
  shape = jax.sharding.get_mesh().shape
  return int(np.prod([shape[axis] for axis in BATCH]))


def count_position_cuts() -> int:
  """Returns into how many parts the current mesh cuts a row's positions."""
  return jax.sharding.get_abstract_mesh().shape['cp']


def check_row_length(length: int) -> None:
  """Raises a ValueError where the devices cannot share a row evenly."""
  if length % count_position_cuts():
    raise errors.UserError(
        f'A row has {length} positions, and cp = {count_position_cuts()} devices share them; make'
        ' config.data.max_len a multiple, or change config.mesh.'
    )


def find_batch_part() -> tuple[int, int]:
  """Returns (i, n): this process holds the i-th of n parts of a batch's rows.

  Raises:
    UserError: as `assign_batch_parts` says.
  """
  mesh = jax.sharding.get_mesh()
  process_of = np.vectorize(lambda device: device.process_index)
  parts = assign_batch_parts(process_of(mesh.devices), mesh.axis_names)
  return parts[jax.process_index()], max(parts.values()) + 1


def assign_batch_parts(process_of: np.ndarray, axes: Sequence[str] = AXES) -> dict[int, int]:
  """Returns which part of a batch's rows each process holds.

  Processes whose devices hold the same rows, and other columns of parameters (`tp`), hold the same
  part.

  Args:
    process_of: The process of each device, in the mesh's shape.
    axes: The mesh's.

  Raises:
    UserError: the parts are not of one size, or not in one piece each.
  """
  sizes = [n if a in BATCH else 1 for n, a in zip(process_of.shape, axes)]
  rows = np.arange(np.prod(sizes)).reshape(sizes)
  held: dict[int, set[int]] = {}
  row_of = np.broadcast_to(rows, process_of.shape)
  for process, row in zip(process_of.flat, row_of.flat, strict=True):
    held.setdefault(int(process), set()).add(int(row))
  parts = sorted({tuple(sorted(part)) for part in held.values()})
  in_order = [row for part in parts for row in part] == [*range(rows.size)]
  if not in_order or len({len(part) for part in parts}) > 1:
    raise errors.UserError(
        f'On a mesh {dict(zip(axes, process_of.shape))} the processes hold these rows of a batch:'
        f' {parts}; they must be as many each, and side by side: change config.mesh.'
    )
  return {p: parts.index(tuple(sorted(held[p]))) for p in held}


def put_batch(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Cuts a host batch [..., rows, length] along the batch axes and `cp`.

  With several processes each hands in its `find_batch_part` of the global batch.

  Raises:
    UserError: the devices cannot share the rows, or a row, evenly.
  """
  mesh = jax.sharding.get_mesh()
  rows = batch['inputs'].shape[-2] * find_batch_part()[1]
  if rows % (devices := count_batch_parts()):
    raise errors.UserError(
        f'A micro-batch has {rows} rows, and data x fsdp = {devices} devices share them; make'
        ' config.train.batch_size / accumulate a multiple.'
    )
  check_row_length(batch['inputs'].shape[-1])

  def put(x: np.ndarray) -> jax.Array:
    lead = (None,) * (x.ndim - 2)
    sharding = jax.sharding.NamedSharding(mesh, P(*lead, BATCH, 'cp'))
    shape = (*x.shape[:-2], rows, x.shape[-1])
    return jax.make_array_from_process_local_data(sharding, x, shape)

  return {name: put(x) for name, x in batch.items()}
