"""Traces to tokens, as `tokenization.encode` has it, in a fraction of the time.

The ids come from `words` where the tokenizer is one for it. And nobody keeps
character offsets for every token, of which two are looked at: where the
response begins, and where its answer. A token of a byte-level tokenizer stands
for certain bytes, so where it begins is the sum of the lengths of those before
it. That the bytes, joined, are the text is checked for every trace; where they
are not (a normaliser changed the text, or the tokenizer is of another kind),
`tokenization.encode` does it.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import tokenizers

from valley_jax.data import tokenization
from valley_jax.data import words

# Of texts that are tokenised together: a token's record takes 30 times the
# space of a character while it is made.
_MAX_CHARS = 1_000_000


def _byte_of_char() -> dict[str, int]:
  """The alphabet of byte-level tokenizers: a printable character a byte."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in printable]
  alphabet = {chr(byte): byte for byte in printable}
  return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}


def _bytes_of_tokens(tokenizer: tokenization.Tokenizer) -> list[bytes] | None:
  """Returns what each token stands for; None if it is not byte-level."""
  backend = tokenizer.backend_tokenizer
  if not isinstance(backend.decoder, tokenizers.decoders.ByteLevel):
    return None
  alphabet = _byte_of_char()
  added = tokenizer.added_tokens_decoder
  vocab = tokenizer.get_vocab()
  table = [b''] * (max(vocab.values()) + 1)
  for text, token in vocab.items():
    if token in added:
      table[token] = added[token].content.encode()
    elif all(char in alphabet for char in text):
      table[token] = bytes(alphabet[char] for char in text)
  return table


class Encoder:
  """Tokenises traces; made once for a tokenizer."""

  def __init__(self, tokenizer: tokenization.Tokenizer):
    self.tokenizer = tokenizer
    self.special_texts = tokenization.special_texts(tokenizer)
    self._bytes = _bytes_of_tokens(tokenizer)
    self._num_bytes = np.array([len(b) for b in self._bytes or []], np.int64)
    self._words = words.make(tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()

  def encode(
      self, turns: Iterable[tuple[str, str]], system: str | None = None
  ) -> Iterator[tokenization.Example]:
    """Yields what `tokenization.encode` returns, a few texts at a time."""
    group, num_chars = [], 0
    for turn in turns:
      group.append(turn)
      num_chars += len(turn[0]) + len(turn[1])
      if num_chars > _MAX_CHARS:
        yield from self._encode_group(group, system)
        group, num_chars = [], 0
    yield from self._encode_group(group, system)

  def _encode_group(
      self, turns: Sequence[tuple[str, str]], system: str | None
  ) -> Iterator[tokenization.Example]:
    if self._bytes is None:
      yield from tokenization.encode(self.tokenizer, turns, system)
      return
    texts = [tokenization.render(self.tokenizer, *t, system) for t in turns]
    for turn, text, ids in zip(turns, texts, self._ids(texts), strict=True):
      example = self._example(turn, text, ids, system)
      if example is None:
        (example,) = tokenization.encode(self.tokenizer, [turn], system)
      yield example

  def _ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
    """Yields the token ids of each text."""
    if self._words is not None:
      yield from map(self._words.encode, texts)
      return
    # Without offsets, and with a thread a core if that is not forbidden.
    found = self.tokenizer.backend_tokenizer.encode_batch_fast(
        texts, add_special_tokens=False
    )
    yield from (encoding.ids for encoding in found)

  def _example(
      self,
      turn: tuple[str, str],
      text: str,
      ids: list[int],
      system: str | None,
  ) -> tokenization.Example | None:
    """Returns the example, or None if bytes do not tell where tokens begin."""
    assert self._bytes is not None
    if b''.join(map(self._bytes.__getitem__, ids)) != text.encode():
      return None
    if not ids or ids[-1] != self.tokenizer.eos_token_id:
      return None  # `tokenization.encode` says what is wrong.
    question, response = turn
    prompt = tokenization.render_prompt(self.tokenizer, question, system)
    if prompt.endswith(' '):  # Offsets may leave such a space to either side.
      return None
    tokens = np.asarray(ids, np.int32)
    starts = np.cumsum(self._num_bytes[tokens]) - self._num_bytes[tokens]
    boundary = len(prompt.encode())
    offset = tokenization._answer_offset(response)
    answer = boundary + len(response[:offset].encode())
    answer += max(0, offset - len(response))  # Behind the end token.
    return tokenization.Example(
        tokens,
        (starts >= boundary).astype(np.uint8),
        int(np.searchsorted(starts, answer)),
    )
