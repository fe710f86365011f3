"""s1K and s1K-1.1 (2501.19393): a thousand questions, mostly of mathematics."""

import msgspec

from valley_jax import records
from valley_jax.data.sources import responses
from valley_jax.data.sources import rows

R1 = 'DeepSeek-R1'
GEMINI = 'Gemini-Flash-Thinking'
_GRADES = {'yes': True, 'no': False}


class Row(msgspec.Struct):
  """The columns of both; s1K has `thinking_trajectories` and `attempt`.

  Not read: solution, cot, metadata and the graders' reasons.
  """

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


def _written(row: Row, teacher: str) -> tuple[str | None, str | None, str]:
  """Returns the teacher's thought, its answer and whether it is right."""
  if teacher == R1:
    thought, answer = row.deepseek_thinking_trajectory, row.deepseek_attempt
    return thought, answer, row.deepseek_grade or ''
  if row.thinking_trajectories:
    # Its rows have one trajectory each, which a list holds.
    return '\n'.join(row.thinking_trajectories), row.attempt, ''
  thought, answer = row.gemini_thinking_trajectory, row.gemini_attempt
  return thought, answer, row.gemini_grade or ''


def trace(row: Row, teacher: str = '') -> records.Trace:
  """Returns the trace; a hash of question and response is its id.

  Args:
    row: Of s1K or s1K-1.1.
    teacher: Whose; '' is R1 in s1K-1.1, and Gemini, the only one, in s1K.

  Raises:
    rows.UnusableError: this teacher wrote nothing.
  """
  has_r1 = row.deepseek_thinking_trajectory or row.deepseek_attempt
  teacher = teacher or (R1 if has_r1 else GEMINI)
  thought, answer, grade = _written(row, teacher)
  if not thought or not answer:
    raise rows.UnusableError(f'it has no thought or no answer of {teacher}')
  response = responses.join(thought, answer)
  return records.Trace(
      trace_id=f's1k-{responses.identity(row.question, response)}',
      problem_id=f's1k-{responses.identity(row.question)}',
      question=row.question,
      response=response,
      teacher=teacher,
      source=row.source_type or 's1k',
      is_correct=_GRADES.get(grade.strip().lower()),
  )
