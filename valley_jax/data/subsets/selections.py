"""The algebra of subsets: what a config says, and which traces that is.

A subset is a tuple of selections, applied one after the other to all traces:

    correct_6k=({'where': 'source', 'equals': 'taco'},
                {'where': 'is_correct', 'equals': True},
                {'random': 6_000})

Each is a small dict; its first key says what is done:

    {'where': FIELD, 'equals': VALUE}
                               or 'among': (VALUE, …), or 'none_of': (VALUE, …),
                               or a window: 'least', 'most' or both
    {'random': N}              the N of smallest hash; nested in N
    {'per_question': K}        at most K traces of each question
    {'token_budget': N}        by hash until N tokens; nested in N. 'of':
                               'num_tokens' (the default) or 'num_supervised'
    {'match': FIELD, 'take': VALUE, 'other': VALUE, 'on': (FIELD, …)}
                               of the traces whose FIELD is one or the other
                               VALUE, equally many in each stratum of 'on'; the
                               arm 'take' stays. 'bins' (8) strata of a number;
                               'most' traces an arm (0: all there are)
    {'mixture': {NAME: WEIGHT, …}, 'size': N}
                               N traces of other, disjoint subsets, by weight
    {'ids': FILE}              those of a manifest, such as `curate` writes

One subset may be trained on after another, so that the weights of a mixture are
others as training goes on:

    early=({'mixture': {'easy': 3, 'hard': 1}, 'size': 2_000},)
    late=({'mixture': {'easy': 1, 'hard': 3}, 'size': 2_000},)
    rising=({'phases': ('early', 'late')},)

Each phase is chosen from the traces that those before it leave.

Fields are the columns of `table.Table`. A trace whose label is not known is in
no class and in no stratum. All that is random is a hash of seed and trace id:
the same traces on every machine, whatever their order.
"""

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
from valley_jax.data.shards import table as table_lib
from valley_jax.data.subsets import matching
from valley_jax.data.subsets import mixture
from valley_jax.data.subsets import subset

Selection = Mapping[str, Any]
Rows = list[int]  # Of a table, smallest hash first.


@dataclasses.dataclass(frozen=True)
class _Given:
  """What a selection may look at, besides the rows that are left."""

  table: table_lib.Table
  seed: int
  subsets: Mapping[str, Sequence[Selection]]
  read_ids: Callable[[str], Sequence[str]]
  inside: tuple[str, ...] = ()  # The subsets that are being evaluated.


def _where(given: _Given, rows: Rows, field: str, **test: Any) -> Rows:
  column = given.table.column(field)
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
      if field not in table_lib.NUMBERS:
        raise errors.UserError(f'a window is of numbers: {[*table_lib.NUMBERS]}.')
      known = [row for row in rows if column[row] is not None]
      kept = [row for row in known if low <= column[row] <= high]
    case _:
      raise errors.UserError("want 'equals', 'among', 'none_of', 'least' or 'most'.")
  if not kept:
    raise errors.UserError(
        f'no trace is left; before it, {field} is'
        f' {_summary(field, [column[row] for row in rows])}.'
    )
  return kept


def _summary(field: str, values: Sequence[Any]) -> str:
  """Returns the values of a column, in a few words."""
  known = [value for value in values if value is not None]
  if field in table_lib.NUMBERS and known:
    return f'from {min(known)} to {max(known)}'
  return str(dict(itertools.islice(table_lib.labels(values).items(), 8)))


def _random(given: _Given, rows: Rows, number: int) -> Rows:
  del given  # The rows are in the order of the hash already.
  if not 0 < number <= len(rows):
    raise errors.UserError(
        f'{number:,} of {len(rows):,} traces cannot be had; ask for 1 to that'
        ' many, or shard more.'
    )
  return rows[:number]


def _salted(given: _Given, salt: str) -> dict[int, int]:
  """Returns each row's rank by another hash than that of nested subsets.

  By the same hash, who comes first of a large group would also come first of
  all, and `random` behind it would prefer large groups.
  """
  ranked = subset.order(given.table.ids, f'{salt}:{given.seed}')
  return {row: rank for rank, row in enumerate(ranked)}


def _per_question(given: _Given, rows: Rows, number: int) -> Rows:
  if number < 1:
    raise errors.UserError('want 1 trace a question or more.')
  rank, seen, kept = _salted(given, 'per_question'), {}, set()
  for row in sorted(rows, key=rank.__getitem__):
    question = given.table.problem_ids[row]
    seen[question] = seen.get(question, 0) + 1
    if seen[question] <= number:
      kept.add(row)
  return [row for row in rows if row in kept]


def _token_budget(given: _Given, rows: Rows, number: int, of: str = 'num_tokens') -> Rows:
  if of not in ('num_tokens', 'num_supervised'):
    raise errors.UserError("want 'of' to be num_tokens or num_supervised.")
  column = given.table.column(of)
  totals = list(itertools.accumulate(column[row] for row in rows))
  if not totals or not totals[0] <= number <= totals[-1]:
    first, last = (totals[0], totals[-1]) if totals else (0, 0)
    raise errors.UserError(
        f'the {len(rows):,} traces have {last:,} tokens, the first of them'
        f' {first:,}; ask for a number between, or shard more.'
    )
  return [r for r, total in zip(rows, totals, strict=True) if total <= number]


def _match(
    given: _Given,
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
        "want two values, 'take' and 'other', at least one field in 'on', and"
        " neither 'bins' nor 'most' below its least, 1 and 0."
    )
  # Both arms by one call in one order, whichever of them is asked for.
  arms = sorted((take, other), key=str)
  rank = _salted(given, 'match')
  pair = matching.matched(
      sorted(rows, key=rank.__getitem__),
      given.table.column(field),
      (arms[0], arms[1]),
      [given.table.column(name) for name in on],
      bins=bins,
      most=most,
  )
  if not pair[0]:
    raise errors.UserError(
        f'no stratum of {[*on]} has traces of both classes; match on less, in'
        " fewer 'bins', or label more traces."
    )
  kept = set(pair[arms.index(take)])
  return [row for row in rows if row in kept]


def _mixture(given: _Given, rows: Rows, weights: Mapping[str, float], *, size: int) -> Rows:
  names = sorted(weights)
  parts = [_evaluate(given, rows, name) for name in names]
  everything = [row for part in parts for row in part]
  if len(set(everything)) < len(everything):
    raise errors.UserError(
        f'{len(everything) - len(set(everything)):,} traces are in two of its'
        ' subsets; mix subsets that share none.'
    )
  unbounded = [size] * len(names)
  counts = mixture.counts([weights[name] for name in names], size, unbounded)
  for name, part, count in zip(names, parts, counts, strict=True):
    if count > len(part):
      raise errors.UserError(
          f'{count:,} traces of {name!r} are needed, it has {len(part):,};'
          " lower 'size' or its weight, or shard more."
      )
  pairs = zip(parts, counts, strict=True)
  kept = {row for part, count in pairs for row in part[:count]}
  return [row for row in rows if row in kept]


def _ids(given: _Given, rows: Rows, path: str) -> Rows:
  wanted = set(given.read_ids(path))
  missing = wanted - set(given.table.ids)
  if missing:
    raise errors.UserError(
        f'{len(missing):,} of its {len(wanted):,} ids, such as'
        f' {min(missing)!r}, are not in the shards; name the shards that it was'
        ' made of, or make it again.'
    )
  return [row for row in rows if given.table.ids[row] in wanted]


def _phases(given: _Given, rows: Rows, names: Sequence[str]) -> Rows:
  del given, rows
  raise errors.UserError(
      f'phases {[*names]} are of training: a subset that has them is no part of'
      ' another, and nothing is selected from it.'
  )


_SELECTIONS: dict[str, Callable[..., Rows]] = {
    'where': _where,
    'random': _random,
    'per_question': _per_question,
    'token_budget': _token_budget,
    'match': _match,
    'mixture': _mixture,
    'ids': _ids,
    'phases': _phases,
}


def _apply(given: _Given, rows: Rows, selection: Selection) -> Rows:
  """Does what one dict says."""
  name, *options = selection
  if name not in _SELECTIONS:
    raise errors.UserError(f'the first key is {name!r}, want one of {[*_SELECTIONS]}.')
  select = _SELECTIONS[name]
  arguments = {option: selection[option] for option in options}
  try:
    inspect.signature(select).bind(given, rows, selection[name], **arguments)
  except TypeError as e:
    raise errors.UserError(f'{e}; see valley_jax/data/subsets/selections.py.') from e
  return select(given, rows, selection[name], **arguments)


def _named(subsets: Mapping[str, Sequence[Selection]], name: str) -> Sequence[Selection]:
  if name not in subsets:
    raise errors.UserError(f'config.subset={name!r}: config.subsets has {[*sorted(subsets)]}.')
  return subsets[name]


def _evaluate(given: _Given, rows: Rows, name: str) -> Rows:
  if name in given.inside:
    raise errors.UserError(f'Subset {name!r} is a mixture of itself: {[*given.inside, name]}.')
  inside = dataclasses.replace(given, inside=(*given.inside, name))
  for selection in _named(given.subsets, name):
    try:
      rows = _apply(inside, rows, selection)
    except ValueError as e:
      raise errors.UserError(f'Subset {name!r}, {dict(selection)}: {e}') from e
  return rows


def evaluate(
    table: table_lib.Table,
    subsets: Mapping[str, Sequence[Selection]],
    name: str,
    *,
    seed: int,
    read_ids: Callable[[str], Sequence[str]],
    without: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
  """Returns the rows of a subset, smallest hash first, as `subset.nested`.

  Args:
    table: What is known of the traces.
    subsets: Selections by name.
    name: Of the subset.
    seed: Of all that is random.
    read_ids: Returns the trace ids of a file that `ids` names.
    without: Rows that no subset may have.

  Raises:
    ValueError: no such subset, or a selection that cannot be made; it names
      both and the remedy.
  """
  given = _Given(table, seed, subsets, read_ids)
  never = set(np.asarray(without, np.int64).tolist())
  rows = [r for r in subset.order(table.ids, seed) if r not in never]
  return np.asarray(_evaluate(given, rows, name), np.int64)


def phases(subsets: Mapping[str, Sequence[Selection]], name: str) -> tuple[str, ...]:
  """Returns the subsets that a subset is trained on, one after the other.

  Raises:
    ValueError: something else is selected beside the phases.
  """
  chosen = _named(subsets, name)
  if not any('phases' in selection for selection in chosen):
    return (name,)
  if len(chosen) > 1 or len(chosen[0]) > 1:
    raise errors.UserError(
        f'Subset {name!r}: phases are all of a subset; select within each of'
        f' them, not beside {[dict(selection) for selection in chosen]}.'
    )
  return tuple(chosen[0]['phases'])


def files(subsets: Mapping[str, Sequence[Selection]], name: str) -> frozenset[str]:
  """Returns the files that a subset and all those in it take ids from."""
  found, seen, ahead = set(), set(), [name]
  while ahead:
    seen.add(part := ahead.pop())
    for selection in _named(subsets, part):
      found |= {selection['ids']} if 'ids' in selection else set()
      inside = *selection.get('mixture', ()), *selection.get('phases', ())
      ahead += [n for n in inside if n not in seen]
  return frozenset(found)
