"""TPU chips and topologies to plan for: memory, bandwidth, and devices to compile for.

HBM sizes and bandwidths are those of Google's TPU pages and of *How to Scale Your Model* (Austin et
al., 2025, table of TPU specs). Peak FLOP/s: see training/flops.py.
"""

import dataclasses
import math
import re
from typing import Any

from jax.experimental import topologies

from valley_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One device of a mesh, as JAX counts them."""

  hbm_bytes: float
  hbm_bytes_per_second: float
  torus_axes: int  # Dimensions of the network that connects the chips.


CHIPS = {
    'v4': Chip(hbm_bytes=32e9, hbm_bytes_per_second=1.2e12, torus_axes=3),
    'v5e': Chip(hbm_bytes=16e9, hbm_bytes_per_second=8.1e11, torus_axes=2),
    'v5p': Chip(hbm_bytes=95e9, hbm_bytes_per_second=2.8e12, torus_axes=3),
    'v6e': Chip(hbm_bytes=32e9, hbm_bytes_per_second=1.6e12, torus_axes=2),
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """`v5p:2x2x4`, or `2*v5e:4x4` for two slices of v5e."""

  name: str
  kind: str
  sizes: tuple[int, ...]
  num_slices: int = 1

  @property
  def chip(self) -> Chip:
    return CHIPS[self.kind]

  @property
  def num_chips(self) -> int:
    return self.num_slices * math.prod(self.sizes)


def parse_topology(name: str) -> Topology:
  """Parses a name such as `v6e:4x4`.

  Raises:
    ValueError: unknown chips, or sizes that such chips do not come in.
  """
  match = re.fullmatch(r'(?:(\d+)\*)?(\w+):(\d+(?:x\d+)*)', name)
  if match is None or match[2] not in CHIPS:
    raise errors.UserError(
        f'Topology {name!r} is not KIND:AxB or KIND:AxBxC, such as v6e:4x4, v5p:2x2x4, or'
        f' 2*v5e:4x4 for two slices; KIND is one of {", ".join(CHIPS)}.'
    )
  sizes = tuple(map(int, match[3].split('x')))
  num_axes = CHIPS[match[2]].torus_axes
  if len(sizes) != num_axes or 0 in sizes:
    raise errors.UserError(
        f'Topology {name!r}: {match[2]} chips are connected in {num_axes} dimensions, so give'
        f' {"x".join("ABC"[:num_axes])}, each at least 1.'
    )
  return Topology(name, match[2], sizes, int(match[1] or 1))


def describe_devices(topology: Topology) -> list[Any]:
  """Returns devices to compile for; nothing can run on them.

  Raises:
    ValueError: the TPU compiler is not installed, or does not know the topology.
  """
  name = f'{topology.kind}:{"x".join(map(str, topology.sizes))}'
  options = {'num_slices': topology.num_slices} if topology.num_slices > 1 else {}
  try:
    description = topologies.get_topology_desc(name, 'tpu', **options)
  except (RuntimeError, NotImplementedError, ImportError) as e:
    raise errors.UserError(
        f'Cannot compile for topology {topology.name!r}: {e}. If the TPU compiler is missing, pip'
        " install 'valley_jax[tpu]'; if it is installed, use another shape, such as v6e:4x4 or"
        ' v5p:2x2x2.'
    ) from e
  return list(description.devices)
