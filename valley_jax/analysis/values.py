"""One value per problem and run: what every comparison is made of.

A problem's value is its share of correct samples. Runs are put side by side by
their group, which is the size of a random subset or the name of another one,
and by their seed; all must be on the same problems, so that what is compared is
paired.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from valley_jax import errors

Group = int | str  # Traces of a nested random subset; or a subset's name.
Interval = tuple[float, float]


def group(scores: Mapping[str, Any]) -> Group:
  """Returns what a run is one of, by its scores.json.

  Scores that do not know of subsets are of random ones.
  """
  return scores.get('subset') or scores['num_traces']


def label(of: Group) -> str:
  """Returns how a table names a group."""
  return of if isinstance(of, str) else f'{of:,}' if of else '0 (base)'


def by_group(scores: Sequence[Mapping[str, Any]]) -> dict[Group, dict[int, np.ndarray]]:
  """Returns {group: {seed: (problems,)}}, in the order of the runs.

  Args:
    scores: The contents of scores.json of every run; at least one.

  Raises:
    ValueError: two runs of one group and seed, or runs on different problems.
  """
  runs: dict[Group, dict[int, np.ndarray]] = {}
  ids = sorted(p['problem_id'] for p in scores[0]['problems'])
  for run in scores:
    seed = run['seed']
    shares = {p['problem_id']: p['num_correct'] / p['num_samples'] for p in run['problems']}
    if sorted(shares) != ids:
      odd = sorted(shares.keys() ^ set(ids))
      raise errors.UserError(
          f'The run of {_said(run)}, seed {seed}, and another differ in'
          f' {len(odd)} problems ({", ".join(odd[:3])}…); score all runs of a'
          ' study on the same problems.'
      )
    if seed in runs.setdefault(group(run), {}):
      raise errors.UserError(
          f'Two runs have {_said(run)} and seed {seed}; keep studies in'
          ' workdirs of their own, and name a part of a subset as a subset.'
      )
    runs[group(run)][seed] = np.array([shares[name] for name in ids])
  return runs


def interval(draws: np.ndarray, level: float = 0.95) -> Interval:
  """Returns the central `level` of the draws."""
  tail = 50 * (1 - level)
  low, high = np.percentile(draws, [tail, 100 - tail])
  return float(low), float(high)


def _said(scores: Mapping[str, Any]) -> str:
  name = group(scores)
  return f'subset {name!r}' if isinstance(name, str) else f'{name:,} traces'
