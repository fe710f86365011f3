"""Which questions and which of their traces data-efficient distillation keeps.

*Beyond Scaling Law* (2508.09883), whose stages 2 and 3 these are, drops the
questions that the student solves too often, and of each other question keeps
the traces that are farthest apart. It does not say how: here greedily, each the
farthest from those that are chosen (max-min), by Levenshtein distance over the
longer's length, from 0 to 1.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import heapq
import math

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from valley_jax import errors
from valley_jax import records


def pass_rates(judgements: Iterable[records.Judgement]) -> dict[str, float]:
  """Returns the share of a student's programs that pass, by problem.

  What could not be judged (IE) counts neither way, so a problem of which no
  program could be judged has no rate.
  """
  passed: dict[str, int] = {}
  judged: dict[str, int] = {}
  for row in judgements:
    if row.verdict is records.Verdict.INTERNAL_ERROR:
      continue
    is_accepted = row.verdict is records.Verdict.ACCEPTED
    judged[row.problem_id] = judged.get(row.problem_id, 0) + 1
    passed[row.problem_id] = passed.get(row.problem_id, 0) + is_accepted
  return {name: passed[name] / number for name, number in judged.items()}


class Distances:
  """Normalised Levenshtein distances of a few texts, each computed once."""

  def __init__(self, texts: Sequence[str], workers: int = 1):
    """Computes none yet.

    Args:
      texts: To compare, code point by code point.
      workers: Threads that `all` may use; -1: one a core.
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

  def all(self) -> np.ndarray:
    """Returns the whole matrix."""
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


def medoid(distances: Distances) -> int:
  """Returns the text that is nearest to all: of least sum of distances."""
  # Exact sums: how a machine adds up must not decide between copies.
  return int(np.argmin([math.fsum(row) for row in distances.all()]))


def _greedy(value: Callable[[int, int], float], total: int, first: int, number: int) -> list[int]:
  """Adds, again and again, the text whose least value to the chosen is largest.

  That least value only falls as more are chosen, so a text that is behind
  already need not be compared with those chosen since; this saves most of the
  comparisons and changes nothing. Among equals the first text wins.
  """
  chosen = [first]
  # (least value negated, text, with how many of the chosen it was compared)
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


def farthest(distances: Distances, first: int, number: int) -> list[int]:
  """Returns up to `number` texts far apart, `first` among them.

  Each is the one whose distance to the nearest of those before it is largest;
  so a copy of a chosen one comes last.
  """
  return _greedy(distances, len(distances), first, number)


def nearest(distances: Distances, first: int, number: int) -> list[int]:
  """Returns up to `number` texts close together: the control of `farthest`.

  Each is the one whose distance to the farthest of those before it is least.
  """
  return _greedy(lambda i, j: -distances(i, j), len(distances), first, number)


def longest(texts: Sequence[str]) -> int:
  """Returns the longest text, the first of equals."""
  return max(range(len(texts)), key=lambda i: len(texts[i]))


def choose(
    ids: Sequence[str], texts: Sequence[str], number: int, *, start: str, workers: int = 1
) -> tuple[list[str], list[str]]:
  """Returns the ids of the farthest and of the nearest traces of a question.

  Both begin with the same trace. In whatever order the traces come, the same
  are chosen: ties go to the smallest id.

  Args:
    ids: Of the question's traces.
    texts: Of them, in units to compare.
    number: How many to choose; all, if there are no more.
    start: 'medoid', the trace nearest to all, or 'longest'.
    workers: Threads that the medoid may use; -1: one a core.

  Raises:
    ValueError: no such start.
  """
  by_id = sorted(range(len(ids)), key=lambda i: ids[i])
  texts = [texts[i] for i in by_id]
  distances = Distances(texts, workers)
  starts = {'medoid': lambda: medoid(distances), 'longest': lambda: longest(texts)}
  if start not in starts:
    raise errors.UserError(f'curate.start={start!r}: want one of {[*starts]}.')
  first = starts[start]()
  far = farthest(distances, first, number)
  near = nearest(distances, first, number)
  return [ids[by_id[i]] for i in far], [ids[by_id[i]] for i in near]


def as_text(tokens: np.ndarray) -> str:
  """Returns a text with one character a token, for fast comparison.

  Example:
    >>> as_text(np.array([72, 105]))
    'Hi'
  """
  # Surrogates are code points like others here: nobody encodes this text.
  return tokens.astype('<u4').tobytes().decode('utf-32-le', 'surrogatepass')
