"""What is known of each trace of the shards, one column a label.

Subsets are chosen from it: it names traces and says what they are, and is small
enough (a million traces) to hold where the traces themselves are not.
"""

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from valley_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Columns of equal length; row i is trace i of the shards.

  '' and None mean that a label is not known.
  """

  ids: Sequence[str]  # Of traces, all different.
  problem_ids: Sequence[str]
  num_tokens: np.ndarray  # Of the whole example, prompt included.
  num_supervised: np.ndarray  # Tokens of the response, its end included.
  difficulty: Sequence[str]
  is_correct: Sequence[bool | None]
  pass_rate: Sequence[float | None]
  language: Sequence[str]
  source: Sequence[str]
  teacher: Sequence[str]

  def __post_init__(self):
    lengths = {name: len(getattr(self, name)) for name in FIELDS}
    if len(set(lengths.values())) > 1:
      raise errors.UserError(f'The columns of a table differ in length: {lengths}.')
    if len(set(self.ids)) < len(self.ids):
      twice, n = collections.Counter(self.ids).most_common(1)[0]
      raise errors.UserError(
          f'Trace id {twice!r} stands {n} times in the table; a trace is known'
          ' by its id, give each its own.'
      )

  def __len__(self) -> int:
    return len(self.ids)

  def column(self, name: str) -> list[Any]:
    """Returns a column as Python values, None where a label is not known.

    Raises:
      ValueError: there is no such column.
    """
    if name not in FIELDS:
      raise errors.UserError(f'Traces have no {name!r}; they have {[*FIELDS]}.')
    values = np.asarray(getattr(self, name), object).tolist()
    return [None if _is_unknown(value) else value for value in values]


FIELDS = tuple(field.name for field in dataclasses.fields(Table))
NUMBERS = ('num_tokens', 'num_supervised', 'pass_rate')


def _is_unknown(value: Any) -> bool:
  return value == '' or (isinstance(value, float) and math.isnan(value))


def lengths(num_tokens: Iterable[int]) -> dict[str, int]:
  """Counts traces by length: `le_4096` are those of 2,049 to 4,096 tokens."""
  exponents = [max(int(n) - 1, 0).bit_length() for n in num_tokens]
  counts = sorted(collections.Counter(exponents).items())
  return {f'le_{2**exponent}': n for exponent, n in counts}


def labels(values: Sequence[Any]) -> dict[str, int]:
  """Counts traces by label, the commonest first; `unknown` where it is not."""
  names = ['unknown' if value is None else str(value) for value in values]
  counts = collections.Counter(names).items()
  return dict(sorted(counts, key=lambda item: (-item[1], item[0])))
