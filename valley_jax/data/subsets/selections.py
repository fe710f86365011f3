"""The algebra of subsets: how a config says which traces to train on.

A subset is a tuple of selections, applied one after another to all traces:

    correct_6k=({'where': 'source', 'equals': 'taco'},
                {'where': 'is_correct', 'equals': True},
                {'random': 6_000})

Each selection is a small dict; its first key says what is done:

    {'where': FIELD, 'equals': VALUE}
                               or 'among': (VALUE, …), or 'none_of': (VALUE, …), or a window:
                               'least', 'most' or both
    {'random': N}              the N of smallest hash; nested in N
    {'per_question': K}        at most K traces of each question
    {'token_budget': N}        by hash until N tokens; nested in N. 'of': 'num_tokens' (the default)
                               or 'num_supervised'
    {'match': FIELD, 'take': VALUE, 'other': VALUE, 'on': (FIELD, …)}
                               among the traces whose FIELD is one or the other VALUE, equally many
                               in each stratum of 'on'; the arm 'take' stays. 'bins' (8) strata of a
                               number; 'most' traces an arm (0: no limit)
    {'mixture': {NAME: WEIGHT, …}, 'size': N}
                               N traces of other, disjoint subsets, by weight
    {'ids': FILE}              the traces of a manifest, such as `curate` writes

One subset may be trained on after another, so that the weights of a mixture change during training:

    early=({'mixture': {'easy': 3, 'hard': 1}, 'size': 2_000},)
    late=({'mixture': {'easy': 1, 'hard': 3}, 'size': 2_000},)
    rising=({'phases': ('early', 'late')},)

Each phase is selected from the traces that the phases before it leave.

Fields are the columns of `shards.TraceTable`. A trace whose label is not known is in no class and
in no stratum. Everything random is a hash of seed and trace id: the same traces on every machine,
whatever their order.
"""

import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import inspect
import itertools
import math
from typing import Any

import numpy as np

from valley_jax import errors
from valley_jax.data.shards import shards
from valley_jax.data.subsets import drawing

Selection = Mapping[str, Any]
Rows = list[int]  # Rows of a table, smallest hash first.


@dataclasses.dataclass(frozen=True)
class _Context:
  """What a selection may use besides the remaining rows."""

  table: shards.TraceTable
  seed: int
  subsets: Mapping[str, Sequence[Selection]]
  read_ids: Callable[[str], Sequence[str]]
  outer: tuple[str, ...] = ()  # The subsets that this one is evaluated within.


def count_labels(values: Sequence[Any]) -> dict[str, int]:
  """Counts traces by label, the commonest first; None counts as `unknown`."""
  names = ['unknown' if value is None else str(value) for value in values]
  counts = collections.Counter(names).items()
  return dict(sorted(counts, key=lambda item: (-item[1], item[0])))


def _select_where(context: _Context, rows: Rows, field: str, **test: Any) -> Rows:
  column = context.table.list_column(field)
  match test:
    case {'equals': value, **rest} if not rest:
      kept = [row for row in rows if column[row] == value]
    case {'among': values, **rest} if not rest:
      kept = [row for row in rows if column[row] in values]
    case {'none_of': values, **rest} if not rest:
      values = (None, *values)
      kept = [row for row in rows if column[row] not in values]
    case {**window} if window and window.keys() <= {'least', 'most'}:
      low, high = window.get('least', -math.inf), window.get('most', math.inf)
      if field not in shards.NUMBER_FIELDS:
        raise errors.UserError(f'a window is of numbers: {[*shards.NUMBER_FIELDS]}.')
      known = [row for row in rows if column[row] is not None]
      kept = [row for row in known if low <= column[row] <= high]
    case _:
      raise errors.UserError("want 'equals', 'among', 'none_of', 'least' or 'most'.")
  if not kept:
    raise errors.UserError(
        f'no trace is left; before it, {field} is'
        f' {_summarize_values(field, [column[row] for row in rows])}.'
    )
  return kept


def _summarize_values(field: str, values: Sequence[Any]) -> str:
  """Returns the values of a column, in a few words."""
  known = [value for value in values if value is not None]
  if field in shards.NUMBER_FIELDS and known:
    return f'from {min(known)} to {max(known)}'
  return str(dict(itertools.islice(count_labels(values).items(), 8)))


def _select_random(context: _Context, rows: Rows, number: int) -> Rows:
  del context  # The rows are already in the order of the hash.
  if not 0 < number <= len(rows):
    raise errors.UserError(
        f'{number:,} of {len(rows):,} traces cannot be drawn; ask for fewer, or shard more.'
    )
  return rows[:number]


def _rank_by_salted_hash(context: _Context, salt: str) -> dict[int, int]:
  """Returns each row's rank by another hash than that of nested subsets.

  With the same hash, the first trace of a large group would also be among the first of all, and a
  `random` that follows would prefer large groups.
  """
  ranked = drawing.order_by_hash(context.table.ids, f'{salt}:{context.seed}')
  return {row: rank for rank, row in enumerate(ranked)}


def _select_per_question(context: _Context, rows: Rows, number: int) -> Rows:
  if number < 1:
    raise errors.UserError('want 1 trace a question or more.')
  rank, seen, kept = _rank_by_salted_hash(context, 'per_question'), {}, set()
  for row in sorted(rows, key=rank.__getitem__):
    question = context.table.problem_ids[row]
    seen[question] = seen.get(question, 0) + 1
    if seen[question] <= number:
      kept.add(row)
  return [row for row in rows if row in kept]


def _select_token_budget(
    context: _Context, rows: Rows, number: int, of: str = 'num_tokens'
) -> Rows:
  if of not in ('num_tokens', 'num_supervised'):
    raise errors.UserError("want 'of' to be num_tokens or num_supervised.")
  column = context.table.list_column(of)
  totals = list(itertools.accumulate(column[row] for row in rows))
  if not totals or not totals[0] <= number <= totals[-1]:
    first, last = (totals[0], totals[-1]) if totals else (0, 0)
    raise errors.UserError(
        f'the {len(rows):,} traces have {last:,} tokens, the first of them {first:,}; ask for a'
        ' number between these, or shard more.'
    )
  return [r for r, total in zip(rows, totals, strict=True) if total <= number]


def _select_matched(
    context: _Context,
    rows: Rows,
    field: str,
    *,
    take: Any,
    other: Any,
    on: Sequence[str],
    bins: int = 8,
    most: int = 0,
) -> Rows:
  if take == other or not on or bins < 1 or most < 0:
    raise errors.UserError(
        "want two different values 'take' and 'other', at least one field in 'on', 'bins' of at"
        " least 1 and 'most' of at least 0."
    )
  # The arms are always matched in the same order, so that both selections see the same pair.
  arms = sorted((take, other), key=str)
  rank = _rank_by_salted_hash(context, 'match')
  pair = drawing.match_arms(
      sorted(rows, key=rank.__getitem__),
      context.table.list_column(field),
      (arms[0], arms[1]),
      [context.table.list_column(name) for name in on],
      bins=bins,
      most=most,
  )
  if not pair[0]:
    raise errors.UserError(
        f"no stratum of {[*on]} has traces of both classes; match on fewer fields, in fewer 'bins',"
        ' or label more traces.'
    )
  kept = set(pair[arms.index(take)])
  return [row for row in rows if row in kept]


def _select_mixture(
    context: _Context, rows: Rows, weights: Mapping[str, float], *, size: int
) -> Rows:
  names = sorted(weights)
  parts = [_select_subset(context, rows, name) for name in names]
  candidates = [row for part in parts for row in part]
  if num_shared := len(candidates) - len(set(candidates)):
    raise errors.UserError(
        f'{num_shared:,} traces are in two of its subsets; mix subsets that share none.'
    )
  unbounded = [size] * len(names)
  counts = drawing.share_out([weights[name] for name in names], size, unbounded)
  for name, part, count in zip(names, parts, counts, strict=True):
    if count > len(part):
      raise errors.UserError(
          f"{count:,} traces of {name!r} are needed, it has {len(part):,}; lower 'size' or its"
          ' weight, or shard more.'
      )
  pairs = zip(parts, counts, strict=True)
  kept = {row for part, count in pairs for row in part[:count]}
  return [row for row in rows if row in kept]


def _select_ids(context: _Context, rows: Rows, path: str) -> Rows:
  wanted = set(context.read_ids(path))
  missing = wanted - set(context.table.ids)
  if missing:
    raise errors.UserError(
        f'{len(missing):,} of its {len(wanted):,} ids, such as {min(missing)!r}, are not in the'
        ' shards; name the shards that it was made from, or make it again.'
    )
  return [row for row in rows if context.table.ids[row] in wanted]


def _refuse_phases(context: _Context, rows: Rows, names: Sequence[str]) -> Rows:
  del context, rows
  raise errors.UserError(
      f'phases {[*names]} are phases of training: a subset that has them cannot be part of another,'
      ' and nothing can be selected from it.'
  )


_SELECTIONS: dict[str, Callable[..., Rows]] = {
    'where': _select_where,
    'random': _select_random,
    'per_question': _select_per_question,
    'token_budget': _select_token_budget,
    'match': _select_matched,
    'mixture': _select_mixture,
    'ids': _select_ids,
    'phases': _refuse_phases,
}


def _apply_selection(context: _Context, rows: Rows, selection: Selection) -> Rows:
  name, *options = selection
  if name not in _SELECTIONS:
    raise errors.UserError(f'the first key is {name!r}, want one of {[*_SELECTIONS]}.')
  select = _SELECTIONS[name]
  arguments = {option: selection[option] for option in options}
  # The signature of the function is the schema of the dict: unknown and missing keys are errors.
  try:
    inspect.signature(select).bind(context, rows, selection[name], **arguments)
  except TypeError as e:
    raise errors.UserError(f'{e}; see valley_jax/data/subsets/selections.py.') from e
  return select(context, rows, selection[name], **arguments)


def _get_subset(subsets: Mapping[str, Sequence[Selection]], name: str) -> Sequence[Selection]:
  if name not in subsets:
    raise errors.UserError(f'config.subset={name!r}: config.subsets has {[*sorted(subsets)]}.')
  return subsets[name]


def _select_subset(context: _Context, rows: Rows, name: str) -> Rows:
  if name in context.outer:
    raise errors.UserError(f'Subset {name!r} is a mixture of itself: {[*context.outer, name]}.')
  inner = dataclasses.replace(context, outer=(*context.outer, name))
  for selection in _get_subset(context.subsets, name):
    try:
      rows = _apply_selection(inner, rows, selection)
    except ValueError as e:
      raise errors.UserError(f'Subset {name!r}, {dict(selection)}: {e}') from e
  return rows


def select_rows(
    table: shards.TraceTable,
    subsets: Mapping[str, Sequence[Selection]],
    name: str,
    *,
    seed: int,
    read_ids: Callable[[str], Sequence[str]],
    without: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
  """Returns the rows of a subset, smallest hash first, like `drawing.draw_nested`.

  Args:
    table: The table of the shards.
    subsets: Selections by subset name.
    name: Name of the subset.
    seed: Seed of everything random.
    read_ids: Returns the trace ids of a file that `ids` names.
    without: Rows that are excluded from all subsets.

  Raises:
    UserError: there is no such subset, or a selection cannot be made; the message names the subset,
      the selection and the remedy.
  """
  context = _Context(table, seed, subsets, read_ids)
  excluded = set(np.asarray(without, np.int64).tolist())
  rows = [r for r in drawing.order_by_hash(table.ids, seed) if r not in excluded]
  return np.asarray(_select_subset(context, rows, name), np.int64)


def list_phases(subsets: Mapping[str, Sequence[Selection]], name: str) -> tuple[str, ...]:
  """Returns the names of the phases that a subset is trained in; its own name if it has none.

  Raises:
    UserError: the subset has other selections besides its phases.
  """
  its_selections = _get_subset(subsets, name)
  if not any('phases' in selection for selection in its_selections):
    return (name,)
  if len(its_selections) > 1 or len(its_selections[0]) > 1:
    raise errors.UserError(
        f'Subset {name!r}: phases are the whole of a subset; select within each of them, not beside'
        f' them, as {[dict(selection) for selection in its_selections]} does.'
    )
  return tuple(its_selections[0]['phases'])


def list_id_files(subsets: Mapping[str, Sequence[Selection]], name: str) -> frozenset[str]:
  """Returns the files from which a subset, or any subset in it, takes ids."""
  files, seen, pending = set(), set(), [name]
  while pending:
    seen.add(part := pending.pop())
    for selection in _get_subset(subsets, part):
      files |= {selection['ids']} if 'ids' in selection else set()
      inner = *selection.get('mixture', ()), *selection.get('phases', ())
      pending += [n for n in inner if n not in seen]
  return frozenset(files)
