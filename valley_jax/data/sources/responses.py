"""What is the same in responses of all sources: thought, language, identity."""

import hashlib

from valley_jax import records


def join(thought: str | None, answer: str | None) -> str:
  """Returns a thought and an answer that a source keeps apart, as one text."""
  thought, answer = (thought or '').strip(), (answer or '').strip()
  return f'<think>\n{thought}\n</think>\n\n{answer}' if thought else answer


def language_called(name: str | None) -> str:
  """Returns the language of a name, as submissions have it; '' if unknown."""
  language = records.canonical_language(name or '')
  return language if language in records.LANGUAGES else ''


def identity(*texts: str) -> str:
  """Returns 16 hex digits that equal texts have in common."""
  return hashlib.sha256('\0'.join(texts).encode()).hexdigest()[:16]
