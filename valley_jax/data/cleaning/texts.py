"""What makes two texts the same: words, their n-grams, and hashes of them.

There are four notions, from strict to loose, and each is needed:

    hash_text        equal but for white space; case and signs count. Exact duplicates: `x < y` and
                     `x > y` are two answers.
    split_words      words without case and signs. Near duplicates of responses, which are long: it
                     takes a twentieth of the time of `parse_statement`.
    parse_statement  words whatever the form of the text: HTML, LaTeX and Markdown are skipped, and
                     letters and digits are parted. Questions, which every data set writes in
                     another form.
    mask_variables   the same with every variable equal. Questions whose variables were renamed.

Labels match a trace to a problem (`data/subsets/labels.py`) by case-folded words *with* signs: a
false match there would judge a program by the tests of another problem.

Hashes are the same on every machine and under every Python: CRC-32 of a word's UTF-8, joined by
arithmetic modulo 2^64. Nothing depends on Python's `hash`.
"""

from collections.abc import Sequence
import hashlib
import itertools
import re
from typing import NamedTuple
import unicodedata
import zlib

import numpy as np

# All of ASCII that is neither letter nor digit parts words.
_SEPARATORS = bytes(c if c >= 128 or chr(c).isalnum() else ord(' ') for c in range(256))
# Typographic signs separate words, too: dashes, quotes, arrows, mathematics, full stops.
_SIGNS = re.compile('[\u00a0-\u00bf\u00d7\u00f7\u2000-\u2bff\u3000-\u303f]')
# Scripts without spaces: a character is a word.
_IDEOGRAMS = '\u3040-\u30ff\u3400-\u9fff'
_ONE_IDEOGRAM = re.compile(f'([{_IDEOGRAMS}])')

_TAGS = (
    'a|b|br|center|code|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|span|strong'
    '|sub|sup|table|tbody|td|th|tr|tt|u|ul|var'
)
# First what is skipped: addresses, tags, entities, LaTeX commands. Then, as group 1, words: a
# character of a script without spaces, a run of digits, a run of other letters.
_STATEMENT_TOKEN = re.compile(
    rf"""https?://\S+
    | </?(?:{_TAGS})(?:\s[^<>]*)?/?>
    | &(?:[a-zA-Z]{{2,8}}|\#\d{{1,6}});
    | \\[a-zA-Z]+
    | ([{_IDEOGRAMS}] | \d+ | [^\W\d_{_IDEOGRAMS}]+)""",
    re.VERBOSE | re.IGNORECASE,
)
_VARIABLE = b'_'  # Stands for any single letter or number.

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd.
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's finaliser.
_SHIFT = np.uint64(32)


def hash_text(*parts: str) -> int:
  """Returns a hash of 64 bits; white space is folded, case is not."""
  digest = hashlib.blake2b(digest_size=8)
  for part in parts:
    folded = ' '.join(unicodedata.normalize('NFKC', part).split())
    # NUL ends each part, so that ('ab', 'c') and ('a', 'bc') differ.
    digest.update(folded.encode('utf-8', 'surrogatepass') + b'\0')
  return int.from_bytes(digest.digest(), 'little')


def split_words(text: str) -> list[bytes]:
  """Returns the words in lower case, as UTF-8, without any punctuation."""
  if not text.isascii():  # Most responses are ASCII, and this takes most of the time.
    text = unicodedata.normalize('NFKC', text)
    text = _ONE_IDEOGRAM.sub(r' \1 ', _SIGNS.sub(' ', text))
  data = text.lower().encode('utf-8', 'surrogatepass')
  return data.translate(_SEPARATORS).split()


class Statement(NamedTuple):
  """A text and its words."""

  text: str  # In the form NFKC.
  words: list[bytes]  # UTF-8, lower case; a lone surrogate is '?'.
  places: Sequence[int]  # Index of each word among all words of the text.

  def cut_passage(self, start: int, end: int, max_chars: int = 1000) -> str:
    """Returns the text of words `start` to `end`, cut to `max_chars` characters."""
    if start >= end:
      return ''
    spans = [m.span(1) for m in _STATEMENT_TOKEN.finditer(self.text) if m[1] is not None]
    first, last = self.places[start], self.places[end - 1]
    text = self.text[spans[first][0] : spans[last][1]]
    return text if len(text) <= max_chars else text[: max_chars - 1] + '…'

  def select_words(self, kept: Sequence[bool]) -> 'Statement':
    """Returns the statement with only those words for which `kept` is true."""
    return Statement(
        self.text,
        list(itertools.compress(self.words, kept)),
        list(itertools.compress(self.places, kept)),
    )


def parse_statement(text: str) -> Statement:
  """Splits a statement into words."""
  text = unicodedata.normalize('NFKC', text)
  # What is skipped appears as ''. Words have no white space inside.
  joined = '\n'.join(filter(None, _STATEMENT_TOKEN.findall(text)))
  words = joined.lower().encode('utf-8', 'replace').split(b'\n') if joined else []
  return Statement(text, words, range(len(words)))


def mask_variables(statement: Statement) -> Statement:
  """Returns the statement with one word for each run of single letters and numbers."""
  words = [_VARIABLE if len(word) == 1 or word.isdigit() else word for word in statement.words]
  kept = [word != _VARIABLE or before != _VARIABLE for before, word in zip([b'', *words], words)]
  return Statement(statement.text, words, statement.places).select_words(kept)


def hash_words(words: Sequence[bytes]) -> np.ndarray:
  """Returns a number for each word, (len,) uint64 below 2^32."""
  return np.fromiter(map(zlib.crc32, words), np.uint64, len(words))


def hash_ngrams(words: Sequence[bytes], n: int) -> np.ndarray:
  """Returns the hash of every `n` words in a row, (len - n + 1,) uint64.

  Fewer words than `n` are one gram of all of them; no words, no gram.

  Example: hash_ngrams([b'a', b'b', b'c'], 2) returns two numbers, of ab and of bc.
  """
  numbers = hash_words(words)
  n = min(n, len(numbers))
  if not n:
    return numbers
  # It starts with n, so that a gram of two words never equals one of three.
  mixed = np.full(len(numbers) - n + 1, n, np.uint64)
  for i in range(n):
    mixed = mix_hashes(mixed, numbers[i : len(numbers) - n + 1 + i])
  return finish_hashes(mixed)


def mix_hashes(mixed: np.ndarray, numbers: np.ndarray) -> np.ndarray:
  """Adds one number to each of the hashes; arrays of uint64."""
  return mixed * _FACTOR + numbers


def finish_hashes(mixed: np.ndarray) -> np.ndarray:
  """Spreads mixed hashes over all 64 bits."""
  mixed = (mixed ^ (mixed >> _SHIFT)) * _MIX
  return mixed ^ (mixed >> _SHIFT)
