"""What a program computes, counted in its jaxpr.

XLA's cost analysis counts a loop's body once, however often it runs. A jaxpr
says how long its scans are, so here the matrix products of all layers count,
those that remat computes again included.
"""

import math
from typing import Any

import jax
import numpy as np


def flops(jaxpr: Any, unknown_trips: int = 1, kernel_share: float = 1.0) -> float:
  """Returns the FLOPs of all matrix products, over all devices.

  Of branches, the dearest counts.

  Args:
    jaxpr: Of `jax.make_jaxpr`, or of `jitted.trace(...)`.
    unknown_trips: How often a `while` runs at most, whose end depends on data.
    kernel_share: Share of its grid that a Pallas kernel computes; a causal one
      skips the blocks of the future as it meets them, nearly half.

  Example: three layers of a product of 8 x 16 with 16 x 16:
    >>> layer = lambda x, w: (x @ w, None)
    >>> f = lambda x, ws: jax.lax.scan(layer, x, ws)[0]
    >>> int(flops(jax.make_jaxpr(f)(np.ones((8, 16)), np.ones((3, 16, 16)))))
    12288
  """
  inner = getattr(jaxpr, 'jaxpr', jaxpr)
  return sum(_of_equation(eqn, unknown_trips, kernel_share) for eqn in inner.eqns)


def _of_equation(eqn: Any, unknown_trips: int, kernel_share: float) -> float:
  """Counts one equation, with what it calls as often as it calls it."""
  name, params = eqn.primitive.name, eqn.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    return 2.0 * depth * math.prod(eqn.outvars[0].aval.shape)
  called = [flops(inner, unknown_trips, kernel_share) for inner in _jaxprs(params)]
  if name == 'cond':
    return max(called, default=0.0)
  share = kernel_share if name == 'pallas_call' else 1.0
  return _times(name, params, unknown_trips) * share * sum(called)


def _times(name: str, params: dict[str, Any], unknown_trips: int) -> int:
  """Returns how often, over all devices, an equation runs what it calls."""
  if name == 'scan':
    return params['length']
  if name == 'while':
    return unknown_trips
  if name == 'shard_map':  # Its shapes are one device's.
    return params['mesh'].size
  if name == 'pallas_call':
    grid = params['grid_mapping'].grid
    return int(np.prod([n if isinstance(n, int) else 1 for n in grid]))
  return 1


def _jaxprs(params: dict[str, Any]) -> list[Any]:
  """Returns the jaxprs among an equation's parameters."""
  values = jax.tree.leaves(list(params.values()), is_leaf=lambda x: hasattr(x, 'eqns'))
  return [
      getattr(value, 'jaxpr', value)
      for value in values
      if hasattr(getattr(value, 'jaxpr', value), 'eqns')
  ]
