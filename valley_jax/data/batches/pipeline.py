"""Batches: shards, subset and pack plan behind a Grain `MapDataset`.

Batch number i is a pure function of (shards, subset, seed, i), so the data
position that a checkpoint keeps is one integer, epochs are exact, and a run
can go on with another number of hosts.
"""

from collections.abc import Sequence
import dataclasses

import grain
import numpy as np

from valley_jax import errors
from valley_jax.data.batches import packing
from valley_jax.data.shards import shards as shards_lib


@dataclasses.dataclass(frozen=True)
class Plan:
  """Which examples lie in which row, and how many batches that makes."""

  rows: list[list[int]]
  row_len: int
  fill: float  # Share of row positions that hold a token.
  phases: tuple[int, ...]  # Rows of each; each has all of its epochs in turn.


def make_plan(
    shards: shards_lib.Shards,
    subset: Sequence[int] | np.ndarray,
    row_len: int,
    pack: str,
    phases: Sequence[int] = (),
) -> Plan:
  """Plans the rows of one epoch.

  Args:
    shards: Where the examples are.
    subset: Rows of `shards` to use.
    row_len: Tokens of a row.
    pack: 'best_fit' over all; 'stream', best fit among the rows that are open,
      in the order of `subset`; or 'none' for one example a row.
    phases: Examples of each phase, in the order of `subset`, whose sum is all
      of it; (): it is one. Examples of two phases share no row.

  Raises:
    ValueError: no such `pack`, or an example longer than a row.
  """
  subset = np.asarray(subset, np.int64)
  lengths = shards.lengths[subset] - 1  # The last token is only a target.
  packers = {
      'best_fit': lambda lengths: packing.plan(lengths, row_len),
      'stream': lambda lengths: packing.stream(lengths, row_len),
      'none': lambda lengths: [[i] for i in range(len(lengths))],
  }
  if pack not in packers:
    raise errors.UserError(f'data.pack={pack!r}: want one of {[*packers]}.')
  packing.check(lengths, row_len)
  rows, counts = [], []
  for part in np.split(np.arange(len(subset)), np.cumsum(phases)[:-1]):
    packed = packers[pack](lengths[part])
    rows += [[int(subset[part[i]]) for i in row] for row in packed]
    counts.append(len(packed))
  full = packing.fill(lengths, rows, row_len)
  return Plan(rows, row_len, full, tuple(counts))


def batches(
    shards: shards_lib.Shards,
    plan: Plan,
    *,
    batch_size: int,
    accumulate: int,
    num_epochs: int,
    seed: int,
    part: int = 0,
    num_parts: int = 1,
) -> grain.MapDataset:
  """Returns the run's batches; element i is the batch of step i.

  Every epoch is a new permutation of the rows; with phases, of those of one
  phase, and the next one begins behind the last epoch of the one before. Only
  the run's very last batch can be short; it is filled up with rows of weight 0.

  Args:
    shards: Where the examples are.
    plan: Which of them share a row.
    batch_size: Rows of a global batch, over all processes and micro-batches.
    accumulate: Micro-batches of a batch.
    num_epochs: Passes over the rows of each phase.
    seed: Seed of the permutations.
    part: This process loads only this part of each micro-batch.
    num_parts: Parts that the processes hold together.

  Returns:
    A dataset of dicts of arrays [accumulate, rows of this part, row_len].
  """
  if batch_size % (accumulate * num_parts):
    raise errors.UserError(
        f'train.batch_size={batch_size} is not a multiple of'
        f' train.accumulate={accumulate} x {num_parts} parts of the mesh.'
    )

  def load(indices: np.ndarray) -> dict[str, np.ndarray]:
    chosen = np.full(batch_size, -1)
    chosen[: len(indices)] = indices
    chosen = chosen.reshape(accumulate, num_parts, -1)[:, part]
    members = [plan.rows[i] if i >= 0 else [] for i in chosen.ravel()]
    rows = [packing.row(shards.read(m), plan.row_len) for m in members]
    return {
        name: np.stack([row[name] for row in rows]).reshape(*chosen.shape, plan.row_len)
        for name in rows[0]
    }

  ends = np.cumsum(plan.phases).tolist()
  phases = [
      grain.MapDataset.range(end - num_rows, end).seed(seed).shuffle().repeat(num_epochs)
      for num_rows, end in zip(plan.phases, ends, strict=True)
  ]
  return (
      (phases[0] if len(phases) == 1 else grain.MapDataset.concatenate(phases))
      .batch(batch_size, drop_remainder=False)
      .map(load)
  )
