"""What a sampler tells: progress, and how long its samples are."""

from collections.abc import Sequence
import os
import pathlib
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from valley_jax import records
from valley_jax.runtime import metrics
from valley_jax.sampling import request as request_lib

if TYPE_CHECKING:
  from valley_jax.sampling import engine as engine_lib

_WIDTH = 40  # Characters of the longest bar.
_NUM_TEXTS = 8  # Samples to read in TensorBoard.


class Progress:
  """A bar of samples, with tokens/s, live slots and stage beside it."""

  def __init__(self, num_done: int, num_all: int):
    self._bar = metrics.progress(num_all, 'sample', 'sample', initial=num_done)
    self._num_tokens = 0
    self._shown = self._flushed = self._began = time.monotonic()
    self._every = 0.5 if sys.stderr.isatty() else 10.0

  def say(self, line: str) -> None:
    """Prints a line beside the bar."""
    self._bar.write(f'sample: {line}', file=sys.stderr)

  def look(self, state: 'engine_lib.State') -> None:
    """Shows what an engine is doing, now and then."""
    now = time.monotonic()
    if now - self._shown < self._every:
      return
    self._shown = now
    rate = state.num_tokens / (now - self._began)
    self._bar.set_postfix_str(
        f'{rate:,.0f} tokens/s, {state.num_live} live in slots of' f' {state.stage:,}'
    )

  def is_due(self, seconds: float) -> bool:
    """Says whether so much time has passed since it last said so."""
    now = time.monotonic()
    if now - self._flushed < seconds:
      return False
    self._flushed = now
    return True

  def count(self, sample: request_lib.Sample) -> None:
    """Counts a sample that has ended."""
    self._num_tokens += len(sample.tokens)
    self._bar.update(1)

  def close(self) -> None:
    """Ends the bar, with the mean rate."""
    rate = self._num_tokens / (time.monotonic() - self._began)
    self._bar.set_postfix_str(f'{rate:,.0f} tokens/s')
    self._bar.close()


def draw_histogram(lengths: Sequence[int]) -> str:
  """Returns lengths as lines of bars: `  129 …   256 ████ 17`."""
  counts = metrics.count_by_power_of_two(lengths)
  lines = []
  for power, count in counts.items():
    bar = '█' * round(_WIDTH * count / max(counts.values()))
    # The outermost bars end at the shortest and the longest length.
    first, last = max(power // 2 + 1, min(lengths)), min(power, max(lengths))
    lines.append(f'  {first:>7,} … {last:>7,} {bar} {count:,}')
  return '\n'.join(lines)


def summary(rows: Sequence[records.Completion]) -> str:
  """Returns what has come of all samples."""
  reasons = [row.finish_reason for row in rows]
  truncated = reasons.count(records.FinishReason.LENGTH)
  looping = reasons.count(records.FinishReason.LOOP)
  text = (
      f'sample: {len(rows):,} completions, {truncated:,} truncated,'
      f' {looping:,} cut off in a loop.'
  )
  if not rows:
    return text
  return f'{text} Tokens:\n{draw_histogram([len(row.tokens) for row in rows])}'


def write_tensorboard(workdir: str | os.PathLike, rows: Sequence[records.Completion]) -> None:
  """Writes lengths and some texts to TensorBoard, under `sample`."""
  lengths = np.array([len(row.tokens) for row in rows])
  texts = {
      f'{row.problem_id}/{row.sample_index}': row.text
      for row in rows[:: -(-len(rows) // _NUM_TEXTS)]
  }
  metrics.write_samples(pathlib.Path(workdir), lengths, texts)
