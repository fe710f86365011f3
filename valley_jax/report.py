"""report: a study's curve, tables and samples, as one page to read or send.

  python -m valley_jax.report --config configs/valley.py --workdir STUDY

Reads   every scores.json under STUDY, and what lies beside it: metrics.jsonl
        (loss curves), completions.jsonl and judgements.jsonl (samples to read)
        config.problems, if set, for the samples' statements and tests
Writes  STUDY/report.html   one self-contained page, nothing loaded from a net
        STUDY/report.md     the same figures and tables
        STUDY/figures/*.png
        STUDY/curve.json    the curve, the valley's depth and edge, as numbers
        STUDY/subsets.json  named subsets, and the gap of every two, as numbers;
                            all, and by the problems' difficulty
        STUDY/tensorboard_report/

A run of 0 traces is the base student; without one there is a curve but no
valley. Runs of random subsets are the curve; those of named ones are compared
with each other, in the order of config.study.subsets. Everything is made anew
each time; the same scores give the same bytes.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import jinja2
import jinja2.utils
import markupsafe
import ml_collections as mlc

from valley_jax import jsonl
from valley_jax import records
from valley_jax.analysis import browse
from valley_jax.analysis import curve as curve_lib
from valley_jax.analysis import exhibits as exhibits_lib
from valley_jax.analysis import figure_style
from valley_jax.analysis import findings
from valley_jax.analysis import study
from valley_jax.analysis import subset_exhibits
from valley_jax.analysis import subset_findings
from valley_jax.analysis import subsets
from valley_jax.data.formats import problems as problems_lib
from valley_jax.runtime import metrics
from valley_jax.scoring import estimators

_SAMPLES_PER_RUN = 24
_MAX_SAMPLES = 1200
_MAX_SAMPLES_BYTES = 2_000_000  # So that the page stays below 3 MB.
_TEMPLATES = pathlib.Path(__file__).with_name('templates')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Results:
  """What the runs come to: a curve, a comparison of subsets, or both."""

  curve: curve_lib.Curve | None
  subsets: subsets.Comparison | None
  exhibits: Sequence[exhibits_lib.Exhibit]


def report(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes the report of all runs under `workdir`; idempotent."""
  root = pathlib.Path(workdir)
  # An evaluation alone has no study.
  names = config.study.subsets if 'study' in config else ()
  runs = study.find_runs(root, names)
  results = _measure(root, runs, config.num_bootstrap)
  exhibits = results.exhibits
  context = _context(config, runs, results)
  with figure_style.style():
    for exhibit in exhibits:
      png = figure_style.to_png(exhibit.figure)
      jsonl.write_atomically(root / f'figures/{exhibit.name}.png', png)
    svgs = {e.name: markupsafe.Markup(figure_style.to_svg(e.figure, e.name)) for e in exhibits}
  markdown = _render('report.md.j2', context)
  jsonl.write_atomically(root / 'report.md', markdown)
  samples = _samples(config, runs)
  page = _render('report.html.j2', {**context, 'svgs': svgs, **samples})
  jsonl.write_atomically(root / 'report.html', page)
  _write_events(root / 'tensorboard_report', exhibits, markdown)


def _measure(root: pathlib.Path, runs: Sequence[study.Run], num_draws: int) -> _Results:
  """Returns what the runs come to, and writes it as numbers."""
  resample = functools.partial(estimators.resample_means, num_draws=num_draws)

  def measured(measure, runs: Sequence[study.Run]):
    parts = {
        name: measure(study.scores_of(runs, name), resample) for name in study.difficulties(runs)
    }
    return measure([run.scores for run in runs], resample), parts

  curve = compared = None
  exhibits = []
  sizes, named = study.of_sizes(runs), study.of_names(runs)
  if any(run.group for run in sizes) or not named:
    curve, parts = measured(curve_lib.measure, sizes)
    exhibits += exhibits_lib.of_curve(sizes, curve, parts)
    jsonl.write_json(root / 'curve.json', dataclasses.asdict(curve))
  if named:
    compared, parts = measured(subsets.measure, named)
    exhibits += subset_exhibits.draw(named, compared, parts)
    found = {
        'all': dataclasses.asdict(compared),
        'by_difficulty': {k: dataclasses.asdict(v) for k, v in parts.items()},
    }
    jsonl.write_json(root / 'subsets.json', found)
  exhibits += exhibits_lib.of_runs(runs)
  return _Results(curve=curve, subsets=compared, exhibits=exhibits)


def _context(
    config: mlc.ConfigDict, runs: Sequence[study.Run], results: _Results
) -> dict[str, Any]:
  """Returns what the page and report.md both say."""
  header, rows = exhibits_lib.run_table(runs)
  said = []  # By the curve, if there is one, and then by the subsets.
  for words, found in ((findings, results.curve), (subset_findings, results.subsets)):
    if found is not None:
      said.append(
          (words.headline(found), words.verdict(found), words.notes(found), words.cards(found))
      )
  headlines, verdicts, notes, cards = zip(*said, strict=True)
  return {
      'name': config.name,
      'command': config.command,
      'about': results.exhibits[0].title,
      'headline': headlines[0],
      'verdicts': verdicts,
      'notes': sum(notes, []),
      'cards': cards[0],
      'exhibits': results.exhibits,
      'run_header': header,
      'run_rows': rows,
      'commands': [
          (exhibits_lib.run_label(run), run.seed, run.scores['command'])
          for run in runs
          if run.scores['command']
      ],
  }


def _render(template: str, context: dict[str, Any]) -> str:
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_TEMPLATES),
      autoescape=lambda name: bool(name) and '.html' in name,
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
      keep_trailing_newline=True,
  )
  return environment.get_template(template).render(context)


def _samples(config: mlc.ConfigDict, runs: Sequence[study.Run]) -> dict[str, Any]:
  """Returns the samples as JSON that is safe inside of a <script> element.

  Completions are untrusted. Every <, >, & and ' is written as \\uXXXX, so that
  no text can end the element; the page's script shows them as text only.
  """
  problems = {}
  if config.problems:
    found = problems_lib.read_problems(config.problems)
    problems = {p.problem_id: p for p in found}
  per_run = max(1, min(_SAMPLES_PER_RUN, _MAX_SAMPLES // len(runs)))
  chosen = [_choose(run, per_run) for run in runs]
  encoded = markupsafe.Markup('')
  for max_chars in (16_000, 8_000, 4_000, 2_000, 1_000, 500):
    encoded = jinja2.utils.htmlsafe_json_dumps(_browsable(runs, chosen, problems, max_chars))
    if len(encoded.encode()) <= _MAX_SAMPLES_BYTES:
      break
  return {'samples': encoded, 'num_samples': sum(map(len, chosen))}


def _choose(run: study.Run, limit: int) -> list[tuple[Any, Any]]:
  """Returns (judgement, completion) pairs; none if texts are not there."""
  judged = run.directory / 'judgements.jsonl'
  written = run.directory / 'completions.jsonl'
  if not judged.exists() or not written.exists():
    return []
  difficulties = {p['problem_id']: p['difficulty'] for p in run.scores['problems']}
  chosen = browse.choose(list(jsonl.read_rows(judged, records.Judgement)), difficulties, limit)
  keys = {records.sample_key(row) for row in chosen}
  completions = {  # One at a time: the file can be many gigabytes.
      records.sample_key(row): row
      for row in jsonl.read_rows(written, records.Completion)
      if records.sample_key(row) in keys
  }
  return [
      (row, completions[records.sample_key(row)])
      for row in chosen
      if records.sample_key(row) in completions
  ]


def _browsable(runs, chosen, problems, max_chars: int) -> dict[str, Any]:
  """Returns runs with their samples, and the statements that these need."""
  found, statements = [], {}
  for run, pairs in zip(runs, chosen, strict=True):
    difficulties = {p['problem_id']: p['difficulty'] for p in run.scores['problems']}
    samples = []
    for judgement, completion in pairs:
      name = judgement.problem_id
      problem = problems.get(name)
      shown = browse.sample(judgement, completion, problem, max_chars)
      samples.append({**shown, 'difficulty': difficulties[name]})
      if problem is not None:
        asked = '\n\n'.join(filter(None, (problem.statement, problem.stub)))
        statements[name] = browse.cut(asked, max_chars)
    label = exhibits_lib.run_label(run)
    found.append({'traces': label, 'seed': run.seed, 'samples': samples})
  return {'runs': found, 'statements': statements}


def _write_events(
    directory: pathlib.Path, exhibits: Sequence[exhibits_lib.Exhibit], markdown: str
) -> None:
  """Replaces the report in TensorBoard by this one."""
  for old in directory.glob('events.out.tfevents.*'):
    old.unlink()
  tensorboardx = metrics.import_tensorboardx()
  with figure_style.style(), tensorboardx.SummaryWriter(str(directory)) as writer:
    writer.add_text('report', markdown)
    for exhibit in exhibits:
      writer.add_figure(exhibit.name, exhibit.figure, close=False)


if __name__ == '__main__':
  entry.run(report)
