"""Sketches of texts, and an index that finds near-equal texts by them.

MinHash (Broder 1997, by datasketch) with bands (Leskovec, Rajaraman and Ullman,
*Mining of Massive Datasets*, ch. 3). Two texts of Jaccard similarity J, over
their runs of so many words, are compared if one of `bands` bands of r =
num_hashes / bands hashes agrees, which happens with probability
1 - (1 - J^r)^bands. With 16 bands of 8 hashes:

    J            .5     .7     .8     .9     .95
    probability  .061   .614   .947   1.00   1.00

What is compared is then held against the threshold by the share of equal
hashes, of which the low byte is kept: for 128 hashes a standard error of .035
at J = .8. The texts themselves are not kept.
"""

import array
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import hashlib
from typing import NamedTuple
import unicodedata

import datasketch
import numpy as np

from valley_jax.data.cleaning import ngrams

_MOST_ROWS = 64  # Under one key; the first ones of the sources.
_FULLEST = 0.7  # Of the slots of a table.
_NEAREST = 0.999  # Of texts that are not equal.
_CHUNK = 512  # N-grams at a time: what 128 permutations make of them fits L2.


def digest(*parts: str) -> int:
  """Returns 64 bits of the texts: white space is folded, case is not."""
  found = hashlib.blake2b(digest_size=8)
  for part in parts:
    folded = ' '.join(unicodedata.normalize('NFKC', part).split())
    found.update(folded.encode('utf-8', 'surrogatepass') + b'\0')
  return int.from_bytes(found.digest(), 'little')


class Sketch(NamedTuple):
  """What is compared of a text."""

  key: int  # `digest` of the text.
  hashes_H: np.ndarray | None  # uint32; None: only compared whole.
  is_short: bool  # Too few words to be known again by themselves.


class Sketcher:
  """Makes sketches of texts; a pure function with parameters, to be pickled.

  Args:
    split: The words of a text, without what shall not count.
    num_words: Of an n-gram.
    min_words: Texts of fewer words get no hashes: they are only compared whole.
    num_hashes: Of a sketch; 0: no text gets any.
    seed: Of the hashes.
  """

  def __init__(
      self,
      split: Callable[[str], Sequence[bytes]],
      num_words: int,
      min_words: int,
      num_hashes: int,
      seed: int,
  ):
    self._split = split
    self._num_words, self._min_words = num_words, min_words
    self._seed, self._num_hashes = seed, num_hashes
    if num_hashes:
      self._permutations = datasketch.MinHash(num_hashes, seed=seed, scheme='affine32').permutations

  def __call__(self, text: str) -> Sketch:
    key = digest(text)
    tokens = self._split(text)
    is_short = len(tokens) < max(1, self._min_words)
    if is_short or not self._num_hashes:
      return Sketch(key, None, is_short)
    grams = ngrams.hashes(tokens, self._num_words) >> np.uint64(32)
    minhash = datasketch.MinHash(
        self._num_hashes,
        seed=self._seed,
        hashfunc=_same,
        permutations=self._permutations,
        scheme='affine32',
    )
    for start in range(0, len(grams), _CHUNK):
      # One item that is many hashes: a Python integer each would cost as much
      # as the permutations.
      minhash.update_batch([grams[start : start + _CHUNK]])
    return Sketch(key, minhash.hashvalues, is_short)


def _same(x: np.ndarray) -> np.ndarray:
  return x


class Table:
  """Rows by 64-bit key: 12 bytes a slot, where a dict of ints takes ~90.

  Open addressing. A key may have several rows, `_MOST_ROWS` at most.
  """

  def __init__(self, num_slots: int = 1024):
    self._keys = array.array('Q', bytes(8 * num_slots))
    self._rows = array.array('I', bytes(4 * num_slots))
    self._num_used = 0

  def rows(self, key: int) -> Iterator[int]:
    """Yields the rows of `key`."""
    key, keys = key or 1, self._keys  # 0 is a free slot.
    mask = len(keys) - 1
    slot = key & mask
    while found := keys[slot]:
      if found == key:
        yield self._rows[slot]
      slot = (slot + 1) & mask

  def add(self, key: int, row: int) -> None:
    """Adds a row to those of `key`, unless it has very many."""
    if self._num_used >= _FULLEST * len(self._keys):
      self._grow()
    key, keys = key or 1, self._keys
    mask, num_rows = len(keys) - 1, 0
    slot = key & mask
    while found := keys[slot]:
      num_rows += found == key
      slot = (slot + 1) & mask
    if num_rows < _MOST_ROWS:
      keys[slot], self._rows[slot] = key, row
      self._num_used += 1

  def _grow(self) -> None:
    larger = Table(2 * len(self._keys))
    for key, row in zip(self._keys, self._rows):
      if key:
        larger.add(key, row)
    self.__dict__ = larger.__dict__

  @property
  def num_bytes(self) -> int:
    return 12 * len(self._keys)


class Strings:
  """A list of strings without an object for each."""

  def __init__(self):
    self._data, self._ends = bytearray(), array.array('Q', [0])

  def __len__(self) -> int:
    return len(self._ends) - 1

  def __getitem__(self, row: int) -> str:
    start, end = self._ends[row], self._ends[row + 1]
    return self._data[start:end].decode('utf-8', 'surrogatepass')

  def append(self, text: str) -> None:
    self._data += text.encode('utf-8', 'surrogatepass')
    self._ends.append(len(self._data))

  @property
  def num_bytes(self) -> int:
    return len(self._data) + 8 * len(self._ends)


class Index:
  """Sketches by row, and those that are near to another one.

  Args:
    threshold: Similarity from which on two texts are near.
    num_hashes: Of a sketch; 0: only equal texts are found.
    bands: In which they are compared; a divisor of `num_hashes`.
  """

  def __init__(self, threshold: float, num_hashes: int, bands: int):
    self._threshold = threshold
    self._num_hashes, self._bands = num_hashes, bands
    self._equal, self._near = Table(), Table()
    self._low_bytes = bytearray()  # Of the hashes, `num_hashes` a row.
    self._num_rows = 0

  def _band_keys(self, hashes_H: np.ndarray) -> list[int]:
    hashes_BR = hashes_H.reshape(self._bands, -1).astype(np.uint64)
    mixed = np.arange(self._bands, dtype=np.uint64)
    for column_B in hashes_BR.T:
      mixed = ngrams.mix(mixed, column_B)
    return ngrams.finish(mixed).tolist()

  def _similarity(self, low_bytes: np.ndarray, row: int) -> float:
    start = row * self._num_hashes
    other = self._low_bytes[start : start + self._num_hashes]
    equal = np.count_nonzero(low_bytes == np.frombuffer(other, np.uint8))
    share = float(equal) / self._num_hashes
    return max(0.0, (share - 1 / 256) / (1 - 1 / 256))  # By chance: 1 / 256.

  def find(self, sketch: Sketch) -> tuple[int, float] | None:
    """Returns the first row that equals or is near, and its similarity.

    The similarity is 1 for equal texts only.
    """
    equal = min(self._equal.rows(sketch.key), default=None)
    if equal is not None:
      return equal, 1.0
    if sketch.hashes_H is None:
      return None
    low_bytes = sketch.hashes_H.astype(np.uint8)
    keys = self._band_keys(sketch.hashes_H)
    for row in sorted({row for key in keys for row in self._near.rows(key)}):
      similarity = self._similarity(low_bytes, row)
      if similarity >= self._threshold:
        return row, min(similarity, _NEAREST)
    return None

  def add(self, sketch: Sketch) -> int:
    """Adds a sketch and returns its row."""
    row = self._num_rows
    self._num_rows += 1
    self._equal.add(sketch.key, row)
    if sketch.hashes_H is None:  # Never looked at; the rows stay in step.
      self._low_bytes += bytes(self._num_hashes)
      return row
    self._low_bytes += sketch.hashes_H.astype(np.uint8).tobytes()
    for key in self._band_keys(sketch.hashes_H):
      self._near.add(key, row)
    return row

  @property
  def num_bytes(self) -> int:
    tables = self._equal.num_bytes + self._near.num_bytes
    return tables + len(self._low_bytes)
