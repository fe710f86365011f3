"""Attention: who computes it fastest on this machine, and is it right?

    python benchmarks/attention.py                     a minute on two cores
    python benchmarks/attention.py --heads 28 4 128 --lengths 8192 32768

Every implementation that the present device runs, on the same packed rows:
several segments of unlike lengths and padding. First each is held against the
reference, outputs and gradients, on a row short enough for all scores at once;
then forward, and forward and backward, are timed in turns. FLOPs count the
pairs that are in one segment and not in the future, so that a kernel that
computes pairs and masks them shows as less than it does.

Prints a table, and as the last line one JSON object.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import machine
import numpy as np

from valley_jax.models import attention
from valley_jax.runtime import partitioning

_SEGMENTS = 4  # Segments of a row, beside padding.
_REPEATS = 7  # Medians are of so many.

# Who runs where; kernels are not interpreted here.
_BY_PLATFORM = {
    'cpu': ('dense', 'blocks'),
    'gpu': ('dense', 'blocks', 'flash'),
    'tpu': ('dense', 'blocks', 'splash'),
}
_TOLERANCE = {'float32': 1e-4, 'bfloat16': 5e-2}


def _rows(length: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns positions and segments of one row; an eighth is padding."""
  rng = np.random.default_rng(0)
  used = length - length // 8
  cuts = np.sort(rng.choice(used - 1, _SEGMENTS - 1, replace=False)) + 1
  lengths = np.diff([0, *cuts, used, length])
  positions = np.concatenate([np.arange(n) for n in lengths])
  segments = np.repeat([*range(1, len(lengths)), 0], lengths)
  return positions[None].astype(np.int32), segments[None].astype(np.int32)


def _inputs(heads: list[int], length: int, dtype: str) -> tuple[tuple, jax.Array]:
  """Returns what `attend` takes, and a cotangent that is 0 on padding."""
  n, k, h = heads
  rng = np.random.default_rng(1)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  positions_BL, segments_BL = _rows(length)
  q_BLKGH = draw(1, length, k, n // k, h)
  weights_BLKGH = draw(*q_BLKGH.shape)
  weights_BLKGH *= (segments_BL > 0)[..., None, None, None]
  keys = draw(1, length, k, h), draw(1, length, k, h)
  return (q_BLKGH, *keys, positions_BL, segments_BL), weights_BLKGH


def _functions(name: str):
  """Returns the compiled forward pass, and the pass with gradients."""

  def forward(inputs, weights):
    y = attention.attend_causally(*inputs, implementation=name)
    return jnp.sum((y * weights).astype(jnp.float32)), y * (weights != 0)

  def backward(inputs, weights):
    rows = inputs[3:]
    grad_fn = jax.grad(lambda *qkv: forward((*qkv, *rows), weights)[0], argnums=(0, 1, 2))
    return grad_fn(*inputs[:3])

  return jax.jit(forward), jax.jit(backward)


def _difference(name: str, inputs, weights) -> float:
  """Returns the largest difference to the reference, relative to its size."""
  found, expected = ([f(inputs, weights) for f in _functions(which)] for which in (name, 'dense'))
  worst = 0.0
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    one, other = np.float32(one), np.float32(other)
    worst = max(worst, float(np.abs(one - other).max() / np.abs(other).max()))
  return worst


def _seconds(functions, args) -> list[float]:
  """Returns medians, the functions taking turns."""
  for function in functions:
    jax.block_until_ready(function(*args))
  times = [[] for _ in functions]
  for _ in range(_REPEATS):
    for function, found in zip(functions, times):
      start = time.perf_counter()
      jax.block_until_ready(function(*args))
      found.append(time.perf_counter() - start)
  return [statistics.median(found) for found in times]


def _flops(heads: list[int], length: int) -> int:
  """Returns the FLOPs of a forward pass: the pairs that see one another."""
  n, _, h = heads
  _, segments = _rows(length)
  lengths = np.bincount(segments[0])[1:]
  return 4 * n * h * int(np.sum(lengths * (lengths + 1) // 2))


def _measure(heads: list[int], length: int, names: tuple[str, ...], dtype: str) -> list[dict]:
  """Times each of them on one row."""
  inputs = _inputs(heads, length, dtype)
  functions = [f for name in names for f in _functions(name)]
  seconds = _seconds(functions, inputs)
  rows = []
  for i, name in enumerate(names):
    forward, backward = seconds[2 * i : 2 * i + 2]
    rows.append(
        {
            'length': length,
            'implementation': name,
            'forward_seconds': forward,
            'with_backward_seconds': backward,
            'gflops': 3.5 * _flops(heads, length) / backward / 1e9,
        }
    )
    print(
        f'{length:>8,} {name:10} {1e3 * forward:10.2f} ms'
        f' {1e3 * backward:10.2f} ms {rows[-1]["gflops"]:10.1f} GF/s',
        flush=True,
    )
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--lengths', type=int, nargs='+', default=[192, 512, 2048])
  parser.add_argument('--heads', type=int, nargs=3, default=[4, 2, 32], help='query, KV, width')
  parser.add_argument('--checked', type=int, default=1024)
  parser.add_argument('--dtype', choices=list(_TOLERANCE), default='float32')
  args = parser.parse_args()
  device = jax.devices()[0]
  names = _BY_PLATFORM[device.platform]
  rows, differences = [], {}
  with jax.set_mesh(partitioning.make_mesh(devices=[device])):
    checked = _inputs(args.heads, args.checked, args.dtype)
    for name in names:
      differences[name] = _difference(name, *checked)
      print(f'{name:8} differs from dense by {differences[name]:.1e}')
      if not differences[name] <= _TOLERANCE[args.dtype]:
        raise SystemExit(f'{name} does not compute what dense computes.')
    print(f'{"length":>8} {"":8} {"forward":>13} {"with backward":>13}')
    for length in args.lengths:
      rows += _measure(args.heads, length, names, args.dtype)
  print(
      json.dumps(
          {
              'rows': rows,
              'differences': differences,
              'heads': args.heads,
              'segments': _SEGMENTS,
              'dtype': args.dtype,
              'device': device.device_kind,
              **machine.describe_machine('jax', 'jaxlib'),
          }
      )
  )


if __name__ == '__main__':
  main()
