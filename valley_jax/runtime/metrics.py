"""What a run tells while it works: metrics.jsonl, TensorBoard, progress."""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
import sys
from typing import Any

import numpy as np
import tensorboardX
from tensorboardX import summary
import tqdm

from valley_jax import jsonl


def progress(total: int, unit: str, what: str, initial: int = 0) -> tqdm.tqdm:
  """Returns a progress bar with rate and ETA; call `.update(n)`.

  On a terminal it redraws in place; in a log it prints a line every 10 s.
  """
  interactive = sys.stderr.isatty()
  return tqdm.tqdm(
      total=total,
      initial=initial,
      unit=unit,
      desc=what,
      mininterval=0.1 if interactive else 10.0,
      maxinterval=10.0,
      dynamic_ncols=interactive,
      ascii=not interactive,
  )


def _flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for name, value in config.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      is_plain = isinstance(value, int | float | str)
      flat[prefix + name] = value if is_plain else str(value)
  return flat


class Writer:
  """Writes each step's scalars to metrics.jsonl and to TensorBoard.

  A run that was killed after step 120 and resumes from its checkpoint at 100
  writes steps 101 to 120 again: `first_step` cuts the older copies off, so
  that every step stands in the file once.
  """

  def __init__(self, workdir: str | os.PathLike, first_step: int = 0):
    workdir = pathlib.Path(workdir)
    path = workdir / 'metrics.jsonl'
    jsonl.repair_torn_tail(path)
    if path.exists():
      rows = list(jsonl.read_rows(path, dict))
      jsonl.write_rows(path, [r for r in rows if r['step'] <= first_step])
    self._rows = jsonl.Appender(path)
    self._events = tensorboardX.SummaryWriter(
        str(workdir / 'tensorboard'), purge_step=first_step + 1
    )
    assert self._events.file_writer  # It is None when closed.
    self._file = self._events.file_writer

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes one step's scalars; `step` counts from 1."""
    values = {name: float(value) for name, value in scalars.items()}
    self._rows.append({'step': step, **values})
    for name, value in values.items():
      self._events.add_scalar(name, value, step)

  def write_text(self, step: int, name: str, text: str) -> None:
    """Writes Markdown to TensorBoard alone."""
    self._events.add_text(name, text, step)

  def write_hparams(self, config: Mapping[str, Any], scalars: Sequence[str]) -> None:
    """Tells TensorBoard what the run is, to be compared with others.

    Args:
      config: Values by name, or mappings of such; `train.epochs` is made of
        names. What is neither number nor text becomes text.
      scalars: Names of those to show beside it, each by its last value.
    """
    # Not `add_hparams`: it would make another run, in a directory below. The
    # third event would say that the run has ended.
    shown = summary.hparams(_flatten(config), dict.fromkeys(scalars))
    for event in shown[:2]:
      self._file.add_summary(event)

  def close(self) -> None:
    """Flushes both."""
    self._rows.__exit__()
    self._events.close()


def write_samples(workdir: pathlib.Path, lengths: np.ndarray, texts: Mapping[str, str]) -> None:
  """Writes to TensorBoard how long samples are, and some of them to read.

  Args:
    workdir: Of the run.
    lengths: Tokens.
    texts: By name; they are shown as they are.
  """
  with tensorboardX.SummaryWriter(str(workdir / 'tensorboard')) as events:
    events.add_histogram('sample/tokens', lengths, 0)
    for name, text in texts.items():
      fence = '~' * 12  # Longer than any that a student writes.
      events.add_text(f'sample/{name}', f'{fence}\n{text}\n{fence}', 0)
