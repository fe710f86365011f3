"""The report's figures, as matplotlib objects.

Figures of the curve have one x axis: the number of traces, logarithmic, with the base student (no
traces, which a log axis cannot hold) as a tick of its own at the left. Figures of named subsets
have a row for each, and the measured value along x. Losses and verdicts show both kinds of runs.
Colours and axes are in `presentation.py`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import math

from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib
import numpy as np

from valley_jax.analysis import comparison
from valley_jax.analysis import presentation
from valley_jax.analysis import runs as runs_lib


def _draw_seeds(axes: axes_lib.Axes, x: Sequence[float], y: Sequence[float]) -> None:
  """Draws a small dot a seed, if there are several."""
  if len(x) > 1:
    axes.plot(
        x, y, 'o', color=presentation.INK, markersize=3, markeredgewidth=0, alpha=0.6, zorder=5
    )


def _draw_baseline(axes: axes_lib.Axes, base: comparison.GroupResult) -> None:
  axes.axhspan(*base.interval, color=presentation.MUTED, alpha=0.16, linewidth=0)
  axes.axhline(base.pass_at_1, color=presentation.MUTED, linewidth=1.2)
  axes.annotate(
      f'base student\n{100 * base.pass_at_1:.1f} %',
      (1.0, base.pass_at_1),
      xycoords=('axes fraction', 'data'),
      xytext=(5, 0),
      textcoords='offset points',
      color=presentation.MUTED,
      va='center',
      fontsize=9,
  )


def _draw_edge(
    axes: axes_lib.Axes, edge: comparison.Edge, y: float, places: Mapping[int, float]
) -> None:
  """Marks the crossing, and its interval as a bar on the baseline at `y`."""
  color = presentation.VALLEY
  x = math.log10(edge.num_traces)
  low = math.log10(edge.low) if edge.low else min(places.values())
  high = math.log10(edge.high) if edge.high else max(places.values())
  axes.plot([low, high], [y, y], color=color, linewidth=4, alpha=0.55, zorder=3)
  axes.plot(x, y, 'D', color=color, markeredgecolor=presentation.PAPER, markersize=8, zorder=5)
  axes.annotate(
      f'edge ≈ {edge.num_traces:,.0f}',
      (x, y),
      xytext=(9, -15),
      textcoords='offset points',
      color=color,
      fontweight='bold',
  )


def _draw_points(
    axes: axes_lib.Axes, groups: Sequence[comparison.GroupResult], x: Sequence[float]
) -> None:
  """Draws the curve: for each size a point, its interval, and a dot a seed."""
  color = presentation.ACCENT
  low, high = np.array([group.interval for group in groups]).T
  y = [group.pass_at_1 for group in groups]
  axes.vlines(x, low, high, color, linewidth=6, alpha=0.28)
  axes.plot(x, y, 'o-', color=color, markeredgecolor=presentation.PAPER, zorder=4)
  for place, group in zip(x, groups, strict=True):
    _draw_seeds(axes, [place] * len(group.by_seed), group.by_seed)


def _draw_valley(
    axes: axes_lib.Axes, base: float, base_place: float, x: Sequence[float], y: np.ndarray
) -> None:
  """Shades the area between the baseline and a curve that is below it."""
  axes.plot([base_place, x[0]], [base, y[0]], ':', color=presentation.MUTED, linewidth=1.2)
  axes.fill_between(
      x,
      y,
      base,
      where=y <= base,
      interpolate=True,
      color=presentation.VALLEY,
      alpha=0.16,
      linewidth=0,
  )


def draw_curve(curve: comparison.Comparison) -> figure_lib.Figure:
  """Draws pass@1 against size, the baseline band, the valley and its edge."""
  figure, axes = presentation.new_figure(4.1)
  base, groups = curve.base, curve.groups
  places = presentation.place_sizes([result.size for result, _ in curve.results])
  x = [places[group.size] for group in groups]
  if base:
    _draw_baseline(axes, base)
    axes.plot(places[0], base.pass_at_1, 'o', color=presentation.MUTED, zorder=4)
  if groups:
    _draw_points(axes, groups, x)
  if base and groups:
    y = np.array([group.pass_at_1 for group in groups])
    _draw_valley(axes, base.pass_at_1, places[0], x, y)
  if base and curve.edge:
    _draw_edge(axes, curve.edge, base.pass_at_1, places)
  presentation.draw_size_axis(axes, places)
  presentation.draw_percent_axis(axes, 'pass@1')
  axes.set_ylim(bottom=0)
  return figure


def draw_rates(
    rates: Mapping[int, Mapping[str, float | None]], labels: Mapping[str, str]
) -> figure_lib.Figure:
  """Draws a line for each rate.

  Args:
    rates: {size: {rate: share}}, sizes sorted.
    labels: {rate: its label}.
  """
  figure, axes = presentation.new_figure()
  places = presentation.place_sizes(list(rates))
  for i, (name, label) in enumerate(labels.items()):
    known = {size: row[name] for size, row in rates.items() if row[name] is not None}
    axes.plot(
        [places[size] for size in known],
        [*known.values()],
        ('o-', 's-', '^-', 'D--')[i % 4],
        color=presentation.SERIES[i % len(presentation.SERIES)],
        markeredgecolor=presentation.PAPER,
        label=label,
    )
  presentation.draw_size_axis(axes, places)
  presentation.draw_percent_axis(axes, 'share of samples')
  axes.set_ylim(-0.03, 1.03)
  figure.legend(loc='outside upper left', ncols=2)
  return figure


def draw_curves_by_difficulty(curves: Mapping[str, comparison.Comparison]) -> figure_lib.Figure:
  """Draws one curve a difficulty, with intervals; the base is joined by a dotted line."""
  figure, axes = presentation.new_figure()
  places = {}
  for i, (difficulty, curve) in enumerate(curves.items()):
    results = [result for result, _ in curve.results]
    places = presentation.place_sizes([result.size for result in results])
    color = presentation.SERIES[i % len(presentation.SERIES)]
    x = [places[result.size] for result in results]
    y = np.array([result.pass_at_1 for result in results])
    low, high = np.array([result.interval for result in results]).T
    axes.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)
    axes.vlines(x, low, high, color, linewidth=1, alpha=0.4)
    first = int(curve.base is not None)
    axes.plot(x[: first + 1], y[: first + 1], ':', color=color, linewidth=1.2)
    axes.plot(x[:first], y[:first], 'o', color=color, markerfacecolor='none')
    label = f'{difficulty} ({curve.num_problems:,} problems)'
    axes.plot(
        x[first:], y[first:], 'o-', color=color, markeredgecolor=presentation.PAPER, label=label
    )
  presentation.draw_size_axis(axes, places)
  presentation.draw_percent_axis(axes, 'pass@1')
  axes.set_ylim(bottom=0)
  figure.legend(loc='outside upper left', ncols=3)
  return figure


def draw_losses(
    histories: Sequence[tuple[runs_lib.Group, Sequence[int], Sequence[float]]],
) -> figure_lib.Figure:
  """Draws training losses: (group, steps, losses) of every run."""
  figure, axes = presentation.new_figure()
  groups = list(dict.fromkeys(group for group, _, _ in histories))
  shades = np.linspace(0, 1, len(groups)) if len(groups) > 1 else [0.0]
  colors = dict(zip(groups, map(presentation.SIZES, shades), strict=True))
  labelled = set()
  for group, steps, losses in histories:
    label = runs_lib.format_group(group) if group not in labelled else None
    labelled.add(group)
    axes.plot(steps, losses, color=colors[group], linewidth=1.3, alpha=0.85, label=label)
  axes.set_xscale('log')
  axes.xaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
  axes.set_xlabel('step (log scale)')
  axes.set_ylabel('training loss (nats a token)')
  ncols = 4 if any(isinstance(group, str) for group in groups) else 8
  figure.legend(loc='outside upper left', ncols=ncols, title='traces', alignment='left')
  return figure


def draw_verdicts(counts: Mapping[runs_lib.Group, Mapping[str, int]]) -> figure_lib.Figure:
  """Draws each group's verdicts as one bar of shares, the first at the top."""
  figure, axes = presentation.new_figure(1.3 + 0.34 * len(counts))
  groups = list(counts)[::-1]
  totals = np.array([sum(counts[group].values()) for group in groups])
  left = np.zeros(len(groups))
  for verdict, color in presentation.VERDICTS.items():
    numbers = [counts[group].get(verdict, 0) for group in groups]
    if any(numbers):
      shares = np.array(numbers) / totals
      axes.barh(range(len(groups)), shares, 0.72, left, color=color, label=verdict)
      left += shares
  names = [g if isinstance(g, str) else presentation.abbreviate_size(g) for g in groups]
  axes.set_yticks(range(len(groups)), names)
  axes.xaxis.set_major_formatter(lambda value, _: f'{100 * value:.0f} %')
  axes.set_xlim(0, 1)
  axes.grid(False)
  axes.set_xlabel('share of samples')
  axes.set_ylabel('training traces')
  figure.legend(loc='outside upper left', ncols=8)
  return figure


def _new_row_panels(num_rows: int, num_panels: int = 1):
  """Returns a figure with panels that share their rows, the first on top."""
  figure = figure_lib.Figure(figsize=(6.8, 1.2 + 0.34 * num_rows), layout='constrained')
  panels = figure.subplots(1, num_panels, sharey=True, squeeze=False)[0]
  panels[0].set_ylim(num_rows - 0.5, -0.5)
  for axes in panels:
    axes.grid(True, axis='x')
    axes.grid(False, axis='y')
    axes.tick_params(axis='y', length=0)
  return figure, panels


def _draw_row(axes, row: int, value: float, interval, by_seed, color: str) -> None:
  """Draws an interval, the value in it, and a dot a seed."""
  axes.hlines(row, *interval, color, linewidth=6, alpha=0.28)
  axes.plot(value, row, 'o', color=color, markeredgecolor=presentation.PAPER, zorder=4)
  _draw_seeds(axes, by_seed, [row] * len(by_seed))


def draw_subsets(panels: Mapping[str, comparison.Comparison]) -> figure_lib.Figure:
  """Draws pass@1 of every subset, in a panel for each {title: comparison}."""
  names = [str(group.name) for group in next(iter(panels.values())).groups]
  figure, all_axes = _new_row_panels(len(names), len(panels))
  for axes, (title, compared) in zip(all_axes, panels.items(), strict=True):
    if compared.base:
      axes.axvspan(*compared.base.interval, color=presentation.MUTED, alpha=0.16, linewidth=0)
      axes.axvline(compared.base.pass_at_1, color=presentation.MUTED, linewidth=1.2)
    for row, group in enumerate(compared.groups):
      _draw_row(axes, row, group.pass_at_1, group.interval, group.by_seed, presentation.ACCENT)
    axes.set_xlim(left=0)
    axes.locator_params(axis='x', nbins=6 if len(panels) == 1 else 3)
    axes.xaxis.set_major_formatter(lambda value, _: f'{100 * value:.0f} %')
    if len(panels) > 1:
      axes.set_title(title, fontsize=10)
  all_axes[0].set_yticks(range(len(names)), names)
  figure.supxlabel('pass@1', fontsize=10)
  return figure


def draw_pairs(gaps: Sequence[comparison.Difference]) -> figure_lib.Figure:
  """Draws every difference with both of its intervals, and a line at zero."""
  figure, (axes,) = _new_row_panels(len(gaps))
  axes.axvline(0, color=presentation.INK, linewidth=1)
  for row, gap in enumerate(gaps):
    color = presentation.VALLEY if gap.is_significant_among_all else presentation.MUTED
    axes.hlines(row, *gap.among_all, color, linewidth=1.2)
    _draw_row(axes, row, gap.difference, gap.interval, gap.by_seed, color)
  axes.set_yticks(range(len(gaps)), [f'{gap.name} − {gap.other}' for gap in gaps])
  axes.xaxis.set_major_formatter(lambda value, _: presentation.format_points(value))
  axes.set_xlabel('pass@1, percentage points')
  return figure
