"""The data card: what lies in shards and what does not, as one page."""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import jinja2
import markupsafe
from matplotlib import figure as figure_lib
from matplotlib import ticker
import numpy as np

from valley_jax.analysis import figure_style

_TEMPLATES = pathlib.Path(__file__).parents[1] / 'templates'
_MAX_BARS = 12  # Values of a label; the rest are one bar.
_NUM_BINS = 30
# Field of the table, and title.
_LABELS = (
    ('difficulty', 'Difficulty'),
    ('is_correct', 'Correctness'),
    ('pass_rate', 'Pass rate'),
    ('source', 'Source of the questions'),
    ('language', 'Language'),
    ('teacher', 'Teacher'),
)


@dataclasses.dataclass(frozen=True)
class Exhibit:
  """A figure with its numbers."""

  name: str
  title: str
  caption: str
  svg: markupsafe.Markup
  header: Sequence[str]
  rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Section:
  """A table with a text ahead of it."""

  name: str
  title: str
  text: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]


def page(manifest: Mapping[str, Any], table: Any) -> str:
  """Returns the card as HTML that loads nothing from elsewhere.

  Args:
    manifest: Of the shards.
    table: Of the shards: columns by field, as `data.table.Table` has them.
  """
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_TEMPLATES),
      autoescape=True,
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
      keep_trailing_newline=True,
  )
  with figure_style.style():
    exhibits = [_lengths(np.asarray(table.num_tokens))]
    exhibits += [
        _label(name, title, getattr(table, name))
        for name, title in _LABELS
        if any(value not in ('', None) for value in getattr(table, name))
    ]
  context = {
      'headline': f'{manifest["num_traces"]:,} traces',
      'lead': _lead(manifest),
      'cards': _cards(manifest, table),
      'exhibits': exhibits,
      'sections': [_refusals(manifest), _sources(manifest), _made(manifest)],
  }
  return environment.get_template('card.html.j2').render(context)


def _lead(manifest: Mapping[str, Any]) -> str:
  num_dropped = sum(manifest['dropped'].values())
  return (
      f'Of {manifest["num_read"] + manifest["quarantined"]:,} rows'
      f' {manifest["quarantined"]:,} could not be read, {num_dropped:,} were'
      f' dropped for a stated reason, and {manifest["num_traces"]:,} are here.'
  )


def _cards(manifest: Mapping[str, Any], table: Any) -> list[tuple[str, str, str]]:
  supervised = manifest['num_supervised_tokens'] / manifest['num_tokens']
  num_questions = len(set(table.problem_ids))
  return [
      (
          'Questions',
          f'{num_questions:,}',
          f'{len(table.problem_ids) / num_questions:.1f} traces each',
      ),
      ('Tokens', f'{manifest["num_tokens"]:,}', f'{supervised:.1%} of them supervised'),
      (
          'Median length',
          f'{np.median(table.num_tokens):,.0f}',
          f'tokens; longest {manifest["longest"]:,}',
      ),
      (
          'Dropped',
          f'{sum(manifest["dropped"].values()):,}',
          f'for {len(manifest["dropped"])} reasons',
      ),
      ('Not readable', f'{manifest["quarantined"]:,}', 'rows in quarantine'),
  ]


def _svg(figure: figure_lib.Figure, name: str) -> markupsafe.Markup:
  return markupsafe.Markup(figure_style.to_svg(figure, name))


def _lengths(lengths: np.ndarray) -> Exhibit:
  """Draws how long traces are, on a logarithmic axis."""
  low, high = lengths.min(), lengths.max() + 1
  edges = np.unique(np.geomspace(low, high, _NUM_BINS + 1).round().astype(int))
  counts, edges = np.histogram(lengths, edges)
  figure, axes = figure_style.new()
  axes.bar(
      edges[:-1],
      counts,
      np.diff(edges),
      align='edge',
      color=figure_style.ACCENT,
      edgecolor=figure_style.PAPER,
  )
  axes.set_xscale('log')
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
  axes.xaxis.set_minor_formatter(lambda value, _: '')
  axes.set_xlabel('tokens, prompt included (log scale)')
  axes.set_ylabel('traces')
  shares = [5, 25, 50, 75, 95]
  found = zip(shares, np.percentile(lengths, shares), strict=True)
  said = ', '.join(f'{share} %: {value:,.0f}' for share, value in found)
  return Exhibit(
      'lengths',
      'Length',
      f'Tokens of a trace. Percentiles: {said}.',
      _svg(figure, 'lengths'),
      ('tokens', 'traces'),
      [(f'{a:,} to {b - 1:,}', f'{n:,}') for a, b, n in zip(edges, edges[1:], counts)],
  )


def _label(name: str, title: str, values: Sequence[Any]) -> Exhibit:
  """Draws how many traces have each value of a label."""
  word_of = _tenth if name == 'pass_rate' else _word
  counts = collections.Counter(map(word_of, values))
  order = sorted(counts, key=lambda word: (-counts[word], word))
  if name == 'pass_rate':
    order = sorted(counts)
  bars = [(word, counts[word]) for word in order[:_MAX_BARS]]
  if rest := order[_MAX_BARS:]:
    bars.append((f'{len(rest)} others', sum(counts[word] for word in rest)))
  return Exhibit(
      name,
      title,
      f'{len(counts)} values over {len(values):,} traces.',
      _svg(_draw_bars(bars), name),
      ('value', 'traces', 'share'),
      [(word, f'{n:,}', f'{n / len(values):.1%}') for word, n in bars],
  )


def _draw_bars(bars: Sequence[tuple[str, int]]) -> figure_lib.Figure:
  figure, axes = figure_style.new(0.9 + 0.3 * len(bars))
  counts = [n for _, n in bars]
  axes.barh(range(len(bars)), counts, 0.72, color=figure_style.ACCENT)
  axes.set_yticks(range(len(bars)), [_plain(word) for word, _ in bars])
  axes.invert_yaxis()
  axes.grid(axis='x')
  axes.grid(False, axis='y')
  axes.xaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
  axes.set_xlabel('traces')
  return figure


def _word(value: Any) -> str:
  words = {True: 'correct', False: 'incorrect', None: 'unknown', '': 'unknown'}
  return words.get(value, str(value))


def _tenth(rate: float | None) -> str:
  """Returns the tenth that a rate lies in; 1 is one of its own."""
  if rate is None:
    return _word(None)
  low = int(rate * 10 + 1e-9) / 10
  return '1' if rate >= 1 else f'{low:.1f} to {low + 0.1:.1f}'


def _plain(word: str) -> str:
  """Returns text that matplotlib shows as it is, on one line."""
  cut = word if len(word) <= 32 else f'{word[:31]}…'
  return ' '.join(cut.split()).replace('$', r'\$')


def _refusals(manifest: Mapping[str, Any]) -> Section:
  total = manifest['num_read'] or 1
  return Section(
      'dropped',
      'What was dropped',
      'The first reason that holds counts. Shares are of the rows that could be'
      ' read; all ids stand in decisions.jsonl and in the shards’ own tables.'
      if manifest['dropped']
      else 'Nothing.',
      ('reason', 'traces', 'share', 'for example'),
      [
          (
              reason.replace('_', ' '),
              f'{n:,}',
              f'{n / total:.2%}',
              ', '.join(manifest['examples'][reason]),
          )
          for reason, n in manifest['dropped'].items()
      ],
  )


def _sources(manifest: Mapping[str, Any]) -> Section:
  return Section(
      'sources',
      'Sources',
      'In the order in which they were read.',
      ('source', 'traces read', 'SHA-256'),
      [(row['source'], f'{row["read"]:,}', row['sha256']) for row in manifest['sources']],
  )


def _made(manifest: Mapping[str, Any]) -> Section:
  fields = (
      ('prompt', manifest['prompt']),
      ('prompt SHA-256', manifest['prompt_sha256']),
      ('chat template SHA-256', manifest['template_sha256']),
      ('tokenizer', manifest['tokenizer']),
      ('tokenizer SHA-256', manifest['tokenizer_sha256']),
      ('longest trace allowed', f'{manifest["max_len"]:,} tokens'),
      ('ids SHA-256', manifest['ids_sha256']),
      *manifest['versions'].items(),
  )
  return Section(
      'made', 'How they were made', 'The same of all this gives the same bytes.', ('', ''), fields
  )
