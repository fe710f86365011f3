"""What named subsets show, in words: which gaps can be told from zero.

As in `findings.py`, a claim is made only where its whole interval supports it,
and a gap that is not shown is not said to be absent: how large it may still be
is said instead.
"""

from valley_jax.analysis import findings
from valley_jax.analysis import subsets

_MOST = 3  # Pairs that are told in words; the table has all.


def headline(compared: subsets.Comparison) -> str:
  """Returns the shortest true answer to: does it matter what is taught?"""
  pairs = compared.pairs
  if not pairs:
    return f'One subset, {compared.arms[0].name}.'
  told = [gap for gap in pairs if gap.is_told_among_all]
  if len(pairs) > 1:
    number = len(told) or 'none'
    return f'Of {len(pairs)} pairs of subsets, {number} can be told apart.'
  gap = pairs[0]
  if not told:
    return f'{gap.name} and {gap.other} are not told apart.'
  better, worse = (gap.name, gap.other)[:: 1 if gap.difference > 0 else -1]
  return f'{better} beats {worse} by {100 * abs(gap.difference):.1f} points.'


def verdict(compared: subsets.Comparison) -> str:
  """Returns the gaps in a sentence, the largest that are shown first."""
  gaps = sorted(
      compared.pairs or compared.against_base,
      key=lambda gap: (not gap.is_told_among_all, -abs(gap.difference)),
  )
  if not gaps:
    arm = compared.arms[0]
    return (
        f'pass@1 with {arm.name} is {findings.percent(arm.pass_at_1)} (95 %'
        f' interval {findings.percent_interval(arm.interval)}); another subset,'
        ' or a run of 0 traces, is not here.'
    )
  said = '; '.join(map(sentence, gaps[:_MOST]))
  rest = len(gaps) - _MOST
  more = f'; {rest} more below' if rest > 0 else ''
  return f'pass@1: {said}{more}.'


def sentence(gap: subsets.Gap) -> str:
  """Returns a gap with its interval, and what that does and does not show."""
  other = 'the base student' if gap.other == 'base' else gap.other
  return (
      f'{gap.name} against {other}: {findings.points(gap.difference)} points'
      f' (95 % interval {findings.points_interval(gap.interval)}), {claim(gap)}'
  )


def claim(gap: subsets.Gap) -> str:
  """Returns whether a gap can be told from zero."""
  if not gap.is_told:
    most = 100 * max(map(abs, gap.interval))
    return f'not told from zero: it may be up to {most:.1f} points'
  said = 'told from zero'
  if not gap.is_told_among_all:
    said += f' alone, but not among {gap.num_compared} pairs'
  if gap.by_seed and min(gap.by_seed) <= 0 <= max(gap.by_seed):
    said += ', though not by every seed'
  return said


def notes(compared: subsets.Comparison) -> list[str]:
  """Returns what else a careful reader needs to know."""
  counts = sorted({len(arm.seeds) for arm in compared.arms})
  if counts[-1] == 1:
    seeds = (
        'One seed a subset: how much another seed would differ is not known,'
        ' and no interval contains it.'
    )
  else:
    number = '–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    seeds = (
        f'{number} seeds a subset, averaged problem by problem; their spread is'
        ' shown and is not part of the intervals.'
    )
  return [
      seeds,
      'Subsets are compared on the same'
      f' {compared.num_problems:,} problems, paired by problem: 95 % percentile'
      ' bootstrap intervals over them.',
  ]


def cards(compared: subsets.Comparison) -> list[tuple[str, str, str]]:
  """Returns the key numbers as (label, number, what it rests on)."""
  arms = sorted(compared.arms, key=lambda arm: -arm.pass_at_1)[:_MOST]
  base = [compared.base] if compared.base else []
  return [
      (
          'base student' if arm.name == 'base' else arm.name,
          findings.percent(arm.pass_at_1),
          findings.percent_interval(arm.interval),
      )
      for arm in (*base, *arms)
  ]
