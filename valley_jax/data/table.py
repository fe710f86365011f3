"""The table of the shards: what is known of each trace, a column a field."""

from collections.abc import Sequence
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Table:
  """Columns of equal length; row i is row i of the shards."""

  ids: Sequence[str]
  problem_ids: Sequence[str]
  num_tokens: np.ndarray  # int64, prompt and end token included.
  num_supervised: np.ndarray  # int64.
  difficulty: Sequence[str]  # '': unknown, as in the next ones.
  is_correct: Sequence[bool | None]  # None: unknown.
  pass_rate: Sequence[float | None]
  language: Sequence[str]
  source: Sequence[str]
  teacher: Sequence[str]

  def __len__(self) -> int:
    return len(self.ids)
