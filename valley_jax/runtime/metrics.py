"""What a run reports while it works: metrics.jsonl, TensorBoard events, progress bars."""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import importlib
import os
import pathlib
import sys
from typing import Any

import numpy as np
import tqdm

from valley_jax import jsonl


def import_tensorboardx() -> Any:
  """Returns the module tensorboardX, imported without torch.

  tensorboardX imports torch wherever it is installed, which takes seconds and hundreds of
  megabytes. Import it through this function alone.
  """
  torch = sys.modules.get('torch')
  sys.modules['torch'] = None  # pyright: ignore[reportArgumentType]  # `import torch` now fails.
  try:
    return importlib.import_module('tensorboardX')
  finally:
    del sys.modules['torch']
    if torch:
      sys.modules['torch'] = torch


def progress(total: int, unit: str, description: str, initial: int = 0) -> tqdm.tqdm:
  """Returns a progress bar with rate and remaining time; call `.update(n)`.

  On a terminal it redraws in place; in a log it prints a line every 10 s.
  """
  interactive = sys.stderr.isatty()
  return tqdm.tqdm(
      total=total,
      initial=initial,
      unit=unit,
      desc=description,
      mininterval=0.1 if interactive else 10.0,
      maxinterval=10.0,
      dynamic_ncols=interactive,
      ascii=not interactive,
  )


def count_by_power_of_two(lengths: Iterable[int]) -> dict[int, int]:
  """Counts lengths by the smallest power of two that they are not longer than.

  Every power between the smallest and the largest is listed, also where no length belongs to it.

  Example:
    >>> count_by_power_of_two([3, 4, 5, 17])
    {4: 2, 8: 1, 16: 0, 32: 1}
  """
  counts = collections.Counter(max(int(n) - 1, 0).bit_length() for n in lengths)
  exponents = range(min(counts, default=0), max(counts, default=-1) + 1)
  return {2**exponent: counts[exponent] for exponent in exponents}


def _flatten_config(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for name, value in config.items():
    if isinstance(value, Mapping):
      flat |= _flatten_config(value, f'{prefix}{name}.')
    else:
      is_plain = isinstance(value, int | float | str)
      flat[prefix + name] = value if is_plain else str(value)
  return flat


class Writer:
  """Writes each step's scalars to metrics.jsonl and to TensorBoard.

  A run that was killed after step 120 and resumes from its checkpoint at 100 writes steps 101 to
  120 again. Rows and events after `first_step` are therefore removed, so that every step is in the
  file once.
  """

  def __init__(self, workdir: str | os.PathLike, first_step: int = 0):
    workdir = pathlib.Path(workdir)
    path = workdir / 'metrics.jsonl'
    jsonl.repair_torn_tail(path)
    if path.exists():
      rows = list(jsonl.read_rows(path, dict))
      jsonl.write_rows(path, [r for r in rows if r['step'] <= first_step])
    self._rows = jsonl.Appender(path)
    self._events = import_tensorboardx().SummaryWriter(
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
    """Writes the run's config to TensorBoard's table of hyper-parameters.

    Args:
      config: Nested mappings; a value's name is its path, such as `train.epochs`. Values that are
        neither numbers nor strings are shown as strings.
      scalars: Names of the scalars whose last values are shown beside the config.
    """
    # `add_hparams` would create a second run in a sub-directory. The third of the events says that
    # the run has ended, so it is left out.
    summary = import_tensorboardx().summary
    events = summary.hparams(_flatten_config(config), dict.fromkeys(scalars))
    for event in events[:2]:
      self._file.add_summary(event)

  def close(self) -> None:
    """Flushes and closes both files."""
    self._rows.__exit__()
    self._events.close()


def write_samples(workdir: pathlib.Path, lengths: np.ndarray, texts: Mapping[str, str]) -> None:
  """Writes a histogram of sample lengths and a few sample texts to TensorBoard.

  Args:
    workdir: The run's directory.
    lengths: Tokens of each sample.
    texts: Sample texts by name, shown verbatim.
  """
  with import_tensorboardx().SummaryWriter(str(workdir / 'tensorboard')) as events:
    events.add_histogram('sample/tokens', lengths, 0)
    for name, text in texts.items():
      fence = '~' * 12  # Longer than any fence that a student writes.
      events.add_text(f'sample/{name}', f'{fence}\n{text}\n{fence}', 0)
