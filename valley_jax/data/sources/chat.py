"""Chat rows: `messages` with roles, as in Mixture-of-Thoughts and others.

    openr1           open-r1/Mixture-of-Thoughts, OpenR1-Math-220k
    codeforces_cots  open-r1/codeforces-cots, its configs `solutions...`
    chat             any other rows of this form; the teacher is the row's

The last turn is the teacher's, thinking inline (`<think>`) or apart, as
`reasoning_content` or `reasoning`. A system message says how the teacher was
asked, not what, and is left out. So is, of codeforces-cots, the prompt around
the statement, whose parts are columns.
"""

import msgspec

from valley_jax import programs
from valley_jax import records
from valley_jax.data.sources import questions
from valley_jax.data.sources import responses
from valley_jax.data.sources import rows


class Message(msgspec.Struct):
  """A turn; what a server calls its thought depends on the server."""

  role: str
  content: str | None = None
  reasoning_content: str | None = None
  reasoning: str | None = None


class Row(msgspec.Struct):
  """`messages`, and what the sets and others may say of them.

  Not read of Mixture-of-Thoughts: num_tokens; of OpenR1-Math-220k: problem,
  solution, answer, generations, and what became of each of them.
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


class CodeforcesRow(questions.Codeforces, kw_only=True):
  """The columns of codeforces-cots that a trace needs.

  Not read: the contest, limits, editorial, prompt, generation, finish_reason,
  api_metadata.
  """

  id: str  # Of the problem, which has up to five rows.
  messages: list[Message]


def _response(message: Message) -> str:
  thought = message.reasoning_content or message.reasoning
  content = message.content or ''
  if thought and thought.strip() and '</think>' in content:
    raise rows.UnusableError('the answer thinks both inline and apart')
  return responses.join(thought, content)


def _turns(messages: list[Message]) -> tuple[str, str]:
  """Returns question and response."""
  turns = [m for m in messages if m.role not in ('system', 'developer')]
  roles = [message.role for message in turns]
  if roles != ['user', 'assistant']:
    said = ', '.join(role[:20] for role in roles[:9]) or 'none'
    raise rows.UnusableError(f'its turns are {said}; want user, assistant')
  return turns[0].content or '', _response(turns[1])


def trace(row: Row, teacher: str = '') -> records.Trace:
  """Returns the trace; a hash of question and response is its id."""
  question, response = _turns(row.messages)
  problem = row.uuid or '' if row.id is None else str(row.id)
  language = responses.language_called(row.language)
  return records.Trace(
      trace_id=f'chat-{responses.identity(question, response)}',
      problem_id=problem or responses.identity(question),
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


def codeforces_trace(row: CodeforcesRow) -> records.Trace:
  """Returns the trace of a row of codeforces-cots, with such an id too.

  Raises:
    rows.UnusableError: it has no statement, or not the turns of a trace.
  """
  question = row.statement
  if not question:
    raise rows.UnusableError('its description is empty')
  _, response = _turns(row.messages)
  return records.Trace(
      trace_id=f'codeforces_cots-{responses.identity(question, response)}',
      problem_id=row.id,
      question=question,
      response=response,
      teacher='DeepSeek-R1',
      source='open-r1/codeforces',
      language=programs.find_declared_language(response),
  )
