"""What a sampling run writes and shows: files of samples, a progress bar, and a summary.

    completions.jsonl            in the end: all samples, in the problems' order
    samples/done-00000.jsonl     appended by process 0 as samples end
    samples/grown-00000.jsonl    samples that moved to longer slots, as they were then
    samples/live-00000.jsonl     samples that were in the slots at the last flush

A resumed run reads all of these, whoever wrote them, so the number of processes may change.
completions.jsonl replaces the others in one rename, and then they are removed; a sample that is in
both is one sample.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import os
import pathlib
import shutil
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.runtime import metrics
from valley_jax.sampling import samples as samples_lib

if TYPE_CHECKING:
  from valley_jax.sampling import engine as engine_lib

SampleKey = tuple[str, int]  # (problem id, sample index).

_BAR_CHARACTERS = 40  # Length of the longest bar.
_NUM_TEXTS = 8  # Samples to read in TensorBoard.


def _to_partial(sample: samples_lib.Sample) -> records.PartialCompletion:
  return records.PartialCompletion(
      problem_id=sample.request.problem_id,
      sample_index=sample.request.sample_index,
      tokens=tuple(sample.tokens),
      log_prob=sample.log_prob,
      log_prob_tempered=sample.log_prob_tempered,
  )


def _read_unique_samples(path: pathlib.Path) -> dict[SampleKey, records.Completion]:
  """Returns the samples of a file, none if there is no file.

  Raises:
    UserError: a sample occurs twice.
  """
  rows: dict[SampleKey, records.Completion] = {}
  if path.exists():
    for row in jsonl.read_rows(path, records.Completion):
      if rows.setdefault(key := records.sample_key(row), row) is not row:
        raise errors.UserError(
            f'{path}: sample {key} occurs twice; take another --workdir, or remove that file.'
        )
  return rows


class SampleFiles(contextlib.ExitStack):
  """The sample files of one run; as a context, those that one process writes."""

  def __init__(self, workdir: pathlib.Path, process: int = 0):
    """Opens nothing yet.

    Args:
      workdir: The run's directory.
      process: Index of this process.
    """
    super().__init__()
    self.completions = workdir / 'completions.jsonl'
    self._directory = workdir / 'samples'
    self._process = process

  def _get_path(self, kind: str) -> pathlib.Path:
    return self._directory / f'{kind}-{self._process:05d}.jsonl'

  def repair_torn_lines(self) -> None:
    """Cuts off lines that a kill left incomplete; call it while nobody writes."""
    for path in (self.completions, *self._directory.glob('*.jsonl')):
      jsonl.repair_torn_tail(path)

  def read_done(self) -> list[records.Completion]:
    """Returns the samples that have ended, each once.

    Raises:
      UserError: two files disagree about a sample, or a file has one twice.
    """
    done: dict[SampleKey, records.Completion] = {}
    paths = sorted(self._directory.glob('done-*.jsonl'))
    for path in (self.completions, *paths):
      rows = _read_unique_samples(path)
      for key in done.keys() & rows.keys():
        if done[key] != rows[key]:
          raise errors.UserError(
              f'{path}: sample {key} occurs twice, differently; take another --workdir, or remove'
              ' that file.'
          )
      done |= rows
    return list(done.values())

  def read_partials(self, is_exact: bool) -> dict[SampleKey, records.PartialCompletion]:
    """Returns the samples that had not ended, each as far as it had come.

    Args:
      is_exact: Whether to read only what was written at the end of a stage: a sample that resumes
        from there has the bits of an uninterrupted run.
    """
    kinds = ('grown',) if is_exact else ('grown', 'live')
    partials: dict[SampleKey, records.PartialCompletion] = {}
    for kind in kinds:
      for path in sorted(self._directory.glob(f'{kind}-*.jsonl')):
        for row in jsonl.read_rows(path, records.PartialCompletion):
          key = records.sample_key(row)
          if key not in partials or len(partials[key].tokens) < len(row.tokens):
            partials[key] = row
    return partials

  def __enter__(self) -> 'SampleFiles':
    self._done = self.enter_context(jsonl.Appender(self._get_path('done')))
    self._grown = self.enter_context(jsonl.Appender(self._get_path('grown')))
    return self

  def append_done(self, row: records.Completion) -> None:
    """Writes a sample that has ended; after the call it survives a kill."""
    self._done.append(row)

  def append_grown(self, sample: samples_lib.Sample) -> None:
    """Writes a sample that has outgrown its stage."""
    self._grown.append(_to_partial(sample))

  def write_live(self, samples: Iterable[samples_lib.Sample]) -> None:
    """Writes the samples that are in the slots, in place of those of the last flush."""
    jsonl.write_rows(self._get_path('live'), map(_to_partial, samples))

  def merge_done(
      self, rows: Sequence[records.Completion], order: dict[SampleKey, int]
  ) -> list[records.Completion]:
    """Writes completions.jsonl in the given order, then removes the files it was made of."""
    ordered = sorted(rows, key=lambda row: order[records.sample_key(row)])
    exists = self.completions.exists()
    if not exists or ordered != list(jsonl.read_rows(self.completions, records.Completion)):
      jsonl.write_rows(self.completions, ordered)
    if self._directory.exists():
      shutil.rmtree(self._directory)
    return ordered


class SampleProgress:
  """A progress bar of samples that also shows tokens/s, live slots and the stage."""

  def __init__(self, num_done: int, num_all: int):
    self._bar = metrics.progress(num_all, 'sample', 'sample', initial=num_done)
    self._num_tokens = 0
    self._shown = self._flushed = self._began = time.monotonic()
    self._every = 0.5 if sys.stderr.isatty() else 10.0

  def print_line(self, line: str) -> None:
    """Prints a line without breaking the bar."""
    self._bar.write(f'sample: {line}', file=sys.stderr)

  def show_state(self, state: 'engine_lib.EngineState') -> None:
    """Shows an engine's state, at most every half second."""
    now = time.monotonic()
    if now - self._shown < self._every:
      return
    self._shown = now
    rate = state.num_tokens / (now - self._began)
    self._bar.set_postfix_str(
        f'{rate:,.0f} tokens/s, {state.num_live} live in slots of {state.stage_len:,}'
    )

  def is_flush_due(self, seconds: float) -> bool:
    """Returns whether `seconds` have passed since the call that last returned True."""
    now = time.monotonic()
    if now - self._flushed < seconds:
      return False
    self._flushed = now
    return True

  def count_sample(self, sample: samples_lib.Sample) -> None:
    """Counts a sample that has ended."""
    self._num_tokens += len(sample.tokens)
    self._bar.update(1)

  def close(self) -> None:
    """Ends the bar with the mean rate."""
    rate = self._num_tokens / (time.monotonic() - self._began)
    self._bar.set_postfix_str(f'{rate:,.0f} tokens/s')
    self._bar.close()


def draw_histogram(lengths: Sequence[int]) -> str:
  """Returns lengths as lines of bars: `  129 …   256 ████ 17`."""
  counts = metrics.count_by_power_of_two(lengths)
  lines = []
  for power, count in counts.items():
    bar = '█' * round(_BAR_CHARACTERS * count / max(counts.values()))
    # The outermost bars end at the shortest and the longest length.
    first, last = max(power // 2 + 1, min(lengths)), min(power, max(lengths))
    lines.append(f'  {first:>7,} … {last:>7,} {bar} {count:,}')
  return '\n'.join(lines)


def summarize_samples(rows: Sequence[records.Completion]) -> str:
  """Returns how many samples there are, how they ended, and a histogram of their lengths."""
  reasons = [row.finish_reason for row in rows]
  truncated = reasons.count(records.FinishReason.LENGTH)
  looping = reasons.count(records.FinishReason.LOOP)
  text = (
      f'sample: {len(rows):,} completions, {truncated:,} truncated, {looping:,} cut off in a loop.'
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
