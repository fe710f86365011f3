"""What a run trains on, what it keeps from training, and the record of both.

Without a name a run trains on a nested random subset of num_traces; with a name it trains on one of
config.subsets, or on the first num_traces of it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import os
from typing import Any

import numpy as np

from valley_jax import errors
from valley_jax.data.shards import shards
from valley_jax.data.subsets import drawing
from valley_jax.data.subsets import selections
from valley_jax.runtime import metrics
from valley_jax.runtime import storage

ALL = -1  # As num_traces: every trace of the named subset.


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Rows of the shards, and the manifest that records which they are and why."""

  rows: np.ndarray  # Rows to train on, smallest hash first in each phase.
  held_out: np.ndarray  # Rows that are never trained on.
  manifest: dict[str, Any]
  phases: tuple[int, ...] = ()  # Number of traces of each phase, if there are several.


def build_subset_manifest(
    table: shards.TraceTable, rows: Sequence[int] | np.ndarray, **facts: Any
) -> dict[str, Any]:
  """Returns the record of a subset: the given facts, counts, and trace ids."""
  rows = [int(row) for row in rows]
  ids = [table.ids[row] for row in rows]
  columns: dict[str, list[Any]] = {}
  for name in shards.TABLE_FIELDS:
    column = table.list_column(name)
    columns[name] = [column[row] for row in rows]
  lengths = metrics.count_by_power_of_two(columns['num_tokens'])
  labels = ('difficulty', 'is_correct', 'language', 'source', 'teacher')
  return {
      **facts,
      'ids_sha256': shards.hash_ids(ids),
      'num_traces': len(rows),
      'num_questions': len(set(columns['problem_ids'])),
      'num_tokens': sum(columns['num_tokens']),
      'num_supervised_tokens': sum(columns['num_supervised']),
      'lengths': {f'le_{power}': count for power, count in lengths.items() if count},
      **{name: selections.count_labels(columns[name]) for name in labels},
      'ids': ids,
  }


def read_manifest_ids(path: str | os.PathLike) -> list[str]:
  """Returns the trace ids of a subset's manifest.

  Raises:
    UserError: there is no such file, or its ids were changed after it was written.
  """
  path = storage.absolute_path(path)
  if not path.exists():
    raise errors.UserError(
        f'{path} does not exist; run `python -m valley_jax.curate` first, or name the directory'
        ' that it wrote as config.curated.'
    )
  manifest = json.loads(path.read_bytes())
  ids = manifest.get('ids') if isinstance(manifest, dict) else None
  if not ids or manifest.get('ids_sha256') != shards.hash_ids(ids):
    raise errors.UserError(
        f'{path} has no ids, or others than its ids_sha256 says; make it again rather than change'
        ' it by hand.'
    )
  return ids


def choose_corpus(
    table: shards.TraceTable,
    subsets: Mapping[str, Sequence[selections.Selection]],
    name: str,
    *,
    num_traces: int,
    num_held_out: int,
    seed: int,
    directory: str | os.PathLike,
) -> Corpus:
  """Chooses what a run trains on and what it holds out.

  The held-out traces are those of largest hash whatever the subset, so that the losses of two
  subsets compare; a named subset is selected from the others. As an exception, traces that a
  manifest names (by `ids`) are trained on and never held out.

  Args:
    table: The table of the shards.
    subsets: Selections by subset name: config.subsets.
    name: Name of a subset; '' for the nested random one of `num_traces`.
    num_traces: Number of traces to train on; 0 leaves the student as it is, ALL takes the whole
      subset.
    num_held_out: Number of traces that are kept from training.
    seed: Seed of everything random.
    directory: Directory of the files that `ids` names.

  Raises:
    UserError: there are too few traces, or a selection cannot be made.
  """
  phases = ()
  if name:
    rows, held_out, phases = _choose_named(
        table, subsets, name, num_traces, num_held_out, seed, directory
    )
    used = subsets[name]
  else:
    rows = drawing.draw_nested(table.ids, num_traces, seed)
    held_out = drawing.draw_held_out(table.ids, num_held_out, num_traces, seed)
    used = ({'random': num_traces},)
  facts = {
      'subset': name,
      'selections': list(used),
      'seed': seed,
      'held_out': len(held_out),
      'held_out_sha256': shards.hash_ids([table.ids[int(row)] for row in held_out]),
  }
  if phases:
    facts['phases'] = list(phases)
  return Corpus(rows, held_out, build_subset_manifest(table, rows, **facts), phases)


def _choose_named(
    table, subsets, name, num_traces, num_held_out, seed, directory
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
  """Returns the rows of a named subset, those held out, and the sizes of its phases."""
  files = selections.list_id_files(subsets, name) if num_traces else ()
  ids = {file: read_manifest_ids(storage.absolute_path(directory) / file) for file in files}
  never_held_out = frozenset().union(*ids.values())
  free = [row for row, trace_id in enumerate(table.ids) if trace_id not in never_held_out]
  drawn = drawing.draw_held_out([table.ids[row] for row in free], num_held_out, 0, seed)
  held_out = np.asarray(free, np.int64)[drawn]
  if not num_traces:
    return np.zeros(0, np.int64), held_out, ()
  names = selections.list_phases(subsets, name)
  parts: list[np.ndarray] = []
  for part in names:
    rows = selections.select_rows(
        table,
        subsets,
        part,
        seed=seed,
        read_ids=ids.__getitem__,
        without=np.concatenate([held_out, *parts]),
    )
    parts.append(rows)
  if len(names) == 1:
    return _take_first(parts[0], num_traces, name), held_out, ()
  if num_traces != ALL:
    raise errors.UserError(
        f'num_traces={num_traces:,}, but subset {name!r} has phases, which are trained on whole;'
        f' say num_traces={ALL}.'
    )
  return np.concatenate(parts), held_out, tuple(map(len, parts))


def _take_first(rows: np.ndarray, num_traces: int, name: str) -> np.ndarray:
  if num_traces != ALL and not 0 <= num_traces <= len(rows):
    raise errors.UserError(
        f'num_traces={num_traces:,}, but subset {name!r} has {len(rows):,}; ask for at most that'
        f' many, or say num_traces={ALL} for all of them.'
    )
  return rows if num_traces == ALL else rows[:num_traces]
