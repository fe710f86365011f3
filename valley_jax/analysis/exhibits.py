"""The report's exhibits: each a figure, a caption, and the numbers in it.

A reader who doubts a figure finds its numbers in the table below it, formatted once here for the
page and for report.md.
"""

from collections.abc import Mapping
from collections.abc import Sequence

from valley_jax.analysis import comparison
from valley_jax.analysis import figures
from valley_jax.analysis import findings
from valley_jax.analysis import presentation
from valley_jax.analysis import runs as runs_lib

_RATE_LABELS = {
    'completion_rate': 'completed within the budget',
    'think_tag_rate': 'begins with <think>',
    'think_closed_rate': '… and closes it',
    'pass_at_1_given_completion': 'pass@1 given completion',
}


def make_curve_exhibits(
    runs: Sequence[runs_lib.Run],
    curve: comparison.Comparison,
    by_difficulty: Mapping[str, comparison.Comparison],
) -> list[presentation.Exhibit]:
  """Returns the exhibits that runs of sizes have data for, in reading order."""
  rates = {
      size: runs_lib.average_rates(own)
      for size, own in runs_lib.collect_runs_by_group(runs).items()
      if isinstance(size, int)
  }
  exhibits = [_exhibit_curve(curve)]
  if any(row['completion_rate'] is not None for row in rates.values()):
    exhibits.append(_exhibit_rates(rates))
  if len(by_difficulty) > 1:
    exhibits.append(_exhibit_curves_by_difficulty(by_difficulty))
  return exhibits


def make_subset_exhibits(
    runs: Sequence[runs_lib.Run],
    compared: comparison.Comparison,
    by_difficulty: Mapping[str, comparison.Comparison],
) -> list[presentation.Exhibit]:
  """Returns the exhibits of named subsets and the base student, in reading order."""
  exhibits = [_exhibit_subsets(runs, compared)]
  if len(by_difficulty) > 1:
    exhibits.append(_exhibit_subsets_by_difficulty(by_difficulty))
  if compared.pairs:
    exhibits.append(_exhibit_pairs(compared))
  return exhibits


def make_run_exhibits(runs: Sequence[runs_lib.Run]) -> list[presentation.Exhibit]:
  """Returns the exhibits of all runs, whatever they were trained on."""
  exhibits = [_exhibit_verdicts(runs)]
  histories = [(run.group, *runs_lib.read_losses(run)) for run in runs]
  histories = [history for history in histories if history[1]]
  if histories:
    exhibits.append(_exhibit_losses(histories))
  return exhibits


def _format_result(
    result: comparison.GroupResult, change: comparison.Difference | None
) -> dict[str, str]:
  return {
      'pass@1': presentation.format_percent(result.pass_at_1),
      '95 % interval': presentation.format_percent_interval(result.interval),
      'points against base': presentation.format_points(change.difference) if change else '–',
      'paired 95 % interval': presentation.format_points_interval(change.interval)
      if change
      else '–',
  }


def _format_seeds(result: comparison.GroupResult) -> str:
  return ', '.join(map(str, result.seeds))


def _exhibit_curve(curve: comparison.Comparison) -> presentation.Exhibit:
  return presentation.Exhibit(
      name='curve',
      title='pass@1 against the number of traces',
      caption=_write_caption(curve),
      figure=figures.draw_curve(curve),
      rows=[
          {
              'traces': runs_lib.format_group(result.name),
              'seeds': _format_seeds(result),
              **_format_result(result, change),
          }
          for result, change in curve.results
      ],
  )


def _write_caption(compared: comparison.Comparison) -> str:
  """Explains what is in the figure, and nothing that is not."""
  sentences = ['Thick bars are 95 % intervals over problems.']
  if any(len(group.seeds) > 1 for group in compared.groups):
    sentences.append('Points are means over seeds, small dots single seeds.')
  if compared.base is not None:
    sentences.append('The grey band is the base student.')
  if compared.edge is not None:
    sentences.append(
        'Shaded: where the curve is below it. The diamond is the valley’s edge, where the curve'
        ' re-crosses the baseline (interpolated in log size); the bar through it is the interval.'
    )
  return ' '.join(sentences)


def _exhibit_rates(rates: Mapping[int, Mapping[str, float | None]]) -> presentation.Exhibit:
  return presentation.Exhibit(
      name='rates',
      title='Do completions end, and do they think?',
      caption=(
          'Shares of all samples, except pass@1 given completion, which is the share of correct'
          ' ones among those that ended within the token budget. A dip of pass@1 with a dip of'
          ' completions is a matter of form and length; a dip that remains given completion is one'
          ' of skill.'
      ),
      figure=figures.draw_rates(rates, _RATE_LABELS),
      rows=[
          {'traces': runs_lib.format_group(size)}
          | {label: presentation.format_percent(row[name]) for name, label in _RATE_LABELS.items()}
          for size, row in rates.items()
      ],
  )


def _exhibit_curves_by_difficulty(
    curves: Mapping[str, comparison.Comparison],
) -> presentation.Exhibit:
  return presentation.Exhibit(
      name='difficulty',
      title='By difficulty',
      caption=(
          'Bands are 95 % intervals over the problems of that difficulty; open circles are the base'
          ' student.'
      ),
      figure=figures.draw_curves_by_difficulty(curves),
      rows=[
          {
              'difficulty': name,
              'traces': runs_lib.format_group(result.name),
              'pass@1': presentation.format_percent(result.pass_at_1),
              '95 % interval': presentation.format_percent_interval(result.interval),
          }
          for name, curve in curves.items()
          for result, _ in curve.results
      ],
  )


def _exhibit_subsets(
    runs: Sequence[runs_lib.Run], compared: comparison.Comparison
) -> presentation.Exhibit:
  own_runs = runs_lib.collect_runs_by_group(runs)
  rows = []
  for result, change in compared.results:
    low, high = result.num_traces
    rates = runs_lib.average_rates(own_runs[result.name])
    rows.append(
        {
            'subset': _name_subset(result),
            'traces': f'{low:,}' if low == high else f'{low:,}–{high:,}',
            'seeds': _format_seeds(result),
            **_format_result(result, change),
            'completed': presentation.format_percent(rates['completion_rate']),
            'think tag': presentation.format_percent(rates['think_tag_rate']),
        }
    )
  return presentation.Exhibit(
      name='subsets',
      title='pass@1 by what was taught',
      caption=_write_caption(compared),
      figure=figures.draw_subsets({'': compared}),
      rows=rows,
      is_open=True,
  )


def _name_subset(result: comparison.GroupResult) -> str:
  return str(result.name or 'base student')


def _exhibit_subsets_by_difficulty(
    by_difficulty: Mapping[str, comparison.Comparison],
) -> presentation.Exhibit:
  panels = {f'{name} ({each.num_problems:,})': each for name, each in by_difficulty.items()}
  return presentation.Exhibit(
      name='subset_difficulty',
      title='Subsets by difficulty',
      caption=(
          'A subset may raise one difficulty and lower another. Intervals are over the problems of'
          ' that difficulty, and wider for being fewer.'
      ),
      figure=figures.draw_subsets(panels),
      rows=[
          {'difficulty': name, 'subset': _name_subset(result), **_format_result(result, change)}
          for name, compared in by_difficulty.items()
          for result, change in compared.results
      ],
      is_open=True,
  )


def _exhibit_pairs(compared: comparison.Comparison) -> presentation.Exhibit:
  number = len(compared.pairs)
  caption = 'Each gap is of the same problems, and its thick bar the 95 % interval'
  if number > 1:
    caption += (
        f' of a question that was asked beforehand. Who looks for the largest of {number} must go'
        f' by the thin line: with those, all {number} hold zero or not as they say, 95 % of the'
        ' time (Bonferroni)'
    )
  caption += '. Coloured: told from zero. A gap that is not told from zero is not shown to be none.'
  rows = []
  for gap in compared.pairs:
    among_all = {f'among all {number}': presentation.format_points_interval(gap.among_all)}
    rows.append(
        {
            'pair': f'{gap.name} − {gap.other}',
            'points': presentation.format_points(gap.difference),
            'paired 95 % interval': presentation.format_points_interval(gap.interval),
            # A pair that is compared with no other has one interval, not two.
            **(among_all if number > 1 else {}),
            'by seed': ', '.join(map(presentation.format_points, gap.by_seed)) or '–',
            'can it be told from zero?': findings.describe_significance(gap),
        }
    )
  return presentation.Exhibit(
      name='pairs',
      title='Which subsets can be told apart?',
      caption=caption,
      figure=figures.draw_pairs(compared.pairs),
      rows=rows,
      is_open=True,
  )


def _exhibit_verdicts(runs: Sequence[runs_lib.Run]) -> presentation.Exhibit:
  counts = {
      group: {v: sum(run.scores['verdicts'][v] for run in own) for v in own[0].scores['verdicts']}
      for group, own in runs_lib.collect_runs_by_group(runs).items()
  }
  seen = [v for v in presentation.VERDICTS if any(row[v] for row in counts.values())]
  return presentation.Exhibit(
      name='verdicts',
      title='What became of the programs',
      caption=(
          'AC accepted, WA wrong answer, TLE out of CPU time, ILE idle, MLE out of memory, OLE too'
          ' much output, RE runtime error, CE does not parse or no program. All seeds together.'
      ),
      figure=figures.draw_verdicts(counts),
      rows=[
          {'traces': runs_lib.format_group(group), **{v: f'{row[v]:,}' for v in seen}}
          for group, row in counts.items()
      ],
  )


def _exhibit_losses(
    histories: Sequence[tuple[runs_lib.Group, list[int], list[float]]],
) -> presentation.Exhibit:
  return presentation.Exhibit(
      name='loss',
      title='Training loss',
      caption='One line a run, coloured by what it was trained on.',
      figure=figures.draw_losses(histories),
      rows=[
          {
              'traces': runs_lib.format_group(group),
              'steps': f'{steps[-1]:,}',
              'first loss': f'{losses[0]:.3f}',
              'last loss': f'{losses[-1]:.3f}',
          }
          for group, steps, losses in histories
      ],
  )
