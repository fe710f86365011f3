"""Takes the program out of a completion."""

import re

from valley_jax import records

_LANGUAGES = ('', 'py', 'python', 'python3')
_FENCE = re.compile(r'^ {0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)$', re.MULTILINE)


def extract(text: str) -> str | None:
  """Returns the last Python block of the answer; None if there is none.

  The answer is what follows the last `</think>`, or the whole text if it
  never thinks. Thinking that never ends, or a block that never closes (the
  completion was cut off), leaves no program. Blocks of another declared
  language (sample output, shell) are passed over.

  Example:
    >>> extract('<think>...</think>Here:\\n```python\\nprint(1)\\n```')
    'print(1)\\n'
  """
  thought, end, answer = text.rpartition('</think>')
  if not end:
    answer = text
  if '<think>' in answer:
    return None
  program = None
  opening: re.Match[str] | None = None
  for fence in _FENCE.finditer(answer.replace('\r\n', '\n')):
    mark, info = fence.group(1), fence.group(2).strip()
    if opening is None:
      opening = fence
    elif not info and mark.startswith(opening.group(1)):
      words = opening.group(2).split()
      language = words[0].lower() if words else ''
      if language in _LANGUAGES:
        program = fence.string[opening.end() + 1 : fence.start()]
      opening = None
  return None if opening is not None else program


def submission_of(
    row: records.Submission | records.Completion,
) -> records.Submission | None:
  """Returns the program of a sample; None if there is none in a completion."""
  if isinstance(row, records.Submission):
    return row
  source = extract(row.text)
  if source is None:
    return None
  return records.Submission(
      problem_id=row.problem_id, sample_index=row.sample_index, source=source
  )
