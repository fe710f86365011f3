"""OpenCodeReasoning 1 (2504.01943) and 2 (2507.09075)."""

import math

import msgspec

from valley_jax import programs
from valley_jax import records
from valley_jax.data.sources import questions
from valley_jax.data.sources import responses
from valley_jax.data.sources import rows

_TEACHER = 'DeepSeek-R1'


class Row1(msgspec.Struct):
  """The columns of OCR-1, without `solution`, the code of the output.

  split_1 has `index`, and its input is "-".
  """

  id: str  # Of the question; it has many rows.
  input: str
  output: str
  dataset: str
  source: str | None = None  # The platform.
  license: str | None = None
  split: str | None = None
  difficulty: str | None = None
  index: str | None = None


def trace1(row: Row1, copies: questions.Questions) -> records.Trace:
  """Returns the trace; its id is the row's with a hash of the output."""
  question = row.input
  if question == '-':
    split, index = row.split or '', row.index or ''
    question = copies.look_up(row.dataset, split, index)
  return records.Trace(
      # An empty id is one, and to be refused as such.
      trace_id=row.id and f'{row.id}-{responses.identity(row.output)}',
      problem_id=row.id,
      question=question,
      response=row.output.strip(),
      teacher=_TEACHER,
      difficulty=row.difficulty or '',
      source=row.dataset,
      split=row.split or '',
      license=row.license or '',
      language='python',  # All of them.
  )


class Row2(msgspec.Struct):
  """The columns of OCR-2, all of them strings, without `qwq_critique`.

  `source`, the platform, is not read either. The splits `python` and `cpp` have
  the same columns.
  """

  id: str
  question_id: str
  question: str  # Always "-".
  r1_generation: str
  dataset: str
  split: str
  index: str
  judgement: str | None = None  # right or wrong
  pass_rate: str | None = None  # "-1": could not be tested.
  solution: str | None = None  # The code block of the answer.
  license: str | None = None
  difficulty: str | None = None


_JUDGEMENTS = {'right': True, 'wrong': False}


def _is_correct(judgement: str) -> bool | None:
  return _JUDGEMENTS.get(judgement.strip().lower())


def _pass_rate(text: str) -> float | None:
  try:
    rate = float(text.strip() or -1)
  except ValueError:
    rate = math.nan
  if rate != -1 and not 0 <= rate <= 1:
    raise rows.UnusableError(f'pass_rate {text!r} is none of -1 and 0 to 1')
  return None if rate == -1 else rate


def trace2(row: Row2, copies: questions.Questions) -> records.Trace:
  """Returns the trace with the row's own id."""
  question = row.question
  if question == '-':
    question = copies.look_up(row.dataset, row.split, row.index)
  language = programs.find_declared_language(row.solution or '')
  return records.Trace(
      trace_id=row.id,
      problem_id=row.question_id,
      question=question,
      response=row.r1_generation.strip(),
      teacher=_TEACHER,
      difficulty=row.difficulty or '',
      source=row.dataset,
      is_correct=_is_correct(row.judgement or ''),
      split=row.split,
      license=row.license or '',
      language=language or programs.find_declared_language(row.r1_generation),
      pass_rate=_pass_rate(row.pass_rate or ''),
  )
