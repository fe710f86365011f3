"""Chat rows: `messages` with roles, as in Mixture-of-Thoughts and others.

    openr1           open-r1/Mixture-of-Thoughts, OpenR1-Math-220k
    codeforces_cots  open-r1/codeforces-cots, its configs `solutions...`
    chat             any other rows of this form; the teacher is the row's

The last turn is the teacher's. Its thinking is inline (`<think>`) or apart, as
`reasoning_content` or `reasoning`. A system message is left out: it says how the teacher was
asked, not what. So is the prompt that codeforces-cots puts around a statement, whose parts are
columns of their own.
"""

import msgspec

from valley_jax import programs
from valley_jax import records
from valley_jax.data.sources import ocr
from valley_jax.data.sources import responses
from valley_jax.data.sources import rows


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

  id: str  # Of the problem, which has up to five rows.
  messages: list[Message]


def _join_response(message: Message) -> str:
  thought = message.reasoning_content or message.reasoning
  content = message.content or ''
  if thought and thought.strip() and '</think>' in content:
    raise rows.UnusableRowError('the answer thinks both inline and apart')
  return responses.join_thought(thought, content)


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
  language = responses.parse_language(row.language)
  return records.Trace(
      trace_id=f'chat-{responses.hash_texts(question, response)}',
      problem_id=problem or responses.hash_texts(question),
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
      trace_id=f'codeforces_cots-{responses.hash_texts(question, response)}',
      problem_id=row.id,
      question=question,
      response=response,
      teacher='DeepSeek-R1',
      source='open-r1/codeforces',
      language=programs.find_declared_language(response),
  )
