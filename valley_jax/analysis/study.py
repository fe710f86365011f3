"""The runs of a study, and their numbers by group: by size, or by subset.

A run is a directory with a scores.json; beside it may lie the metrics.jsonl of
training, and the completions and judgements that were scored.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from valley_jax import errors
from valley_jax import jsonl
from valley_jax.analysis import values

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
  def group(self) -> values.Group:
    return values.group(self.scores)

  @property
  def seed(self) -> int:
    return self.scores['seed']


def find_runs(workdir: pathlib.Path, names: Sequence[str] = ()) -> list[Run]:
  """Returns the scored runs under `workdir`, by size, then subset, and seed.

  Args:
    workdir: Where they lie.
    names: Of subsets, in the order in which they are shown; others follow.
  """
  paths = sorted(workdir.rglob('scores.json'))
  if not paths:
    raise errors.UserError(f'No scores.json lies under {workdir}; run `score` (or `study`) first.')
  runs = [Run(directory=path.parent, scores=jsonl.read_json(path)) for path in paths]
  rank = {name: i for i, name in enumerate(names)}

  def place(run: Run) -> tuple:
    if isinstance(run.group, int):
      return 0, run.group, '', run.seed
    return 1, rank.get(run.group, len(rank)), run.group, run.seed

  return sorted(runs, key=place)


def of_sizes(runs: Sequence[Run]) -> list[Run]:
  """Returns the runs of random subsets, the base student's among them."""
  return [run for run in runs if isinstance(run.group, int)]


def of_names(runs: Sequence[Run]) -> list[Run]:
  """Returns the runs of named subsets; ahead of them the base student's."""
  named = [run for run in runs if isinstance(run.group, str)]
  return [run for run in runs if run.group == 0] + named if named else []


def rates_by_group(runs: Sequence[Run]) -> dict[values.Group, dict[str, float | None]]:
  """Returns {group: {rate: mean over its seeds}}; None where not known."""
  found = {}
  for group, of in _grouped(runs).items():
    found[group] = {}
    for name in RATES:
      known = [r.scores[name] for r in of if r.scores[name] is not None]
      found[group][name] = sum(known) / len(known) if known else None
  return found


def verdicts_by_group(runs: Sequence[Run]) -> dict[values.Group, dict[str, int]]:
  """Returns {group: {verdict: judgements of all seeds}}."""
  found = {}
  for group, of in _grouped(runs).items():
    names = of[0].scores['verdicts']
    found[group] = {v: sum(r.scores['verdicts'][v] for r in of) for v in names}
  return found


def difficulties(runs: Sequence[Run]) -> list[str]:
  """Returns the difficulties of the problems, from easy to hard."""
  return list(runs[0].scores['by_difficulty'])


def scores_of(runs: Sequence[Run], difficulty: str) -> list[dict[str, Any]]:
  """Returns the runs' scores with the problems of one difficulty only."""
  return [
      {
          **run.scores,
          'problems': [p for p in run.scores['problems'] if p['difficulty'] == difficulty],
      }
      for run in runs
  ]


def losses(
    runs: Sequence[Run], max_points: int = 300
) -> list[tuple[values.Group, list[int], list[float]]]:
  """Returns (group, steps, losses) of the runs that were trained.

  Long runs are thinned to `max_points`, evenly in log(step), as they are drawn,
  and keep their first and their last step.
  """
  found = []
  for run in runs:
    path = run.directory / 'metrics.jsonl'
    if not path.exists():
      continue
    rows = [r for r in jsonl.read_rows(path, dict) if 'loss' in r]
    if rows:
      kept = np.unique(np.geomspace(1, len(rows), max_points).round())
      rows = [rows[int(i) - 1] for i in kept]
      steps = [row['step'] for row in rows]
      found.append((run.group, steps, [row['loss'] for row in rows]))
  return found


def _grouped(runs: Sequence[Run]) -> dict[values.Group, list[Run]]:
  groups = {}
  for run in runs:
    groups.setdefault(run.group, []).append(run)
  return groups
