"""Traces to tokens, as `encode_turns` has it, in a fraction of the time.

The ids come from `words` where the tokenizer is one for it. And nobody keeps
character offsets for every token, of which two are looked at: where the
response begins, and where its answer. A token of a byte-level tokenizer stands
for certain bytes, so where it begins is the sum of the lengths of those before
it. That the bytes, joined, are the text is checked for every trace; where they
are not (a normaliser changed the text, or the tokenizer is of another kind),
`tokenization.encode_turns` does it.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import tokenizers

from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization
from valley_jax.data.tokens import words

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
    self.special_texts = templates.control_texts(tokenizer)
    self._bytes = _bytes_of_tokens(tokenizer)
    self._num_bytes = np.array([len(b) for b in self._bytes or []], np.int64)
    self._words = words.make(tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()

  def encode(self, turns: Iterable[templates.Turn]) -> Iterator[tokenization.Example]:
    """Yields what `encode_turns` returns, a few texts at a time."""
    group, num_chars = [], 0
    for turn in turns:
      group.append(turn)
      num_chars += len(turn.text)
      if num_chars > _MAX_CHARS:
        yield from self._encode_group(group)
        group, num_chars = [], 0
    yield from self._encode_group(group)

  def _encode_group(self, turns: Sequence[templates.Turn]) -> Iterator[tokenization.Example]:
    if self._bytes is None:
      yield from tokenization.encode_turns(self.tokenizer, turns)
      return
    prompts = list(dict.fromkeys(turn.prompt for turn in turns))
    asked = dict(zip(prompts, self._ids(prompts), strict=True))
    ids_of_turns = self._ids([turn.text for turn in turns])
    for turn, ids in zip(turns, ids_of_turns, strict=True):
      example = self._example(turn, ids, asked[turn.prompt])
      if example is None:
        (example,) = tokenization.encode_turns(self.tokenizer, [turn])
      yield example

  def _ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
    """Yields the token ids of each text."""
    if self._words is not None:
      yield from map(self._words.encode, texts)
      return
    # Without offsets, and with a thread a core if that is not forbidden.
    found = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    yield from (encoding.ids for encoding in found)

  def _example(
      self, turn: templates.Turn, ids: list[int], asked: list[int]
  ) -> tokenization.Example | None:
    """Returns the example, or None if bytes do not tell where tokens begin."""
    assert self._bytes is not None
    if b''.join(map(self._bytes.__getitem__, ids)) != turn.text.encode():
      return None
    # `encode_turns` says what is wrong, or takes the two apart.
    if ids[-1] != self.tokenizer.eos_token_id or ids[: len(asked)] != asked:
      return None
    if turn.prompt.endswith(' '):  # Offsets may leave such a space to either.
      return None
    tokens = np.asarray(ids, np.int32)
    starts = np.cumsum(self._num_bytes[tokens]) - self._num_bytes[tokens]
    boundary = len(turn.prompt.encode())
    answer = boundary + len(turn.response[: turn.answer].encode())
    answer += max(0, turn.answer - len(turn.response))  # Behind the end token.
    return tokenization.Example(
        tokens, (starts >= boundary).astype(np.uint8), int(np.searchsorted(starts, answer))
    )
