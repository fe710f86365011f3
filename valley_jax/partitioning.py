"""The device mesh, and which axis of which parameter lies along it.

One mesh, made at the entry point, with three explicit axes: `data` (copies of
the parameters), `fsdp` (parameters cut up and gathered where they are used)
and `tp` (heads and MLP columns cut up). With explicit axes a sharding is part
of an array's type, so that a mistake is an error at trace time and
`jax.eval_shape` carries shardings along.
"""

from collections.abc import Sequence
import re
from typing import Any

import jax
from jax.sharding import PartitionSpec as P
import numpy as np

AXES = ('data', 'fsdp', 'tp')
BATCH = ('data', 'fsdp')  # What the batch dimension is cut along.

# First match wins; stacked layers have a leading, unpartitioned dimension.
_SPECS = (
    (r'embed_VD$', P('fsdp', 'tp')),
    (r'head_DV$', P('fsdp', 'tp')),
    (r'blocks/q_DKGH$', P(None, 'fsdp', 'tp', None, None)),
    (r'blocks/[kv]_DKH$', P(None, 'fsdp', 'tp', None)),
    (r'blocks/out_KGHD$', P(None, 'tp', None, None, 'fsdp')),
    (r'blocks/(gate|up)_DF$', P(None, 'fsdp', 'tp')),
    (r'blocks/down_FD$', P(None, 'tp', 'fsdp')),
    (r'blocks/q_bias_KGH$', P(None, 'tp', None, None)),
    (r'blocks/[kv]_bias_KH$', P(None, 'tp', None)),
    (r'norm/scale$', P()),
)


def make_mesh(
    data: int = 1,
    fsdp: int = -1,
    tp: int = 1,
    devices: Sequence[Any] | None = None,
) -> jax.sharding.Mesh:
  """Returns the mesh (data, fsdp, tp); one size may be -1, "all the rest".

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = [data, fsdp, tp]
  if sizes.count(-1) == 1:
    known = -int(np.prod(sizes))
    sizes[sizes.index(-1)] = max(1, len(devices) // known)
  if np.prod(sizes) != len(devices):
    raise ValueError(
        f'Mesh data={data}, fsdp={fsdp}, tp={tp} needs {int(np.prod(sizes))}'
        f' devices, but there are {len(devices)}; change config.mesh.'
    )
  return jax.sharding.Mesh(
      np.asarray(devices).reshape(sizes),
      AXES,
      axis_types=(jax.sharding.AxisType.Explicit,) * 3,
  )


def spec_of(path: str) -> P:
  """Returns the partition spec of a parameter, named `blocks/q_DKGH`."""
  for pattern, spec in _SPECS:
    if re.search(pattern, path):
      return spec
  raise ValueError(
      f'Parameter {path!r} matches no partition spec; add a line to the table'
      ' in partitioning.py.'
  )


def _check_divides(path: str, shape: tuple[int, ...], spec: P) -> None:
  mesh = jax.sharding.get_abstract_mesh()
  for size, axis in zip(shape, spec):
    if axis in mesh.shape and size % mesh.shape[axis]:
      raise ValueError(
          f'Parameter {path!r} of shape {shape} has a dimension of {size} that'
          f' mesh axis {axis}={mesh.shape[axis]} cannot cut evenly; change'
          ' config.mesh (or config.vocab_multiple for a vocabulary).'
      )


def specs(params: Any) -> Any:
  """Returns a tree like `params`, of partition specs.

  Raises:
    ValueError: the current mesh cannot cut a parameter evenly.
  """

  def spec(path, leaf):
    name = '/'.join(str(entry.key) for entry in path)
    _check_divides(name, leaf.shape, found := spec_of(name))
    return found

  return jax.tree_util.tree_map_with_path(spec, params)


def shard_params(params: Any) -> Any:
  """Lays every parameter out by the table; for use inside `jax.jit`."""
  return jax.tree.map(jax.sharding.reshard, params, specs(params))


def num_batch_devices() -> int:
  """Returns into how many parts the current mesh cuts a batch."""
  shape = jax.sharding.get_mesh().shape
  return int(np.prod([shape[axis] for axis in BATCH]))


def put_batch(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Cuts a host batch [..., rows, length] along the batch axes.

  With several processes each hands in its own rows of the global batch.

  Raises:
    ValueError: the devices cannot share the rows evenly.
  """
  mesh = jax.sharding.get_mesh()
  rows = batch['inputs'].shape[-2] * jax.process_count()
  if rows % (devices := num_batch_devices()):
    raise ValueError(
        f'A micro-batch has {rows} rows, and data x fsdp = {devices} devices'
        ' share them; make config.train.batch_size / accumulate a multiple.'
    )

  def put(x: np.ndarray) -> jax.Array:
    lead = (None,) * (x.ndim - 2)
    sharding = jax.sharding.NamedSharding(mesh, P(*lead, BATCH, None))
    return jax.make_array_from_process_local_data(sharding, x)

  return {name: put(x) for name, x in batch.items()}
