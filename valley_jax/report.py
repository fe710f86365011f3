"""report: a study's curve, tables and samples, as one page to read or send.

  python -m valley_jax.report --config configs/valley.py --workdir STUDY

Reads   every scores.json under STUDY, and beside it metrics.jsonl (loss curves), completions.jsonl
        and judgements.jsonl (samples to read)
        config.problems, if set, for the samples' statements and tests
Writes  STUDY/report.html   one self-contained page, nothing loaded from a net
        STUDY/report.md     the same figures and tables
        STUDY/figures/*.png
        STUDY/curve.json    the curve, the valley's depth and edge, as numbers
        STUDY/subsets.json  named subsets, and the gap of every two, as numbers; of all problems
                            and by difficulty
        STUDY/tensorboard_report/

A run of 0 traces is the base student; without one there is a curve but no valley. Runs of random
subsets are the curve; those of named ones are compared with each other, in the order of
config.study.subsets. Everything is written anew each time; the same scores give the same bytes.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import jinja2.utils
import markupsafe
import ml_collections as mlc

from valley_jax import jsonl
from valley_jax import records
from valley_jax.analysis import comparison
from valley_jax.analysis import exhibits as exhibits_lib
from valley_jax.analysis import findings
from valley_jax.analysis import presentation
from valley_jax.analysis import runs as runs_lib
from valley_jax.data.problem_formats import problems as problems_lib
from valley_jax.runtime import metrics
from valley_jax.scoring import estimators

_SAMPLES_PER_RUN = 24
_MAX_SAMPLES = 1200
_MAX_SAMPLES_BYTES = 2_000_000  # Keeps the page below 3 MB.


def report(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes the report of all runs under `workdir`; idempotent."""
  root = pathlib.Path(workdir)
  # An evaluation alone has no study.
  names = config.study.subsets if 'study' in config else ()
  runs = runs_lib.find_runs(root, names)
  with presentation.use_figure_style():
    summaries, exhibits = _summarize_runs(root, runs, config.num_bootstrap)
    for exhibit in exhibits:
      png = presentation.to_png(exhibit.figure)
      jsonl.write_atomically(root / f'figures/{exhibit.name}.png', png)
    svgs = {exhibit.name: presentation.to_svg(exhibit.figure, exhibit.name) for exhibit in exhibits}
    context = {
        'name': config.name,
        'command': config.command,
        'about': exhibits[0].title,
        'summaries': summaries,
        # Sizes and subsets may say the same of their problems.
        'notes': dict.fromkeys(note for summary in summaries for note in summary.notes),
        'exhibits': exhibits,
        'runs': runs_lib.tabulate_runs(runs),
        'commands': [
            (run.label, run.seed, run.scores['command']) for run in runs if run.scores['command']
        ],
    }
    markdown = presentation.render_template('report.md.j2', context)
    jsonl.write_atomically(root / 'report.md', markdown)
    # The page comes last of the files to read: where it exists, the others do.
    context = {**context, 'svgs': svgs, **_encode_samples(config.problems, runs)}
    page = presentation.render_template('report.html.j2', context)
    jsonl.write_atomically(root / 'report.html', page)
    _write_events(root / 'tensorboard_report', exhibits, markdown)


def _summarize_runs(
    root: pathlib.Path, runs: Sequence[runs_lib.Run], num_draws: int
) -> tuple[list[findings.Summary], list[presentation.Exhibit]]:
  """Compares the runs and writes the numbers; the curve's summary comes first."""
  size_runs, named_runs = runs_lib.select_size_runs(runs), runs_lib.select_named_runs(runs)
  summaries, exhibits = [], []
  # Two comparisons, so that the curve's numbers do not depend on which subsets were run as well.
  if any(run.group for run in size_runs) or not named_runs:
    curve, by_difficulty = _compare_runs(size_runs, num_draws)
    jsonl.write_json(root / 'curve.json', encode_curve(curve))
    summaries.append(findings.summarize_curve(curve))
    exhibits += exhibits_lib.make_curve_exhibits(size_runs, curve, by_difficulty)
  if named_runs:
    subsets, by_difficulty = _compare_runs(named_runs, num_draws)
    parts = {name: encode_subsets(part) for name, part in by_difficulty.items()}
    jsonl.write_json(
        root / 'subsets.json', {'all': encode_subsets(subsets), 'by_difficulty': parts}
    )
    summaries.append(findings.summarize_subsets(subsets))
    exhibits += exhibits_lib.make_subset_exhibits(named_runs, subsets, by_difficulty)
  return summaries, exhibits + exhibits_lib.make_run_exhibits(runs)


def _compare_runs(
    runs: Sequence[runs_lib.Run], num_draws: int
) -> tuple[comparison.Comparison, dict[str, comparison.Comparison]]:
  """Compares runs on all problems, and on those of each difficulty, from easy to hard."""
  resample = functools.partial(estimators.resample_means, num_draws=num_draws)

  def compare(own: Sequence[runs_lib.Run]) -> comparison.Comparison:
    return comparison.compare_groups([run.scores for run in own], resample)

  difficulties = runs[0].scores['by_difficulty']
  by_difficulty = {
      name: compare(runs_lib.restrict_to_difficulty(runs, name)) for name in difficulties
  }
  return compare(runs), by_difficulty


def encode_curve(curve: comparison.Comparison) -> dict[str, Any]:
  """Returns the content of curve.json."""

  def encode_point(result: comparison.GroupResult) -> dict[str, Any]:
    fields = dataclasses.asdict(result)
    del fields['name']
    return {**fields, 'num_traces': result.size}

  def encode_change(
      change: comparison.Difference, interval: comparison.Interval, num_compared: int
  ) -> dict[str, Any]:
    return {
        'num_traces': change.name,
        'difference': change.difference,
        'interval': interval,
        'num_compared': num_compared,
    }

  lowest = curve.lowest
  return {
      'num_problems': curve.num_problems,
      'baseline': encode_point(curve.base) if curve.base else None,
      'points': [encode_point(result) for result in curve.groups],
      'changes': [encode_change(change, change.interval, 1) for change in curve.against_base],
      'lowest': lowest and encode_change(lowest, lowest.among_all, lowest.num_compared),
      'edge': curve.edge and dataclasses.asdict(curve.edge),
      'below_half': curve.below_half,
  }


def encode_subsets(compared: comparison.Comparison) -> dict[str, Any]:
  """Returns the content of one part of subsets.json."""

  def encode_row(row: comparison.GroupResult | comparison.Difference) -> dict[str, Any]:
    fields = dataclasses.asdict(row)
    names = {key: fields[key] or 'base' for key in ('name', 'other') if key in fields}
    return {**fields, **names}

  return {
      'num_problems': compared.num_problems,
      'base': encode_row(compared.base) if compared.base else None,
      'arms': [encode_row(result) for result in compared.groups],
      'against_base': [encode_row(gap) for gap in compared.against_base],
      'pairs': [encode_row(gap) for gap in compared.pairs],
  }


def _encode_samples(problems_source: str, runs: Sequence[runs_lib.Run]) -> dict[str, Any]:
  """Returns the samples as JSON that is safe inside a <script> element.

  Completions are untrusted. Every <, >, & and ' is written as \\uXXXX, so that no text can end the
  element; the page's script shows them as text only.
  """
  problems = problems_lib.read_problems(problems_source) if problems_source else []
  problem_of = {problem.problem_id: problem for problem in problems}
  limit = max(1, min(_SAMPLES_PER_RUN, _MAX_SAMPLES // len(runs)))
  samples = [runs_lib.read_samples(run, limit) for run in runs]
  encoded = markupsafe.Markup('')
  for max_chars in (16_000, 8_000, 4_000, 2_000, 1_000, 500):
    shown = _format_samples(runs, samples, problem_of, max_chars)
    encoded = jinja2.utils.htmlsafe_json_dumps(shown)
    if len(encoded.encode()) <= _MAX_SAMPLES_BYTES:
      break
  return {'samples': encoded, 'num_samples': sum(map(len, samples))}


def _format_samples(
    runs: Sequence[runs_lib.Run],
    samples: Sequence[Sequence[runs_lib.Sample]],
    problem_of: Mapping[str, records.Problem],
    max_chars: int,
) -> dict[str, Any]:
  """Returns runs with their samples, and the problem statements that these need."""
  shown_runs, statements = [], {}
  for run, own_samples in zip(runs, samples, strict=True):
    shown = []
    for sample in own_samples:
      problem_id = sample[0].problem_id
      problem = problem_of.get(problem_id)
      fields = runs_lib.format_sample(sample, problem, max_chars)
      shown.append({**fields, 'difficulty': run.difficulties[problem_id]})
      if problem is not None:
        text = '\n\n'.join(filter(None, (problem.statement, problem.stub)))
        statements[problem_id] = runs_lib.truncate_text(text, max_chars)
    shown_runs.append({'traces': run.label, 'seed': run.seed, 'samples': shown})
  return {'runs': shown_runs, 'statements': statements}


def _write_events(
    directory: pathlib.Path, exhibits: Sequence[presentation.Exhibit], markdown: str
) -> None:
  """Replaces the report in TensorBoard by this one."""
  for old in directory.glob('events.out.tfevents.*'):
    old.unlink()
  tensorboardx = metrics.import_tensorboardx()
  with tensorboardx.SummaryWriter(str(directory)) as writer:
    writer.add_text('report', markdown)
    for exhibit in exhibits:
      writer.add_figure(exhibit.name, exhibit.figure, close=False)


if __name__ == '__main__':
  entry.run(report)
