"""The data card: what is in shards and what was left out, as one page."""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from matplotlib import figure as figure_lib
from matplotlib import ticker
import numpy as np

from valley_jax.analysis import presentation

_MAX_BARS = 12  # Values of a label with a bar of their own; the rest share one.
_NUM_BINS = 30
# Column of the table of traces, and title of its figure.
_LABELS = {
    'difficulty': 'Difficulty',
    'is_correct': 'Correctness',
    'pass_rate': 'Pass rate',
    'source': 'Source of the questions',
    'language': 'Language',
    'teacher': 'Teacher',
}


def render_data_card(manifest: Mapping[str, Any], table: Any) -> str:
  """Returns the card as HTML that loads nothing from elsewhere.

  Args:
    manifest: Manifest of the shards.
    table: The `TraceTable` of the shards: a column for each field of a trace.
  """
  with presentation.use_figure_style():
    exhibits = [_exhibit_lengths(np.asarray(table.num_tokens))]
    exhibits += [
        _exhibit_label(name, title, getattr(table, name))
        for name, title in _LABELS.items()
        if any(value not in ('', None) for value in getattr(table, name))
    ]
    svgs = {exhibit.name: presentation.to_svg(exhibit.figure, exhibit.name) for exhibit in exhibits}
  num_dropped = sum(manifest['dropped'].values())
  context = {
      'headline': f'{manifest["num_traces"]:,} traces',
      'lead': (
          f'Of {manifest["num_read"] + manifest["quarantined"]:,} rows'
          f' {manifest["quarantined"]:,} could not be read, {num_dropped:,} were dropped for a'
          f' stated reason, and {manifest["num_traces"]:,} are here.'
      ),
      'cards': _make_cards(manifest, table),
      'exhibits': exhibits,
      'svgs': svgs,
      'sections': [
          _tabulate_dropped(manifest),
          _tabulate_sources(manifest),
          _tabulate_settings(manifest),
      ],
  }
  return presentation.render_template('card.html.j2', context)


def _make_cards(manifest: Mapping[str, Any], table: Any) -> list[tuple[str, str, str]]:
  num_questions = len(set(table.problem_ids))
  num_tokens, num_dropped = manifest['num_tokens'], sum(manifest['dropped'].values())
  traces_each = f'{len(table.problem_ids) / num_questions:.1f} traces each'
  supervised = f'{manifest["num_supervised_tokens"] / num_tokens:.1%} of them supervised'
  longest = f'tokens; longest {manifest["longest"]:,}'
  return [
      ('Questions', f'{num_questions:,}', traces_each),
      ('Tokens', f'{num_tokens:,}', supervised),
      ('Median length', f'{np.median(table.num_tokens):,.0f}', longest),
      ('Dropped', f'{num_dropped:,}', f'for {len(manifest["dropped"])} reasons'),
      ('Not readable', f'{manifest["quarantined"]:,}', 'rows in quarantine'),
  ]


def _exhibit_lengths(lengths: np.ndarray) -> presentation.Exhibit:
  """Draws how long traces are, on a logarithmic axis."""
  edges = np.geomspace(lengths.min(), lengths.max() + 1, _NUM_BINS + 1)
  counts, edges = np.histogram(lengths, np.unique(edges.round().astype(int)))
  figure, axes = presentation.new_figure()
  axes.bar(
      edges[:-1],
      counts,
      np.diff(edges),
      align='edge',
      color=presentation.ACCENT,
      edgecolor=presentation.PAPER,
  )
  axes.set_xscale('log')
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
  axes.xaxis.set_minor_formatter(lambda value, _: '')
  axes.set_xlabel('tokens, prompt included (log scale)')
  axes.set_ylabel('traces')
  shares = [5, 25, 50, 75, 95]
  percentiles = zip(shares, np.percentile(lengths, shares), strict=True)
  listed = ', '.join(f'{share} %: {value:,.0f}' for share, value in percentiles)
  return presentation.Exhibit(
      name='lengths',
      title='Length',
      caption=f'Tokens of a trace. Percentiles: {listed}.',
      figure=figure,
      rows=[
          {'tokens': f'{low:,} to {high - 1:,}', 'traces': f'{n:,}'}
          for low, high, n in zip(edges, edges[1:], counts)
      ],
  )


def _exhibit_label(name: str, title: str, values: Sequence[Any]) -> presentation.Exhibit:
  """Draws how many traces have each value of a label."""
  counts = collections.Counter(map(_format_tenth if name == 'pass_rate' else _format_value, values))
  if name == 'pass_rate':
    words = sorted(counts)
  else:
    words = sorted(counts, key=lambda word: (-counts[word], word))
  bars = [(word, counts[word]) for word in words[:_MAX_BARS]]
  if rest := words[_MAX_BARS:]:
    bars.append((f'{len(rest)} others', sum(counts[word] for word in rest)))
  return presentation.Exhibit(
      name=name,
      title=title,
      caption=f'{len(counts)} values over {len(values):,} traces.',
      figure=_draw_bars(bars),
      rows=[
          {'value': word, 'traces': f'{n:,}', 'share': f'{n / len(values):.1%}'} for word, n in bars
      ],
  )


def _draw_bars(bars: Sequence[tuple[str, int]]) -> figure_lib.Figure:
  figure, axes = presentation.new_figure(0.9 + 0.3 * len(bars))
  axes.barh(range(len(bars)), [n for _, n in bars], 0.72, color=presentation.ACCENT)
  axes.set_yticks(range(len(bars)), [_shorten_word(word) for word, _ in bars])
  axes.invert_yaxis()
  axes.grid(axis='x')
  axes.grid(False, axis='y')
  axes.xaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
  axes.set_xlabel('traces')
  return figure


def _format_value(value: Any) -> str:
  words = {True: 'correct', False: 'incorrect', None: 'unknown', '': 'unknown'}
  return words.get(value, str(value))


def _format_tenth(rate: float | None) -> str:
  """Returns the tenth that a rate is in; 1 is on its own."""
  if rate is None:
    return _format_value(None)
  low = int(rate * 10 + 1e-9) / 10
  return '1' if rate >= 1 else f'{low:.1f} to {low + 0.1:.1f}'


def _shorten_word(word: str) -> str:
  """Returns text for a tick: one line, with `$` escaped, which would begin a formula."""
  short = word if len(word) <= 32 else f'{word[:31]}…'
  return ' '.join(short.split()).replace('$', r'\$')


def _tabulate_dropped(manifest: Mapping[str, Any]) -> presentation.Exhibit:
  total = manifest['num_read'] or 1
  return presentation.Exhibit(
      name='dropped',
      title='What was dropped',
      caption='The first reason that holds counts. Shares are of the rows that could be read; all'
      ' ids are in decisions.jsonl and in the shards’ own tables.'
      if manifest['dropped']
      else 'Nothing.',
      rows=[
          {
              'reason': reason.replace('_', ' '),
              'traces': f'{n:,}',
              'share': f'{n / total:.2%}',
              'for example': ', '.join(manifest['examples'][reason]),
          }
          for reason, n in manifest['dropped'].items()
      ],
  )


def _tabulate_sources(manifest: Mapping[str, Any]) -> presentation.Exhibit:
  return presentation.Exhibit(
      name='sources',
      title='Sources',
      caption='In the order in which they were read.',
      rows=[
          {'source': row['source'], 'traces read': f'{row["read"]:,}', 'SHA-256': row['sha256']}
          for row in manifest['sources']
      ],
  )


def _tabulate_settings(manifest: Mapping[str, Any]) -> presentation.Exhibit:
  settings = {
      'prompt': manifest['prompt'],
      'prompt SHA-256': manifest['prompt_sha256'],
      'chat template SHA-256': manifest['template_sha256'],
      'tokenizer': manifest['tokenizer'],
      'tokenizer SHA-256': manifest['tokenizer_sha256'],
      'longest trace allowed': f'{manifest["max_len"]:,} tokens',
      'ids SHA-256': manifest['ids_sha256'],
      **manifest['versions'],
  }
  return presentation.Exhibit(
      name='made',
      title='How they were made',
      caption='The same settings and sources give the same bytes.',
      rows=[{'setting': name, 'value': value} for name, value in settings.items()],
  )
