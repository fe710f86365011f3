"""Words of a text, and hashes of every n of them that stand together.

The same numbers on every machine and under every Python: CRC-32 of a word's
UTF-8, joined by arithmetic modulo 2^64; nothing rests on Python's `hash`.
"""

from collections.abc import Sequence
import re
import unicodedata
import zlib

import numpy as np

# All of ASCII that is neither letter nor digit parts words.
_PARTS = bytes(c if c >= 128 or chr(c).isalnum() else ord(' ') for c in range(256))
# So do typographic signs: dashes, quotes, arrows, mathematics, full stops.
_SIGNS = re.compile('[\u00a0-\u00bf\u00d7\u00f7\u2000-\u2bff\u3000-\u303f]')
# Scripts without spaces: a character is a word.
_IDEOGRAMS = re.compile('([\u3040-\u30ff\u3400-\u9fff])')

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd.
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's finaliser.
_SHIFT = np.uint64(32)


def words(text: str) -> list[bytes]:
  """Returns the words in lower case, as UTF-8, without any punctuation."""
  if not text.isascii():
    text = unicodedata.normalize('NFKC', text)
    text = _IDEOGRAMS.sub(r' \1 ', _SIGNS.sub(' ', text))
  data = text.lower().encode('utf-8', 'surrogatepass')
  return data.translate(_PARTS).split()


def codes(tokens: Sequence[bytes]) -> np.ndarray:
  """Returns a number for each token, (len,) uint64 below 2^32."""
  return np.fromiter(map(zlib.crc32, tokens), np.uint64, len(tokens))


def hashes(tokens: Sequence[bytes], n: int) -> np.ndarray:
  """Returns the hash of every `n` tokens in a row, (len - n + 1,) uint64.

  Fewer tokens than `n` are one gram of all of them; none, no gram.

  Example: hashes([b'a', b'b', b'c'], 2) are two numbers, of ab and of bc.
  """
  numbers = codes(tokens)
  n = min(n, len(numbers))
  if not n:
    return numbers
  # Begun with n: a gram of two words is no gram of three.
  mixed = np.full(len(numbers) - n + 1, n, np.uint64)
  for i in range(n):
    mixed = mix(mixed, numbers[i : len(numbers) - n + 1 + i])
  return finish(mixed)


def mix(mixed: np.ndarray, numbers: np.ndarray) -> np.ndarray:
  """Takes one number more into each of the hashes; arrays of uint64."""
  return mixed * _FACTOR + numbers


def finish(mixed: np.ndarray) -> np.ndarray:
  """Spreads what was mixed over all 64 bits."""
  mixed = (mixed ^ (mixed >> _SHIFT)) * _MIX
  return mixed ^ (mixed >> _SHIFT)
