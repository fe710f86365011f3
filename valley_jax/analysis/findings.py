"""What a study shows, in words: each claim with its interval, or its absence.

A claim is made only where its whole interval supports it. The words for
"below" and "not shown to be below" differ on purpose.
"""

from valley_jax.analysis import curve as curve_lib


def percent(value: float | None) -> str:
  """Returns 0.127 as '12.7 %', and nothing known as a dash."""
  return '–' if value is None else f'{100 * value:.1f}\N{NO-BREAK SPACE}%'


def percent_interval(interval) -> str:
  """Returns (0.1, 0.15) as '10.0 to 15.0 %'."""
  low, high = interval
  return f'{100 * low:.1f} to {100 * high:.1f}\N{NO-BREAK SPACE}%'


def points(difference: float) -> str:
  """Returns a difference of shares in percentage points, with its sign."""
  return f'{100 * difference:+.1f}'.replace('-', '−')


def points_interval(interval) -> str:
  """Returns an interval of differences, in percentage points."""
  low, high = interval
  return f'{points(low)} to {points(high)}'


def headline(measured: curve_lib.Curve) -> str:
  """Returns the shortest true answer to: is there a valley?"""
  lowest = measured.lowest
  if lowest is None:
    if measured.baseline is None:
      return 'No base run, so no valley to look for.'
    return 'The base student alone.'
  if measured.has_valley:
    depth = f'{-100 * lowest.difference:.1f}'
    return f'There is a valley, {depth} points deep.'
  if lowest.difference < 0:
    return 'A dip, but not beyond the noise.'
  if lowest.interval[0] < 0:
    return 'No dip is seen, nor ruled out.'
  return 'There is no valley at these sizes.'


def verdict(measured: curve_lib.Curve) -> str:
  """Returns the study's result in one sentence."""
  base, lowest, largest = measured.baseline, measured.lowest, measured.largest
  if base is None or lowest is None or largest is None:
    return _without_comparison(measured)
  among = (
      f', corrected for picking the lowest of {lowest.num_compared} sizes'
      if lowest.num_compared > 1
      else ''
  )
  low = next(p for p in measured.points if p.num_traces == lowest.num_traces)
  dip = (
      f'{lowest.num_traces:,} traces take pass@1 from'
      f' {percent(base.pass_at_1)} to {percent(low.pass_at_1)}'
      f' ({points(lowest.difference)} points, 95 % interval'
      f' {points_interval(lowest.interval)}{among})'
  )
  return f'{dip}; {_edge(lowest, measured.edge)}; {_largest(largest)}.'


def _without_comparison(measured: curve_lib.Curve) -> str:
  if measured.baseline is None:
    best = max(measured.points, key=lambda p: p.pass_at_1)
    return (
        f'pass@1 is {percent(best.pass_at_1)} (95 % interval'
        f' {percent_interval(best.interval)}) with {best.num_traces:,} traces;'
        ' a valley is measured against a run of 0 traces, which is not here.'
    )
  base = measured.baseline
  return (
      f'pass@1 of the base student is {percent(base.pass_at_1)} (95 % interval'
      f' {percent_interval(base.interval)}); no run with traces is here yet.'
  )


def _edge(lowest: curve_lib.Change, edge: curve_lib.Edge | None) -> str:
  if lowest.difference >= 0:
    return 'no size is below the base student'
  if edge is None:
    return 'the curve does not re-cross the baseline at the sizes measured'
  low = f'{edge.low:,.0f}' if edge.low else 'below the smallest size'
  high = f'{edge.high:,.0f}' if edge.high else 'beyond the largest size'
  return (
      'the curve re-crosses the baseline at about'
      f' {edge.num_traces:,.0f} traces ({low} to {high})'
  )


def _largest(largest: curve_lib.Change) -> str:
  if largest.interval[0] > 0:
    claim = 'beat the base student'
  elif largest.interval[1] < 0:
    claim = 'stay below the base student'
  else:
    claim = 'are not shown to differ from the base student'
  return (
      f'{largest.num_traces:,} traces {claim}'
      f' ({points(largest.difference)} points,'
      f' {points_interval(largest.interval)})'
  )


def notes(measured: curve_lib.Curve) -> list[str]:
  """Returns what else a careful reader needs to know."""
  said = []
  if measured.below_half:
    sizes = ', '.join(f'{n:,}' for n in measured.below_half)
    said.append(f'pass@1 is less than half of the base student’s at {sizes} traces.')
  if measured.points:
    counts = {len(p.seeds) for p in measured.points}
    if max(counts) == 1:
      said.append('One seed a size: how much another seed would differ is not known.')
    else:
      number = '–'.join(map(str, sorted({min(counts), max(counts)})))
      said.append(
          f'{number} seeds a size, averaged problem by problem; their spread is'
          ' shown as dots and is not part of the intervals.'
      )
  said.append(
      'Intervals are 95 % percentile bootstrap intervals over the'
      f' {measured.num_problems:,} problems; comparisons are paired by problem.'
  )
  return said


def cards(measured: curve_lib.Curve) -> list[tuple[str, str, str]]:
  """Returns the key numbers as (label, number, what it rests on)."""
  shown = []
  base, lowest, largest = measured.baseline, measured.lowest, measured.largest
  if base is not None:
    shown.append(('base student', percent(base.pass_at_1), percent_interval(base.interval)))
  if lowest is not None and largest is not None:
    shown.append(
        (
            f'lowest, {lowest.num_traces:,} traces',
            f'{points(lowest.difference)} pts',
            points_interval(lowest.interval),
        )
    )
    shown.append(_edge_card(lowest, measured.edge))
    shown.append(
        (
            f'largest, {largest.num_traces:,} traces',
            f'{points(largest.difference)} pts',
            points_interval(largest.interval),
        )
    )
  elif base is None:
    for p in measured.points[-3:]:
      shown.append((f'{p.num_traces:,} traces', percent(p.pass_at_1), percent_interval(p.interval)))
  return shown


def _edge_card(lowest: curve_lib.Change, edge: curve_lib.Edge | None) -> tuple[str, str, str]:
  if edge is None:
    why = 'never below' if lowest.difference >= 0 else 'not reached'
    return 'the valley’s edge', '–', why
  low = f'{edge.low:,.0f}' if edge.low else '?'
  high = f'{edge.high:,.0f}' if edge.high else '?'
  return ('the valley’s edge', f'{edge.num_traces:,.0f}', f'{low} to {high} traces')
