"""Describes the machine of a benchmark, and formats its figures."""

from collections.abc import Sequence
import importlib.metadata
import os
import pathlib
import platform
import statistics
import subprocess
from typing import Any


def read_first_line(*command: str) -> str:
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  return (done.stdout.splitlines() or [''])[0]


def describe_machine(*packages: str) -> dict[str, Any]:
  """Returns the machine, its load, the commit and the packages' versions."""
  info = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  models = [line.partition(': ')[2] for line in info if 'model name' in line]
  return {
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name) for name in packages},
      'commit': read_first_line('git', 'rev-parse', 'HEAD'),
      'kernel': platform.release(),
      'machine': (models or [platform.machine()])[0],
      'cores': len(os.sched_getaffinity(0)),
      'load': [round(x, 2) for x in os.getloadavg()],
  }


def format_spread(values: Sequence[float], digits: int = 1) -> str:
  """Returns the median (least–most)."""
  low, high = min(values), max(values)
  middle = statistics.median(values)
  return f'{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})'


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a Markdown table."""
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)
