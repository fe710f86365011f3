"""One sample: what was asked for, its tokens so far, and where it ends.

A sample ends at its end token, at its greatest length, at a stop string, or in a loop. The last two
are searched for on the host, token by token: they depend on the sample's tokens alone, not on how
many tokens arrive at a time.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import dataclasses

import numpy as np

from valley_jax import errors
from valley_jax import records

_LOOP_CHECK_TOKENS = 64  # Tokens between two checks for a loop.
_LOOP_REPEATS = 4  # A phrase that comes this often, and nothing else, is a loop.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stops:
  """What ends a sample besides its end token and its length.

  Attributes:
    decode: Function from tokens to text; needed where there are strings.
    strings: The first of them that is complete ends the sample, and is kept.
    after: Strings count only after this one, such as `</think>`; '' counts them from the start.
    loop_tokens: A sample ends when its last `loop_tokens` tokens are one phrase, four times or
      more; 0: never. Checked every 64 tokens.

  Raises:
    UserError: a string is empty, nothing can decode, or `loop_tokens` is too small.
  """

  decode: Callable[[Sequence[int]], str] | None = None
  strings: tuple[str, ...] = ()
  after: str = ''
  loop_tokens: int = 0

  def __post_init__(self):
    if not all(self.strings) or (self.strings and self.decode is None):
      raise errors.UserError(f'sample.stop={list(self.strings)} holds an empty string; remove it.')
    if self.after and not self.strings:
      raise errors.UserError(
          f'sample.stop_after={self.after!r}, but sample.stop names no string to look for after it.'
      )
    if self.loop_tokens and self.loop_tokens < _LOOP_CHECK_TOKENS:
      raise errors.UserError(
          f'sample.loop_tokens={self.loop_tokens} is below {_LOOP_CHECK_TOKENS}; raise it, or use'
          ' 0 for never.'
      )

  def find_opening(self, tokens: Sequence[int], start: int) -> int | None:
    """Returns after how many tokens strings count, or None if that is not known yet.

    Args:
      tokens: The sample's tokens so far.
      start: Number of tokens that earlier calls have searched.
    """
    if not self.after:
      return 0
    return self._find_strings(tokens, start, 0, (self.after,))

  def find_first_stop(
      self, tokens: Sequence[int], start: int, opening: int | None
  ) -> tuple[int, records.FinishReason] | None:
    """Returns how many tokens the sample keeps and why it ends, or None if it goes on.

    Args:
      tokens: The sample's tokens so far.
      start: Number of tokens that earlier calls have searched.
      opening: The result of `find_opening`.
    """
    stops = []
    if opening is not None and (end := self.find_string_end(tokens, start, opening)):
      stops.append((end, records.FinishReason.STOP))
    if end := self.find_loop_end(tokens, start):
      stops.append((end, records.FinishReason.LOOP))
    return min(stops, key=lambda stop: stop[0], default=None)

  def find_string_end(self, tokens: Sequence[int], start: int, opening: int) -> int | None:
    """Returns the number of tokens up to the first complete stop string."""
    return self._find_strings(tokens, max(start, opening), opening, self.strings)

  def _find_strings(
      self, tokens: Sequence[int], start: int, opening: int, strings: tuple[str, ...]
  ) -> int | None:
    """Returns the least n > start for which tokens[opening:n] contain a string."""
    if not strings or start >= len(tokens):
      return None
    decode = self.decode
    assert decode is not None
    # A token is at least one byte, so a string cannot have begun further back than this.
    reach = max(len(s.encode()) for s in strings) + 1

    def contains_string(first: int, last: int) -> bool:
      text = decode(tokens[max(opening, first) : last])
      return any(s in text for s in strings)

    if not contains_string(start - reach, len(tokens)):
      return None
    ends = range(start + 1, len(tokens) + 1)
    return next((n for n in ends if contains_string(n - 1 - reach, n)), None)

  def find_loop_end(self, tokens: Sequence[int], start: int) -> int | None:
    """Returns the number of tokens at which the sample is seen to loop."""
    if not self.loop_tokens:
      return None
    every = _LOOP_CHECK_TOKENS
    first = max(start // every + 1, -(-self.loop_tokens // every)) * every
    for n in range(first, len(tokens) + 1, every):
      if _is_one_phrase(np.asarray(tokens[n - self.loop_tokens : n])):
        return n
    return None


def _is_one_phrase(tokens: np.ndarray) -> bool:
  """Returns whether the tokens are one phrase, four times or more."""
  longest = len(tokens) // _LOOP_REPEATS
  # The last token occurs again one phrase earlier, so only those lengths are candidates.
  earlier = tokens[-2 : -longest - 2 : -1]
  lengths = np.flatnonzero(earlier == tokens[-1]) + 1
  return any(np.array_equal(tokens[n:], tokens[:-n]) for n in lengths)


@dataclasses.dataclass(frozen=True)
class Request:
  """One sample to be drawn."""

  problem_id: str
  sample_index: int
  prompt: tuple[int, ...]  # Token ids.
  max_new_tokens: int | None = None  # None: the engine's limit.

  @property
  def key(self) -> tuple[str, int]:
    return self.problem_id, self.sample_index


@dataclasses.dataclass
class Sample:
  """A sample in progress, or done: then it has a finish reason."""

  request: Request
  tokens: list[int] = dataclasses.field(default_factory=list)
  log_prob: float = 0.0  # Nats, of the raw model.
  log_prob_tempered: float = 0.0  # Nats, at the method's temperature.
  finish_reason: records.FinishReason | None = None
  opening: int | None = None  # Stop strings count after this many tokens; None: not known yet.

  @property
  def length(self) -> int:
    """Number of tokens, the prompt's included."""
    return len(self.request.prompt) + len(self.tokens)

  def append_tokens(
      self, tokens: Sequence[int], *, limit: int, end_tokens: Collection[int], stops: Stops
  ) -> int:
    """Appends tokens up to the sample's end, and sets the finish reason if it ends.

    Args:
      tokens: The tokens drawn next.
      limit: Number of tokens at which a sample is truncated.
      end_tokens: Tokens that end the sample and are not part of it.
      stops: Strings and loops that end it.

    Returns:
      How many of the tokens count, including an end token.
    """
    num_before = len(self.tokens)
    new = list(tokens[: limit - num_before])
    is_full = num_before + len(new) == limit
    reason = records.FinishReason.LENGTH if is_full else None
    num_counted = len(new)
    ends = (i for i, token in enumerate(new) if token in end_tokens)
    if (end := next(ends, None)) is not None:
      new, num_counted, reason = new[:end], end + 1, records.FinishReason.EOS
    self.tokens += new
    if self.opening is None:
      self.opening = stops.find_opening(self.tokens, num_before)
    # A stop string or a loop may be complete before the end token.
    if stop := stops.find_first_stop(self.tokens, num_before, self.opening):
      last, reason = stop
      del self.tokens[last:]
      num_counted = last - num_before
    self.finish_reason = reason
    return num_counted
