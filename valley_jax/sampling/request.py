"""What is asked for, and what has come of it so far."""

import dataclasses

from valley_jax import records


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
