"""The pack plan: which examples share a row.

Best-fit decreasing over all examples at once, before training. Streaming
packers fill 91 to 97 % of their rows; this plan fills more than 99 % where
there are enough short examples, and as it is fixed, the data position of a run
is one integer: the step. `stream` packs as such a packer does, as a plan too;
Grain's own keep half-filled rows in the data position.
"""

import bisect
from collections.abc import Sequence

import numpy as np

from valley_jax import errors
from valley_jax.data.tokens import tokenization


def check(lengths: np.ndarray, row_len: int) -> None:
  """Raises a `ValueError` if an example is longer than a row, or empty."""
  if len(lengths) and not 0 < lengths.min() <= lengths.max() <= row_len:
    raise errors.UserError(
        f'Examples have {lengths.min():,} to {lengths.max():,} tokens; rows'
        f' take 1 to {row_len:,}. Shard with this data.max_len, so that longer'
        ' traces are dropped.'
    )


def plan(lengths: Sequence[int] | np.ndarray, row_len: int) -> list[list[int]]:
  """Assigns examples to rows, best fit decreasing.

  Args:
    lengths: Length of each example in tokens, as it will lie in a row.
    row_len: Length of a row.

  Returns:
    The indices of the examples of each row, longest first.

  Raises:
    ValueError: an example is longer than a row, or empty.

  Example:
    >>> plan([3, 5, 2], row_len=5)
    [[1], [0, 2]]
  """
  lengths = np.asarray(lengths, np.int64)
  check(lengths, row_len)
  rows: list[list[int]] = []
  open_rows: dict[int, list[int]] = {}  # Free tokens -> rows, a stack each.
  free: list[int] = []  # The keys of `open_rows`, ascending.
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


def stream(
    lengths: Sequence[int] | np.ndarray, row_len: int, num_open: int = 64
) -> list[list[int]]:
  """Assigns examples to rows as they come, best fit among a few open rows.

  Rows so hold examples that stand near one another, where `plan` joins long
  ones with short ones from anywhere; but they are less full. If an example fits
  in no open row and there are `num_open` of them, the fullest is closed. As it
  looks at lengths alone, it is a plan as well: known before the first step.

  Args:
    lengths: Length of each example in tokens, as it will lie in a row.
    row_len: Length of a row.
    num_open: Rows that wait for more.

  Returns:
    The indices of the examples of each row, in the order in which rows close.

  Raises:
    ValueError: an example is longer than a row, or empty.

  Example:
    >>> stream([3, 5, 2, 4], row_len=5, num_open=1)
    [[0], [1], [2], [3]]
    >>> stream([3, 5, 2, 4], row_len=5, num_open=2)
    [[1], [0, 2], [3]]
  """
  lengths = np.asarray(lengths, np.int64)
  check(lengths, row_len)
  rows: list[list[int]] = []
  # (free tokens, number, members), ascending: the first that fits fits best.
  waiting: list[tuple[int, int, list[int]]] = []
  for i, n in enumerate(lengths.tolist()):
    at = bisect.bisect_left(waiting, (n,))
    if at < len(waiting):
      room, number, members = waiting.pop(at)
    else:
      if len(waiting) == num_open:
        rows.append(waiting.pop(0)[2])
      room, number, members = row_len, i, []
    members.append(i)
    if room == n:
      rows.append(members)
    else:
      bisect.insort(waiting, (room - n, number, members))
  return rows + [members for _, _, members in waiting]


def fill(lengths: Sequence[int] | np.ndarray, rows: list[list[int]], row_len: int) -> float:
  """Returns the share of row positions that hold a token."""
  return float(np.sum(lengths)) / max(1, len(rows) * row_len)


def row(examples: Sequence[tokenization.Example], row_len: int) -> dict[str, np.ndarray]:
  """Lays examples side by side in one row: an array for each batch key.

  Each example is shifted *before* it is laid down (its last token is only a
  target), so no example predicts the first token of the next. All arrays are
  [row_len]; `weights` is float32, the others int32; segment 0 is padding.
  `answers` is 1 where the target is of the answer and not of the thinking.

  Example: tokens [7, 8, 9] with weights [0, 1, 1], of which the last is the
  answer, and [5, 6] with [0, 1], which does not think, give
    inputs    7 8 5 0
    targets   8 9 6 0
    weights   1 1 1 0
    answers   0 1 1 0
    positions 0 1 0 0
    segments  1 1 2 0
  """
  out: dict[str, np.ndarray] = {
      name: np.zeros(row_len, np.int32)
      for name in ('inputs', 'targets', 'answers', 'positions', 'segments')
  }
  out['weights'] = np.zeros(row_len, np.float32)
  at = 0
  for segment, example in enumerate(examples, start=1):
    n = len(example.tokens) - 1
    here = slice(at, at + n)
    out['inputs'][here] = example.tokens[:-1]
    out['targets'][here] = example.tokens[1:]
    out['weights'][here] = example.weights[1:]
    out['answers'][here] = np.arange(1, n + 1) >= example.answer_start
    out['positions'][here] = np.arange(n)
    out['segments'][here] = segment
    at += n
  return out
