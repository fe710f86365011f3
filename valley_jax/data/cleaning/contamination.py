"""Finds questions that are problems of an evaluation.

Three looks, the first that finds something counts:

    n-grams    runs of `n` words (13) that both have, as a share of the runs of
               the one that has fewer, from `threshold` on. A text of fewer
               words is one run: it must stand in the other as a whole. A
               problem of fewer than `min_words` must be all that is asked.
    alignment  variables were renamed, so that few runs are left: texts that
               share a part of their runs of 4 words are aligned word by word,
               the shorter with the best passage of the longer one, and count
               from `aligned` on: 2 * words in order / words of both. Phrases
               that very many of the problems have are left out.
    embedding  the cosine of two vectors, from `cosine` on, if an embedding is
               given (OpenCodeReasoning: .7, and a judge behind it).

Words are runs of letters or of digits, in lower case. What a text's form puts
around them is passed over: white space, punctuation, operators, Markdown, HTML
tags and entities, LaTeX commands, addresses. For the alignment, single letters
and numbers are all one word, and a run of them counts once.

A find is evidence, not a verdict: it carries the passages of both, so that a
person can judge. Two versions of one problem are found, and should be.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum
from typing import Any

import numpy as np
from rapidfuzz import fuzz

from valley_jax import errors
from valley_jax.data.cleaning import minhash
from valley_jax.data.cleaning import ngrams
from valley_jax.data.cleaning import statements

Embed = Callable[[Sequence[str]], np.ndarray]  # (B texts) -> (B, D)

_RUN = 4  # Words of a run that makes two texts worth to be aligned.
_SHARE = 0.1  # Of the runs of the one that has fewer.
_FEW, _PART = 10, 0.01  # Problems, and share of them, that may have a run.
_MOST_ALIGNED = 8  # Problems that one question is aligned with.


class Method(enum.Enum):
  """Which look found it."""

  NGRAMS = 'n-grams'
  ALIGNMENT = 'alignment'
  EMBEDDING = 'embedding'


@dataclasses.dataclass(frozen=True)
class Match:
  """A problem of an evaluation that a question repeats."""

  problem_id: str
  method: Method
  score: float  # Of the method; 1: the whole problem.
  question_text: str  # The passages that match.
  problem_text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """`config.contamination`, all but `problems` and `model`."""

  n: int = 13
  threshold: float = 0.5
  min_words: int = 8
  aligned: float = 0.8
  aligned_min_words: int = 16
  cosine: float = 0.7

  def __post_init__(self):
    for name in ('threshold', 'aligned', 'cosine'):
      if not 0 <= getattr(self, name) <= 1:
        raise errors.UserError(
            f'config.contamination.{name}={getattr(self, name)}: want a number'
            ' from 0 to 1; 0 does without this look.'
        )
    if not 1 <= self.min_words <= self.n:
      raise errors.UserError(
          f'config.contamination.min_words={self.min_words} is not from 1 to'
          f' n={self.n}; change one of them, as 8 and 13.'
      )


class _Runs:
  """Which problems have a run of words, by its hash."""

  def __init__(self, runs: Mapping[int, np.ndarray], num_problems: int):
    owners = [np.full(len(h), row, np.uint32) for row, h in runs.items()]
    hashes = np.concatenate([np.empty(0, np.uint64), *runs.values()])
    order = np.argsort(hashes, kind='stable')
    self._hashes = hashes[order]
    owners = np.concatenate([np.empty(0, np.uint32), *owners])
    self._owners = owners[order]
    self._num_problems = num_problems
    # Of a problem that has none, so that it has no share in anything either.
    self.totals = np.ones(num_problems)
    for row, own in runs.items():
      self.totals[row] = len(own)

  def shared(self, hashes: np.ndarray) -> np.ndarray:
    """Returns for each problem how many of the (different) runs it has."""
    start = np.searchsorted(self._hashes, hashes, 'left')
    stop = np.searchsorted(self._hashes, hashes, 'right')
    places = [np.arange(a, b) for a, b in zip(start, stop) if b > a]
    places = np.concatenate([np.empty(0, np.int64), *places])
    return np.bincount(self._owners[places], minlength=self._num_problems)


def _different(words: Sequence[bytes], n: int) -> np.ndarray:
  return np.unique(ngrams.hashes(words, n))


def _common_passage(one: statements.Statement, other: statements.Statement, n: int) -> str:
  """Returns the longest passage of `one` whose runs all stand in `other`."""
  present = np.isin(ngrams.hashes(one.words, n), _different(other.words, n))
  start, length = 0, 0
  best = 0, 0
  for i, is_present in enumerate(present):
    start, length = (start, length + 1) if is_present else (i + 1, 0)
    best = max(best, (length, -start))
  length, start = best[0], -best[1]
  return one.passage(start, start + length + n - 1 if length else start)


def _phrases(masked: Sequence[statements.Statement]) -> np.ndarray:
  """Returns the runs that say nothing of a problem, since many have them."""
  runs = [np.empty(0, np.uint64)]
  runs += [_different(statement.words, _RUN) for statement in masked]
  different, counts = np.unique(np.concatenate(runs), return_counts=True)
  return different[counts > max(_FEW, _PART * len(masked))]


def _whole(statement: statements.Statement) -> bytes:
  """Returns all words in one, parted and surrounded by spaces."""
  return b' '.join([b'', *statement.words, b''])


def _unit(vectors_BD: np.ndarray) -> np.ndarray:
  vectors_BD = np.asarray(vectors_BD, np.float32)
  norms_B1 = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
  return vectors_BD / np.maximum(norms_B1, 1e-12)


class Contamination:
  """The problems of the evaluations, and what repeats them.

  Args:
    problems: (problem id, statement) of each.
    settings: `config.contamination`, the fields of `Settings`.
    embed: Vectors of texts, for the third look.

  Raises:
    ValueError: a setting that cannot be.
  """

  def __init__(
      self,
      problems: Iterable[tuple[str, str]],
      settings: Mapping[str, Any],
      embed: Embed | None = None,
  ):
    of_files = 'problems', 'model'
    self._settings = s = Settings(**{k: v for k, v in settings.items() if k not in of_files})
    self._ids, self._texts, self._words = [], [], []
    self._whole: dict[bytes, int] = {}  # Problems of very few words.
    by_n: dict[int, dict[int, np.ndarray]] = {}
    masked = []
    for row, (problem_id, text) in enumerate(problems):
      statement = statements.read(text)
      self._ids.append(problem_id)
      self._texts.append(text)
      n = min(s.n, len(statement.words))
      if n >= s.min_words:
        by_n.setdefault(n, {})[row] = _different(statement.words, n)
      elif n:
        self._whole.setdefault(_whole(statement), row)
      self._words.append(_whole(statement))
      masked.append(statements.masked(statement))
    self._runs = {n: _Runs(r, len(self._ids)) for n, r in by_n.items()}
    self._phrases = _phrases(masked)
    own = [self._without_phrases(statement) for statement in masked]
    self._codes = [ngrams.codes(x.words).astype(np.uint32) for x in own]
    runs = {row: _different(x.words, _RUN) for row, x in enumerate(own)}
    self._masked_runs = _Runs(runs, len(self._ids))
    self._found: dict[int, Match | None] = {}  # By the question's digest.
    self._embed = embed
    if embed and self._texts:
      self._vectors_PD = _unit(embed(self._texts))

  def _without_phrases(self, statement: statements.Statement) -> statements.Statement:
    """Leaves out the words of phrases that very many problems have."""
    runs = ngrams.hashes(statement.words, _RUN)
    kept = np.ones(len(statement.words), bool)
    for start in np.flatnonzero(np.isin(runs, self._phrases)):
      kept[start : start + _RUN] = False
    return statement.only(kept.tolist())

  def check(self, question: str) -> Match | None:
    """Returns the problem that `question` repeats most, if there is one."""
    key = minhash.digest(question)
    if key not in self._found and self._ids:
      statement = statements.read(question)
      self._found[key] = (
          self._by_runs(statement) or self._by_alignment(statement) or self._by_embedding(statement)
      )
    return self._found.get(key)

  def _by_runs(self, question: statements.Statement) -> Match | None:
    if not self._settings.threshold:
      return None
    whole = self._by_whole(question)
    if whole:
      return whole
    best = 0.0, 0, self._settings.n
    for n, runs in sorted(self._runs.items(), reverse=True):
      if n <= len(question.words):
        own = _different(question.words, n)
        shares = runs.shared(own) / np.minimum(runs.totals, len(own))
        row = int(np.argmax(shares))
        best = max(best, (float(shares[row]), -row, n))
    score, row, n = best[0], -best[1], best[2]
    if score < self._settings.threshold:
      return None
    problem = statements.read(self._texts[row])
    return Match(
        self._ids[row],
        Method.NGRAMS,
        score,
        _common_passage(question, problem, n),
        _common_passage(problem, question, n),
    )

  def _by_whole(self, question: statements.Statement) -> Match | None:
    """Looks for all words of a short question, or of a very short problem."""
    s, words = self._settings, _whole(question)
    row = self._whole.get(words)
    if row is None and s.min_words <= len(question.words) < s.n:
      inside = (i for i, other in enumerate(self._words) if words in other)
      row = next(inside, None)
    if row is None:
      return None
    texts = question.text, self._texts[row]
    return Match(self._ids[row], Method.NGRAMS, 1.0, *texts)

  def _by_alignment(self, question: statements.Statement) -> Match | None:
    s = self._settings
    own = self._without_phrases(statements.masked(question))
    if not s.aligned or len(own.words) < s.aligned_min_words:
      return None
    codes = ngrams.codes(own.words).tolist()
    runs = _different(own.words, _RUN)
    totals = np.minimum(self._masked_runs.totals, len(runs))
    shares = self._masked_runs.shared(runs) / totals
    best, where = 0.0, None
    for row in np.argsort(-shares, kind='stable')[:_MOST_ALIGNED]:
      problem = self._codes[row].tolist()
      if shares[row] < _SHARE or len(problem) < s.aligned_min_words:
        continue
      found = fuzz.partial_ratio_alignment(problem, codes, score_cutoff=100 * s.aligned)
      if found and found.score > best:
        best, where = found.score, (int(row), found)
    if where is None:
      return None
    row, found = where
    problem = statements.masked(statements.read(self._texts[row]))
    return Match(
        self._ids[row],
        Method.ALIGNMENT,
        best / 100,
        own.passage(found.dest_start, found.dest_end),
        self._without_phrases(problem).passage(found.src_start, found.src_end),
    )

  def _by_embedding(self, question: statements.Statement) -> Match | None:
    if self._embed is None or not self._settings.cosine or not question.words:
      return None
    (vector_D,) = _unit(self._embed([question.text]))
    cosines_P = self._vectors_PD @ vector_D
    row = int(np.argmax(cosines_P))
    if cosines_P[row] < self._settings.cosine:
      return None
    texts = question.text, self._texts[row]
    score = float(cosines_P[row])
    return Match(self._ids[row], Method.EMBEDDING, score, *texts)
