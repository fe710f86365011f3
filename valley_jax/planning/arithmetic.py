"""Chips to plan for, how much a program computes, and the least time that takes: a roofline.

XLA's cost analysis counts a loop's body once, however often it runs. A jaxpr records the length of
its scans, so here the matrix products of all layers count, including those that remat computes
again.

A step computes and moves bytes through HBM. If both went on at full speed and at once, the slower
one would be its time; a real step takes longer, and also waits for other chips. (Williams et al.,
2009; *How to Scale Your Model*, Austin et al., 2025.) HBM sizes and bandwidths are those of
Google's TPU pages and of that book's table; peak FLOP/s are in training/flops.py.
"""

import dataclasses
import math
import re
from typing import Any

import jax
from jax.experimental import topologies
import numpy as np

from valley_jax import errors
from valley_jax.models import student as student_lib
from valley_jax.training import flops as flops_lib


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
    UserError: unknown chips, or sizes that such chips do not come in.
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
    UserError: the TPU compiler is not installed, or does not know the topology.
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


def count_jaxpr_flops(jaxpr: Any, unknown_trips: int = 1, kernel_share: float = 1.0) -> float:
  """Counts the FLOPs of all matrix products, over all devices.

  The most expensive branch of a conditional counts.

  Args:
    jaxpr: Result of `jax.make_jaxpr`, or the `jaxpr` of `jitted.trace(...)`.
    unknown_trips: Most iterations of a `while` whose end depends on data.
    kernel_share: Share of its grid that a Pallas kernel computes. A causal kernel skips future
      blocks as it meets them, nearly half.

  Example: three layers, each a product of 8 x 16 with 16 x 16:
    >>> layer = lambda x, w: (x @ w, None)
    >>> f = lambda x, ws: jax.lax.scan(layer, x, ws)[0]
    >>> int(count_jaxpr_flops(jax.make_jaxpr(f)(np.ones((8, 16)), np.ones((3, 16, 16)))))
    12288
  """
  equations = getattr(jaxpr, 'jaxpr', jaxpr).eqns
  return sum(_count_equation_flops(eqn, unknown_trips, kernel_share) for eqn in equations)


def _count_equation_flops(eqn: Any, unknown_trips: int, kernel_share: float) -> float:
  """Counts one equation, including what it calls as often as it calls it."""
  name, params = eqn.primitive.name, eqn.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    return 2.0 * depth * math.prod(eqn.outvars[0].aval.shape)
  called = [
      count_jaxpr_flops(inner, unknown_trips, kernel_share) for inner in _find_inner_jaxprs(params)
  ]
  if name == 'cond':
    return max(called, default=0.0)
  share = kernel_share if name == 'pallas_call' else 1.0
  return _count_calls(name, params, unknown_trips) * share * sum(called)


def _count_calls(name: str, params: dict[str, Any], unknown_trips: int) -> int:
  """Returns how often an equation runs what it calls, summed over devices."""
  if name == 'scan':
    return params['length']
  if name == 'while':
    return unknown_trips
  if name == 'shard_map':  # Shapes inside it are those of one device.
    return params['mesh'].size
  if name == 'pallas_call':
    grid = params['grid_mapping'].grid
    return int(np.prod([n if isinstance(n, int) else 1 for n in grid]))
  return 1


def _find_inner_jaxprs(params: dict[str, Any]) -> list[Any]:
  values = jax.tree.leaves(list(params.values()), is_leaf=lambda x: hasattr(x, 'eqns'))
  jaxprs = (getattr(value, 'jaxpr', value) for value in values)
  return [jaxpr for jaxpr in jaxprs if hasattr(jaxpr, 'eqns')]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
  """Least time of one program, by what each chip must compute and move."""

  flops: float  # Computed by a chip, recomputation included.
  hbm_bytes: float  # Moved through a chip's HBM at least.
  flops_seconds: float
  hbm_seconds: float
  mfu: float | None  # Model FLOPs over the peak, in `seconds`; None for decoding.
  tokens_per_second: float  # Per chip.

  @property
  def seconds(self) -> float:
    return max(self.flops_seconds, self.hbm_seconds)

  @property
  def limited_by(self) -> str:
    return 'FLOPs' if self.flops_seconds >= self.hbm_seconds else 'HBM'


def find_peak_flops(mesh: jax.sharding.Mesh) -> float:
  """Returns the peak FLOP/s of a chip of the mesh.

  Raises:
    UserError: the chip is not in the table of training/flops.py.
  """
  kind = mesh.devices.flat[0].device_kind
  peak = flops_lib.find_peak_flops(kind)
  if peak is None:
    raise errors.UserError(
        f'The peak FLOP/s of {kind!r} are not known; add a line to the table in training/flops.py.'
    )
  return peak


def bound_train_step(
    topology: Topology,
    mesh: jax.sharding.Mesh,
    student: student_lib.Student,
    *,
    flops: float,
    argument_bytes: float,
    accumulate: int,
    num_tokens: int,
    row_len: int,
) -> Bound:
  """Bounds the time of a training step whose rows are one full example each.

  HBM traffic: the state is read; its trained part is written; and each micro-batch writes the
  gathered bfloat16 parameters and reads them forward and backward.

  Args:
    topology: Chips.
    mesh: Mesh over all of them.
    student: Sizes of the model.
    flops: FLOPs of a chip in the compiled step.
    argument_bytes: Bytes of a chip's share of the state and batch.
    accumulate: Number of micro-batches in a batch.
    num_tokens: Tokens of a batch.
    row_len: Tokens of a row. One example a row is the most expensive packing.
  """
  peak = find_peak_flops(mesh)
  model_flops = flops_lib.count_step_flops(student, num_tokens, num_tokens * row_len)
  gathered = 2 * flops_lib.count_matrix_params(student) / mesh.shape['tp']
  # LoRA trains, and so writes, next to nothing.
  state = (1 if student.lora else 2) * argument_bytes
  hbm_bytes = state + 4 * gathered * accumulate
  flops_seconds = flops / peak
  hbm_seconds = hbm_bytes / topology.chip.hbm_bytes_per_second
  seconds = max(flops_seconds, hbm_seconds)
  return Bound(
      flops=flops,
      hbm_bytes=hbm_bytes,
      flops_seconds=flops_seconds,
      hbm_seconds=hbm_seconds,
      mfu=model_flops / topology.num_chips / seconds / peak,
      tokens_per_second=num_tokens / topology.num_chips / seconds,
  )


def bound_decode_chunk(
    topology: Topology,
    mesh: jax.sharding.Mesh,
    *,
    flops: float,
    argument_bytes: float,
    num_slots: int,
    chunk_len: int,
) -> Bound:
  """Bounds the time of a chunk of decoding steps.

  Each step reads all arguments: the parameters and the cache of slots at their longest.
  """
  hbm_bytes = argument_bytes * chunk_len
  flops_seconds = flops / find_peak_flops(mesh)
  hbm_seconds = hbm_bytes / topology.chip.hbm_bytes_per_second
  num_tokens = num_slots * chunk_len
  return Bound(
      flops=flops,
      hbm_bytes=hbm_bytes,
      flops_seconds=flops_seconds,
      hbm_seconds=hbm_seconds,
      mfu=None,
      tokens_per_second=num_tokens / topology.num_chips / max(flops_seconds, hbm_seconds),
  )
