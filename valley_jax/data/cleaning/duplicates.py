"""Finds traces that were there before, and questions that have two names.

Of each group of duplicates the first one kept stays, in the order of the
sources, which is the order of `check`.

Traces. Two responses are one if they are equal but for white space (exact), or
if the Jaccard similarity of their runs of words is at least a threshold
(near). Case and punctuation do not count for `near`, nor do the tags, commands
and entities of a question. A response of fewer than
`trace_min_words` words says too little to be known again without its question:
it is only compared whole, with those of the same question.

Questions. They are repeated by design, a trace each. But two *different*
problem ids whose questions are equal or near are one question, as when two
sets took it from one contest. Easy and hard version of a problem, which differ
in their limits alone, are one question too: who trained on the one has seen
the other. `merge` tells the first one's problem id, so that what goes by
question (held-out splits, traces per question) sees one problem; `drop`
refuses the traces of the later ids; `keep` does not look.

What is kept of a trace is no text but a digest, the keys of its bands and the
low bytes of its hashes (`minhash.py`): at the default settings some 470 to 750
bytes, and as much for each different question.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import enum
import functools
from typing import Any

from valley_jax import errors
from valley_jax import records
from valley_jax.data.cleaning import minhash
from valley_jax.data.cleaning import ngrams
from valley_jax.data.cleaning import statements


class Kind(enum.Enum):
  """In what a trace repeats another one."""

  EXACT_TRACE = 'exact trace'
  NEAR_TRACE = 'near trace'
  SAME_QUESTION = 'same question'


@dataclasses.dataclass(frozen=True)
class Duplicate:
  """What a trace repeats."""

  kind: Kind
  of: str  # Trace id of the representative.
  similarity: float  # 1: equal; otherwise an estimate of Jaccard's.
  problem_id: str = ''  # Under which the trace stays; '': it is refused.

  @property
  def is_refused(self) -> bool:
    return not self.problem_id


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """`config.duplicates`."""

  questions: str = 'merge'
  traces: str = 'near'
  question_similarity: float = 0.8
  trace_similarity: float = 0.8
  question_words: int = 3
  trace_words: int = 5
  question_min_words: int = 10
  trace_min_words: int = 50
  num_hashes: int = 128
  bands: int = 16
  seed: int = 1

  def __post_init__(self):
    choices = {'questions': ('merge', 'drop', 'keep'), 'traces': ('near', 'exact', 'keep')}
    for name, known in choices.items():
      if getattr(self, name) not in known:
        raise errors.UserError(
            f'config.duplicates.{name}={getattr(self, name)!r}: want one of' f' {", ".join(known)}.'
        )
    for name in ('question_similarity', 'trace_similarity'):
      if not 0 < getattr(self, name) <= 1:
        raise errors.UserError(
            f'config.duplicates.{name}={getattr(self, name)}: want a number'
            ' above 0 and up to 1, such as .8.'
        )
    for name in ('question_words', 'trace_words', 'num_hashes', 'bands'):
      if getattr(self, name) < 1:
        raise errors.UserError(f'config.duplicates.{name}={getattr(self, name)}: want 1 or more.')
    if self.num_hashes % self.bands:
      raise errors.UserError(
          f'config.duplicates.num_hashes={self.num_hashes} is no multiple of'
          f' bands={self.bands}; change one of them, as 128 and 16.'
      )


class _Questions:
  """The questions of the traces that were kept."""

  def __init__(self, settings: Settings):
    s = settings
    sketcher = minhash.Sketcher(
        lambda question: statements.read(question).words,
        s.question_words,
        s.question_min_words,
        s.num_hashes,
        s.seed,
    )
    # What is not found is added next.
    self._sketch = functools.lru_cache(1)(sketcher)
    self._index = minhash.Index(s.question_similarity, s.num_hashes, s.bands)
    self._problem_ids, self._trace_ids = minhash.Strings(), minhash.Strings()
    # Which question (problem id, text) is, and how near: M traces ask it.
    self._known: dict[int, tuple[int, float]] = {}

  def find(self, trace: records.Trace) -> tuple[str, str, float] | None:
    """Returns problem id and trace id of the first such, and similarity."""
    found = self._known.get(minhash.digest(trace.problem_id, trace.question))
    found = found or self._index.find(self._sketch(trace.question))
    if found is None or not _says_something(trace.question):
      return None
    row, similarity = found
    return self._problem_ids[row], self._trace_ids[row], similarity

  def add(self, trace: records.Trace) -> None:
    """Remembers the question of a trace that is kept."""
    key = minhash.digest(trace.problem_id, trace.question)
    if key in self._known:
      return
    sketch = self._sketch(trace.question)
    found = self._index.find(sketch)
    if found is None:
      found = self._index.add(sketch), 1.0
      self._problem_ids.append(trace.problem_id)
      self._trace_ids.append(trace.trace_id)
    self._known[key] = found

  @property
  def num_bytes(self) -> int:
    ids = self._problem_ids.num_bytes + self._trace_ids.num_bytes
    return self._index.num_bytes + ids + _KNOWN_BYTES * len(self._known)


# An entry of `_Questions._known`: its place in the dict, key, tuple, numbers.
_KNOWN_BYTES = 250


def _says_something(question: str) -> bool:
  """False for '' and '-', which stand for a question that is not there."""
  return any(c.isalnum() for c in question)


def _sketch(sketcher: minhash.Sketcher, trace: records.Trace) -> minhash.Sketch:
  return sketcher(trace.response)


def _no_sketch(unused_trace: records.Trace) -> None:
  return None


class Duplicates:
  """Remembers the traces that were kept, and tells what repeats them.

  Equal calls in equal order give equal answers, on any machine.

  Args:
    settings: `config.duplicates`, the fields of `Settings`.

  Raises:
    ValueError: a setting that cannot be.
  """

  def __init__(self, settings: Mapping[str, Any]):
    self._settings = s = Settings(**settings)
    num_hashes = s.num_hashes if s.traces == 'near' else 0
    self._sketch = minhash.Sketcher(
        ngrams.words, s.trace_words, s.trace_min_words, num_hashes, s.seed
    )
    self._index = minhash.Index(s.trace_similarity, num_hashes, s.bands)
    self._trace_ids = minhash.Strings()
    self._questions = _Questions(s)

  @property
  def look(self) -> Callable[[records.Trace], minhash.Sketch | None]:
    """What `check` needs of a trace: a pure function, to be pickled."""
    if self._settings.traces == 'keep':
      return _no_sketch
    return functools.partial(_sketch, self._sketch)

  def check(self, trace: records.Trace, sketch: minhash.Sketch | None = None) -> Duplicate | None:
    """Returns what `trace` repeats; remembers it, unless it is refused.

    Args:
      trace: Any.
      sketch: What `look` finds of it; None: `check` looks itself.
    """
    same_question = self._same_question(trace)
    if same_question and same_question.is_refused:
      return same_question
    repeated = self._repeated(trace, same_question, sketch)
    if repeated:
      return repeated
    if self._settings.questions != 'keep':
      self._questions.add(trace)
    return same_question

  def _same_question(self, trace: records.Trace) -> Duplicate | None:
    """Returns the question's first name, if it is another one."""
    if self._settings.questions == 'keep':
      return None
    found = self._questions.find(trace)
    if found is None or found[0] == trace.problem_id:
      return None
    problem_id, trace_id, similarity = found
    return Duplicate(
        Kind.SAME_QUESTION,
        trace_id,
        similarity,
        problem_id if self._settings.questions == 'merge' else '',
    )

  def _repeated(
      self, trace: records.Trace, same_question: Duplicate | None, sketch: minhash.Sketch | None
  ) -> Duplicate | None:
    """Returns the trace of such a response; remembers a new response."""
    if self._settings.traces == 'keep':
      return None
    if sketch is None:
      sketch = self._sketch(trace.response)
    if sketch.is_short:
      problem_id = (same_question or trace).problem_id
      key = minhash.digest(problem_id, trace.response)
      sketch = sketch._replace(key=key)
    found = self._index.find(sketch)
    if found is None:
      self._index.add(sketch)
      self._trace_ids.append(trace.trace_id)
      return None
    row, similarity = found
    kind = Kind.EXACT_TRACE if similarity == 1 else Kind.NEAR_TRACE
    return Duplicate(kind, self._trace_ids[row], similarity)

  @property
  def num_bytes(self) -> int:
    """What is kept, without what Python needs for a few objects."""
    traces = self._index.num_bytes + self._trace_ids.num_bytes
    return traces + self._questions.num_bytes
