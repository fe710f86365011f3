"""What a run trains on, what it keeps from training, and the record of both.

Without a name a run trains on a nested random subset of num_traces, and with a
name on one of config.subsets, or on the first num_traces of it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np

from valley_jax import errors
from valley_jax.data.shards import table as table_lib
from valley_jax.data.subsets import selections
from valley_jax.data.subsets import subset
from valley_jax.runtime import buckets

ALL = -1  # As num_traces: all that the named subset has.


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Rows of the shards, and the manifest that says which they are and why."""

  rows: np.ndarray  # To train on, smallest hash first in each phase.
  held_out: np.ndarray  # Never trained on.
  manifest: dict[str, Any]
  phases: tuple[int, ...] = ()  # Traces of each, if there are several.


def sha256(ids: Sequence[str]) -> str:
  """Returns the hash of trace ids, in their order."""
  return hashlib.sha256('\n'.join([*ids, '']).encode()).hexdigest()


def manifest(
    table: table_lib.Table, rows: Sequence[int] | np.ndarray, **said: Any
) -> dict[str, Any]:
  """Returns the record of a subset: what was `said` of it, counts, and ids."""
  rows = [int(row) for row in rows]
  ids = [table.ids[row] for row in rows]
  columns = {
      name: [column[row] for row in rows]
      for name in table_lib.FIELDS
      for column in [table.column(name)]
  }
  shown = ('difficulty', 'is_correct', 'language', 'source', 'teacher')
  return {
      **said,
      'ids_sha256': sha256(ids),
      'num_traces': len(rows),
      'num_questions': len(set(columns['problem_ids'])),
      'num_tokens': sum(columns['num_tokens']),
      'num_supervised_tokens': sum(columns['num_supervised']),
      'lengths': table_lib.lengths(columns['num_tokens']),
      **{name: table_lib.labels(columns[name]) for name in shown},
      'ids': ids,
  }


def read_ids(path: str | os.PathLike) -> list[str]:
  """Returns the ids of a manifest.

  Raises:
    ValueError: there is none, or its ids are not those it was written with.
  """
  path = buckets.absolute(path)
  if not path.exists():
    raise errors.UserError(
        f'{path} does not exist; run `python -m valley_jax.curate` first, or'
        ' name the directory of what it wrote as config.curated.'
    )
  found = json.loads(path.read_bytes())
  ids = found.get('ids') if isinstance(found, dict) else None
  if not ids or found.get('ids_sha256') != sha256(ids):
    raise errors.UserError(
        f'{path} has no ids, or others than its ids_sha256 says; make it again'
        ' rather than change it by hand.'
    )
  return ids


def _first(rows: np.ndarray, num_traces: int, name: str) -> np.ndarray:
  if num_traces != ALL and not 0 <= num_traces <= len(rows):
    raise errors.UserError(
        f'num_traces={num_traces:,}, but subset {name!r} has {len(rows):,}; ask'
        f' for at most that many, or say num_traces={ALL} for all of them.'
    )
  return rows if num_traces == ALL else rows[:num_traces]


def choose(
    table: table_lib.Table,
    subsets: Mapping[str, Sequence[selections.Selection]],
    name: str,
    *,
    num_traces: int,
    num_held_out: int,
    seed: int,
    directory: str | os.PathLike,
) -> Corpus:
  """Chooses what a run trains on and what it holds out.

  The traces held out are those of largest hash whatever the subset, so that
  the losses of two subsets compare; a named subset is taken of the others. But
  what a manifest names, by `ids`, is trained on and never held out.

  Args:
    table: Of the shards.
    subsets: config.subsets.
    name: Of one of them; '': the nested random one of `num_traces`.
    num_traces: 0: none, the student stays as it is; ALL: the whole subset.
    num_held_out: How many are kept from training.
    seed: Of all that is random.
    directory: Where the files of `ids` are.

  Raises:
    ValueError: there are too few traces, or a selection cannot be made.
  """
  phases = ()
  if name:
    rows, held_out, phases = _named(table, subsets, name, num_traces, num_held_out, seed, directory)
    used = subsets[name]
  else:
    rows = subset.nested(table.ids, num_traces, seed)
    held_out = subset.held_out(table.ids, num_held_out, num_traces, seed)
    used = ({'random': num_traces},)
  said = {
      'subset': name,
      'selections': list(used),
      'seed': seed,
      'held_out': len(held_out),
      'held_out_sha256': sha256([table.ids[int(row)] for row in held_out]),
  }
  if phases:
    said['phases'] = list(phases)
  return Corpus(rows, held_out, manifest(table, rows, **said), phases)


def _named(
    table, subsets, name, num_traces, num_held_out, seed, directory
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
  """Returns the rows of a named subset, those held out, and its phases."""
  files = selections.files(subsets, name) if num_traces else ()
  ids = {file: read_ids(buckets.absolute(directory) / file) for file in files}
  never = frozenset().union(*ids.values())
  free = [row for row, i in enumerate(table.ids) if i not in never]
  found = subset.held_out([table.ids[row] for row in free], num_held_out, 0, seed)
  held_out = np.asarray(free, np.int64)[found]
  if not num_traces:
    return np.zeros(0, np.int64), held_out, ()
  names = selections.phases(subsets, name)
  parts: list[np.ndarray] = []
  for part in names:
    rows = selections.evaluate(
        table,
        subsets,
        part,
        seed=seed,
        read_ids=ids.__getitem__,
        without=np.concatenate([held_out, *parts]),
    )
    parts.append(rows)
  if len(names) == 1:
    return _first(parts[0], num_traces, name), held_out, ()
  if num_traces != ALL:
    raise errors.UserError(
        f'num_traces={num_traces:,}, but subset {name!r} has phases, which are'
        f' trained on whole; say num_traces={ALL}.'
    )
  return np.concatenate(parts), held_out, tuple(map(len, parts))
