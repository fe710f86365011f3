"""What a chip holds and how fast it is at best, and the topologies of them.

HBM and bandwidths are those of Google's TPU pages and of *How to Scale Your
Model* (Austin et al., 2025, table of TPU specs); link speeds are one way. They
bound a step from below and forecast nothing. FLOP/s: see training/flops.py.
"""

from collections.abc import Sequence
import dataclasses
import math
import re

from valley_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One device of a mesh, as JAX counts them."""

  hbm_bytes: float
  hbm_bytes_per_second: float
  link_bytes_per_second: float  # Of one ICI link, one way.
  torus_axes: int  # Each has a link either way.
  dcn_bytes_per_second: float = 6.25e9  # Its share of its host's network.


CHIPS = {
    'v4': Chip(
        hbm_bytes=32e9, hbm_bytes_per_second=1.2e12, link_bytes_per_second=4.5e10, torus_axes=3
    ),
    'v5e': Chip(
        hbm_bytes=16e9, hbm_bytes_per_second=8.1e11, link_bytes_per_second=4.5e10, torus_axes=2
    ),
    'v5p': Chip(
        hbm_bytes=95e9, hbm_bytes_per_second=2.8e12, link_bytes_per_second=9e10, torus_axes=3
    ),
    'v6e': Chip(
        hbm_bytes=32e9, hbm_bytes_per_second=1.6e12, link_bytes_per_second=9e10, torus_axes=2
    ),
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """`v5p:2x2x4`, or `2*v5e:4x4` for two slices of v5e over the network."""

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


def parse(name: str) -> Topology:
  """Returns the topology of a name.

  Raises:
    ValueError: unknown chips, or sizes that such chips do not come in.
  """
  match = re.fullmatch(r'(?:(\d+)\*)?(\w+):(\d+(?:x\d+)*)', name)
  if match is None or match[2] not in CHIPS:
    raise errors.UserError(
        f'Topology {name!r}: want KIND:AxB or KIND:AxBxC, such as v6e:4x4,'
        f' v5p:2x2x4, or 2*v5e:4x4 for two slices; KIND is one of'
        f' {", ".join(CHIPS)}.'
    )
  sizes = tuple(map(int, match[3].split('x')))
  axes = CHIPS[match[2]].torus_axes
  if len(sizes) != axes or 0 in sizes:
    raise errors.UserError(
        f'Topology {name!r}: {match[2]} chips lie in {axes} dimensions, so'
        f' give {"x".join("ABC"[:axes])}, each at least 1.'
    )
  return Topology(name, match[2], sizes, int(match[1] or 1))


def seconds_of_collectives(
    topology: Topology,
    bytes_by_axes: dict[tuple[str, ...], float],
    used_axes: Sequence[str],
    dcn_axis: str = '',
) -> float:
  """Returns the least time that so many bytes take to and from each chip.

  Args:
    topology: Of chips.
    bytes_by_axes: Bytes that a chip receives, by the mesh axes they travel
      along.
    used_axes: Mesh axes of more than one chip. A lone axis has all links of a
      chip; several are taken to share the torus, a dimension each.
    dcn_axis: The mesh axis that crosses slices, if one does.
  """
  chip = topology.chip
  total = 0.0
  for axes, amount in bytes_by_axes.items():
    if dcn_axis in axes:
      total += amount / chip.dcn_bytes_per_second / topology.num_slices
    share = max(1, chip.torus_axes - len(used_axes) + 1)
    dimensions = min(chip.torus_axes, share * max(1, len(axes)))
    total += amount / (2 * dimensions * chip.link_bytes_per_second)
  return total
