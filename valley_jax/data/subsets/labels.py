"""Verdicts on traces: programs go to the judge, and what it says comes back.

    asked = labels.ask(traces, labels.Problems(problems))
    submissions = (a.submission for a in asked if a.submission)
    ...                                   # `execute` judges them, in order.
    asked = labels.ask(traces, labels.Problems(problems))
    labelled = labels.join(asked, judgements, all_tests=True)

Traces, programs and judgements stand in one order, so all of it streams; in
memory are the problems' names and a number a problem. Correct is a program that
passes all tests (RQ2 of *The Valley of Code Reasoning*). What was not executed,
or could not be judged, is unknown: what a source said of it does not stand in.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import hashlib
import re
from typing import NamedTuple

from valley_jax import errors
from valley_jax import programs
from valley_jax import records
from valley_jax.data.subsets import difficulty as difficulty_lib

_V = records.Verdict
_CALLING = (records.Mode.FUNCTION, records.Mode.ASSERT)


def difficulty(trace: records.Trace) -> str:
  """Returns 'easy', 'hard' or ''; see `data/subsets/difficulty.py`."""
  return difficulty_lib.of_trace(trace)


class Asked(NamedTuple):
  """What is asked about a trace; without a submission, why nothing is."""

  trace: records.Trace
  submission: records.Submission | None
  reason: str = ''


NO_PROGRAM = 'no program in the answer'


class Problems:
  """Which problem a trace is about: that of its id, or of its very words.

  Sets of traces have ids of their own for the questions that they took from a
  set of problems. Words are compared without regard to space and capitals.
  """

  def __init__(self, problems: Iterable[records.Problem]):
    self._modes: dict[str, records.Mode] = {}
    self._ids: dict[bytes, str] = {}
    for problem in problems:
      self._modes[problem.problem_id] = problem.mode
      words = _hash(problem.statement)
      if words:
        self._ids.setdefault(words, problem.problem_id)
    # Two sets may have one id for different questions.
    self._found: dict[tuple[str, int], str] = {}

  def find(self, trace: records.Trace) -> str:
    """Returns the id of the problem; '' if it is not here."""
    name = trace.problem_id
    if name in self._modes:
      return name
    key = name, hash(trace.question)  # M traces have one question.
    if key not in self._found:
      self._found[key] = self._ids.get(_hash(trace.question), '')
    return self._found[key]

  def refusal(self, problem_id: str, language: str) -> str:
    """Returns why a problem's judge does not take a language; '' if it does."""
    if language not in records.LANGUAGES:
      return f'the judge does not run {language}'
    if self._modes[problem_id] in _CALLING and language != 'python':
      return f'the program is in {language}, and its problem calls Python'
    return ''


def _hash(text: str) -> bytes:
  words = ' '.join(re.findall(r'\w+|[^\w\s]', text.lower()))
  if not words:
    return b''
  data = words.encode('utf-8', 'surrogatepass')
  return hashlib.blake2b(data, digest_size=16).digest()


def ask(traces: Iterable[records.Trace], problems: Problems) -> Iterator[Asked]:
  """Yields every trace with the submission to be judged, or why there is none.

  A trace has from here on the id of the problem that it is about, so that what
  a student does on these problems is known of its question, too.

  The submissions of a problem are numbered as they come, by `sample_index`; the
  same traces in the same order have the same numbers again.
  """
  numbers: collections.Counter[str] = collections.Counter()
  for trace in traces:
    problem_id = problems.find(trace)
    language, source = programs.extract_from_trace(trace)
    if problem_id and problem_id != trace.problem_id:
      trace = records.replace(trace, problem_id=problem_id)
    if not problem_id:
      yield Asked(trace, None, 'its problem is not there')
    elif source is None:
      yield Asked(trace, None, NO_PROGRAM)
    elif reason := problems.refusal(problem_id, language):
      yield Asked(trace, None, reason)
    else:
      submission = records.Submission(
          problem_id=problem_id, sample_index=numbers[problem_id], source=source, language=language
      )
      numbers[problem_id] += 1
      yield Asked(trace, submission)


def _same_sample(submission: records.Submission, judgement: records.Judgement) -> bool:
  return records.sample_key(submission) == records.sample_key(judgement)


def join(
    asked: Iterable[Asked],
    judgements: Iterable[records.Judgement],
    *,
    all_tests: bool,
    stands: Callable[[records.Submission, records.Judgement], bool] = _same_sample,
) -> Iterator[records.Trace]:
  """Yields the traces with `is_correct` and `pass_rate` by execution.

  Args:
    asked: What `ask` yields.
    judgements: Of its submissions, in their order.
    all_tests: Whether programs ran on after a test that failed; if they did
      not, the pass rate of a program that failed is unknown.
    stands: Says whether a judgement is of a submission.

  Raises:
    ValueError: a judgement that is missing, too many, or does not stand.
  """
  rows = iter(judgements)
  for trace, submission, reason in asked:
    if submission is None:
      # Judged as a completion without a program is.
      known = reason == NO_PROGRAM
      yield records.replace(
          trace, is_correct=False if known else None, pass_rate=0.0 if known else None
      )
      continue
    row = next(rows, None)
    if row is None or not stands(submission, row):
      raise errors.UserError(
          f'Trace {trace.trace_id} (sample {records.sample_key(submission)}) has no'
          ' judgement of its program by these tests and rules; run `execute`'
          ' on the submissions to the end, with the same config, and join'
          ' again.'
      )
    yield records.replace(trace, is_correct=_is_correct(row), pass_rate=_pass_rate(row, all_tests))
  if (row := next(rows, None)) is not None:
    raise errors.UserError(
        f'There is a judgement of {records.sample_key(row)}, and no trace has that'
        ' program; run `execute` on the submissions again, and join again.'
    )


def _is_correct(row: records.Judgement) -> bool | None:
  # A failure of the judge says nothing about the program.
  if row.verdict is _V.INTERNAL_ERROR:
    return None
  return row.verdict is _V.ACCEPTED


def _pass_rate(row: records.Judgement, all_tests: bool) -> float | None:
  if row.verdict is _V.INTERNAL_ERROR:
    return None
  if row.verdict in (_V.ACCEPTED, _V.COMPILE_ERROR):
    return float(row.verdict is _V.ACCEPTED)
  return row.tests_passed / row.num_tests if all_tests else None
