"""Compiles a run's programs for chips that are not there, and measures their memory.

The TPU compiler (extra `tpu`) needs no TPU: it compiles for a description of one. It is given the
same jitted function that a run calls, with arguments that are shapes, dtypes and shardings only.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from valley_jax.models import cache
from valley_jax.models import declarations
from valley_jax.models import parameters
from valley_jax.models import student as student_lib
from valley_jax.planning import arithmetic
from valley_jax.runtime import partitioning
from valley_jax.sampling import decode
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.training import program as program_lib

# The size in the compiler's error, in the words of its versions.
_TOO_BIG = re.compile(r'(?:Used |HLO temporaries \()([\d.]+)([KMGT])')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
  """What one program needs of each chip; memory in bytes.

  If the compiler refuses the program for want of HBM, `peak` is the size that its error names, and
  the parts are not known.
  """

  arguments: float
  temporaries: float
  peak: float  # Arguments, results that are not donated, and temporaries.
  flops: float  # Matrix products, recomputed ones included.
  is_compiled: bool = True


def describe_train_state(
    student: student_lib.Student, program: program_lib.TrainProgram, dtype: Any
) -> program_lib.TrainState:
  """Returns a training state of shapes and shardings on the current mesh.

  Args:
    student: Sizes of the model.
    program: Optimiser, loss and compiled step of the run.
    dtype: Dtype of the computation, and of the parameters that LoRA freezes.
  """
  params = parameters.abstract_params(student)
  if student.lora:
    declared = parameters.describe_parameters(student)
    trained, frozen = parameters.split_adapters(declared, params)
    frozen = declarations.cast_matrices(declared, frozen, dtype)
    params = parameters.join_adapters(trained, frozen)
  return _place_on_mesh(jax.eval_shape(program.init_state, params))


def describe_batch(
    row: Mapping[str, np.ndarray], accumulate: int, num_rows: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns a batch [accumulate, num_rows, length] of shapes and shardings.

  Args:
    row: Any packed row, for names, dtypes and the length.
    accumulate: Number of micro-batches.
    num_rows: Rows of a micro-batch.
  """
  mesh = jax.sharding.get_mesh()
  sharding = jax.NamedSharding(mesh, jax.P(None, partitioning.BATCH, 'cp'))
  return {
      name: jax.ShapeDtypeStruct((accumulate, num_rows, *x.shape), x.dtype, sharding=sharding)
      for name, x in row.items()
  }


def describe_decode_params(student: student_lib.Student, dtype: Any) -> Any:
  """Returns the parameters in the form that decoding takes, as shapes and shardings."""
  unstack = functools.partial(cache.unstack_layers, student, dtype=dtype)
  return _place_on_mesh(jax.eval_shape(unstack, parameters.abstract_params(student)))


def _place_on_mesh(tree: Any) -> Any:
  # On the mesh itself: shapes that were only traced know its axes, not its devices.
  mesh = jax.sharding.get_mesh()

  def place_leaf(x: Any) -> jax.ShapeDtypeStruct:
    spec = x.sharding.spec if x.sharding else jax.P()
    return x.update(sharding=jax.NamedSharding(mesh, spec))

  return jax.tree.map(place_leaf, tree)


def count_device_bytes(tree: Any) -> int:
  """Returns the bytes that one device holds of described arrays."""
  return sum(
      math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


def measure_train_step(
    state: program_lib.TrainState,
    train_step: Callable[..., Any],
    batch: dict[str, jax.ShapeDtypeStruct],
    max_chunks: int,
) -> Needs:
  """Compiles one training step on the current mesh.

  Args:
    state: Result of `describe_train_state`.
    train_step: Jitted: (state, batch, learning rate) -> (state, metrics).
    batch: Result of `describe_batch`.
    max_chunks: Most chunks of tokens that the loss of a row loops over; those without supervised
      tokens are skipped, so a run's own number depends on its data.
  """
  rate = jax.ShapeDtypeStruct((), jnp.float32)
  return measure_program(train_step.trace(state, batch, rate), max_chunks)


def measure_decode_chunk(
    student: student_lib.Student,
    params: Any,
    method: methods.Method,
    stage: lanes.Stage,
    chunk_len: int,
    dtype: Any,
) -> Needs:
  """Compiles one chunk of decoding on the current mesh.

  Args:
    student: Sizes of the model.
    params: Result of `describe_decode_params`.
    method: Method that draws tokens.
    stage: Number and length of the slots.
    chunk_len: Decoding steps of a chunk.
    dtype: Dtype of the cache.
  """
  slots = jax.eval_shape(
      lambda: decode.allocate_slots(student, stage.num_slots, stage.length, dtype)
  )
  is_live_B = np.ones(stage.num_slots, bool)
  return measure_program(
      decode.decode_chunk.trace(
          student, params, _place_on_mesh(slots), is_live_B, method, chunk_len
      )
  )


def measure_program(traced: Any, unknown_trips: int = 1) -> Needs:
  """Compiles a traced program on the current mesh and reads its memory.

  Args:
    traced: Result of `jax.jit(…).trace`.
    unknown_trips: Iterations to count of a loop whose end depends on data.
  """
  mesh = jax.sharding.get_mesh()
  # Attention is causal: half of a row's blocks, and the diagonal.
  flops = arithmetic.count_jaxpr_flops(traced.jaxpr, unknown_trips, 0.5) / mesh.size
  try:
    compiled = traced.lower().compile()
  except jax.errors.JaxRuntimeError as e:
    used = _TOO_BIG.search(str(e))
    if 'RESOURCE_EXHAUSTED' not in str(e) or not used:
      raise
    peak = float(used[1]) * 1024 ** ('KMGT'.index(used[2]) + 1)
    return Needs(arguments=0.0, temporaries=0.0, peak=peak, flops=flops, is_compiled=False)
  memory = compiled.memory_analysis()
  arguments = memory.argument_size_in_bytes
  fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
  # The compiler holds `total_allocation_bytes` against the HBM, arguments included. The sum with
  # `temp_size_in_bytes` would count twice what one loop hands to the next. Older compilers report
  # the peak only, without the gaps between buffers (about 3 %).
  peak = getattr(memory, 'total_allocation_bytes', 0) or memory.peak_memory_in_bytes
  return Needs(arguments=arguments, temporaries=peak - arguments - fresh, peak=peak, flops=flops)
