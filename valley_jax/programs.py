"""Takes the program out of an answer: one rule for students and for teachers.

What a student is scored by is what a trace is filtered and labelled by; so this
lies below `scoring` and `data`, and imports records only.
"""

from collections.abc import Iterator
import dataclasses
import re

from valley_jax import records

_FENCE = re.compile(r'^ {0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)$', re.MULTILINE)
LANGUAGES = ('python', 'c', 'cpp17', 'cpp20')  # Of submissions.
# The same, by the words that blocks of theirs begin with.
_LANGUAGES = {
    'py': 'python', 'python': 'python', 'python3': 'python',
    'pypy3': 'python', 'c': 'c',
    'cpp': 'cpp17', 'c++': 'cpp17', 'cc': 'cpp17', 'cxx': 'cpp17',
    'cpp17': 'cpp17', 'c++17': 'cpp17', 'cpp20': 'cpp20', 'c++20': 'cpp20',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Block:
  declared: str  # The first word behind the opening fence, in small letters.
  source: str | None  # None: it never closes.


def split(text: str) -> tuple[str, str | None]:
  """Returns thought and answer; tags are in neither.

  The answer is what follows the last `</think>`, or the whole text if it never
  thinks; None if thinking never ends.
  """
  thought, end, answer = text.rpartition('</think>')
  if '<think>' in answer:
    return text.partition('<think>')[2], None
  return (thought.removeprefix('<think>'), answer) if end else ('', text)


def has_fence(text: str) -> bool:
  """Says whether a block of code begins or ends in a text."""
  return _FENCE.search(text.replace('\r\n', '\n')) is not None


def canonical(language: str) -> str:
  """Returns a language by the name that submissions have it under."""
  return _LANGUAGES.get(language.lower(), language.lower())


def _family(language: str) -> str:
  # Blocks of C++ seldom say which.
  return 'cpp' if language.startswith('cpp') else language


def _blocks(answer: str) -> Iterator[_Block]:
  opening: re.Match[str] | None = None
  declared = ''
  for fence in _FENCE.finditer(answer.replace('\r\n', '\n')):
    mark, info = fence.group(1), fence.group(2).strip()
    if opening is None:
      opening = fence
      declared = info.split()[0].lower() if info else ''
    elif not info and mark.startswith(opening.group(1)):
      yield _Block(declared, fence.string[opening.end() + 1 : fence.start()])
      opening = None
  if opening is not None:
    yield _Block(declared, None)


def extract(text: str, language: str = 'python') -> str | None:
  """Returns the last block of the answer in a language; None if none is.

  Thinking that never ends, or a block that never closes (the completion was cut
  off), leaves no program. Blocks of another declared language (sample output,
  shell) are passed over; blocks that declare none are not.

  Example:
    >>> extract('<think>...</think>Here:\\n```python\\nprint(1)\\n```')
    'print(1)\\n'
  """
  _, answer = split(text)
  program = None
  family = _family(canonical(language))
  for block in _blocks(answer or ''):
    if block.source is None:
      return None
    if not block.declared or _family(canonical(block.declared)) == family:
      program = block.source
  return program


def declared_language(text: str) -> str:
  """Returns the language that the answer's blocks declare last; '': none.

  Example:
    >>> declared_language('<think>```python</think>```cpp\\nint i;\\n```')
    'cpp17'
  """
  _, answer = split(text)
  declared = [block.declared for block in _blocks(answer or '')]
  known = [_LANGUAGES[word] for word in declared if word in _LANGUAGES]
  return known[-1] if known else ''


def language_of(text: str) -> str:
  """Returns the language that the answer's blocks declare last; else Python."""
  return declared_language(text) or 'python'


def of_trace(trace: records.Trace) -> tuple[str, str | None]:
  """Returns language and program of a trace; None: it has no program.

  A trace that does not name its language is in the one that its blocks declare.
  """
  language = canonical(trace.language) or language_of(trace.response)
  return language, extract(trace.response, language)


def submission_of(row: records.Submission | records.Completion) -> records.Submission | None:
  """Returns the program of a sample; None if there is none in a completion."""
  if isinstance(row, records.Submission):
    return row
  source = extract(row.text)
  if source is None:
    return None
  return records.Submission(problem_id=row.problem_id, sample_index=row.sample_index, source=source)
