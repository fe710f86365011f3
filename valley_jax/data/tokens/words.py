r"""Token ids of mostly ASCII text, from a memory of words.

A byte-level BPE tokenizer cuts text into words by a pattern, and then merges
bytes within each word. Nearly all of the time of `tokenizers` goes into the
cutting; words come again and again. Here a regular expression cuts, and the
tokenizer's own model is asked once for the ids of each word.

That both cut alike is certain only for characters that all agree on, so:
* patterns are those of `_PATTERNS`, written anew for ASCII;
* what stands around any other character, from a place where each pattern cuts
  to the next such place (between a letter or digit and a space or line end), is
  given to the tokenizer as it is;
* a tokenizer that has another pattern, or added tokens with rules of their own,
  or that answers otherwise to a text with the odd cases in it, is not for this
  way.
"""

import itertools
import json
import re
from typing import Any

from valley_jax.data.tokens import tokenization

_TAIL = r'\s+(?!\S)|\s+'
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|' + _TAIL
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + _TAIL
# GPT-2's, which stands for itself; Qwen's, Llama 3's.
_PATTERNS = (_GPT2, _CL100K % r'\p{N}', _CL100K % r'\p{N}{1,3}')
_ODD = re.compile(r'[^\t\n\r -~]+')
_ENDS = re.compile(r'(?<=[A-Za-z0-9])[ \n]')
_SPACES = str.maketrans(' \t\n\r', 'ĠĉĊč')  # As byte-level tokenizers do.
_MAX_WORDS = 250_000  # Some 50 MB; then the memory begins anew.
_MAX_WORD_LEN = 64  # Longer ones hardly come again.
_PROBE = (
    "I'll, we'RE 'tis don't\n\n  x =\t[1234567,  89]\r\n\r\n"
    "   if a!=b:\n\t\treturn  'é' + \"日本 语\"  \n \n;;\n(x)...\n'S 3.14 a1b2 "
)


def _ascii(pattern: str) -> re.Pattern:
  """Returns the pattern for text of visible ASCII, spaces and line ends."""
  inside = {r'\p{L}': 'A-Za-z', r'\p{N}': '0-9', r'\s': ' \t\n\r'}
  pieces = re.split(r'(\[[^\]]*\])', pattern)
  for i, piece in enumerate(pieces):
    for name, characters in inside.items():
      wanted = characters if i % 2 else f'[{characters}]'
      piece = piece.replace(name, wanted)
    pieces[i] = piece
  return re.compile(''.join(pieces).replace(r'\S', '[!-~]'))


def _pattern(spec: dict[str, Any]) -> re.Pattern | None:
  """Returns how the tokenizer of this JSON cuts, if it is one we know."""
  steps = spec['pre_tokenizer'] or {}
  steps = steps.get('pretokenizers', [steps])
  cut, byte_level = steps[:-1], steps[-1]
  if byte_level.get('type') != 'ByteLevel' or byte_level['add_prefix_space']:
    return None
  if not cut and byte_level['use_regex']:
    return _ascii(_GPT2)
  if len(cut) != 1 or byte_level['use_regex'] or cut[0]['type'] != 'Split':
    return None
  regex = cut[0]['pattern'].get('Regex')
  plain = cut[0]['behavior'] == 'Isolated' and not cut[0]['invert']
  return _ascii(regex) if plain and regex in _PATTERNS else None


def _is_plain(spec: dict[str, Any]) -> bool:
  """Whether words and added tokens are all that there is to know."""
  normalizer = spec['normalizer'] or {'type': 'NFC'}
  rules = ('lstrip', 'rstrip', 'single_word', 'normalized')
  return (
      spec['model']['type'] == 'BPE'
      and not spec['model'].get('dropout')
      and normalizer in ({'type': 'NFC'}, {'type': 'Sequence', 'normalizers': []})
      and not any(token[rule] for token in spec['added_tokens'] for rule in rules)
  )


class _Ids(dict):
  """The ids of words; the model is asked for those that are not there."""

  def __init__(self, model):
    self._model = model

  def __missing__(self, word: str) -> tuple[int, ...]:
    if len(self) >= _MAX_WORDS:
      self.clear()
    found = self._model.tokenize(word.translate(_SPACES))
    ids = tuple(token.id for token in found)
    if len(word) <= _MAX_WORD_LEN:
      self[word] = ids
    return ids


class Words:
  """Tokenises texts; see above."""

  def __init__(self, tokenizer: tokenization.Tokenizer, spec: dict[str, Any]):
    self._backend = tokenizer.backend_tokenizer
    self._cut = _pattern(spec)
    added = {token['content']: (token['id'],) for token in spec['added_tokens']}
    longest_first = sorted(added, key=len, reverse=True)
    self._added = added
    self._find_added = re.compile(f'({"|".join(map(re.escape, longest_first)) or "(?!)"})')
    self._ids = _Ids(self._backend.model)

  def encode(self, text: str) -> list[int]:
    """Returns the token ids of a text."""
    found: list[Any] = []
    for i, piece in enumerate(self._find_added.split(text)):
      if i % 2:
        found.append(self._added[piece])
      else:
        self._extend(found, piece)
    return list(itertools.chain.from_iterable(found))

  def _extend(self, found: list[Any], text: str) -> None:
    """Appends the ids of text without added tokens, in runs."""
    assert self._cut is not None
    at, of_word = 0, self._ids.__getitem__
    while odd := _ODD.search(text, at):
      start, end = _around(text, odd, at)
      found.extend(map(of_word, self._cut.findall(text, at, start)))
      found.append(self.plain(text[start:end]))
      at = end
    found.extend(map(of_word, self._cut.findall(text, at)))

  def plain(self, text: str) -> list[int]:
    """Returns the ids as the tokenizer has them."""
    (found,) = self._backend.encode_batch_fast([text], add_special_tokens=False)
    return found.ids


def _around(text: str, odd: re.Match, at: int) -> tuple[int, int]:
  """Returns from where to where the tokenizer is to cut itself."""
  start = odd.start()
  while start > at:
    start = max(at, text.rfind(' ', at, start), text.rfind('\n', at, start))
    before = text[start - 1 : start]
    if start == at or (before.isascii() and before.isalnum()):
      break
  found = _ENDS.search(text, odd.end())
  return start, found.start() if found else len(text)


def make(tokenizer: tokenization.Tokenizer) -> Words | None:
  """Returns what tokenises so, or None if the tokenizer is not for it."""
  spec = json.loads(tokenizer.backend_tokenizer.to_str())
  if not _is_plain(spec) or _pattern(spec) is None:
    return None
  words = Words(tokenizer, spec)
  probe = _PROBE.join(words._added) + _PROBE
  return words if words.encode(probe) == words.plain(probe) else None
