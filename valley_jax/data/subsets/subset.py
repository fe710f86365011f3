"""Nested random subsets: 16 within 64 within 256 …

Every trace has a seeded hash, and the subset of size n is the n traces of
smallest hash. So subsets nest whatever the sizes (RQ1 of *The Valley of Code
Reasoning*: 30K ⊃ 10K ⊃ 1K), depend on no order, and are the same anywhere.
"""

from collections.abc import Sequence
import hashlib

import numpy as np

from valley_jax import errors


def _hash(seed: int | str, trace_id: str) -> bytes:
  return hashlib.blake2b(f'{seed}:{trace_id}'.encode()).digest()


def order(ids: Sequence[str], seed: int | str) -> list[int]:
  """Returns the rows of all traces, smallest hash first.

  A seed that is a text, such as 'per_question:0', orders them independently of
  the nested subsets.
  """
  return sorted(range(len(ids)), key=lambda i: _hash(seed, ids[i]))


def nested(ids: Sequence[str], n: int, seed: int) -> np.ndarray:
  """Returns the rows of the subset of size `n`, smallest hash first.

  Args:
    ids: Trace ids, all different.
    n: How many.
    seed: Another seed is another family of nested subsets.

  Raises:
    ValueError: there are fewer than `n` traces, or `n` is negative.
  """
  if not 0 <= n <= len(ids):
    raise errors.UserError(
        f'num_traces={n:,} but the shards hold {len(ids):,}; ask for at most'
        ' that many, or shard more.'
    )
  return np.asarray(order(ids, seed)[:n], np.int64)


def held_out(ids: Sequence[str], n: int, num_traces: int, seed: int) -> np.ndarray:
  """Returns the rows of the `n` traces of largest hash, never trained on.

  The same for every `num_traces`, as `nested` takes from the other end.

  Raises:
    ValueError: the subset of size `num_traces` needs some of them.
  """
  if n < 0 or num_traces + n > len(ids):
    raise errors.UserError(
        f'watch.held_out={n:,} and num_traces={num_traces:,} are more than the'
        f' {len(ids):,} traces of the shards; lower one of them, or shard more.'
    )
  return np.asarray(order(ids, seed)[len(ids) - n :], np.int64)
