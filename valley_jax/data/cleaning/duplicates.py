"""Finds repeated traces, and questions that have two problem ids.

The first trace of each group of duplicates stays, in the order of the sources, which is
the order of the calls of `check_trace`.

Traces. Two responses are duplicates if they are equal but for white space (exact), or if the
Jaccard similarity of their runs of words is at least a threshold (near). For `near`, case and
punctuation do not count. A response of fewer than `trace_min_words` words is too short to be
recognised without its question: it is only compared as a whole, with those of the same question.

Questions. They are repeated by design, once a trace. But two *different* problem ids whose
questions are equal or near are one question, as when two sets took it from one contest. The easy
and the hard version of a problem, which differ in their limits alone, are one question too: a
student trained on the one has seen the other. `merge` replaces the later problem id by the first,
so that what goes by question (held-out splits, traces per question) sees one problem; `drop`
refuses the traces of the later ids; `keep` does not look.

No text is kept of a trace, only a hash, the keys of its bands and the low bytes of its hashes
(`minhash.py`): with the default settings 470 to 750 bytes, and as much for each different question.
"""

from collections.abc import Mapping
import dataclasses
import enum
import functools
from typing import Annotated, Any, Literal

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.cleaning import minhash
from valley_jax.data.cleaning import texts
from valley_jax.runtime import config_groups

_Similarity = Annotated[
    float, msgspec.Meta(gt=0, le=1, description='a number above 0 and up to 1, such as .8')
]
_Count = Annotated[int, msgspec.Meta(ge=1, description='1 or more')]


class Kind(enum.Enum):
  """What of a trace repeats another one."""

  EXACT_TRACE = 'exact trace'
  NEAR_TRACE = 'near trace'
  SAME_QUESTION = 'same question'


@dataclasses.dataclass(frozen=True)
class Duplicate:
  """The trace that another one repeats."""

  kind: Kind
  trace_id: str  # The first trace of the group.
  similarity: float  # 1: equal; otherwise an estimate of Jaccard's.
  problem_id: str = ''  # New problem id of the repeating trace; '': it is refused.

  @property
  def is_refused(self) -> bool:
    return not self.problem_id


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """`config.duplicates`."""

  questions: Literal['merge', 'drop', 'keep']
  traces: Literal['near', 'exact', 'keep']
  question_similarity: _Similarity
  trace_similarity: _Similarity
  question_words: _Count
  trace_words: _Count
  question_min_words: int
  trace_min_words: int
  num_hashes: _Count
  bands: _Count
  seed: int

  def __post_init__(self):
    if self.num_hashes % self.bands:
      raise errors.UserError(
          f'config.duplicates.num_hashes={self.num_hashes} is no multiple of bands={self.bands};'
          ' change one of them, as 128 and 16.'
      )

  @classmethod
  def from_config(cls, group: Mapping[str, Any]) -> 'Settings':
    """Returns the settings of `config.duplicates`.

    Raises:
      UserError: a value that its field does not allow.
    """
    return config_groups.convert_group(group, 'duplicates', cls)

  @property
  def is_off(self) -> bool:
    return self.questions == self.traces == 'keep'


def build_response_sketcher(settings: Settings) -> minhash.Sketcher | None:
  """Returns the pure function that sketches responses; None if traces are not compared."""
  s = settings
  if s.traces == 'keep':
    return None
  num_hashes = s.num_hashes if s.traces == 'near' else 0
  return minhash.Sketcher(texts.split_words, s.trace_words, s.trace_min_words, num_hashes, s.seed)


class _Questions:
  """The questions of the traces that were kept."""

  def __init__(self, settings: Settings):
    s = settings
    sketcher = minhash.Sketcher(
        lambda question: texts.parse_statement(question).words,
        s.question_words,
        s.question_min_words,
        s.num_hashes,
        s.seed,
    )
    # A question that is not found is added next: the cache saves its second sketch.
    self._sketch = functools.lru_cache(1)(sketcher)
    self._index = minhash.Index(s.question_similarity, s.num_hashes, s.bands)
    self._problem_ids, self._trace_ids = minhash.Strings(), minhash.Strings()
    # Row and similarity by hash of (problem id, text): many traces ask the same question.
    self._known: dict[int, tuple[int, float]] = {}

  def find_first(self, trace: records.Trace) -> tuple[str, str, float] | None:
    """Returns problem id and trace id of the first equal or near question, and the similarity."""
    match = self._known.get(texts.hash_text(trace.problem_id, trace.question))
    match = match or self._index.find_first(self._sketch(trace.question))
    if match is None or not _has_words(trace.question):
      return None
    row, similarity = match
    return self._problem_ids[row], self._trace_ids[row], similarity

  def add_question(self, trace: records.Trace) -> None:
    """Remembers the question of a trace that is kept."""
    key = texts.hash_text(trace.problem_id, trace.question)
    if key in self._known:
      return
    sketch = self._sketch(trace.question)
    match = self._index.find_first(sketch)
    if match is None:
      match = self._index.add_sketch(sketch), 1.0
      self._problem_ids.append(trace.problem_id)
      self._trace_ids.append(trace.trace_id)
    self._known[key] = match


def _has_words(question: str) -> bool:
  """False for '' and '-', which stand for a question that is not there."""
  return any(c.isalnum() for c in question)


class Duplicates:
  """Remembers the traces that were kept, and finds what repeats them.

  Equal calls in equal order give equal answers, on any machine.
  """

  def __init__(self, settings: Settings):
    self._settings = s = settings
    self._sketch_response = build_response_sketcher(s)
    num_hashes = s.num_hashes if s.traces == 'near' else 0
    self._index = minhash.Index(s.trace_similarity, num_hashes, s.bands)
    self._trace_ids = minhash.Strings()
    self._questions = _Questions(s)

  def check_trace(
      self, trace: records.Trace, sketch: minhash.Sketch | None = None
  ) -> Duplicate | None:
    """Returns what `trace` repeats; remembers it, unless it is refused.

    Args:
      trace: The next trace.
      sketch: Sketch of its response, if it was computed before.
    """
    # First: a trace that is refused for its question must not be remembered.
    same_question = self._find_same_question(trace)
    if same_question and same_question.is_refused:
      return same_question
    repeated = self._find_same_response(trace, same_question, sketch)
    if repeated:
      return repeated
    if self._settings.questions != 'keep':
      self._questions.add_question(trace)
    return same_question

  def _find_same_question(self, trace: records.Trace) -> Duplicate | None:
    """Returns the first problem id of the question, if it is another one."""
    if self._settings.questions == 'keep':
      return None
    match = self._questions.find_first(trace)
    if match is None or match[0] == trace.problem_id:
      return None
    problem_id, trace_id, similarity = match
    new_id = problem_id if self._settings.questions == 'merge' else ''
    return Duplicate(Kind.SAME_QUESTION, trace_id, similarity, new_id)

  def _find_same_response(
      self, trace: records.Trace, same_question: Duplicate | None, sketch: minhash.Sketch | None
  ) -> Duplicate | None:
    """Returns the trace with such a response; remembers a new response."""
    if self._sketch_response is None:
      return None
    sketch = sketch or self._sketch_response(trace.response)
    if sketch.is_short:
      problem_id = (same_question or trace).problem_id
      # The key of a short response includes its question: `yes` repeats no other problem's `yes`.
      sketch = sketch._replace(key=texts.hash_text(problem_id, trace.response))
    match = self._index.find_first(sketch)
    if match is None:
      self._index.add_sketch(sketch)
      self._trace_ids.append(trace.trace_id)
      return None
    row, similarity = match
    # The index gives 1 to equal texts only.
    kind = Kind.EXACT_TRACE if similarity == 1 else Kind.NEAR_TRACE
    return Duplicate(kind, self._trace_ids[row], similarity)
