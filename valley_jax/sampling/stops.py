"""Where a sample ends, besides its end token and its length; on the host.

Both are functions of the sample's tokens alone, looked for token by token, so
that a sample does not depend on how many tokens come at a time.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import numpy as np

from valley_jax import errors
from valley_jax import records

_EVERY = 64  # Tokens from one look for a loop to the next.
_TIMES = 4  # A phrase that comes so often, and nothing else, is a loop.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stops:
  """What ends a sample.

  Attributes:
    decode: From tokens to text; needed where there are strings.
    strings: The first of them to be complete ends the sample; it is kept.
    after: Strings count only in what comes behind this one, as `</think>`.
    loop_tokens: A sample ends when its last so many tokens are one phrase,
      four times or more; 0: never. Looked for every 64 tokens.

  Raises:
    ValueError: a string is empty, or nothing can decode.
  """

  decode: Callable[[Sequence[int]], str] | None = None
  strings: tuple[str, ...] = ()
  after: str = ''
  loop_tokens: int = 0

  def __post_init__(self):
    if not all(self.strings) or (self.strings and self.decode is None):
      raise errors.UserError(f'sample.stop={list(self.strings)}: want strings that are not empty.')
    if self.after and not self.strings:
      raise errors.UserError(
          f'sample.stop_after={self.after!r}, but sample.stop names no string'
          ' to look for behind it.'
      )
    if self.loop_tokens and self.loop_tokens < _EVERY:
      raise errors.UserError(
          f'sample.loop_tokens={self.loop_tokens}: want {_EVERY} or more, or 0' ' for never.'
      )

  def opened(self, tokens: Sequence[int], start: int) -> int | None:
    """Returns behind how many tokens strings count, if that is known yet.

    Args:
      tokens: Of a sample.
      start: So many have been looked at before.
    """
    if not self.after:
      return 0
    return self._first(tokens, start, 0, (self.after,))

  def first(
      self, tokens: Sequence[int], start: int, opened: int | None
  ) -> tuple[int, records.FinishReason] | None:
    """Returns where the first of all ends a sample, and which it is.

    Args:
      tokens: Of a sample.
      start: So many have been looked at before.
      opened: What `opened` has returned.
    """
    found = []
    if opened is not None and (end := self.string_end(tokens, start, opened)):
      found.append((end, records.FinishReason.STOP))
    if end := self.loop_end(tokens, start):
      found.append((end, records.FinishReason.LOOP))
    return min(found, key=lambda stop: stop[0], default=None)

  def string_end(self, tokens: Sequence[int], start: int, opened: int) -> int | None:
    """Returns the number of tokens up to the first complete string.

    Args:
      tokens: Of a sample.
      start: So many have been looked at before.
      opened: What `opened` has returned.
    """
    return self._first(tokens, max(start, opened), opened, self.strings)

  def _first(
      self, tokens: Sequence[int], start: int, opened: int, strings: tuple[str, ...]
  ) -> int | None:
    """Returns the least n > start with a string in tokens[opened:n]."""
    if not strings or start >= len(tokens):
      return None
    decode = self.decode
    assert decode is not None
    # A token is a byte or more: further back a string cannot have begun.
    reach = max(len(s.encode()) for s in strings) + 1
    has = lambda first, last: any(s in decode(tokens[max(opened, first) : last]) for s in strings)
    if not has(start - reach, len(tokens)):
      return None
    return next((n for n in range(start + 1, len(tokens) + 1) if has(n - 1 - reach, n)), None)

  def loop_end(self, tokens: Sequence[int], start: int) -> int | None:
    """Returns the number of tokens at which a sample is found to loop.

    Args:
      tokens: Of a sample.
      start: So many have been looked at before.
    """
    if not self.loop_tokens:
      return None
    first = max(start // _EVERY + 1, -(-self.loop_tokens // _EVERY)) * _EVERY
    for n in range(first, len(tokens) + 1, _EVERY):
      if _is_loop(np.asarray(tokens[n - self.loop_tokens : n])):
        return n
    return None


def _is_loop(tokens: np.ndarray) -> bool:
  """Says whether these are one phrase, four times or more."""
  longest = len(tokens) // _TIMES
  # The last token comes again a phrase before.
  before = tokens[-2 : -longest - 2 : -1]
  lengths = np.flatnonzero(before == tokens[-1]) + 1
  return any(np.array_equal(tokens[n:], tokens[:-n]) for n in lengths)
