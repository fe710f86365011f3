"""From tokens as they come to text that will not change any more."""

from collections.abc import Callable
from collections.abc import Sequence

_UNKNOWN = '\ufffd'  # What bytes are that are no character, or not yet.


class Text:
  """A sample's text, piece by piece.

  The pieces make up what all tokens decode to, cut at the first stop string.
  Held back are bytes that may be half of a character, and what may be the
  beginning of a stop string.
  """

  def __init__(
      self,
      decode: Callable[[Sequence[int]], str],
      strings: Sequence[str] = (),
      keep: bool = False,
  ):
    """Begins without text.

    Args:
      decode: From tokens to text.
      strings: The first of them to be complete ends the text.
      keep: Whether that string is part of it.
    """
    self._decode, self._strings, self._keep = decode, strings, keep
    self.stop: str | None = None  # The string that has ended it.
    # Tokens are decoded behind the last whole ones: what a token is may depend
    # on the one before.
    self._before: list[int] = []
    self._fresh: list[int] = []
    self._num_read = 0  # Characters of both.
    self._held = ''

  def add(self, tokens: Sequence[int]) -> str:
    """Returns the text that more tokens bring."""
    self._fresh += tokens
    if not self._fresh:
      return ''
    text = self._decode([*self._before, *self._fresh])
    whole = text.rstrip(_UNKNOWN)
    self._read(whole)
    if len(whole) == len(text):
      self._before, self._fresh = self._fresh, []
      self._num_read = len(self._decode(self._before))
    return self._tell(is_end=False)

  def end(self) -> str:
    """Returns what was held back."""
    self._read(self._decode([*self._before, *self._fresh]))
    return self._tell(is_end=True)

  def _read(self, text: str) -> None:
    self._held += text[self._num_read :]
    self._num_read = max(self._num_read, len(text))

  def _tell(self, is_end: bool) -> str:
    if self.stop is not None:
      return ''
    ends = [
        (self._held.find(s) + len(s), -len(s), s)
        for s in self._strings
        if s in self._held
    ]
    if ends:
      last, _, self.stop = min(ends)
      return self._held[: last if self._keep else last - len(self.stop)]
    n = 0 if is_end else self._num_doubtful()
    told, self._held = (
        self._held[: len(self._held) - n],
        self._held[len(self._held) - n :],
    )
    return told

  def _num_doubtful(self) -> int:
    """Returns the length of the longest end that a stop string begins with."""
    lengths = [
        n
        for s in self._strings
        for n in range(1, len(s))
        if self._held.endswith(s[:n])
    ]
    return max(lengths, default=0)
