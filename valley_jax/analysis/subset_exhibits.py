"""The report's exhibits of named subsets; see `exhibits.py` for the others."""

from collections.abc import Mapping
from collections.abc import Sequence

from valley_jax.analysis import exhibits
from valley_jax.analysis import figure_style
from valley_jax.analysis import findings
from valley_jax.analysis import study
from valley_jax.analysis import subset_figures
from valley_jax.analysis import subset_findings
from valley_jax.analysis import subsets
from valley_jax.analysis import values


def draw(
    runs: Sequence[study.Run],
    compared: subsets.Comparison,
    by_difficulty: Mapping[str, subsets.Comparison],
) -> list[exhibits.Exhibit]:
  """Returns the exhibits of the named subsets, in reading order.

  Args:
    runs: Of named subsets, and of the base student.
    compared: Their pass@1.
    by_difficulty: The same, of the problems of one difficulty each.
  """
  with figure_style.style():
    found = [_arms(runs, compared)]
    if len(by_difficulty) > 1:
      found.append(_difficulties(by_difficulty))
    if compared.pairs:
      found.append(_pairs(compared))
  return found


def _rows(compared: subsets.Comparison):
  """Returns (arm, its gap to the base) of the base student and all subsets."""
  against = {gap.name: gap for gap in compared.against_base}
  base = [compared.base] if compared.base else []
  return [(arm, against.get(arm.name)) for arm in (*base, *compared.arms)]


def _name(arm: subsets.Arm) -> str:
  return 'base student' if arm.name == 'base' else arm.name


def _against(gap: subsets.Gap | None) -> tuple[str, str]:
  if gap is None:
    return '–', '–'
  return findings.points(gap.difference), findings.points_interval(gap.interval)


def _arms(runs: Sequence[study.Run], compared: subsets.Comparison) -> exhibits.Exhibit:
  rates = study.rates_by_group(runs)
  rows = []
  for arm, gap in _rows(compared):
    low, high = arm.num_traces
    shares = rates[0 if arm is compared.base else arm.name]
    rows.append(
        (
            _name(arm),
            f'{low:,}' if low == high else f'{low:,}–{high:,}',
            ', '.join(map(str, arm.seeds)),
            findings.percent(arm.pass_at_1),
            findings.percent_interval(arm.interval),
            *_against(gap),
            findings.percent(shares['completion_rate']),
            findings.percent(shares['think_tag_rate']),
        )
    )
  said = ['Thick bars are 95 % intervals over problems']
  if any(len(arm.seeds) > 1 for arm in compared.arms):
    said.append('points are means over seeds, small dots single seeds')
  if compared.base:
    said.append('the grey band is the base student')
  return exhibits.Exhibit(
      name='subsets',
      title='pass@1 by what was taught',
      caption='; '.join(said) + '.',
      figure=subset_figures.arms({'': compared}),
      header=(
          'subset',
          'traces',
          'seeds',
          'pass@1',
          '95 % interval',
          'points against base',
          'paired 95 % interval',
          'completed',
          'think tag',
      ),
      rows=rows,
      is_open=True,
  )


def _difficulties(by_difficulty: Mapping[str, subsets.Comparison]) -> exhibits.Exhibit:
  return exhibits.Exhibit(
      name='subset_difficulty',
      title='Subsets by difficulty',
      caption=(
          'A subset may raise one difficulty and lower another. Intervals are'
          ' over the problems of that difficulty, and wider for being fewer.'
      ),
      figure=subset_figures.arms(
          {
              f'{name} ({compared.num_problems:,})': compared
              for name, compared in by_difficulty.items()
          }
      ),
      header=(
          'difficulty',
          'subset',
          'pass@1',
          '95 % interval',
          'points against base',
          'paired 95 % interval',
      ),
      rows=[
          (
              name,
              _name(arm),
              findings.percent(arm.pass_at_1),
              findings.percent_interval(arm.interval),
              *_against(gap),
          )
          for name, compared in by_difficulty.items()
          for arm, gap in _rows(compared)
      ],
      is_open=True,
  )


def _pairs(compared: subsets.Comparison) -> exhibits.Exhibit:
  number = len(compared.pairs)
  said = 'Each gap is of the same problems, and its thick bar the 95 % interval'
  if number > 1:
    said += (
        f' of a question that was asked beforehand. Who looks for the largest'
        f' of {number} must go by the thin line: with those, all {number} hold'
        ' zero or not as they say, 95 % of the time (Bonferroni)'
    )
  return exhibits.Exhibit(
      name='pairs',
      title='Which subsets can be told apart?',
      caption=(
          f'{said}. Coloured: told from zero. A gap that is not told from zero'
          ' is not shown to be none.'
      ),
      figure=subset_figures.pairs(compared.pairs),
      header=(
          'pair',
          'points',
          'paired 95 % interval',
          *([f'among all {number}'] if number > 1 else []),
          'by seed',
          'can it be told from zero?',
      ),
      rows=[
          (
              f'{gap.name} − {gap.other}',
              findings.points(gap.difference),
              *map(findings.points_interval, _intervals(gap)),
              ', '.join(map(findings.points, gap.by_seed)) or '–',
              subset_findings.claim(gap),
          )
          for gap in compared.pairs
      ],
      is_open=True,
  )


def _intervals(gap: subsets.Gap) -> list[values.Interval]:
  """Returns both intervals, if they are two."""
  return [gap.interval, gap.among_all][: min(2, gap.num_compared)]
