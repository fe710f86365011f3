"""Sketches of texts, and an index that finds near-equal texts by them.

MinHash (Broder 1997, by datasketch) with bands (Leskovec, Rajaraman and Ullman, *Mining of Massive
Datasets*, ch. 3). Two texts whose n-grams have Jaccard similarity J are compared if one of `bands`
bands of r = num_hashes / bands hashes agrees, which happens with probability
1 - (1 - J^r)^bands. With 16 bands of 8 hashes:

    J            .5     .7     .8     .9     .95
    probability  .061   .614   .947   1.00   1.00

The estimate that is compared with the threshold is the share of equal hashes, of which the low
byte is kept: for 128 hashes its standard error is .035 at J = .8. The texts are not kept.
"""

import array
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import datasketch
import numpy as np

from valley_jax.data.cleaning import texts

_MAX_ROWS = 64  # Rows under one key; the first ones of the sources.
_MAX_LOAD = 0.7  # Share of a table's slots that may be used.
_MAX_NEAR = 0.999  # Similarity of texts that are not equal.
_CHUNK = 512  # N-grams at a time: what 128 permutations make of them fits in the L2 cache.


class Sketch(NamedTuple):
  """What is kept of a text to compare it."""

  key: int  # `texts.hash_text` of the text.
  hashes_H: np.ndarray | None  # uint32; None: only compared as a whole.
  is_short: bool  # It has too few words to be recognised by itself.


class Sketcher:
  """Makes sketches of texts; a pure function with parameters, which can be pickled.

  Args:
    split: Returns the words of a text, without whatever must not count.
    num_words: Words of an n-gram.
    min_words: Texts of fewer words get no hashes: they are only compared as a whole.
    num_hashes: Hashes of a sketch; 0: no text gets any.
    seed: Seed of the hashes.
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
    key = texts.hash_text(text)
    words = self._split(text)
    is_short = len(words) < max(1, self._min_words)
    if is_short or not self._num_hashes:
      return Sketch(key, None, is_short)
    # datasketch takes 32 bits.
    grams = texts.hash_ngrams(words, self._num_words) >> np.uint64(32)
    minhash = datasketch.MinHash(
        self._num_hashes,
        seed=self._seed,
        hashfunc=_keep_hashes,
        permutations=self._permutations,
        scheme='affine32',
    )
    for start in range(0, len(grams), _CHUNK):
      # One item that is many hashes: a Python integer each would cost as much as the permutations.
      minhash.update_batch([grams[start : start + _CHUNK]])
    return Sketch(key, minhash.hashvalues, is_short)


def _keep_hashes(hashes: np.ndarray) -> np.ndarray:
  return hashes


class Table:
  """Rows by 64-bit key: 12 bytes a slot, where a dict of ints takes about 90.

  Open addressing. A key may have several rows, `_MAX_ROWS` at most.
  """

  def __init__(self, num_slots: int = 1024):
    self._keys = array.array('Q', bytes(8 * num_slots))
    self._rows = array.array('I', bytes(4 * num_slots))
    self._num_used = 0

  def find_rows(self, key: int) -> Iterator[int]:
    """Yields the rows of `key`."""
    key, keys = key or 1, self._keys  # 0 is a free slot.
    mask = len(keys) - 1
    slot = key & mask
    while other := keys[slot]:
      if other == key:
        yield self._rows[slot]
      slot = (slot + 1) & mask

  def add_row(self, key: int, row: int) -> None:
    """Adds a row to those of `key`, unless it has `_MAX_ROWS` already."""
    if self._num_used >= _MAX_LOAD * len(self._keys):
      self._grow_table()
    key, keys = key or 1, self._keys
    mask, num_rows = len(keys) - 1, 0
    slot = key & mask
    while other := keys[slot]:
      num_rows += other == key
      slot = (slot + 1) & mask
    if num_rows < _MAX_ROWS:
      keys[slot], self._rows[slot] = key, row
      self._num_used += 1

  def _grow_table(self) -> None:
    # In the order of slots, not of rows: `find_first` takes the least row itself.
    larger = Table(2 * len(self._keys))
    for key, row in zip(self._keys, self._rows):
      if key:
        larger.add_row(key, row)
    self.__dict__ = larger.__dict__


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


class Index:
  """Sketches by row, searched for equal and near ones.

  Args:
    threshold: Similarity from which on two texts are near.
    num_hashes: Hashes of a sketch; 0: only equal texts are found.
    bands: Bands in which the hashes are compared; a divisor of `num_hashes`.
  """

  def __init__(self, threshold: float, num_hashes: int, bands: int):
    self._threshold = threshold
    self._num_hashes, self._bands = num_hashes, bands
    self._equal, self._near = Table(), Table()
    self._low_bytes = bytearray()  # Low bytes of the hashes, `num_hashes` a row.
    self._num_rows = 0

  def _hash_bands(self, hashes_H: np.ndarray) -> list[int]:
    hashes_BR = hashes_H.reshape(self._bands, -1).astype(np.uint64)
    # It starts with the band's number: equal hashes in two different bands are no match.
    mixed = np.arange(self._bands, dtype=np.uint64)
    for column_B in hashes_BR.T:
      mixed = texts.mix_hashes(mixed, column_B)
    return texts.finish_hashes(mixed).tolist()

  def _estimate_similarity(self, low_bytes: np.ndarray, row: int) -> float:
    start = row * self._num_hashes  # Every row has its place, also one without hashes.
    other = self._low_bytes[start : start + self._num_hashes]
    equal = np.count_nonzero(low_bytes == np.frombuffer(other, np.uint8))
    share = float(equal) / self._num_hashes
    return max(0.0, (share - 1 / 256) / (1 - 1 / 256))  # 1 / 256 agree by chance.

  def find_first(self, sketch: Sketch) -> tuple[int, float] | None:
    """Returns the first row that is equal or near, and its similarity.

    The similarity is 1 for equal texts only.
    """
    equal = min(self._equal.find_rows(sketch.key), default=None)
    if equal is not None:
      return equal, 1.0
    if sketch.hashes_H is None:
      return None
    low_bytes = sketch.hashes_H.astype(np.uint8)
    keys = self._hash_bands(sketch.hashes_H)
    for row in sorted({row for key in keys for row in self._near.find_rows(key)}):
      similarity = self._estimate_similarity(low_bytes, row)
      if similarity >= self._threshold:
        return row, min(similarity, _MAX_NEAR)
    return None

  def add_sketch(self, sketch: Sketch) -> int:
    """Adds a sketch and returns its row."""
    row = self._num_rows
    self._num_rows += 1
    self._equal.add_row(sketch.key, row)
    if sketch.hashes_H is None:
      self._low_bytes += bytes(self._num_hashes)  # Never read; it keeps the rows in step.
      return row
    self._low_bytes += sketch.hashes_H.astype(np.uint8).tobytes()
    for key in self._hash_bands(sketch.hashes_H):
      self._near.add_row(key, row)
    return row
