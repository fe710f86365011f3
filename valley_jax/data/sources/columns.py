"""Rows with prompt, thought and response in columns: tables of any kind, and s1K.

    table:PATH                                prompt, response
    table/prompt=problem/response=generation:PATH
    table/prompt=question/thinking=trace/response=answer:PATH
    math:PATH                                 question, trace, answer
    s1k:PATH, s1k_gemini:PATH                 s1K and s1K-1.1 (2501.19393)

Each `/FIELD=COLUMN` names the column of a field, which every row must then have: prompt, response,
thinking (a thought that is kept apart), id (of the trace), problem (id of the problem), teacher,
difficulty, source, split, license, language. A field that is not named is read from the column of
`COLUMNS`, if that column exists and no other field uses it.
"""

from typing import Any

import msgspec

from valley_jax import errors
from valley_jax import programs
from valley_jax import records
from valley_jax.data.sources import responses
from valley_jax.data.sources import rows

_FIELDS = 'prompt response thinking id problem teacher difficulty source split license language'
COLUMNS = {field: field for field in _FIELDS.split()} | {'problem': 'problem_id'}
MATH = {'prompt': 'question', 'thinking': 'trace', 'response': 'answer'}
_REQUIRED = ('prompt', 'response')
_IDS = ('id', 'problem')
_LABELS = ('teacher', 'difficulty', 'source', 'split', 'license')


def build_table_row_type(given: dict[str, str]) -> Any:
  """Returns the struct of a table's rows.

  Args:
    given: Columns by field; they are required.

  Raises:
    UserError: an unknown field, or a column that is named twice.
  """
  for name, column in given.items():
    if name not in COLUMNS or not column:
      raise errors.UserError(
          f'{name}={column}: want FIELD=COLUMN, with FIELD one of {", ".join(COLUMNS)}'
      )
  # A column that is given to one field is no longer the default of another.
  others = {
      field: column
      for field, column in COLUMNS.items()
      if field not in given and column not in given.values()
  }
  columns = others | given
  if len({*columns.values()}) < len(columns) or {*_REQUIRED} - {*columns}:
    raise errors.UserError(f'the columns {columns} are not one a field')
  # A given column is required, so that a mistyped name is noticed; a default one may be absent.
  fields: list[Any] = []
  for field in columns:
    if field in given or field in _REQUIRED:
      fields.append((field, str | int if field in _IDS else str))
    else:
      fields.append((field, str | int | None, None))
  return msgspec.defstruct('Row', fields, rename=columns, kw_only=True)


def build_table_trace(row: Any) -> records.Trace:
  """Returns the trace; without an id of its own, a hash of its texts is its id."""
  values = {field: getattr(row, field, None) for field in COLUMNS}
  texts = {field: '' if value is None else str(value) for field, value in values.items()}
  response = responses.join_thought(texts['thinking'], texts['response'])
  labels: dict[str, Any] = {field: texts[field] for field in _LABELS}
  language = responses.parse_language(texts['language'])
  return records.Trace(
      trace_id=texts['id'] or f'table-{responses.hash_texts(texts["prompt"], response)}',
      problem_id=texts['problem'] or responses.hash_texts(texts['prompt']),
      question=texts['prompt'],
      response=response,
      **labels,
      language=language or programs.find_declared_language(response),
  )


R1 = 'DeepSeek-R1'
GEMINI = 'Gemini-Flash-Thinking'


class S1kRow(msgspec.Struct):
  """The columns of s1K, which has `thinking_trajectories` and `attempt`, and of s1K-1.1."""

  question: str
  source_type: str | None = None
  thinking_trajectories: list[str] | None = None
  attempt: str | None = None
  deepseek_thinking_trajectory: str | None = None
  deepseek_attempt: str | None = None
  deepseek_grade: str | None = None  # Yes or No
  gemini_thinking_trajectory: str | None = None
  gemini_attempt: str | None = None
  gemini_grade: str | None = None


def _choose_s1k_texts(row: S1kRow, teacher: str) -> tuple[str | None, str | None, str]:
  """Returns the teacher's thought, its answer, and the grade of the answer."""
  if teacher == R1:
    thought, answer = row.deepseek_thinking_trajectory, row.deepseek_attempt
    return thought, answer, row.deepseek_grade or ''
  if row.thinking_trajectories:
    # A list, but of one trajectory a row.
    return '\n'.join(row.thinking_trajectories), row.attempt, ''
  thought, answer = row.gemini_thinking_trajectory, row.gemini_attempt
  return thought, answer, row.gemini_grade or ''


def build_s1k_trace(row: S1kRow, teacher: str = '') -> records.Trace:
  """Returns the trace; its id is a hash of question and response.

  Args:
    row: A row of s1K or s1K-1.1.
    teacher: Whose response to take. '' is R1 in s1K-1.1, and Gemini, the only one, in s1K.

  Raises:
    rows.UnusableRowError: this teacher wrote nothing.
  """
  has_r1 = row.deepseek_thinking_trajectory or row.deepseek_attempt
  teacher = teacher or (R1 if has_r1 else GEMINI)
  thought, answer, grade = _choose_s1k_texts(row, teacher)
  if not thought or not answer:
    raise rows.UnusableRowError(f'it has no thought or no answer of {teacher}')
  response = responses.join_thought(thought, answer)
  return records.Trace(
      trace_id=f's1k-{responses.hash_texts(row.question, response)}',
      problem_id=f's1k-{responses.hash_texts(row.question)}',
      question=row.question,
      response=response,
      teacher=teacher,
      source=row.source_type or 's1k',
      is_correct={'yes': True, 'no': False}.get(grade.strip().lower()),
  )
