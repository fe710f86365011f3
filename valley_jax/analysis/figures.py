"""The report's figures, as matplotlib objects.

Those of the curve have one x axis: the number of traces, logarithmic, with the
base student (no traces, which a log axis cannot hold) as a tick of its own at
the left. Losses and verdicts are of named subsets, too. How they look stands in
`figure_style.py`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import math

from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib
import numpy as np

from valley_jax.analysis import curve as curve_lib
from valley_jax.analysis import figure_style
from valley_jax.analysis import values


def _draw_baseline(axes: axes_lib.Axes, base: curve_lib.Point) -> None:
  axes.axhspan(*base.interval, color=figure_style.MUTED, alpha=0.16, linewidth=0)
  axes.axhline(base.pass_at_1, color=figure_style.MUTED, linewidth=1.2)
  axes.annotate(
      f'base student\n{100 * base.pass_at_1:.1f} %',
      (1.0, base.pass_at_1),
      xycoords=('axes fraction', 'data'),
      xytext=(5, 0),
      textcoords='offset points',
      color=figure_style.MUTED,
      va='center',
      fontsize=9,
  )


def _draw_edge(axes: axes_lib.Axes, edge, base, places) -> None:
  """Marks the crossing, and its interval as a bar on the baseline."""
  low, high = min(places.values()), max(places.values())
  ends = [math.log10(edge.low) if edge.low else low, math.log10(edge.high) if edge.high else high]
  y = base.pass_at_1
  axes.plot(ends, [y, y], color=figure_style.VALLEY, linewidth=4, alpha=0.55, zorder=3)
  axes.plot(
      math.log10(edge.num_traces),
      y,
      'D',
      color=figure_style.VALLEY,
      markeredgecolor=figure_style.PAPER,
      markersize=8,
      zorder=5,
  )
  axes.annotate(
      f'edge ≈ {edge.num_traces:,.0f}',
      (math.log10(edge.num_traces), y),
      xytext=(9, -15),
      textcoords='offset points',
      color=figure_style.VALLEY,
      fontweight='bold',
  )


def _draw_points(axes: axes_lib.Axes, points, places) -> None:
  """Draws the curve: a point and its interval a size, a dot a seed."""
  x = [places[p.num_traces] for p in points]
  low, high = np.array([p.interval for p in points]).T
  axes.vlines(x, low, high, figure_style.ACCENT, linewidth=6, alpha=0.28)
  axes.plot(
      x,
      [p.pass_at_1 for p in points],
      'o-',
      color=figure_style.ACCENT,
      markeredgecolor=figure_style.PAPER,
      zorder=4,
  )
  for point in points:
    if len(point.by_seed) > 1:
      axes.plot(
          [places[point.num_traces]] * len(point.by_seed),
          point.by_seed,
          'o',
          color=figure_style.INK,
          markersize=3,
          markeredgewidth=0,
          alpha=0.6,
          zorder=5,
      )


def _draw_valley(axes: axes_lib.Axes, points, base, places) -> None:
  """Shades what lies between the baseline and a curve that is below it."""
  axes.plot(
      [places[0], places[points[0].num_traces]],
      [base.pass_at_1, points[0].pass_at_1],
      ':',
      color=figure_style.MUTED,
      linewidth=1.2,
  )
  y = np.array([p.pass_at_1 for p in points])
  axes.fill_between(
      [places[p.num_traces] for p in points],
      y,
      base.pass_at_1,
      where=y <= base.pass_at_1,
      interpolate=True,
      color=figure_style.VALLEY,
      alpha=0.16,
      linewidth=0,
  )


def curve(measured: curve_lib.Curve) -> figure_lib.Figure:
  """Draws pass@1 against size, the baseline band, the valley and its edge."""
  figure, axes = figure_style.new(4.1)
  base, points = measured.baseline, measured.points
  sizes = [p.num_traces for p in points] + ([0] if base else [])
  places = figure_style.places(sizes)
  if base:
    _draw_baseline(axes, base)
    axes.plot(places[0], base.pass_at_1, 'o', color=figure_style.MUTED, zorder=4)
  if points:
    _draw_points(axes, points, places)
  if base and points:
    _draw_valley(axes, points, base, places)
  if measured.edge:
    _draw_edge(axes, measured.edge, base, places)
  figure_style.size_axis(axes, places)
  figure_style.percent_axis(axes, 'pass@1')
  axes.set_ylim(bottom=0)
  return figure


def rates(
    by_size: Mapping[int, Mapping[str, float | None]], names: Mapping[str, str]
) -> figure_lib.Figure:
  """Draws a line for each of `names` ({key: label}) of the rates by size."""
  figure, axes = figure_style.new()
  places = figure_style.places(list(by_size))
  for i, (key, label) in enumerate(names.items()):
    rates = {n: by_size[n][key] for n in sorted(by_size)}
    known = {n: rate for n, rate in rates.items() if rate is not None}
    axes.plot(
        [places[n] for n in known],
        [*known.values()],
        ('o-', 's-', '^-', 'D--')[i % 4],
        color=figure_style.SERIES[i % len(figure_style.SERIES)],
        markeredgecolor=figure_style.PAPER,
        label=label,
    )
  figure_style.size_axis(axes, places)
  figure_style.percent_axis(axes, 'share of samples')
  axes.set_ylim(-0.03, 1.03)
  figure.legend(loc='outside upper left', ncols=2)
  return figure


def difficulties(curves: Mapping[str, curve_lib.Curve]) -> figure_lib.Figure:
  """Draws one curve a difficulty, with intervals; the base is dotted on."""
  figure, axes = figure_style.new()
  places = {}
  for i, (name, measured) in enumerate(curves.items()):
    base = [measured.baseline] if measured.baseline else []
    points = base + list(measured.points)
    places = figure_style.places([p.num_traces for p in points])
    color = figure_style.SERIES[i % len(figure_style.SERIES)]
    x = [places[p.num_traces] for p in points]
    y = np.array([p.pass_at_1 for p in points])
    low, high = np.array([p.interval for p in points]).T
    axes.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)
    axes.vlines(x, low, high, color, linewidth=1, alpha=0.4)
    first = len(base)
    axes.plot(x[: first + 1], y[: first + 1], ':', color=color, linewidth=1.2)
    axes.plot(x[:first], y[:first], 'o', color=color, markerfacecolor='none')
    axes.plot(
        x[first:],
        y[first:],
        'o-',
        color=color,
        markeredgecolor=figure_style.PAPER,
        label=f'{name} ({measured.num_problems:,} problems)',
    )
  figure_style.size_axis(axes, places)
  figure_style.percent_axis(axes, 'pass@1')
  axes.set_ylim(bottom=0)
  figure.legend(loc='outside upper left', ncols=3)
  return figure


def losses(
    histories: Sequence[tuple[values.Group, Sequence[int], Sequence[float]]],
) -> figure_lib.Figure:
  """Draws training losses: (group, steps, losses) of every run."""
  figure, axes = figure_style.new()
  groups = list(dict.fromkeys(group for group, _, _ in histories))
  shades = np.linspace(0, 1, len(groups)) if len(groups) > 1 else [0.0]
  shade = dict(zip(groups, map(figure_style.SIZES, shades), strict=True))
  labelled = set()
  for group, steps, losses in histories:
    label = values.label(group) if group not in labelled else None
    labelled.add(group)
    axes.plot(steps, losses, color=shade[group], linewidth=1.3, alpha=0.85, label=label)
  axes.set_xscale('log')
  axes.xaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
  axes.set_xlabel('step (log scale)')
  axes.set_ylabel('training loss (nats a token)')
  ncols = 4 if any(isinstance(group, str) for group in groups) else 8
  figure.legend(loc='outside upper left', ncols=ncols, title='traces', alignment='left')
  return figure


def verdicts(by_group: Mapping[values.Group, Mapping[str, int]]) -> figure_lib.Figure:
  """Draws each group's verdicts as one bar of shares, the first at the top."""
  figure, axes = figure_style.new(1.3 + 0.34 * len(by_group))
  groups = list(by_group)[::-1]
  totals = np.array([sum(by_group[g].values()) for g in groups])
  left = np.zeros(len(groups))
  for verdict, color in figure_style.VERDICTS.items():
    counts = [by_group[g].get(verdict, 0) for g in groups]
    if any(counts):
      shares = np.array(counts) / totals
      axes.barh(range(len(groups)), shares, 0.72, left, color=color, label=verdict)
      left += shares
  names = [g if isinstance(g, str) else figure_style.short(g) for g in groups]
  axes.set_yticks(range(len(groups)), names)
  axes.xaxis.set_major_formatter(lambda value, _: f'{100 * value:.0f} %')
  axes.set_xlim(0, 1)
  axes.grid(False)
  axes.set_xlabel('share of samples')
  axes.set_ylabel('training traces')
  figure.legend(loc='outside upper left', ncols=8)
  return figure
