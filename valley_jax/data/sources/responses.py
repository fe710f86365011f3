"""What the traces of all sources share: how a response is put together, its language, its id."""

import hashlib

from valley_jax import records


def join_thought(thought: str | None, answer: str | None) -> str:
  """Returns a thought and an answer, which a source keeps apart, as one response."""
  thought, answer = (thought or '').strip(), (answer or '').strip()
  return f'<think>\n{thought}\n</think>\n\n{answer}' if thought else answer


def parse_language(name: str | None) -> str:
  """Returns the language under the name that submissions use; '' if it is unknown."""
  language = records.canonical_language(name or '')
  return language if language in records.LANGUAGES else ''


def hash_texts(*texts: str) -> str:
  """Returns 16 hex digits that identify the texts.

  Every byte counts, since these are ids. Where *similar* texts are one, see cleaning/texts.py.
  """
  return hashlib.sha256('\0'.join(texts).encode()).hexdigest()[:16]
