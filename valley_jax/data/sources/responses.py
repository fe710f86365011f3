"""What is the same in responses of all sources: thought, language, identity."""

import hashlib
import re

_FENCE = re.compile(r'^[ \t]*```[ \t]*([\w+]+)', re.MULTILINE)
_LANGUAGES = {
    'python': 'python',
    'python3': 'python',
    'py': 'python',
    'pypy3': 'python',
    'cpp': 'cpp17',
    'c++': 'cpp17',
    'cc': 'cpp17',
    'cpp17': 'cpp17',
    'c++17': 'cpp17',
    'cpp20': 'cpp17',
    'c++20': 'cpp17',
}


def join(thought: str | None, answer: str | None) -> str:
  """Returns a thought and an answer that a source keeps apart, as one text."""
  thought, answer = (thought or '').strip(), (answer or '').strip()
  return f'<think>\n{thought}\n</think>\n\n{answer}' if thought else answer


def language(text: str) -> str:
  """Returns what the last code block of the answer is said to be, or ''.

  Example:
    >>> language('<think>```python</think>```cpp\\nint main() {}\\n```')
    'cpp17'
  """
  answer = text.rpartition('</think>')[2]
  named = [match[1] for match in _FENCE.finditer(answer)]
  return language_called(named[-1]) if named else ''


def language_called(name: str | None) -> str:
  """Returns the language of a name, as submissions have it; '' if unknown."""
  return _LANGUAGES.get((name or '').lower(), '')


def identity(*texts: str) -> str:
  """Returns 16 hex digits that equal texts have in common."""
  return hashlib.sha256('\0'.join(texts).encode()).hexdigest()[:16]
