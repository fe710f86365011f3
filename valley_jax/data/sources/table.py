"""Plain tables: a column of prompts and one of responses, named as you like.

    table:PATH                                prompt, response
    table/prompt=problem/response=generation:PATH
    table/prompt=question/thinking=trace/response=answer:PATH
    math:PATH                                 question, trace, answer

Each `/FIELD=COLUMN` names the column of a field, which every row must then
have: prompt, response, thinking (a thought that is kept apart), id (of the
trace), problem (id of the problem), teacher, difficulty, source, split,
license, language. A field that is not named is read from the column of
`COLUMNS`, if it is there and no other field's.
"""

from typing import Any

import msgspec

from valley_jax import errors
from valley_jax import programs
from valley_jax import records
from valley_jax.data.sources import responses

COLUMNS = {
    'prompt': 'prompt',
    'response': 'response',
    'thinking': 'thinking',
    'id': 'id',
    'problem': 'problem_id',
    'teacher': 'teacher',
    'difficulty': 'difficulty',
    'source': 'source',
    'split': 'split',
    'license': 'license',
    'language': 'language',
}
MATH = {'prompt': 'question', 'thinking': 'trace', 'response': 'answer'}
_REQUIRED = ('prompt', 'response')
_IDS = ('id', 'problem')


def row_type(given: dict[str, str]) -> Any:
  """Returns the struct of a table's rows.

  Args:
    given: Columns by field; those are required.

  Raises:
    ValueError: an unknown field, or a column that is named twice.
  """
  for name, column in given.items():
    if name not in COLUMNS or not column:
      raise errors.UserError(
          f'{name}={column}: want FIELD=COLUMN, with FIELD one of' f' {", ".join(COLUMNS)}'
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
  fields: list[Any] = []
  for field in columns:
    if field in given or field in _REQUIRED:
      fields.append((field, str | int if field in _IDS else str))
    else:
      fields.append((field, str | int | None, None))
  return msgspec.defstruct('Row', fields, rename=columns, kw_only=True)


def trace(row: Any) -> records.Trace:
  """Returns the trace; without an id it has a hash of its texts."""
  given = {field: getattr(row, field, None) for field in COLUMNS}
  text = {k: '' if v is None else str(v) for k, v in given.items()}
  response = responses.join(text['thinking'], text['response'])
  identity = responses.identity(text['prompt'], response)
  language = responses.language_called(text['language'])
  return records.Trace(
      trace_id=text['id'] or f'table-{identity}',
      problem_id=text['problem'] or responses.identity(text['prompt']),
      question=text['prompt'],
      response=response,
      teacher=text['teacher'],
      difficulty=text['difficulty'],
      source=text['source'],
      split=text['split'],
      license=text['license'],
      language=language or programs.find_declared_language(response),
  )
