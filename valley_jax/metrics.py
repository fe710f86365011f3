"""What a run tells while it works: metrics.jsonl, TensorBoard, progress."""

from collections.abc import Mapping
import os
import pathlib
import sys
from typing import Any

import tensorboardX
import tqdm

from valley_jax import records


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


class Writer:
  """Writes each step's scalars to metrics.jsonl and to TensorBoard.

  A run that was killed after step 120 and resumes from its checkpoint at 100
  writes steps 101 to 120 again: `first_step` cuts the older copies off, so
  that every step stands in the file once.
  """

  def __init__(self, workdir: str | os.PathLike, first_step: int = 0):
    workdir = pathlib.Path(workdir)
    path = workdir / 'metrics.jsonl'
    records.repair_torn_tail(path)
    if path.exists():
      rows = list(records.read_rows(path, dict))
      records.write_rows(path, [r for r in rows if r['step'] <= first_step])
    self._rows = records.Appender(path)
    self._events = tensorboardX.SummaryWriter(
        str(workdir / 'tensorboard'), purge_step=first_step + 1
    )

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes one step's scalars; `step` counts from 1."""
    values = {name: float(value) for name, value in scalars.items()}
    self._rows.append({'step': step, **values})
    for name, value in values.items():
      self._events.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes both."""
    self._rows.__exit__()
    self._events.close()
