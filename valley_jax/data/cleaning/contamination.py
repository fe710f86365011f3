"""Finds questions that are problems of an evaluation.

Three methods; the first that finds something counts:

    n-grams    runs of `n` words (13) that both texts have, as a share of the runs of the shorter
               one, from `threshold` on. A text of fewer words is one run: the other must contain it
               as a whole. A problem of fewer than `min_words` must be all of the question.
    alignment  for variables that were renamed, so that few runs are left: texts that share some
               of their runs of 4 words are aligned word by word, the shorter with the best
               passage of the longer one, and count from `aligned` on: 2 * words in order / words
               of both. Phrases that very many of the problems have are left out.
    embedding  the cosine of two vectors, from `cosine` on, if there is an embedding model
               (OpenCodeReasoning: .7, followed by a judge).

Words are those of `texts.parse_statement`; for the alignment, of `texts.mask_variables`.

A match is evidence, not a verdict: it carries the passages of both texts, so that a person can
judge. Two versions of one problem match, and should.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum
from typing import Annotated, Any

import msgspec
import numpy as np
from rapidfuzz import fuzz

from valley_jax import errors
from valley_jax.data.cleaning import texts
from valley_jax.runtime import config_groups

Embed = Callable[[Sequence[str]], np.ndarray]  # (B texts) -> (B, D)

_RUN = 4  # Words of a run by which texts are chosen to be aligned.
_MIN_SHARE = 0.1  # Share of the runs of the text that has fewer, to be aligned.
# A run is a phrase if more problems, and a larger share of them, have it.
_PHRASE_PROBLEMS, _PHRASE_SHARE = 10, 0.01
_MAX_ALIGNED = 8  # Problems that one question is aligned with.

_Threshold = Annotated[
    float, msgspec.Meta(ge=0, le=1, description='a number from 0 to 1; 0 turns this method off')
]


class Method(enum.Enum):
  """The method that found a match."""

  NGRAMS = 'n-grams'
  ALIGNMENT = 'alignment'
  EMBEDDING = 'embedding'


@dataclasses.dataclass(frozen=True)
class Match:
  """A problem of an evaluation that a question repeats."""

  problem_id: str
  method: Method
  score: float  # The method's; 1: the whole problem.
  question_text: str  # The passages that match.
  problem_text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """`config.contamination`."""

  problems: tuple[str, ...]
  n: int
  threshold: _Threshold
  min_words: int
  aligned: _Threshold
  aligned_min_words: int
  model: str
  cosine: _Threshold

  def __post_init__(self):
    if not 1 <= self.min_words <= self.n:
      raise errors.UserError(
          f'config.contamination.min_words={self.min_words} is not from 1 to n={self.n}; change'
          ' one of them, as 8 and 13.'
      )

  @classmethod
  def from_config(cls, group: Mapping[str, Any]) -> 'Settings':
    """Returns the settings of `config.contamination`.

    Raises:
      UserError: a value that its field does not allow.
    """
    return config_groups.convert_group(group, 'contamination', cls)


class _RunIndex:
  """Finds the problems that have a run of words, by its hash."""

  def __init__(self, runs: Mapping[int, np.ndarray], num_problems: int):
    owners = [np.full(len(h), row, np.uint32) for row, h in runs.items()]
    hashes = np.concatenate([np.empty(0, np.uint64), *runs.values()])
    # Sorted, so that the problems of a run are neighbours, which a binary search finds.
    order = np.argsort(hashes, kind='stable')
    self._hashes = hashes[order]
    owners = np.concatenate([np.empty(0, np.uint32), *owners])
    self._owners = owners[order]
    self._num_problems = num_problems
    # 1 for a problem without runs, so that its share of anything is 0.
    self.totals = np.ones(num_problems)
    for row, own in runs.items():
      self.totals[row] = len(own)

  def count_shared_runs(self, hashes: np.ndarray) -> np.ndarray:
    """Returns for each problem how many of the (different) runs it has."""
    start = np.searchsorted(self._hashes, hashes, 'left')
    stop = np.searchsorted(self._hashes, hashes, 'right')
    places = [np.arange(a, b) for a, b in zip(start, stop) if b > a]
    places = np.concatenate([np.empty(0, np.int64), *places])
    return np.bincount(self._owners[places], minlength=self._num_problems)


def _hash_different_runs(words: Sequence[bytes], n: int) -> np.ndarray:
  return np.unique(texts.hash_ngrams(words, n))


def _cut_common_passage(one: texts.Statement, other: texts.Statement, n: int) -> str:
  """Returns the longest passage of `one` whose runs are all in `other`."""
  present = np.isin(texts.hash_ngrams(one.words, n), _hash_different_runs(other.words, n))
  start, length = 0, 0
  best = 0, 0
  for i, is_present in enumerate(present):
    start, length = (start, length + 1) if is_present else (i + 1, 0)
    best = max(best, (length, -start))  # The first among equally long passages.
  length, start = best[0], -best[1]
  return one.cut_passage(start, start + length + n - 1 if length else start)


def _find_phrases(masked: Sequence[texts.Statement]) -> np.ndarray:
  """Returns the runs that so many problems have that they say nothing about one."""
  runs = [np.empty(0, np.uint64)]
  runs += [_hash_different_runs(statement.words, _RUN) for statement in masked]
  different, counts = np.unique(np.concatenate(runs), return_counts=True)
  return different[counts > max(_PHRASE_PROBLEMS, _PHRASE_SHARE * len(masked))]


def _join_words(statement: texts.Statement) -> bytes:
  """Returns all words as one text, between spaces, so that `in` compares whole words."""
  return b' '.join([b'', *statement.words, b''])


def _normalise_rows(vectors_BD: np.ndarray) -> np.ndarray:
  vectors_BD = np.asarray(vectors_BD, np.float32)
  norms_B1 = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
  return vectors_BD / np.maximum(norms_B1, 1e-12)


class Contamination:
  """The problems of the evaluations, searched for those that a question repeats.

  Args:
    problems: (problem id, statement) of each.
    settings: The thresholds.
    embed: Returns vectors of texts, for the third method; None turns it off.
  """

  def __init__(
      self, problems: Iterable[tuple[str, str]], settings: Settings, embed: Embed | None = None
  ):
    self._settings = s = settings
    self._ids, self._texts, self._words = [], [], []
    self._short: dict[bytes, int] = {}  # Rows of problems of very few words, by these words.
    runs_by_n: dict[int, dict[int, np.ndarray]] = {}
    masked = []
    for row, (problem_id, text) in enumerate(problems):
      statement = texts.parse_statement(text)
      self._ids.append(problem_id)
      self._texts.append(text)
      n = min(s.n, len(statement.words))
      if n >= s.min_words:
        runs_by_n.setdefault(n, {})[row] = _hash_different_runs(statement.words, n)
      elif n:
        self._short.setdefault(_join_words(statement), row)
      self._words.append(_join_words(statement))
      masked.append(texts.mask_variables(statement))
    self._runs = {n: _RunIndex(runs, len(self._ids)) for n, runs in runs_by_n.items()}
    self._phrases = _find_phrases(masked)
    own = [self._drop_phrases(statement) for statement in masked]
    self._codes = [texts.hash_words(x.words).astype(np.uint32) for x in own]
    # Runs of 4 words, since variables that were renamed leave few longer runs.
    masked_runs = {row: _hash_different_runs(x.words, _RUN) for row, x in enumerate(own)}
    self._masked_runs = _RunIndex(masked_runs, len(self._ids))
    self._matches: dict[int, Match | None] = {}  # Keys are hashes of questions.
    self._embed = embed
    if embed and self._texts:
      self._vectors_PD = _normalise_rows(embed(self._texts))

  def _drop_phrases(self, statement: texts.Statement) -> texts.Statement:
    """Leaves out the words of phrases that very many problems have."""
    runs = texts.hash_ngrams(statement.words, _RUN)
    kept = np.ones(len(statement.words), bool)
    for start in np.flatnonzero(np.isin(runs, self._phrases)):
      kept[start : start + _RUN] = False
    return statement.select_words(kept.tolist())

  def find_problem(self, question: str) -> Match | None:
    """Returns the problem that `question` repeats most; None if it repeats none."""
    key = texts.hash_text(question)  # Many traces ask the same question.
    if key not in self._matches and self._ids:
      statement = texts.parse_statement(question)
      self._matches[key] = (
          self._match_ngrams(statement)
          or self._match_alignment(statement)
          or self._match_embedding(statement)
      )
    return self._matches.get(key)

  def _match_ngrams(self, question: texts.Statement) -> Match | None:
    if not self._settings.threshold:
      return None
    whole = self._match_whole_text(question)
    if whole:
      return whole
    # Each n has an index of its own: a short problem is compared by runs as long as itself.
    best = 0.0, 0, self._settings.n
    for n, runs in sorted(self._runs.items(), reverse=True):
      if n <= len(question.words):
        own = _hash_different_runs(question.words, n)
        shares = runs.count_shared_runs(own) / np.minimum(runs.totals, len(own))
        row = int(np.argmax(shares))
        best = max(best, (float(shares[row]), -row, n))
    score, row, n = best[0], -best[1], best[2]
    if score < self._settings.threshold:
      return None
    problem = texts.parse_statement(self._texts[row])
    return Match(
        self._ids[row],
        Method.NGRAMS,
        score,
        _cut_common_passage(question, problem, n),
        _cut_common_passage(problem, question, n),
    )

  def _match_whole_text(self, question: texts.Statement) -> Match | None:
    """Looks for all words of a short question, or of a very short problem."""
    s, words = self._settings, _join_words(question)
    row = self._short.get(words)
    if row is None and s.min_words <= len(question.words) < s.n:
      inside = (i for i, other in enumerate(self._words) if words in other)
      row = next(inside, None)
    if row is None:
      return None
    return Match(self._ids[row], Method.NGRAMS, 1.0, question.text, self._texts[row])

  def _match_alignment(self, question: texts.Statement) -> Match | None:
    s = self._settings
    own = self._drop_phrases(texts.mask_variables(question))
    if not s.aligned or len(own.words) < s.aligned_min_words:
      return None
    codes = texts.hash_words(own.words).tolist()
    runs = _hash_different_runs(own.words, _RUN)
    totals = np.minimum(self._masked_runs.totals, len(runs))
    shares = self._masked_runs.count_shared_runs(runs) / totals
    best, where = 0.0, None
    # An alignment is slow: only the problems that share most runs are aligned.
    for row in np.argsort(-shares, kind='stable')[:_MAX_ALIGNED]:
      problem = self._codes[row].tolist()
      if shares[row] < _MIN_SHARE or len(problem) < s.aligned_min_words:
        continue
      alignment = fuzz.partial_ratio_alignment(problem, codes, score_cutoff=100 * s.aligned)
      if alignment and alignment.score > best:
        best, where = alignment.score, (int(row), alignment)
    if where is None:
      return None
    row, alignment = where
    problem = self._drop_phrases(texts.mask_variables(texts.parse_statement(self._texts[row])))
    return Match(
        self._ids[row],
        Method.ALIGNMENT,
        best / 100,
        own.cut_passage(alignment.dest_start, alignment.dest_end),
        problem.cut_passage(alignment.src_start, alignment.src_end),
    )

  def _match_embedding(self, question: texts.Statement) -> Match | None:
    if self._embed is None or not self._settings.cosine or not question.words:
      return None
    (vector_D,) = _normalise_rows(self._embed([question.text]))
    cosines_P = self._vectors_PD @ vector_D
    row = int(np.argmax(cosines_P))
    score = float(cosines_P[row])
    if cosines_P[row] < self._settings.cosine:
      return None
    return Match(self._ids[row], Method.EMBEDDING, score, question.text, self._texts[row])
