"""The report's exhibits: each a figure, a caption, and the numbers in it.

A reader who doubts a figure finds its numbers in the table below it, formatted
once here for the page and for report.md.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from matplotlib import figure as figure_lib

from valley_jax.analysis import curve as curve_lib
from valley_jax.analysis import figure_style
from valley_jax.analysis import figures
from valley_jax.analysis import findings
from valley_jax.analysis import study
from valley_jax.analysis import values

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # Header and rows.
_RATE_LABELS = {
    'completion_rate': 'completed within the budget',
    'think_tag_rate': 'begins with <think>',
    'think_closed_rate': '… and closes it',
    'pass_at_1_given_completion': 'pass@1 given completion',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exhibit:
  """A figure with what stands around it."""

  name: str  # Of the file and of the page's anchor.
  title: str
  caption: str
  figure: figure_lib.Figure
  header: Sequence[str] = ()
  rows: Sequence[Sequence[str]] = ()
  is_open: bool = False  # On the page, the numbers are shown unasked.


def of_curve(
    runs: Sequence[study.Run],
    measured: curve_lib.Curve,
    by_difficulty: Mapping[str, curve_lib.Curve],
) -> list[Exhibit]:
  """Returns the exhibits that runs of sizes have data for, in reading order."""
  rates = {size: row for size, row in study.rates_by_group(runs).items() if isinstance(size, int)}
  with figure_style.style():
    exhibits = [_curve(measured)]
    if any(row['completion_rate'] is not None for row in rates.values()):
      exhibits.append(_rates(rates))
    if len(by_difficulty) > 1:
      exhibits.append(_difficulties(by_difficulty))
  return exhibits


def of_runs(runs: Sequence[study.Run]) -> list[Exhibit]:
  """Returns the exhibits of all runs, whatever they were trained on."""
  losses = study.losses(runs)
  with figure_style.style():
    exhibits = [_verdicts(study.verdicts_by_group(runs))]
    if losses:
      exhibits.append(_losses(losses))
  return exhibits


def _curve(measured: curve_lib.Curve) -> Exhibit:
  changes = {change.num_traces: change for change in measured.changes}
  rows = []
  for p in [measured.baseline, *measured.points]:
    if p is None:
      continue
    change = changes.get(p.num_traces)
    rows.append(
        (
            values.label(p.num_traces),
            ', '.join(map(str, p.seeds)),
            findings.percent(p.pass_at_1),
            findings.percent_interval(p.interval),
            findings.points(change.difference) if change else '–',
            findings.points_interval(change.interval) if change else '–',
        )
    )
  return Exhibit(
      name='curve',
      title='pass@1 against the number of traces',
      caption=_curve_caption(measured),
      figure=figures.curve(measured),
      header=(
          'traces',
          'seeds',
          'pass@1',
          '95 % interval',
          'points against base',
          'paired 95 % interval',
      ),
      rows=rows,
  )


def _curve_caption(measured: curve_lib.Curve) -> str:
  """Explains what is in the figure, and nothing that is not."""
  said = ['Thick bars are 95 % intervals over problems.']
  if any(len(p.seeds) > 1 for p in measured.points):
    said.append('Points are means over seeds, small dots single seeds.')
  if measured.baseline is not None:
    said.append('The grey band is the base student.')
  if measured.edge is not None:
    said.append(
        'Shaded: where the curve is below it. The diamond is the valley’s edge,'
        ' where the curve re-crosses the baseline (interpolated in log size);'
        ' the bar through it is the interval.'
    )
  return ' '.join(said)


def _rates(rates: Mapping[int, Mapping[str, float | None]]) -> Exhibit:
  return Exhibit(
      name='rates',
      title='Do completions end, and do they think?',
      caption=(
          'Shares of all samples, except pass@1 given completion, which is the'
          ' share of correct ones among those that ended within the token'
          ' budget. A dip of pass@1 with a dip of completions is a matter of'
          ' form and length; a dip that remains given completion is one of'
          ' skill.'
      ),
      figure=figures.rates(rates, _RATE_LABELS),
      header=('traces', *_RATE_LABELS.values()),
      rows=[
          (values.label(n), *(findings.percent(row[key]) for key in _RATE_LABELS))
          for n, row in rates.items()
      ],
  )


def _difficulties(curves: Mapping[str, curve_lib.Curve]) -> Exhibit:
  rows = []
  for name, measured in curves.items():
    for p in [measured.baseline, *measured.points]:
      if p is not None:
        rows.append(
            (
                name,
                values.label(p.num_traces),
                findings.percent(p.pass_at_1),
                findings.percent_interval(p.interval),
            )
        )
  return Exhibit(
      name='difficulty',
      title='By difficulty',
      caption=(
          'Bands are 95 % intervals over the problems of that difficulty; open'
          ' circles are the base student.'
      ),
      figure=figures.difficulties(curves),
      header=('difficulty', 'traces', 'pass@1', '95 % interval'),
      rows=rows,
  )


def _verdicts(counts: Mapping[values.Group, Mapping[str, int]]) -> Exhibit:
  seen = [v for v in figure_style.VERDICTS if any(c[v] for c in counts.values())]
  return Exhibit(
      name='verdicts',
      title='What became of the programs',
      caption=(
          'AC accepted, WA wrong answer, TLE out of CPU time, ILE idle, MLE out'
          ' of memory, OLE too much output, RE runtime error, CE does not parse'
          ' or no program. All seeds together.'
      ),
      figure=figures.verdicts(counts),
      header=('traces', *seen),
      rows=[(values.label(n), *(f'{row[v]:,}' for v in seen)) for n, row in counts.items()],
  )


def _losses(histories: Sequence[tuple[values.Group, list[int], list[float]]]) -> Exhibit:
  return Exhibit(
      name='loss',
      title='Training loss',
      caption='One line a run, coloured by what it was trained on.',
      figure=figures.losses(histories),
      header=('traces', 'steps', 'first loss', 'last loss'),
      rows=[
          (values.label(n), f'{steps[-1]:,}', f'{losses[0]:.3f}', f'{losses[-1]:.3f}')
          for n, steps, losses in histories
      ],
  )


def run_table(runs: Sequence[study.Run]) -> Table:
  """Returns every run in a row."""
  header = (
      'traces',
      'seed',
      'problems × n',
      'pass@1',
      '95 % interval',
      'completed',
      'think tag',
      'closed',
      'no program',
      'pass@1 given completion',
      'tokens',
      'judged on',
  )
  rows = []
  for run in runs:
    s = run.scores
    tokens = s['mean_completion_tokens']
    rows.append(
        (
            run_label(run),
            str(s['seed']),
            f'{s["num_problems"]:,} × {s["num_samples"]}',
            findings.percent(s['pass_at_1']),
            findings.percent_interval(s['pass_at_1_interval']),
            *(findings.percent(s[name]) for name in study.RATES),
            '–' if tokens is None else f'{tokens:,.0f}',
            judged_on(s),
        )
    )
  return header, rows


def judged_on(scores: Mapping[str, Any]) -> str:
  """Returns what held the programs, by whose rules, on how fast a machine."""
  said = [scores['tier'] or 'nothing ran', scores['profile']]
  if scores['waivers']:
    said.append(f'waived: {", ".join(scores["waivers"])}')
  if scores['calibration']:
    least, most = (f'{seconds:.3f}' for seconds in scores['calibration'])
    said.append(f'loop {least if least == most else f"{least}–{most}"} s')
  return '; '.join(said)


def run_label(run: study.Run) -> str:
  """Returns what a run was trained on: a subset's name and size, or a size."""
  label = values.label(run.group)
  if isinstance(run.group, int):
    return label
  return f'{label} ({run.scores["num_traces"]:,})'
