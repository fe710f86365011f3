"""The words of a statement, whatever its form, and where they stand."""

from collections.abc import Sequence
import itertools
import re
from typing import NamedTuple
import unicodedata

_TAGS = (
    'a|b|br|center|code|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|span|strong'
    '|sub|sup|table|tbody|td|th|tr|tt|u|ul|var'
)
_IDEOGRAMS = '\u3040-\u30ff\u3400-\u9fff'
# What is passed over, then words: a character of a script without spaces, a
# run of digits, a run of other letters.
_TOKEN = re.compile(
    rf"""https?://\S+
    | </?(?:{_TAGS})(?:\s[^<>]*)?/?>
    | &(?:[a-zA-Z]{{2,8}}|\#\d{{1,6}});
    | \\[a-zA-Z]+
    | ([{_IDEOGRAMS}] | \d+ | [^\W\d_{_IDEOGRAMS}]+)""",
    re.VERBOSE | re.IGNORECASE,
)
_VARIABLE = b'_'  # Any single letter or number.


class Statement(NamedTuple):
  """A text and its words, one by one."""

  text: str  # In the form NFKC.
  words: list[bytes]  # UTF-8, lower case; a lone surrogate is '?'.
  places: Sequence[int]  # Of each word, among all that `read` finds.

  def passage(self, start: int, end: int, most: int = 1000) -> str:
    """Returns the text of words `start` to `end`, cut to `most` characters."""
    if start >= end:
      return ''
    spans = [m.span(1) for m in _TOKEN.finditer(self.text) if m[1] is not None]
    first, last = self.places[start], self.places[end - 1]
    text = self.text[spans[first][0] : spans[last][1]]
    return text if len(text) <= most else text[: most - 1] + '…'

  def only(self, kept: Sequence[bool]) -> 'Statement':
    """Returns it with those of its words for which `kept` is true."""
    return Statement(
        self.text,
        list(itertools.compress(self.words, kept)),
        list(itertools.compress(self.places, kept)),
    )


def read(text: str) -> Statement:
  """Splits a statement into words."""
  text = unicodedata.normalize('NFKC', text)
  # What is passed over is found as ''. Words have no white space inside.
  found = '\n'.join(filter(None, _TOKEN.findall(text)))
  words = found.lower().encode('utf-8', 'replace').split(b'\n')
  words = words if found else []
  return Statement(text, words, range(len(words)))


def masked(statement: Statement) -> Statement:
  """Puts one word for each run of variables: single letters and numbers."""
  words = [_VARIABLE if len(word) == 1 or word.isdigit() else word for word in statement.words]
  kept = [word != _VARIABLE or before != _VARIABLE for before, word in zip([b'', *words], words)]
  return Statement(statement.text, words, statement.places).only(kept)
