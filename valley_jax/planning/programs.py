"""Compiles a run's programs for chips that are not there, and measures them.

The TPU compiler (extra `tpu`) needs no TPU: it compiles for a description of
one. What is compiled is the very function that a run calls, with arguments that
are shapes, dtypes and shardings only.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import math
import re
from typing import Any

import jax
from jax.experimental import topologies
import jax.numpy as jnp
import numpy as np

from valley_jax import errors
from valley_jax.models import cache
from valley_jax.models import lora
from valley_jax.models import params as params_lib
from valley_jax.models import student as student_lib
from valley_jax.planning import arithmetic
from valley_jax.planning import chips
from valley_jax.planning import collectives
from valley_jax.runtime import partitioning
from valley_jax.sampling import decode
from valley_jax.sampling import methods
from valley_jax.sampling import stages
from valley_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
  """What one program needs of each chip; bytes.

  If the compiler refuses it for want of HBM, `peak` is what it said that the
  program needs, and nothing is known of its parts and of what travels.
  """

  arguments: float
  temporaries: float
  peak: float  # Arguments, results that are not donated, and temporaries.
  flops: float  # Of matrix products, recomputed ones included.
  received: dict[tuple[str, ...], float] = dataclasses.field(
      default_factory=dict
  )  # By the mesh axes that they travel along.
  is_compiled: bool = True


def devices(topology: chips.Topology) -> list[Any]:
  """Returns devices that can be compiled for, and on which nothing runs.

  Raises:
    ValueError: there is no TPU compiler, or it knows no such topology.
  """
  name = f'{topology.kind}:{"x".join(map(str, topology.sizes))}'
  more = {'num_slices': topology.num_slices} if topology.num_slices > 1 else {}
  try:
    found = topologies.get_topology_desc(name, 'tpu', **more).devices
  except (RuntimeError, NotImplementedError, ImportError) as e:
    raise errors.UserError(
        f'Topology {topology.name!r} cannot be compiled for: {e}. If there is'
        " no TPU compiler, pip install 'valley_jax[tpu]'; if there is, take"
        ' another shape, such as v6e:4x4 or v5p:2x2x2.'
    ) from e
  return list(found)


def abstract_state(
    student: student_lib.Student, tx: Any, dtype: Any, param_dtype: Any
) -> step_lib.State:
  """Returns a training state of shapes and shardings on the current mesh.

  Args:
    student: Sizes.
    tx: The optimiser.
    dtype: Of the computation, and of what LoRA leaves frozen.
    param_dtype: Of the parameters that learn.
  """
  params = params_lib.abstract(student)
  if student.lora:
    learning, frozen = lora.split(params)
    params = lora.join(learning, lora.cast_matrices(frozen, dtype))
  init = functools.partial(step_lib.init_state, tx=tx, dtype=param_dtype)
  mesh = jax.sharding.get_mesh()

  def place(x: Any) -> jax.ShapeDtypeStruct:
    spec = x.sharding.spec if x.sharding else jax.P()
    return x.update(sharding=jax.NamedSharding(mesh, spec))

  return jax.tree.map(place, jax.eval_shape(init, params))


def abstract_batch(
    row: Mapping[str, np.ndarray], accumulate: int, rows: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns a batch [accumulate, rows, length] of shapes and shardings.

  Args:
    row: Any packed row, for names, dtypes and the length.
    accumulate: Micro-batches of the batch.
    rows: Of a micro-batch.
  """
  mesh = jax.sharding.get_mesh()
  sharding = jax.NamedSharding(mesh, jax.P(None, partitioning.BATCH, 'cp'))
  return {
      name: jax.ShapeDtypeStruct((accumulate, rows, *x.shape), x.dtype, sharding=sharding)
      for name, x in row.items()
  }


def train_needs(
    state: step_lib.State,
    train_step: Callable[..., Any],
    batch: dict[str, jax.ShapeDtypeStruct],
    max_chunks: int,
) -> Needs:
  """Compiles one training step on the current mesh.

  Args:
    state: Of `abstract_state`.
    train_step: Jitted: (state, batch, learning rate) -> (state, metrics).
    batch: Of `abstract_batch`.
    max_chunks: Of a row, for the loss; it loops over those it needs.
  """
  rate = jax.ShapeDtypeStruct((), jnp.float32)
  traced = train_step.trace(state, batch, rate)
  # The loss is a loop over as many chunks as there are supervised tokens.
  return needs_of(traced, max_chunks)


def _describe(tree: Any) -> Any:
  """Returns shapes, dtypes and shardings on the devices of the mesh."""
  mesh = jax.sharding.get_mesh()
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
          x.shape, x.dtype, sharding=jax.NamedSharding(mesh, x.sharding.spec)
      ),
      tree,
  )


def decode_params(student: student_lib.Student, dtype: Any) -> Any:
  """Returns descriptions of what is decoded with."""
  like = params_lib.abstract(student)
  return _describe(jax.eval_shape(lambda p: cache.unstack(p, dtype), like))


def bytes_a_device(tree: Any) -> int:
  """Returns the bytes that one device has of described arrays."""
  return sum(
      math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


def decode_needs(
    student: student_lib.Student,
    params: Any,
    method: methods.Method,
    stage: stages.Stage,
    chunk_len: int,
    dtype: Any,
) -> Needs:
  """Compiles one chunk of decoding on the current mesh.

  Args:
    student: Sizes.
    params: Of `decode_params`.
    method: How tokens are drawn.
    stage: Its slots.
    chunk_len: Steps.
    dtype: Of the cache.
  """
  slots = jax.eval_shape(lambda: decode.empty_slots(student, stage.num_slots, stage.length, dtype))
  is_live_B = np.ones(stage.num_slots, bool)
  return needs_of(
      decode.decode_chunk.trace(student, params, _describe(slots), is_live_B, method, chunk_len)
  )


# Of the compiler's error, as its versions put it.
_TOO_BIG = re.compile(r'(?:Used |HLO temporaries \()([\d.]+)([KMGT])')


def needs_of(traced: Any, unknown_trips: int = 1) -> Needs:
  """Compiles a traced program on the current mesh; reads what was found.

  Args:
    traced: By `jax.jit(…).trace`.
    unknown_trips: Of loops whose number of trips is data.
  """
  mesh = jax.sharding.get_mesh()
  # Attention is causal: of the blocks of a row, half and the diagonal.
  flops = arithmetic.flops(traced.jaxpr, unknown_trips, 0.5) / mesh.size
  try:
    compiled = traced.lower().compile()
  except jax.errors.JaxRuntimeError as e:
    used = _TOO_BIG.search(str(e))
    if 'RESOURCE_EXHAUSTED' not in str(e) or not used:
      raise
    return Needs(
        arguments=0.0,
        temporaries=0.0,
        peak=float(used[1]) * 1024 ** ('KMGT'.index(used[2]) + 1),
        flops=flops,
        is_compiled=False,
    )
  memory = compiled.memory_analysis()
  arguments = memory.argument_size_in_bytes
  fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
  # What the compiler holds against the HBM: all of it, arguments included. The
  # sum with `temp_size_in_bytes` counts twice what one loop hands to the next.
  # Older compilers do not tell the gaps between buffers (some 3 %).
  peak = getattr(memory, 'total_allocation_bytes', 0)
  peak = peak or memory.peak_memory_in_bytes
  return Needs(
      arguments=arguments,
      temporaries=peak - arguments - fresh,
      peak=peak,
      flops=flops,
      received=collectives.by_axes(collectives.read(compiled.as_text(), mesh.shape, unknown_trips)),
  )
