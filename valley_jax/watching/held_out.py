"""The loss on traces that are never trained on, by their length.

A look is one compiled pass over rows that stay on the device. Its results stay there too, until the
step's own metrics are read, so that the loop does not wait.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from valley_jax.data import batching
from valley_jax.data.shards import shards as shards_lib
from valley_jax.runtime import partitioning
from valley_jax.training import losses


def load_held_out_batch(
    shards: shards_lib.Shards,
    traces: Sequence[int] | np.ndarray,
    *,
    row_len: int,
    pack: str,
    max_rows: int,
) -> dict[str, np.ndarray]:
  """Packs the traces into micro-batches ABL, all of them at once.

  Args:
    shards: Shards that hold the traces.
    traces: Rows of `shards`.
    row_len: Tokens of a row, as in training.
    pack: Packing of rows, as in training.
    max_rows: Most rows of a micro-batch, as in training.

  Returns:
    The keys of a batch, and `buckets`: for each position the exponent of the least power of 2 that
    is at least the number of tokens of its trace; -1 for padding.
  """
  plan = batching.plan_epoch(shards, traces, row_len, pack)
  rows = [batching.lay_out_row(shards.read_examples(m), row_len) for m in plan.rows]
  for row in rows:
    # A trace's last token is a target only.
    lengths = np.bincount(row['segments']) + 1
    buckets = np.ceil(np.log2(lengths)).astype(np.int32)
    row['buckets'] = np.where(row['segments'] > 0, buckets[row['segments']], -1)
  devices = partitioning.count_batch_parts()
  num_rows = min(max_rows, -(-len(rows) // devices) * devices)
  empty = {k: np.full_like(x, -(k == 'buckets')) for k, x in rows[0].items()}
  rows += [empty] * (-len(rows) % num_rows)
  return {
      name: np.stack([row[name] for row in rows]).reshape(-1, num_rows, row_len) for name in empty
  }


@functools.lru_cache(maxsize=4)
def _compile_evaluation(loss_fn: Callable[..., Any], buckets: tuple[int, ...]):
  """Returns the compiled pass; cached, so that all runs of a study share it."""

  def split_weights(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    weights = losses.weigh_think_and_answer(batch)
    for bucket in buckets:
      is_in_BL = batch['buckets'] == bucket
      weights[f'loss_le_{2**bucket}'] = batch['weights'] * is_in_BL
    return weights

  def evaluate(params: Any, batch: dict[str, jax.Array]):
    def add(sums, micro_batch):
      _, pairs = loss_fn(params, micro_batch, parts=split_weights)
      return jax.tree.map(jnp.add, sums, pairs), None

    one = jax.tree.map(lambda x: x[0], batch)
    _, pairs = jax.eval_shape(lambda: loss_fn(params, one, parts=split_weights))
    zeros = jax.tree.map(jnp.zeros_like, pairs)
    pairs, _ = jax.lax.scan(add, zeros, batch)
    return {f'held_out/{name}': x / n for name, (x, n) in pairs.items()}

  return jax.jit(evaluate)


class HeldOutLoss:
  """Measures the loss of the same traces again and again."""

  def __init__(
      self, batch: dict[str, np.ndarray], loss_fn: Callable[..., Any], part: int, num_parts: int
  ):
    """Puts the rows of `load_held_out_batch` on the mesh, where they stay.

    Args:
      batch: The whole batch, the same in all processes.
      loss_fn: `losses.next_token_loss` without its parameters, batch and parts.
      part: Index of the rows of a micro-batch that this process holds.
      num_parts: Number of such parts.
    """
    buckets = np.unique(batch['buckets'])
    self._evaluate = _compile_evaluation(loss_fn, tuple(buckets[buckets >= 0].tolist()))
    own = slice(part, None, num_parts)
    self._batch = partitioning.put_batch({name: x[:, own] for name, x in batch.items()})

  def measure(self, params: Any) -> dict[str, jax.Array]:
    """Returns nats per supervised token: of all traces, of their parts, and by length.

    `held_out/loss_le_4096` is the loss of traces of 2,049 to 4,096 tokens.
    """
    return self._evaluate(params, self._batch)
