"""What is asked for, and what has come of it so far."""

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses

from valley_jax import records
from valley_jax.sampling import stops as stops_lib


@dataclasses.dataclass(frozen=True)
class Request:
  """One sample to be drawn."""

  problem_id: str
  sample_index: int
  prompt: tuple[int, ...]  # Token ids.
  max_new_tokens: int | None = None  # None: as many as the others.


@dataclasses.dataclass
class Sample:
  """A sample on its way, and when it is done."""

  request: Request
  tokens: list[int] = dataclasses.field(default_factory=list)
  log_prob: float = 0.0
  log_prob_tempered: float = 0.0
  finish_reason: records.FinishReason | None = None
  opened: int | None = None  # Behind so many tokens stop strings count.

  @property
  def length(self) -> int:
    """Tokens, the prompt's included."""
    return len(self.request.prompt) + len(self.tokens)

  def take(
      self,
      tokens: Sequence[int],
      *,
      limit: int,
      end_tokens: Collection[int],
      stops: stops_lib.Stops,
  ) -> int:
    """Adds tokens up to the sample's end, and says why it ended, if it did.

    Args:
      tokens: Drawn next.
      limit: A sample of so many is truncated.
      end_tokens: Each ends it, and is not part of it.
      stops: What else ends it.

    Returns:
      How many of the tokens count, an end token among them.
    """
    before = len(self.tokens)
    new = list(tokens[: limit - before])
    is_full = before + len(new) == limit
    reason = records.FinishReason.LENGTH if is_full else None
    counted = len(new)
    ends = (i for i, token in enumerate(new) if token in end_tokens)
    if (end := next(ends, None)) is not None:
      new, counted, reason = new[:end], end + 1, records.FinishReason.EOS
    self.tokens += new
    if self.opened is None:
      self.opened = stops.opened(self.tokens, before)
    if stop := stops.first(self.tokens, before, self.opened):
      last, reason = stop
      del self.tokens[last:]
      counted = last - before
    self.finish_reason = reason
    return counted
