"""What a study shows, in words: each claim with its interval, or its absence.

A claim is made only where its whole interval supports it. The words for "below" and "not shown to
be below" differ on purpose. A difference that is not shown is not called absent: the text says how
large it may still be.
"""

from collections.abc import Sequence
import dataclasses

from valley_jax.analysis import comparison
from valley_jax.analysis import presentation

Card = tuple[str, str, str]  # Label, number, what it rests on.
_MAX_SHOWN = 3  # Differences described in words, and groups on cards; the table has all.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """What one comparison shows, in words and key numbers."""

  headline: str
  verdict: str  # One sentence.
  notes: Sequence[str]  # What else a careful reader needs to know.
  cards: Sequence[Card]


def summarize_curve(curve: comparison.Comparison) -> Summary:
  """Returns the answer to: is there a valley, how deep, and where does it end?"""
  return Summary(
      headline=_write_curve_headline(curve),
      verdict=_write_curve_verdict(curve),
      notes=_write_notes(curve, 'size'),
      cards=_make_curve_cards(curve),
  )


def summarize_subsets(compared: comparison.Comparison) -> Summary:
  """Returns the answer to: does it matter what is taught?"""
  return Summary(
      headline=_write_subsets_headline(compared),
      verdict=_write_subsets_verdict(compared),
      notes=_write_notes(compared, 'subset'),
      cards=_make_subset_cards(compared),
  )


def _write_curve_headline(curve: comparison.Comparison) -> str:
  lowest = curve.lowest
  if lowest is None:
    return 'The base student alone.' if curve.base else 'No base run, so no valley to look for.'
  if curve.has_valley:
    return f'There is a valley, {-100 * lowest.difference:.1f} points deep.'
  if lowest.difference < 0:
    return 'A dip, but not beyond the noise.'
  if lowest.among_all[0] < 0:
    return 'No dip is seen, nor ruled out.'
  return 'There is no valley at these sizes.'


def _write_curve_verdict(curve: comparison.Comparison) -> str:
  base, lowest, largest = curve.base, curve.lowest, curve.largest
  if base is None:
    best = max(curve.groups, key=lambda group: group.pass_at_1)
    return (
        f'pass@1 is {_format_pass_at_1(best)} with {best.size:,} traces; a valley is measured'
        ' against a run of 0 traces, which is not here.'
    )
  if lowest is None or largest is None:
    return (
        f'pass@1 of the base student is {_format_pass_at_1(base)}; no run with traces is here yet.'
    )
  n = lowest.num_compared
  corrected = f', corrected for picking the lowest of {n} sizes' if n > 1 else ''
  low = next(group for group in curve.groups if group.name == lowest.name)
  before, after = (presentation.format_percent(group.pass_at_1) for group in (base, low))
  change = presentation.format_points(lowest.difference)
  interval = presentation.format_points_interval(lowest.among_all)
  return (
      f'{low.size:,} traces take pass@1 from {before} to {after} ({change} points, 95 % interval'
      f' {interval}{corrected}); {_describe_edge(lowest, curve.edge)};'
      f' {_describe_largest(largest)}.'
  )


def _format_pass_at_1(group: comparison.GroupResult) -> str:
  interval = presentation.format_percent_interval(group.interval)
  return f'{presentation.format_percent(group.pass_at_1)} (95 % interval {interval})'


def _describe_edge(lowest: comparison.Difference, edge: comparison.Edge | None) -> str:
  if lowest.difference >= 0:
    return 'no size is below the base student'
  if edge is None:
    return 'the curve does not re-cross the baseline at the sizes measured'
  low = f'{edge.low:,.0f}' if edge.low else 'below the smallest size'
  high = f'{edge.high:,.0f}' if edge.high else 'beyond the largest size'
  return (
      f'the curve re-crosses the baseline at about {edge.num_traces:,.0f} traces ({low} to {high})'
  )


def _describe_largest(largest: comparison.Difference) -> str:
  if largest.interval[0] > 0:
    claim = 'beat the base student'
  elif largest.interval[1] < 0:
    claim = 'stay below the base student'
  else:
    claim = 'are not shown to differ from the base student'
  return (
      f'{largest.name:,} traces {claim} ({presentation.format_points(largest.difference)} points,'
      f' {presentation.format_points_interval(largest.interval)})'
  )


def _make_curve_cards(curve: comparison.Comparison) -> list[Card]:
  lowest, largest = curve.lowest, curve.largest
  if curve.base is None:
    return [_make_card(f'{group.size:,} traces', group) for group in curve.groups[-_MAX_SHOWN:]]
  cards = [_make_card('base student', curve.base)]
  if lowest is None or largest is None:
    return cards
  for label, change, interval in (
      ('lowest', lowest, lowest.among_all),
      ('largest', largest, largest.interval),
  ):
    cards.append(
        (
            f'{label}, {change.name:,} traces',
            f'{presentation.format_points(change.difference)} pts',
            presentation.format_points_interval(interval),
        )
    )
  cards.insert(2, _make_edge_card(lowest, curve.edge))
  return cards


def _make_card(label: str, group: comparison.GroupResult) -> Card:
  return (
      label,
      presentation.format_percent(group.pass_at_1),
      presentation.format_percent_interval(group.interval),
  )


def _make_edge_card(lowest: comparison.Difference, edge: comparison.Edge | None) -> Card:
  if edge is None:
    return 'the valley’s edge', '–', 'never below' if lowest.difference >= 0 else 'not reached'
  low = f'{edge.low:,.0f}' if edge.low else '?'
  high = f'{edge.high:,.0f}' if edge.high else '?'
  return 'the valley’s edge', f'{edge.num_traces:,.0f}', f'{low} to {high} traces'


def _write_notes(compared: comparison.Comparison, kind: str) -> list[str]:
  """Returns what else a careful reader needs to know.

  Args:
    compared: A curve, or named subsets.
    kind: `size` or `subset`, the kind of the groups.
  """
  notes = []
  if compared.below_half and kind == 'size':
    sizes = ', '.join(f'{n:,}' for n in compared.below_half)
    notes.append(f'pass@1 is less than half of the base student’s at {sizes} traces.')
  counts = sorted({len(group.seeds) for group in compared.groups})
  if counts == [1]:
    notes.append(f'One seed a {kind}: how much another seed would differ is not known.')
  elif counts:
    number = '–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    notes.append(
        f'{number} seeds a {kind}, averaged problem by problem; their spread is shown as dots and'
        ' is not part of the intervals.'
    )
  notes.append(
      f'Intervals are 95 % percentile bootstrap intervals over the {compared.num_problems:,}'
      ' problems; comparisons are paired by problem.'
  )
  return notes


def _write_subsets_headline(compared: comparison.Comparison) -> str:
  pairs = compared.pairs
  if not pairs:
    return f'One subset, {compared.groups[0].name}.'
  shown = [gap for gap in pairs if gap.is_significant_among_all]
  if len(pairs) > 1:
    return f'Of {len(pairs)} pairs of subsets, {len(shown) or "none"} can be told apart.'
  gap = pairs[0]
  if not shown:
    return f'{gap.name} and {gap.other} are not told apart.'
  better, worse = (gap.name, gap.other)[:: 1 if gap.difference > 0 else -1]
  return f'{better} beats {worse} by {100 * abs(gap.difference):.1f} points.'


def _write_subsets_verdict(compared: comparison.Comparison) -> str:
  gaps = sorted(
      compared.pairs or compared.against_base,
      key=lambda gap: (not gap.is_significant_among_all, -abs(gap.difference)),
  )
  if not gaps:
    group = compared.groups[0]
    return (
        f'pass@1 with {group.name} is {_format_pass_at_1(group)}; another subset, or a run of 0'
        ' traces, is not here.'
    )
  rest = len(gaps) - _MAX_SHOWN
  more = f'; {rest} more below' if rest > 0 else ''
  return f'pass@1: {"; ".join(map(_describe_difference, gaps[:_MAX_SHOWN]))}{more}.'


def _describe_difference(gap: comparison.Difference) -> str:
  other = gap.other or 'the base student'
  interval = presentation.format_points_interval(gap.interval)
  return (
      f'{gap.name} against {other}: {presentation.format_points(gap.difference)} points (95 %'
      f' interval {interval}), {describe_significance(gap)}'
  )


def describe_significance(gap: comparison.Difference) -> str:
  """Returns whether a difference can be told from zero."""
  if not gap.is_significant:
    most = 100 * max(map(abs, gap.interval))
    return f'not told from zero: it may be up to {most:.1f} points'
  claim = 'told from zero'
  if not gap.is_significant_among_all:
    claim += f' alone, but not among {gap.num_compared} pairs'
  if gap.by_seed and min(gap.by_seed) <= 0 <= max(gap.by_seed):
    claim += ', though not by every seed'
  return claim


def _make_subset_cards(compared: comparison.Comparison) -> list[Card]:
  best = sorted(compared.groups, key=lambda group: -group.pass_at_1)[:_MAX_SHOWN]
  base = [_make_card('base student', compared.base)] if compared.base else []
  return base + [_make_card(str(group.name), group) for group in best]
