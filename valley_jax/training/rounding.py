"""Rounding by chance, for parameters kept in bfloat16.

A step of 8e-5 on a weight near 1 is far below half of bfloat16's spacing there,
.004: rounded to the nearest, it would be lost, every time. Rounded up or down
by chance, in proportion to the distance, it arrives in the mean (as in
2010.06192); what is lost is the variance of that.
"""

from typing import Any

import jax
import jax.numpy as jnp


def to_bfloat16(x: jax.Array, key: jax.Array) -> jax.Array:
  """Rounds float32 up or down; the mean over keys is `x`."""
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  spec = jax.typeof(x).sharding.spec
  chance = jax.random.bits(key, x.shape, jnp.uint16, out_sharding=spec)
  # A bfloat16 is the upper half of a float32: the lower half, as a share of
  # the spacing, is the probability of a carry.
  bits = (bits + chance.astype(jnp.uint32)) & jnp.uint32(0xFFFF0000)
  rounded = jax.lax.bitcast_convert_type(bits, jnp.float32)
  return rounded.astype(jnp.bfloat16)


def apply(params: Any, updates: Any, step: jax.Array) -> Any:
  """Adds float32 updates to a tree of float32 or bfloat16 parameters.

  Args:
    params: Tree before.
    updates: A tree like it, float32.
    step: Steps done: the chance of a step does not depend on a resume.
  """
  leaves, tree = jax.tree.flatten(params)
  key = jax.random.fold_in(jax.random.key(0), step)

  def add(i, x, update):
    if x.dtype == jnp.float32:
      return x + update
    total = x.astype(jnp.float32) + update
    return to_bfloat16(total, jax.random.fold_in(key, i))

  added = map(add, range(len(leaves)), leaves, jax.tree.leaves(updates))
  return jax.tree.unflatten(tree, added)
