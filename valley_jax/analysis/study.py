"""The runs of a study, and their numbers by size.

A run is a directory with a scores.json; beside it may lie the metrics.jsonl of
training, and the completions and judgements that were scored.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from valley_jax import records

RATES = (
    'completion_rate',
    'think_tag_rate',
    'think_closed_rate',
    'no_program_rate',
    'pass_at_1_given_completion',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One scored run."""

  directory: pathlib.Path
  scores: Mapping[str, Any]

  @property
  def num_traces(self) -> int:
    return self.scores['num_traces']

  @property
  def seed(self) -> int:
    return self.scores['seed']


def find_runs(workdir: pathlib.Path) -> list[Run]:
  """Returns the scored runs under `workdir`, by size and seed."""
  paths = sorted(workdir.rglob('scores.json'))
  if not paths:
    raise ValueError(
        f'No scores.json lies under {workdir}; run `score` (or `study`) first.'
    )
  runs = [
      Run(directory=path.parent, scores=records.read_json(path))
      for path in paths
  ]
  return sorted(runs, key=lambda run: (run.num_traces, run.seed))


def rates_by_size(runs: Sequence[Run]) -> dict[int, dict[str, float | None]]:
  """Returns {size: {rate: mean over its seeds}}; None where not known."""
  found = {}
  for size, group in _grouped(runs).items():
    found[size] = {}
    for name in RATES:
      known = [r.scores[name] for r in group if r.scores[name] is not None]
      found[size][name] = sum(known) / len(known) if known else None
  return found


def verdicts_by_size(runs: Sequence[Run]) -> dict[int, dict[str, int]]:
  """Returns {size: {verdict: judgements of all seeds}}."""
  found = {}
  for size, group in _grouped(runs).items():
    names = group[0].scores['verdicts']
    found[size] = {
        v: sum(r.scores['verdicts'][v] for r in group) for v in names
    }
  return found


def difficulties(runs: Sequence[Run]) -> list[str]:
  """Returns the difficulties of the problems, from easy to hard."""
  return list(runs[0].scores['by_difficulty'])


def scores_of(runs: Sequence[Run], difficulty: str) -> list[dict[str, Any]]:
  """Returns the runs' scores with the problems of one difficulty only."""
  return [
      {
          **run.scores,
          'problems': [
              p for p in run.scores['problems'] if p['difficulty'] == difficulty
          ],
      }
      for run in runs
  ]


def losses(
    runs: Sequence[Run], max_points: int = 300
) -> list[tuple[int, list[int], list[float]]]:
  """Returns (num_traces, steps, losses) of the runs that were trained.

  Long runs are thinned to `max_points`, evenly in log(step), as they are drawn,
  and keep their first and their last step.
  """
  found = []
  for run in runs:
    path = run.directory / 'metrics.jsonl'
    if not path.exists():
      continue
    rows = [r for r in records.read_rows(path, dict) if 'loss' in r]
    if rows:
      kept = np.unique(np.geomspace(1, len(rows), max_points).round())
      rows = [rows[int(i) - 1] for i in kept]
      steps = [row['step'] for row in rows]
      found.append((run.num_traces, steps, [row['loss'] for row in rows]))
  return found


def _grouped(runs: Sequence[Run]) -> dict[int, list[Run]]:
  groups = {}
  for run in runs:
    groups.setdefault(run.num_traces, []).append(run)
  return groups
