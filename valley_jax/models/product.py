"""Activations times a matrix, whichever way the matrix lies.

A matrix has dimensions of inputs and then of outputs, as q_DKGH has. To decode
with on a CPU it lies the other way, `Turned`. A step multiplies one row a slot,
which is few, and what XLA multiplies by there (Eigen) copies both operands into
panels of its own: 16 rows take two thirds of the time if the large operand is
the left one and has outputs first. So the transpose of what is wanted is
computed, and turned back.

Letters as in `transformer.py`; N rows, I inputs and O outputs, all of them in
one dimension.
"""

import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax.runtime import partitioning


@functools.partial(jax.tree_util.register_dataclass, data_fields=['lying'], meta_fields=['num_ins'])
@dataclasses.dataclass(frozen=True)
class Turned:
  """A matrix whose dimensions of outputs come first, and then of inputs."""

  lying: jax.Array
  num_ins: int


def turn(w: jax.Array, num_ins: int, spec: P) -> Turned:
  """Lays a matrix outputs first, in an array of its own.

  Args:
    w: `num_ins` dimensions of inputs, then of outputs.
    num_ins: Of them.
    spec: Of w.
  """
  axes = *range(num_ins, w.ndim), *range(num_ins)
  lying = jax.sharding.reshard(w.transpose(axes), _turned(spec, num_ins, w))
  return Turned(lying, num_ins)


def _cuts(spec: P, w: jax.Array) -> list[Any]:
  return [*spec, *[None] * (w.ndim - len(spec))]


def _turned(spec: P, num_ins: int, w: jax.Array) -> P:
  """Returns how a matrix lies outputs first that lies as `spec` otherwise."""
  cuts = _cuts(spec, w)
  return P(*cuts[num_ins:], *cuts[:num_ins])


def rows_of(x: jax.Array) -> P:
  """Returns how an array BL… is cut: not along `cp` where L is 1.

  That is a step of decoding; `cp` devices then do the same.
  """
  cut = 'cp' if x.shape[1] > 1 else None
  return P(partitioning.BATCH, cut, *[None] * (x.ndim - 2))


def use(param: nnx.Param, dtype: Any, spec: P) -> Any:
  """Gathers a parameter from `fsdp` for one use, in the compute dtype.

  The cast comes first: half the bytes travel, and the gradient is summed over
  devices in the dtype of the parameter's own copy.

  Args:
    param: Holds an array, or `Turned`, as is returned.
    dtype: Of the computation.
    spec: How it lies in use, dimensions of inputs first.
  """
  w = param.get_value()
  if isinstance(w, Turned):
    spec = _turned(spec, w.num_ins, w.lying)
    lying = jax.sharding.reshard(w.lying.astype(dtype), spec)
    return Turned(lying, w.num_ins)
  return jax.sharding.reshard(w.astype(dtype), spec)


def outputs_first(x_NI: jax.Array, w_OI: jax.Array, rows: Any, outs: Any, dtype: Any) -> jax.Array:
  """Returns y_NO of few rows, as the transpose of y_ON.

  Args:
    x_NI: Activations.
    w_OI: Gathered from `fsdp`.
    rows: The mesh's axes that cut rows, or None.
    outs: The one that cuts outputs.
    dtype: Of the sums.
  """
  y_ON = jnp.einsum(
      'OI,NI->ON', w_OI, x_NI, preferred_element_type=dtype, out_sharding=P(outs, rows)
  )
  # The transpose of a product XLA would make a product of transposes again.
  return jax.lax.optimization_barrier(y_ON).T


def times(x: jax.Array, w: Any, spec: P) -> jax.Array:
  """Returns x BL… times w, over as many dimensions as x has more than B and L.

  As one product of two matrices, unless positions are cut and cannot be joined
  with rows: to sum over B and L, for the gradient of w, XLA would transpose
  both operands on a CPU.

  Args:
    x: Of activations.
    w: Gathered from `fsdp`; an array, or `Turned` where no positions are cut.
    spec: Of w, dimensions of inputs first.
  """
  num_ins, rows, reshape = x.ndim - 2, rows_of(x)[:2], jax.lax.reshape
  is_turned = isinstance(w, Turned)
  lying = w.lying if is_turned else w
  cuts = _cuts(spec, lying)
  outs = lying.shape[:-num_ins] if is_turned else lying.shape[num_ins:]
  if partitioning.num_cuts() > 1:
    i, o = 'xyz'[:num_ins], 'tuv'[: len(outs)]
    cut = P(*rows, *cuts[num_ins:])
    return jnp.einsum(f'BL{i},{i}{o}->BL{o}', x, w, out_sharding=cut)
  first, last = cuts[0], cuts[num_ins]
  n, i, o = math.prod(x.shape[:2]), math.prod(x.shape[2:]), math.prod(outs)
  x_NI = reshape(x, (n, i), out_sharding=P(rows[0], first))
  if is_turned:
    w_OI = reshape(lying, (o, i), out_sharding=P(last, first))
    # By what it is a step of, and not by how many rows a device has: bits must
    # not depend on that.
    if x.shape[1] == 1:
      y_NO = outputs_first(x_NI, w_OI, rows[0], last, x.dtype)
    else:
      cut = P(rows[0], last)
      y_NO = jnp.einsum('NI,OI->NO', x_NI, w_OI, out_sharding=cut)
  else:
    w_IO = reshape(lying, (i, o), out_sharding=P(first, last))
    y_NO = jnp.dot(x_NI, w_IO, out_sharding=P(rows[0], last))
  shape = *x.shape[:2], *outs
  return reshape(y_NO, shape, out_sharding=P(*rows, *cuts[num_ins:]))
