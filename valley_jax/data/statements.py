"""The words of a statement, whatever its form, and where they stand."""

import itertools
import re
from typing import NamedTuple
import unicodedata

_TAGS = (
    'a|b|br|center|code|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|span|strong'
    '|sub|sup|table|tbody|td|th|tr|tt|u|ul|var'
)
# What is passed over, then words: a character of a script without spaces, a
# run of digits, a run of other letters.
_TOKEN = re.compile(
    rf"""https?://\S+
    | </?(?:{_TAGS})(?:\s[^<>]*)?/?>
    | &(?:[a-zA-Z]{{2,8}}|\#\d{{1,6}});
    | \\[a-zA-Z]+
    | ([\u3040-\u30ff\u3400-\u9fff] | \d+ | [^\W\d_]+)""",
    re.VERBOSE | re.IGNORECASE,
)
_VARIABLE = b'_'  # Any single letter or number.


class Statement(NamedTuple):
  """A text and its words, one by one."""

  text: str  # In the form NFKC.
  words: list[bytes]  # UTF-8, lower case.
  spans: list[tuple[int, int]]  # Where in `text` they stand.

  def passage(self, start: int, end: int, most: int = 1000) -> str:
    """Returns the text of words `start` to `end`, cut to `most` characters."""
    if start >= end:
      return ''
    text = self.text[self.spans[start][0] : self.spans[end - 1][1]]
    return text if len(text) <= most else text[: most - 1] + '…'

  def only(self, kept: list[bool]) -> 'Statement':
    """Returns it with those of its words for which `kept` is true."""
    return Statement(
        self.text,
        list(itertools.compress(self.words, kept)),
        list(itertools.compress(self.spans, kept)),
    )


def read(text: str) -> Statement:
  """Splits a statement into words; lone surrogates become '?'."""
  text = unicodedata.normalize('NFKC', text)
  words, spans = [], []
  for match in _TOKEN.finditer(text):
    if match[1] is not None:
      words.append(match[1].lower().encode('utf-8', 'replace'))
      spans.append(match.span(1))
  return Statement(text, words, spans)


def masked(statement: Statement) -> Statement:
  """Puts one word for each run of variables: single letters and numbers."""
  words, spans = [], []
  for word, (start, end) in zip(statement.words, statement.spans):
    is_variable = word.isdigit() or (len(word) == 1 and word.isalpha())
    if is_variable and words and words[-1] == _VARIABLE:
      spans[-1] = spans[-1][0], end
    else:
      words.append(_VARIABLE if is_variable else word)
      spans.append((start, end))
  return Statement(statement.text, words, spans)
