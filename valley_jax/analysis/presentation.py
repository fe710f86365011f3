"""How the report and the data card look: exhibits, templates, numbers, colours, axes, image bytes.

Colours are few and fixed, so that `to_svg` can turn them into CSS variables: a figure on the page
then follows the reader's light or dark scheme. The bytes are a function of the data alone: no
dates, no random ids.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import io
import math
import pathlib
import re
from typing import Any

import jinja2
import markupsafe
import matplotlib
from matplotlib import axes as axes_lib
from matplotlib import colors as colors_lib
from matplotlib import figure as figure_lib

_TEMPLATES = pathlib.Path(__file__).parents[1] / 'templates'

INK, MUTED, GRID, PAPER = '#1d2125', '#6b7076', '#dfe1e4', '#fefefe'
ACCENT, VALLEY = '#1f6f8b', '#d0603a'
_CSS_VARIABLES = dict(ink=INK, muted=MUTED, grid=GRID, paper=PAPER, accent=ACCENT, valley=VALLEY)
# Medium lightness, so that they can be told apart on white and on black.
SERIES = ('#2f8fb3', '#d0603a', '#8577cf', '#3f9a63', '#c2498a', '#a98a1f')
SIZES = colors_lib.LinearSegmentedColormap.from_list(
    'sizes', ['#3c7fc0', '#8b6cc8', '#cf5b86', '#e2893b']
)
VERDICTS = {
    'AC': '#3f9a63',
    'WA': '#cf5350',
    'TLE': '#e2893b',
    'ILE': '#e0b13c',
    'MLE': '#8b6cc8',
    'OLE': '#c2498a',
    'RE': '#9c6b4f',
    'CE': '#8a9199',
}
# What an <svg> inside HTML does not need, or must not have.
_INLINE = (
    (r'<metadata>.*?</metadata>', ''),
    (r'<defs>\s*<style.*?</style>\s*</defs>', ''),
    (r' xmlns(:xlink)?="[^"]*"', ''),
    (r'xlink:href', 'href'),
    (r' width="[\d.]+pt" height="[\d.]+pt"', ''),
    (r' id="[a-zA-Z.\d]+_\d+"', ''),  # Ids of groups; what is referred to has hashed ids.
)
_STYLE: dict[Any, Any] = {
    'font.family': 'DejaVu Sans',
    'font.size': 10.0,
    'text.color': INK,
    'axes.edgecolor': MUTED,
    'axes.labelcolor': INK,
    'axes.facecolor': 'none',
    'axes.grid': True,
    'axes.grid.axis': 'y',
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.spines.left': False,
    'grid.color': GRID,
    'grid.linewidth': 0.8,
    'xtick.color': MUTED,
    'ytick.color': MUTED,
    'ytick.left': False,
    'legend.frameon': False,
    'lines.linewidth': 2.0,
    'lines.markersize': 5.5,
    'svg.fonttype': 'none',  # Text stays text: small, sharp, selectable.
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exhibit:
  """A figure with its caption, and the numbers in it as a table; or a table alone.

  A row of the table is {column: cell}; all rows have the same columns.
  """

  name: str  # Name of the file, and of the anchor on the page.
  title: str
  caption: str
  figure: Any = None  # A matplotlib figure; None for a table alone.
  rows: Sequence[Mapping[str, str]] = ()
  is_open: bool = False  # Whether the page shows the numbers without a click.


def render_template(name: str, context: Mapping[str, Any]) -> str:
  """Renders a file of `templates/`; texts are escaped in HTML, not in Markdown."""
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_TEMPLATES),
      autoescape=lambda template: bool(template) and '.html' in template,
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
      keep_trailing_newline=True,
  )
  return environment.get_template(name).render(context)


def format_percent(value: float | None) -> str:
  """Returns 0.127 as '12.7 %', and None as a dash."""
  return '–' if value is None else f'{100 * value:.1f}\N{NO-BREAK SPACE}%'


def format_percent_interval(interval: Iterable[float]) -> str:
  """Returns (0.1, 0.15) as '10.0 to 15.0 %'."""
  low, high = interval
  return f'{100 * low:.1f} to {100 * high:.1f}\N{NO-BREAK SPACE}%'


def format_points(difference: float) -> str:
  """Returns a difference of shares in percentage points, with its sign."""
  return f'{100 * difference:+.1f}'.replace('-', '−')


def format_points_interval(interval: Iterable[float]) -> str:
  """Returns an interval of differences, in percentage points."""
  low, high = interval
  return f'{format_points(low)} to {format_points(high)}'


def use_figure_style() -> contextlib.AbstractContextManager[None]:
  """Returns the context in which figures must be made and saved."""
  return matplotlib.rc_context(_STYLE)


def new_figure(height: float = 3.7) -> tuple[figure_lib.Figure, axes_lib.Axes]:
  """Returns a figure of the column's width with one set of axes."""
  figure = figure_lib.Figure(figsize=(6.8, height), layout='constrained')
  return figure, figure.add_subplot()


def place_sizes(sizes: Sequence[int]) -> dict[int, float]:
  """Returns x = log10(size); the base, of size 0, is one step left of the smallest."""
  places = {n: math.log10(n) for n in sizes if n}
  if 0 in sizes:
    x = sorted(places.values()) or [0.0]
    step = (x[-1] - x[0]) / (len(x) - 1) if len(x) > 1 else 0.5
    places[0] = x[0] - step
  return places


def abbreviate_size(n: int) -> str:
  """Returns a size as a tick shows it: base, 64, 1,024, 30K."""
  if not n:
    return 'base'
  return f'{n // 1000}K' if n % 1000 == 0 else f'{n:,}'


def draw_size_axis(axes: axes_lib.Axes, places: Mapping[int, float]) -> None:
  """Labels the x axis with the sizes, at their places."""
  low, high = min(places.values()), max(places.values())
  span = (high - low) or 1.0
  ticks, last = [], -math.inf
  for n, x in sorted(places.items()):
    if x - last >= 0.055 * span:  # Leave out labels that would overlap.
      ticks.append((n, x))
      last = x
  axes.set_xticks([x for _, x in ticks], [abbreviate_size(n) for n, _ in ticks])
  axes.set_xlim(low - 0.06 * span, high + 0.06 * span)
  axes.set_xlabel('training traces (log scale)')


def draw_percent_axis(axes: axes_lib.Axes, label: str) -> None:
  """Labels the y axis with percentages."""
  axes.yaxis.set_major_formatter(lambda value, _: f'{100 * value:.0f} %')
  axes.set_ylabel(label)


def to_png(figure: figure_lib.Figure) -> bytes:
  """Returns the figure on white, at twice a screen's resolution."""
  out = io.BytesIO()
  figure.savefig(out, format='png', dpi=200, metadata={'Software': None})
  return out.getvalue()


def to_svg(figure: figure_lib.Figure, name: str) -> markupsafe.Markup:
  """Returns an `<svg>` element for the page, coloured by CSS variables.

  Args:
    figure: A figure in the style of this module.
    name: Keeps its ids apart from those of other figures of the page.
  """
  out = io.BytesIO()
  with matplotlib.rc_context({'svg.hashsalt': name}):
    no_metadata = {'Date': None, 'Creator': None, 'Format': None, 'Type': None}
    figure.savefig(out, format='svg', transparent=True, metadata=no_metadata)
  svg = out.getvalue().decode()
  svg = svg[svg.index('<svg') :]
  # Text of the file is changed, not the figure: matplotlib cannot draw in CSS variables.
  for pattern, replacement in _INLINE:
    svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
  for variable, color in _CSS_VARIABLES.items():
    svg = svg.replace(color, f'var(--{variable})')
  return markupsafe.Markup(svg)
