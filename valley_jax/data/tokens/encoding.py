r"""Where `shard` tokenises: `TurnEncoder.encode_stream`, rendered turns in, examples out.

The examples are those of `tokenization.encode_turns`, in a fraction of the time.

`TurnEncoder` needs no character offsets for all tokens, of which only two matter: where the
response begins and where its answer begins. A token of a byte-level tokenizer stands for certain
bytes, so it begins at the sum of the lengths of those before it. Every trace is checked: where the
joined bytes are not the text (a normaliser changed it, or the tokenizer is not byte-level),
`tokenization.encode_turns` takes over.

`WordEncoder` finds the token ids, by a memory of words. A byte-level BPE tokenizer cuts text into
words by a pattern, and then merges bytes within each word. Nearly all of the time of `tokenizers`
goes into the cutting, and words recur again and again. Here a regular expression cuts, and the
tokenizer's own model is asked once for the ids of each word. Both are certain to cut alike only
for characters that all patterns treat alike, so:
* the known patterns (`_PATTERNS`) are rewritten for ASCII;
* the text around any other character, between two places where each pattern cuts (between a letter
  or digit and a space or line end), is given to the tokenizer as it is;
* a tokenizer with another pattern, with rules for its added tokens, or that disagrees on a probe
  text full of special cases, is not encoded this way.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import json
import re
from typing import Any

import numpy as np
import tokenizers

from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization

# Texts that are tokenised together: a token's record takes 30 times the space of a character while
# it is made.
_MAX_CHARS = 1_000_000

_TAIL = r'\s+(?!\S)|\s+'
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|' + _TAIL
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + _TAIL
# GPT-2's, which a ByteLevel step uses by itself; Qwen's; Llama 3's.
_PATTERNS = (_GPT2, _CL100K % r'\p{N}', _CL100K % r'\p{N}{1,3}')
_NOT_ASCII = re.compile(r'[^\t\n\r -~]+')
_WORD_BOUNDARY = re.compile(r'(?<=[A-Za-z0-9])[ \n]')
_SPACES = str.maketrans(' \t\n\r', 'ĠĉĊč')  # As byte-level tokenizers write them.
_MAX_WORDS = 250_000  # Some 50 MB; then the memory begins anew.
_MAX_WORD_LEN = 64  # Longer ones hardly recur.
_PROBE = (
    "I'll, we'RE 'tis don't\n\n  x =\t[1234567,  89]\r\n\r\n"
    "   if a!=b:\n\t\treturn  'é' + \"日本 语\"  \n \n;;\n(x)...\n'S 3.14 a1b2 "
)


def _map_bytes() -> dict[str, int]:
  """Returns the alphabet of byte-level tokenizers: one printable character a byte."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in printable]
  alphabet = {chr(byte): byte for byte in printable}
  return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}


def _list_token_bytes(tokenizer: tokenization.Tokenizer) -> list[bytes] | None:
  """Returns the bytes of each token, or None if the tokenizer is not byte-level."""
  backend = tokenizer.backend_tokenizer
  if not isinstance(backend.decoder, tokenizers.decoders.ByteLevel):
    return None
  alphabet = _map_bytes()
  added = tokenizer.added_tokens_decoder
  vocab = tokenizer.get_vocab()
  table = [b''] * (max(vocab.values()) + 1)
  for text, token in vocab.items():
    if token in added:
      table[token] = added[token].content.encode()
    elif all(char in alphabet for char in text):
      table[token] = bytes(alphabet[char] for char in text)
  return table


class TurnEncoder:
  """Tokenises rendered turns; built once for each tokenizer."""

  def __init__(self, tokenizer: tokenization.Tokenizer):
    self.tokenizer = tokenizer
    self.control_texts = templates.list_control_texts(tokenizer)
    self._bytes = _list_token_bytes(tokenizer)
    self._num_bytes = np.array([len(b) for b in self._bytes or []], np.int64)
    self._words = build_word_encoder(tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()

  def encode_stream(
      self, turns: Iterable[templates.RenderedTurn]
  ) -> Iterator[tokenization.Example]:
    """Yields the example of each turn, in order; a few texts are tokenised at a time."""
    group, num_chars = [], 0
    for turn in turns:
      group.append(turn)
      num_chars += len(turn.text)
      if num_chars > _MAX_CHARS:
        yield from self._encode_group(group)
        group, num_chars = [], 0
    yield from self._encode_group(group)

  def _encode_group(
      self, turns: Sequence[templates.RenderedTurn]
  ) -> Iterator[tokenization.Example]:
    if self._bytes is None:
      yield from tokenization.encode_turns(self.tokenizer, turns)
      return
    prompts = list(dict.fromkeys(turn.prompt for turn in turns))
    prompt_ids = dict(zip(prompts, self._encode_texts(prompts), strict=True))
    ids_of_turns = self._encode_texts([turn.text for turn in turns])
    for turn, ids in zip(turns, ids_of_turns, strict=True):
      example = self._build_example(turn, ids, prompt_ids[turn.prompt])
      if example is None:
        (example,) = tokenization.encode_turns(self.tokenizer, [turn])
      yield example

  def _encode_texts(self, texts: Sequence[str]) -> Iterator[list[int]]:
    if self._words is not None:
      yield from map(self._words.encode_text, texts)
      return
    # Without offsets, and with a thread a core unless TOKENIZERS_PARALLELISM forbids it.
    encodings = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    yield from (encoding.ids for encoding in encodings)

  def _build_example(
      self, turn: templates.RenderedTurn, ids: list[int], prompt_ids: list[int]
  ) -> tokenization.Example | None:
    """Returns the example, or None if its bytes do not tell where tokens begin."""
    assert self._bytes is not None
    if b''.join(map(self._bytes.__getitem__, ids)) != turn.text.encode():
      return None
    # `encode_turns` raises what is wrong, or tokenises prompt and response apart.
    if ids[-1] != self.tokenizer.eos_token_id or ids[: len(prompt_ids)] != prompt_ids:
      return None
    if turn.prompt.endswith(' '):  # Offsets may count such a space to either side.
      return None
    tokens = np.asarray(ids, np.int32)
    starts = np.cumsum(self._num_bytes[tokens]) - self._num_bytes[tokens]
    boundary = len(turn.prompt.encode())
    answer_start = boundary + len(turn.response[: turn.answer_start].encode())
    answer_start += max(0, turn.answer_start - len(turn.response))  # Past the end token.
    return tokenization.Example(
        tokens, (starts >= boundary).astype(np.uint8), int(np.searchsorted(starts, answer_start))
    )


def _rewrite_for_ascii(pattern: str) -> re.Pattern:
  """Returns the pattern for text of visible ASCII, spaces and line ends."""
  classes = {r'\p{L}': 'A-Za-z', r'\p{N}': '0-9', r'\s': ' \t\n\r'}
  pieces = re.split(r'(\[[^\]]*\])', pattern)  # Every second piece is a bracketed class.
  for i, piece in enumerate(pieces):
    for name, characters in classes.items():
      piece = piece.replace(name, characters if i % 2 else f'[{characters}]')
    pieces[i] = piece
  return re.compile(''.join(pieces).replace(r'\S', '[!-~]'))


def _find_pattern(spec: dict[str, Any]) -> re.Pattern | None:
  """Returns how the tokenizer of this JSON cuts text into words, if by a known pattern."""
  steps = spec['pre_tokenizer'] or {}
  steps = steps.get('pretokenizers', [steps])
  cut, byte_level = steps[:-1], steps[-1]
  if byte_level.get('type') != 'ByteLevel' or byte_level['add_prefix_space']:
    return None
  if not cut and byte_level['use_regex']:
    return _rewrite_for_ascii(_GPT2)
  if len(cut) != 1 or byte_level['use_regex'] or cut[0]['type'] != 'Split':
    return None
  regex = cut[0]['pattern'].get('Regex')
  is_plain = cut[0]['behavior'] == 'Isolated' and not cut[0]['invert']
  return _rewrite_for_ascii(regex) if is_plain and regex in _PATTERNS else None


def _has_plain_rules(spec: dict[str, Any]) -> bool:
  """Whether the words and added tokens alone decide the ids."""
  normalizer = spec['normalizer'] or {'type': 'NFC'}  # NFC leaves ASCII alone.
  rules = ('lstrip', 'rstrip', 'single_word', 'normalized')
  return (
      spec['model']['type'] == 'BPE'
      and not spec['model'].get('dropout')
      and normalizer in ({'type': 'NFC'}, {'type': 'Sequence', 'normalizers': []})
      and not any(token[rule] for token in spec['added_tokens'] for rule in rules)
  )


class _WordIds(dict):
  """The ids of words; the model is asked for missing ones."""

  def __init__(self, model):
    self._model = model

  def __missing__(self, word: str) -> tuple[int, ...]:
    if len(self) >= _MAX_WORDS:
      self.clear()
    ids = tuple(token.id for token in self._model.tokenize(word.translate(_SPACES)))
    if len(word) <= _MAX_WORD_LEN:
      self[word] = ids
    return ids


class WordEncoder:
  """Tokenises texts by a memory of words; `build_word_encoder` builds it where it is exact."""

  def __init__(self, tokenizer: tokenization.Tokenizer, spec: dict[str, Any], cut: re.Pattern):
    self._backend = tokenizer.backend_tokenizer
    self._cut = cut
    self._added = {token['content']: (token['id'],) for token in spec['added_tokens']}
    longest_first = sorted(self._added, key=len, reverse=True)
    self._find_added = re.compile(f'({"|".join(map(re.escape, longest_first)) or "(?!)"})')
    self.word_ids = _WordIds(self._backend.model)

  def encode_text(self, text: str) -> list[int]:
    """Returns the token ids of a text."""
    runs: list[Any] = []
    for i, piece in enumerate(self._find_added.split(text)):
      if i % 2:
        runs.append(self._added[piece])
      else:
        self._append_runs(runs, piece)
    return list(itertools.chain.from_iterable(runs))

  def _append_runs(self, runs: list[Any], text: str) -> None:
    """Appends the ids of a text without added tokens, one run a word."""
    start, get_ids = 0, self.word_ids.__getitem__
    while match := _NOT_ASCII.search(text, start):
      odd_start, odd_end = _widen_to_cuts(text, match, start)
      runs.extend(map(get_ids, self._cut.findall(text, start, odd_start)))
      runs.append(self.encode_by_library(text[odd_start:odd_end]))
      start = odd_end
    runs.extend(map(get_ids, self._cut.findall(text, start)))

  def encode_by_library(self, text: str) -> list[int]:
    """Returns the ids by the tokenizer itself."""
    (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=False)
    return encoding.ids


def _widen_to_cuts(text: str, match: re.Match, first: int) -> tuple[int, int]:
  """Returns the start and end of the text around a match that the tokenizer must cut itself."""
  start = match.start()
  while start > first:
    start = max(first, text.rfind(' ', first, start), text.rfind('\n', first, start))
    before = text[start - 1 : start]
    if start == first or (before.isascii() and before.isalnum()):
      break
  end = _WORD_BOUNDARY.search(text, match.end())
  return start, end.start() if end else len(text)


def build_word_encoder(tokenizer: tokenization.Tokenizer) -> WordEncoder | None:
  """Returns a word encoder, or None if it would not be exact for this tokenizer."""
  spec = json.loads(tokenizer.backend_tokenizer.to_str())
  cut = _find_pattern(spec)
  if not _has_plain_rules(spec) or cut is None:
    return None
  words = WordEncoder(tokenizer, spec, cut)
  added = [token['content'] for token in spec['added_tokens']]
  probe = _PROBE.join(dict.fromkeys(added)) + _PROBE
  return words if words.encode_text(probe) == words.encode_by_library(probe) else None
