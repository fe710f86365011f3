"""Which questions data-efficient distillation keeps, and which of their traces.

*Beyond Scaling Law* (2508.09883), whose stages 2 and 3 these are, drops the questions that the
student solves too often, and keeps the traces of each other question that are farthest apart. It
does not say how. Here the choice is greedy, each trace the farthest from those already chosen
(max-min), by Levenshtein distance over the longer length, from 0 to 1.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import heapq
import math
from typing import Literal

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from valley_jax import records


def compute_pass_rates(judgements: Iterable[records.Judgement]) -> dict[str, float]:
  """Returns the share of a student's programs that pass, by problem.

  Programs that could not be judged (IE, BP) count neither way, so a problem without any judged
  program has no rate.
  """
  passed: dict[str, int] = {}
  judged: dict[str, int] = {}
  for row in judgements:
    if not row.verdict.concerns_program:
      continue
    is_accepted = row.verdict is records.Verdict.ACCEPTED
    judged[row.problem_id] = judged.get(row.problem_id, 0) + 1
    passed[row.problem_id] = passed.get(row.problem_id, 0) + is_accepted
  return {name: passed[name] / number for name, number in judged.items()}


class TextDistances:
  """Normalised Levenshtein distances of a few texts, each computed once."""

  def __init__(self, texts: Sequence[str], workers: int = 1):
    """Stores the texts; distances are computed when they are needed.

    Args:
      texts: Texts to compare, code point by code point.
      workers: Threads that `compute_matrix` may use; -1 for one a core.
    """
    self._texts = texts
    self._workers = workers
    self._known: dict[tuple[int, int], float] = {}

  def __len__(self) -> int:
    return len(self._texts)

  def __call__(self, i: int, j: int) -> float:
    """Returns the distance of texts i and j, from 0 to 1."""
    pair = min(i, j), max(i, j)
    if pair not in self._known:
      one, other = (self._texts[k] for k in pair)
      self._known[pair] = Levenshtein.normalized_distance(one, other)
    return self._known[pair]

  def compute_matrix(self) -> np.ndarray:
    """Returns all distances, and remembers them."""
    matrix = process.cdist(
        self._texts,
        self._texts,
        scorer=Levenshtein.normalized_distance,
        dtype=np.float64,
        workers=self._workers,
    )
    pairs = zip(*np.triu_indices(len(self), 1), strict=True)
    self._known = {(int(i), int(j)): float(matrix[i, j]) for i, j in pairs}
    return matrix


def find_medoid(distances: TextDistances) -> int:
  """Returns the text with the least sum of distances to all texts."""
  # Exact sums: rounding, which differs between machines, must not decide between copies.
  return int(np.argmin([math.fsum(row) for row in distances.compute_matrix()]))


def _choose_greedily(
    value: Callable[[int, int], float], total: int, first: int, number: int
) -> list[int]:
  """Repeatedly adds the text whose least value to the texts already chosen is largest.

  The least value only falls as more texts are chosen, so a text whose old value is not the largest
  need not be compared with the newer choices; this saves most of the comparisons and changes
  nothing. Among equals the first text wins.
  """
  chosen = [first]
  # (least value negated, text, with how many of the chosen texts it was compared)
  heap = [(-np.inf, i, 0) for i in range(total) if i != first]
  heapq.heapify(heap)
  while heap and len(chosen) < number:
    least, i, compared = heapq.heappop(heap)
    if compared == len(chosen):
      chosen.append(i)
    else:
      least = max(least, -value(chosen[compared], i))
      heapq.heappush(heap, (least, i, compared + 1))
  return chosen


def choose_farthest(distances: TextDistances, first: int, number: int) -> list[int]:
  """Returns up to `number` texts far apart, `first` among them.

  Each is the text whose distance to the nearest of the texts before it is largest, so copies come
  last.
  """
  return _choose_greedily(distances, len(distances), first, number)


def choose_nearest(distances: TextDistances, first: int, number: int) -> list[int]:
  """Returns up to `number` texts close together: the control of `choose_farthest`.

  Each is the text whose distance to the farthest of the texts before it is least.
  """
  return _choose_greedily(lambda i, j: -distances(i, j), len(distances), first, number)


def find_longest(texts: Sequence[str]) -> int:
  """Returns the index of the longest text, the first among equals."""
  return max(range(len(texts)), key=lambda i: len(texts[i]))


def choose_traces(
    ids: Sequence[str],
    texts: Sequence[str],
    number: int,
    *,
    start: Literal['medoid', 'longest'],
    workers: int = 1
) -> tuple[list[str], list[str]]:
  """Returns the ids of a question's farthest and of its nearest traces.

  Both begin with the same trace. The choice does not depend on the order of the traces: ties go to
  the smallest id.

  Args:
    ids: Ids of the question's traces.
    texts: Texts of these traces, one character for each unit to compare.
    number: Number of traces to choose; all, if there are no more.
    start: The first trace: 'medoid', the one nearest to all, or 'longest'.
    workers: Threads that the medoid may use; -1 for one a core.
  """
  by_id = sorted(range(len(ids)), key=lambda i: ids[i])
  texts = [texts[i] for i in by_id]
  distances = TextDistances(texts, workers)
  first = find_medoid(distances) if start == 'medoid' else find_longest(texts)
  far = choose_farthest(distances, first, number)
  near = choose_nearest(distances, first, number)
  return [ids[by_id[i]] for i in far], [ids[by_id[i]] for i in near]


def tokens_as_text(tokens: np.ndarray) -> str:
  """Returns a text with one character a token, for fast comparison.

  Example:
    >>> tokens_as_text(np.array([72, 105]))
    'Hi'
  """
  # Surrogates are allowed, as this text is never encoded.
  return tokens.astype('<u4').tobytes().decode('utf-32-le', 'surrogatepass')
