"""The least time of a compiled program: a roofline of what it must do.

A step computes, moves bytes through HBM and receives bytes from other chips. If
all three went on at full speed and at once, the slowest would be its time; a
real one takes longer. (Williams et al., 2009; *How to Scale Your Model*, Austin
et al., 2025.)
"""

import dataclasses

import jax

from valley_jax import errors
from valley_jax.models import student as student_lib
from valley_jax.planning import chips
from valley_jax.planning import programs
from valley_jax.training import flops as flops_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
  """Of one program on one chip."""

  flops: float  # That it computes, recomputed ones included.
  hbm_bytes: float  # That it moves at least.
  flops_seconds: float
  hbm_seconds: float
  network_seconds: float
  mfu: float | None  # Model FLOPs over what the chip could in that time.
  tokens_per_second: float  # Of one chip.

  @property
  def seconds(self) -> float:
    return max(self.flops_seconds, self.hbm_seconds, self.network_seconds)

  @property
  def limited_by(self) -> str:
    by = {'FLOPs': self.flops_seconds, 'HBM': self.hbm_seconds, 'network': self.network_seconds}
    return max(by, key=lambda name: by[name])


def _peak_flops(mesh: jax.sharding.Mesh) -> float:
  kind = mesh.devices.flat[0].device_kind
  peak = flops_lib.peak_flops(kind)
  if peak is None:
    raise errors.UserError(
        f'The peak FLOP/s of {kind!r} are not known; add a line to the table in'
        ' training/flops.py.'
    )
  return peak


def _network_seconds(
    topology: chips.Topology, mesh: jax.sharding.Mesh, needs: programs.Needs
) -> float:
  used = [axis for axis, size in mesh.shape.items() if size > 1]
  # Only `data` crosses slices; see partitioning.make_mesh.
  dcn_axis = 'data' if topology.num_slices > 1 else ''
  return chips.seconds_of_collectives(topology, needs.received, used, dcn_axis)


def of_train(
    topology: chips.Topology,
    mesh: jax.sharding.Mesh,
    student: student_lib.Student,
    needs: programs.Needs,
    accumulate: int,
    num_tokens: int,
    row_len: int,
) -> Bound | None:
  """Returns the bound of a training step of full rows of one example each.

  HBM: the state is read, what learns of it is written, and each micro-batch
  reads the gathered bfloat16 parameters forward and backward, having written
  them.

  Args:
    topology: Of chips.
    mesh: Over all of them.
    student: Sizes.
    needs: Of the compiled step.
    accumulate: Micro-batches of a batch.
    num_tokens: Of a batch.
    row_len: Tokens of a row, which is one example: no packing costs more.
  """
  if not needs.is_compiled:
    return None
  peak, n = _peak_flops(mesh), topology.num_chips
  chip = topology.chip
  model = flops_lib.step_flops(student, num_tokens, num_tokens * row_len)
  gathered = 2 * flops_lib.num_matrix_params(student) / mesh.shape['tp']
  # Under LoRA next to nothing is written.
  state = (1 if student.lora else 2) * needs.arguments
  hbm = state + 4 * gathered * accumulate
  times = {
      'flops_seconds': needs.flops / peak,
      'hbm_seconds': hbm / chip.hbm_bytes_per_second,
      'network_seconds': _network_seconds(topology, mesh, needs),
  }
  seconds = max(times.values())
  return Bound(
      flops=needs.flops,
      hbm_bytes=hbm,
      mfu=model / n / seconds / peak,
      tokens_per_second=num_tokens / n / seconds,
      **times,
  )


def of_decode(
    topology: chips.Topology,
    mesh: jax.sharding.Mesh,
    needs: programs.Needs,
    num_slots: int,
    chunk_len: int,
) -> Bound | None:
  """Returns the bound of a chunk of steps, each of which reads all arguments.

  That is, parameters and the whole cache: slots at their longest.
  """
  if not needs.is_compiled:
    return None
  hbm = needs.arguments * chunk_len
  times = {
      'flops_seconds': needs.flops / _peak_flops(mesh),
      'hbm_seconds': hbm / topology.chip.hbm_bytes_per_second,
      'network_seconds': _network_seconds(topology, mesh, needs),
  }
  seconds = max(times.values())
  return Bound(
      flops=needs.flops,
      hbm_bytes=hbm,
      mfu=None,
      tokens_per_second=num_slots * chunk_len / topology.num_chips / seconds,
      **times,
  )
