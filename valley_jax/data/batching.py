"""Batches: the pack plan of an epoch, and a Grain `MapDataset` that follows it.

Best-fit decreasing over all examples at once, before training, fills more than 99 % of the row
positions where there are enough short examples; streaming packers, Grain's for instance, fill 91 to
97 %. As the plan is fixed, batch number i is a pure function of (shards, subset, seed, i): the data
position that a checkpoint keeps is one integer, epochs are exact, and a run can resume on another
number of hosts.
"""

import bisect
from collections.abc import Sequence
import dataclasses

import grain
import numpy as np

from valley_jax import errors
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.tokens import tokenization

PACKS = ('best_fit', 'none')


@dataclasses.dataclass(frozen=True)
class PackPlan:
  """Which examples share which row."""

  rows: list[list[int]]  # Rows of the shards, by row of a batch.
  row_len: int  # In tokens.
  fill: float  # Share of row positions that hold a token.
  phases: tuple[int, ...]  # Number of rows of each phase, in the order of training.


def check_lengths(lengths: np.ndarray, row_len: int) -> None:
  """Raises a `UserError` if an example is longer than a row, or empty."""
  if len(lengths) and not 0 < lengths.min() <= lengths.max() <= row_len:
    raise errors.UserError(
        f'Examples have {lengths.min():,} to {lengths.max():,} tokens; rows take 1 to {row_len:,}.'
        ' Shard with this data.max_len, so that longer traces are dropped.'
    )


def pack_best_fit(lengths: Sequence[int] | np.ndarray, row_len: int) -> list[list[int]]:
  """Assigns examples to rows, best fit decreasing.

  Args:
    lengths: Length of each example in tokens, as it will occupy a row.
    row_len: Length of a row.

  Returns:
    The indices of the examples of each row, longest first.

  Raises:
    UserError: an example is longer than a row, or empty.

  Example:
    >>> pack_best_fit([3, 5, 2], row_len=5)
    [[1], [0, 2]]
  """
  lengths = np.asarray(lengths, np.int64)
  check_lengths(lengths, row_len)
  rows: list[list[int]] = []
  open_rows: dict[int, list[int]] = {}  # Free tokens -> a stack of rows.
  free: list[int] = []  # The keys of `open_rows`, ascending.
  # Stable, so that equal lengths keep their order and the plan is the same on any machine.
  for i in np.argsort(-lengths, kind='stable'):
    n = int(lengths[i])
    at = bisect.bisect_left(free, n)
    if at == len(free):
      row, left = len(rows), row_len - n
      rows.append([int(i)])
    else:
      room = free[at]
      row, left = open_rows[room].pop(), room - n
      if not open_rows[room]:
        del open_rows[room], free[at]
      rows[row].append(int(i))
    if left:
      if left not in open_rows:
        open_rows[left] = []
        bisect.insort(free, left)
      open_rows[left].append(row)
  return rows


def measure_fill(lengths: Sequence[int] | np.ndarray, rows: list[list[int]], row_len: int) -> float:
  """Returns the share of row positions that hold a token."""
  return float(np.sum(lengths)) / max(1, len(rows) * row_len)


def plan_epoch(
    shards: shards_lib.Shards,
    subset: Sequence[int] | np.ndarray,
    row_len: int,
    pack: str,
    phases: Sequence[int] = (),
) -> PackPlan:
  """Plans the rows of one epoch.

  Args:
    shards: The tokenised traces.
    subset: The rows of `shards` to train on.
    row_len: Length of a row of a batch, in tokens.
    pack: 'best_fit', or 'none' for one example a row.
    phases: Number of examples in each phase, in the order of `subset`; they sum to all of it. Empty
      for a single phase. Examples of different phases share no row.

  Raises:
    UserError: `pack` is unknown, or an example is longer than a row.
  """
  if pack not in PACKS:
    raise errors.UserError(f'data.pack={pack!r}: want one of {[*PACKS]}.')
  subset = np.asarray(subset, np.int64)
  lengths = shards.lengths[subset] - 1  # The last token is only a target.
  check_lengths(lengths, row_len)
  rows, counts = [], []
  for phase in np.split(np.arange(len(subset)), np.cumsum(phases)[:-1]):
    if pack == 'best_fit':
      packed = pack_best_fit(lengths[phase], row_len)
    else:
      packed = [[i] for i in range(len(phase))]
    rows += [[int(subset[phase[i]]) for i in row] for row in packed]
    counts.append(len(packed))
  return PackPlan(rows, row_len, measure_fill(lengths, rows, row_len), tuple(counts))


def lay_out_row(examples: Sequence[tokenization.Example], row_len: int) -> dict[str, np.ndarray]:
  """Lays examples side by side in one row: one array for each batch key.

  Each example is shifted *before* it is laid out (its last token is only a target), so no example
  predicts the first token of the next. All arrays are [row_len]; `weights` is float32, the others
  are int32; segment 0 is padding. `answers` is 1 where the target belongs to the answer, not to the
  thinking.

  Example: tokens [7, 8, 9] with weights [0, 1, 1], of which the last is the answer, and [5, 6] with
  [0, 1], which has an answer only and no thinking, give
    inputs    7 8 5 0
    targets   8 9 6 0
    weights   1 1 1 0
    answers   0 1 1 0
    positions 0 1 0 0
    segments  1 1 2 0
  """
  names = ('inputs', 'targets', 'answers', 'positions', 'segments')
  row: dict[str, np.ndarray] = {name: np.zeros(row_len, np.int32) for name in names}
  row['weights'] = np.zeros(row_len, np.float32)
  start = 0
  for segment, example in enumerate(examples, start=1):
    n = len(example.tokens) - 1
    here = slice(start, start + n)
    row['inputs'][here] = example.tokens[:-1]
    row['targets'][here] = example.tokens[1:]
    row['weights'][here] = example.weights[1:]
    row['answers'][here] = np.arange(1, n + 1) >= example.answer_start
    row['positions'][here] = np.arange(n)  # RoPE restarts with each example.
    row['segments'][here] = segment
    start += n
  return row


def make_batches(
    shards: shards_lib.Shards,
    plan: PackPlan,
    *,
    batch_size: int,
    accumulate: int,
    num_epochs: int,
    seed: int,
    part: int = 0,
    num_parts: int = 1,
) -> grain.MapDataset:
  """Returns the run's batches; element i is the batch of step i.

  Every epoch is a new permutation of the rows. With phases, an epoch permutes the rows of one
  phase, and the next phase begins after the last epoch of the one before. Only the run's very last
  batch can be short; it is filled up with rows of weight 0.

  Args:
    shards: The tokenised traces.
    plan: The pack plan of an epoch.
    batch_size: Rows of a global batch, over all processes and micro-batches.
    accumulate: Micro-batches of a batch.
    num_epochs: Passes over the rows of each phase.
    seed: Seed of the permutations.
    part: The part of each micro-batch that this process loads.
    num_parts: Number of parts over all processes.

  Returns:
    A dataset of dicts of arrays [accumulate, rows of this part, row_len].

  Raises:
    UserError: the batch cannot be cut evenly.
  """
  if batch_size % (accumulate * num_parts):
    raise errors.UserError(
        f'train.batch_size={batch_size} is not a multiple of train.accumulate={accumulate} x'
        f' {num_parts} parts of the mesh.'
    )

  def load_batch(indices: np.ndarray) -> dict[str, np.ndarray]:
    padded = np.full(batch_size, -1)  # -1: a row without examples.
    padded[: len(indices)] = indices
    own = padded.reshape(accumulate, num_parts, -1)[:, part]
    members = [plan.rows[i] if i >= 0 else [] for i in own.ravel()]
    rows = [lay_out_row(shards.read_examples(m), plan.row_len) for m in members]
    return {
        name: np.stack([row[name] for row in rows]).reshape(*own.shape, plan.row_len)
        for name in rows[0]
    }

  ends = np.cumsum(plan.phases).tolist()
  phases = [
      grain.MapDataset.range(end - num_rows, end).seed(seed).shuffle().repeat(num_epochs)
      for num_rows, end in zip(plan.phases, ends, strict=True)
  ]
  rows = phases[0] if len(phases) == 1 else grain.MapDataset.concatenate(phases)
  return rows.batch(batch_size, drop_remainder=False).map(load_batch)
