"""Extracts the program from a response: one rule for students and for teachers.

A trace is filtered and labelled by the same program that a student's completion is scored by, so
this module is below `scoring` and `data`, and imports only records.
"""

from collections.abc import Iterator
import dataclasses
import re

from valley_jax import records

_FENCE = re.compile(r'^ {0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)$', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class _CodeBlock:
  declared: str  # The first word after the opening fence, in lower case.
  source: str | None  # None: the block never closes.


def split_thinking(text: str) -> tuple[str, str | None]:
  """Splits a response into thought and answer; the tags are in neither.

  The answer is what follows the last `</think>`, the whole text if there is no thinking, and None
  if thinking never ends.
  """
  thought, end, answer = text.rpartition('</think>')
  if '<think>' in answer:
    return text.partition('<think>')[2], None
  return (thought.removeprefix('<think>'), answer) if end else ('', text)


def has_code_fence(text: str) -> bool:
  """Returns whether a code block begins or ends in a text."""
  return _FENCE.search(text.replace('\r\n', '\n')) is not None


def _language_family(language: str) -> str:
  # C++ blocks seldom declare which standard they are in.
  return 'cpp' if language.startswith('cpp') else language


def _iterate_code_blocks(text: str) -> Iterator[_CodeBlock]:
  """Yields the code blocks of the answer in `text`, of which the last may be unclosed."""
  _, answer = split_thinking(text)
  opening: re.Match[str] | None = None
  declared = ''
  for fence in _FENCE.finditer((answer or '').replace('\r\n', '\n')):
    mark, info = fence.group(1), fence.group(2).strip()
    if opening is None:
      opening = fence
      declared = info.split()[0].lower() if info else ''
    # As in CommonMark: a block ends at a bare fence that is at least as long as the opening one.
    elif not info and mark.startswith(opening.group(1)):
      yield _CodeBlock(declared, fence.string[opening.end() + 1 : fence.start()])
      opening = None
  if opening is not None:
    yield _CodeBlock(declared, None)


def extract_program(text: str, language: str = 'python') -> str | None:
  """Returns the last code block of the answer in a language, or None without one.

  Thinking that never ends, or a block that never closes (the completion was cut off), leaves no
  program. Blocks that declare another language (sample output, shell) are ignored; blocks that
  declare none count.

  Example:
    >>> extract_program('<think>...</think>Here:\\n```python\\nprint(1)\\n```')
    'print(1)\\n'
  """
  program = None
  family = _language_family(records.canonical_language(language))
  for block in _iterate_code_blocks(text):
    if block.source is None:
      return None
    declared = records.canonical_language(block.declared)
    if not declared or _language_family(declared) == family:
      program = block.source
  return program


def find_declared_language(text: str) -> str:
  """Returns the last known language that a code block of the answer declares, or ''.

  Example:
    >>> find_declared_language('<think>```python</think>```cpp\\nint i;\\n```')
    'cpp17'
  """
  declared = [records.canonical_language(block.declared) for block in _iterate_code_blocks(text)]
  known = [language for language in declared if language in records.LANGUAGES]
  return known[-1] if known else ''


def extract_from_trace(trace: records.Trace) -> tuple[str, str | None]:
  """Returns (language, program) of a trace; the program is None if the trace has none.

  The language is the trace's own, else what its code blocks declare, else Python.
  """
  language = records.canonical_language(trace.language) or find_declared_language(trace.response)
  language = language or 'python'
  return language, extract_program(trace.response, language)


def make_submission(row: records.Submission | records.Completion) -> records.Submission | None:
  """Returns the program of a sample, or None for a completion without one."""
  if isinstance(row, records.Submission):
    return row
  source = extract_program(row.text)
  if source is None:
    return None
  return records.Submission(problem_id=row.problem_id, sample_index=row.sample_index, source=source)
