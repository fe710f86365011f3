"""Rows with prompt, thought and response in columns (tables of any kind, s1K), and chats.

    table:PATH                                prompt, response
    table/prompt=problem/response=generation:PATH
    table/prompt=question/thinking=trace/response=answer:PATH
    math:PATH                                 question, trace, answer
    s1k:PATH, s1k_gemini:PATH                 s1K and s1K-1.1 (2501.19393)

Each `/FIELD=COLUMN` names the column of a field, which every row must then have: prompt, response,
thinking (a thought that is kept apart), id (of the trace), problem (id of the problem), teacher,
difficulty, source, split, license, language. A field that is not named is read from the column of
`COLUMNS`, if that column exists and no other field uses it.

Chats have `messages` with roles:

    openr1           open-r1/Mixture-of-Thoughts, OpenR1-Math-220k
    codeforces_cots  open-r1/codeforces-cots, its configs `solutions...`
    chat             any other rows of this form; the teacher is the row's

The last turn is the teacher's. Its thinking is inline (`<think>`) or apart, as
`reasoning_content` or `reasoning`. A system message is left out: it says how the teacher was
asked, not what. The same holds for the prompt that codeforces-cots puts around a statement, whose
parts are columns of their own.
"""

from typing import Any

import msgspec

from valley_jax import errors
from valley_jax import programs
from valley_jax import records
from valley_jax.data.sources import ocr
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
  response = rows.join_thought(texts['thinking'], texts['response'])
  labels: dict[str, Any] = {field: texts[field] for field in _LABELS}
  language = rows.parse_language(texts['language'])
  return records.Trace(
      trace_id=texts['id'] or f'table-{rows.hash_texts(texts["prompt"], response)}',
      problem_id=texts['problem'] or rows.hash_texts(texts['prompt']),
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
    teacher: Name of the teacher whose response is taken; '' is R1 in s1K-1.1 and Gemini, the only
      one, in s1K.

  Raises:
    rows.UnusableRowError: this teacher wrote nothing.
  """
  has_r1 = row.deepseek_thinking_trajectory or row.deepseek_attempt
  teacher = teacher or (R1 if has_r1 else GEMINI)
  thought, answer, grade = _choose_s1k_texts(row, teacher)
  if not thought or not answer:
    raise rows.UnusableRowError(f'it has no thought or no answer of {teacher}')
  response = rows.join_thought(thought, answer)
  return records.Trace(
      trace_id=f's1k-{rows.hash_texts(row.question, response)}',
      problem_id=f's1k-{rows.hash_texts(row.question)}',
      question=row.question,
      response=response,
      teacher=teacher,
      source=row.source_type or 's1k',
      is_correct={'yes': True, 'no': False}.get(grade.strip().lower()),
  )


class Message(msgspec.Struct):
  """A turn; the name of the field of its thought depends on the server."""

  role: str
  content: str | None = None
  reasoning_content: str | None = None
  reasoning: str | None = None


class ChatRow(msgspec.Struct):
  """`messages`, and the optional columns of the sets.

  Columns that are not read: `num_tokens` of Mixture-of-Thoughts; `problem`, `solution`, `answer`
  and `generations` of OpenR1-Math-220k with their verdicts.
  """

  messages: list[Message]
  id: str | int | None = None
  uuid: str | None = None
  source: str | None = None
  license: str | None = None
  split: str | None = None
  difficulty: str | None = None
  language: str | None = None
  teacher: str | None = None
  model: str | None = None
  is_correct: bool | None = None


class CodeforcesCotsRow(ocr.CodeforcesStatement, kw_only=True):
  """The columns of codeforces-cots that a trace needs."""

  id: str  # Id of the problem, which has up to five rows.
  messages: list[Message]


def _join_response(message: Message) -> str:
  thought = message.reasoning_content or message.reasoning
  content = message.content or ''
  if thought and thought.strip() and '</think>' in content:
    raise rows.UnusableRowError('the answer thinks both inline and apart')
  return rows.join_thought(thought, content)


def _split_turns(messages: list[Message]) -> tuple[str, str]:
  """Returns question and response."""
  turns = [m for m in messages if m.role not in ('system', 'developer')]
  roles = [message.role for message in turns]
  if roles != ['user', 'assistant']:
    shown = ', '.join(role[:20] for role in roles[:9]) or 'none'
    raise rows.UnusableRowError(f'its turns are {shown}; want user, assistant')
  return turns[0].content or '', _join_response(turns[1])


def build_chat_trace(row: ChatRow, teacher: str = '') -> records.Trace:
  """Returns the trace; its id is a hash of question and response."""
  question, response = _split_turns(row.messages)
  # OpenR1-Math has a uuid for each problem, other sets an id, Mixture-of-Thoughts neither.
  problem = row.uuid or '' if row.id is None else str(row.id)
  language = rows.parse_language(row.language)
  return records.Trace(
      trace_id=f'chat-{rows.hash_texts(question, response)}',
      problem_id=problem or rows.hash_texts(question),
      question=question,
      response=response,
      teacher=row.teacher or row.model or teacher,
      difficulty=row.difficulty or '',
      source=row.source or '',
      is_correct=row.is_correct,
      split=row.split or '',
      license=row.license or '',
      language=language or programs.find_declared_language(response),
  )


def build_codeforces_cots_trace(row: CodeforcesCotsRow) -> records.Trace:
  """Returns the trace; its id is a hash of question and response.

  Raises:
    rows.UnusableRowError: it has no statement, or not the turns of a trace.
  """
  question = row.statement
  if not question:
    raise rows.UnusableRowError('its description is empty')
  _, response = _split_turns(row.messages)  # The user's turn is the statement in a prompt.
  return records.Trace(
      trace_id=f'codeforces_cots-{rows.hash_texts(question, response)}',
      problem_id=row.id,
      question=question,
      response=response,
      teacher='DeepSeek-R1',
      source='open-r1/codeforces',
      language=programs.find_declared_language(response),
  )
