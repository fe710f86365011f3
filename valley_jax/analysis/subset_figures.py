"""The figures of named subsets: a row each, and what is measured along x."""

from collections.abc import Mapping
from collections.abc import Sequence

from matplotlib import figure as figure_lib
import numpy as np

from valley_jax.analysis import figure_style
from valley_jax.analysis import findings
from valley_jax.analysis import subsets


def _new(num_rows: int, num_panels: int = 1):
  """Returns a figure with panels that share their rows, the first on top."""
  figure = figure_lib.Figure(figsize=(6.8, 1.2 + 0.34 * num_rows), layout='constrained')
  panels = figure.subplots(1, num_panels, sharey=True, squeeze=False)[0]
  panels[0].set_ylim(num_rows - 0.5, -0.5)
  for axes in panels:
    axes.grid(True, axis='x')
    axes.grid(False, axis='y')
    axes.tick_params(axis='y', length=0)
  return figure, panels


def _draw(axes, at, value, interval, by_seed, color) -> None:
  """Draws an interval, the value in it, and a dot a seed."""
  axes.hlines(at, *interval, color, linewidth=6, alpha=0.28)
  axes.plot(value, at, 'o', color=color, markeredgecolor=figure_style.PAPER, zorder=4)
  if len(by_seed) > 1:
    axes.plot(
        by_seed,
        np.full(len(by_seed), at),
        'o',
        color=figure_style.INK,
        markersize=3,
        markeredgewidth=0,
        alpha=0.6,
        zorder=5,
    )


def _draw_base(axes, base: subsets.Arm) -> None:
  axes.axvspan(*base.interval, color=figure_style.MUTED, alpha=0.16, linewidth=0)
  axes.axvline(base.pass_at_1, color=figure_style.MUTED, linewidth=1.2)


def arms(panels: Mapping[str, subsets.Comparison]) -> figure_lib.Figure:
  """Draws pass@1 of every subset, a panel for each of some problems."""
  names = [arm.name for arm in next(iter(panels.values())).arms]
  figure, all_axes = _new(len(names), len(panels))
  for axes, (title, compared) in zip(all_axes, panels.items(), strict=True):
    if compared.base:
      _draw_base(axes, compared.base)
    for at, arm in enumerate(compared.arms):
      _draw(
          axes, at, arm.pass_at_1, arm.interval, arm.by_seed,
          figure_style.ACCENT,
      )  # fmt: skip
    axes.set_xlim(left=0)
    axes.locator_params(axis='x', nbins=6 if len(panels) == 1 else 3)
    axes.xaxis.set_major_formatter(lambda value, _: f'{100 * value:.0f} %')
    if len(panels) > 1:
      axes.set_title(title, fontsize=10)
  all_axes[0].set_yticks(range(len(names)), names)
  figure.supxlabel('pass@1', fontsize=10)
  return figure


def pairs(gaps: Sequence[subsets.Gap]) -> figure_lib.Figure:
  """Draws every gap with both of its intervals, and where zero is."""
  figure, (axes,) = _new(len(gaps))
  axes.axvline(0, color=figure_style.INK, linewidth=1)
  for at, gap in enumerate(gaps):
    told = gap.is_told_among_all
    color = figure_style.VALLEY if told else figure_style.MUTED
    axes.hlines(at, *gap.among_all, color, linewidth=1.2)
    _draw(axes, at, gap.difference, gap.interval, gap.by_seed, color)
  names = [f'{gap.name} − {gap.other}' for gap in gaps]
  axes.set_yticks(range(len(gaps)), names)
  axes.xaxis.set_major_formatter(lambda value, _: findings.points(value))
  axes.set_xlabel('pass@1, percentage points')
  return figure
