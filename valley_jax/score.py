"""score: turns judgements into pass@k with intervals, and rates.

  python -m valley_jax.score --config configs/valley.py --workdir RUN

Reads   RUN/judgements.jsonl   verdicts, from `execute`
        RUN/completions.jsonl  texts, from `sample`; or config.submissions
        config.problems        for difficulties, and to check that none is missing
        RUN/subset.json, RUN/sampling.json   what the student was trained on
Writes  RUN/scores.json

Either all samples are scored or none. `score` refuses, and says what to run, while a judgement is
IE (a failure of the judge), a program has no judgement, a program or its tests have changed since
the judgement, or a problem lacks one of its samples 0..n-1. Problems whose own checker is broken
(BP) are left out by name.

pass@k is the unbiased estimator. Intervals are 95 % percentile bootstrap intervals over problems
(config.num_bootstrap draws), because the problem is the unit of uncertainty. completion_rate is the
share of completions that end within the token budget; think_tag_rate the share that begin with
`<think>`.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import programs
from valley_jax import records
from valley_jax.data.problem_formats import problems as problems_lib
from valley_jax.runtime import entry
from valley_jax.scoring import completeness
from valley_jax.scoring import judgement_file
from valley_jax.scoring import summary


def score(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/scores.json; running it again writes the same bytes."""
  run = pathlib.Path(workdir)
  problems = problems_lib.read_problems(config.problems)
  judgements = _read_judgements(run / 'judgements.jsonl')
  if config.submissions:
    forms = None
    program_digests = _read_submissions(pathlib.Path(config.submissions))
  else:
    forms, program_digests = _read_completions(run / 'completions.jsonl')
  broken = completeness.find_broken_problems(judgements)
  if broken:
    print(
        f'score: problems left out, since their own checker is broken (BP): {len(broken):,},'
        f' {", ".join(sorted(broken)[:10])}. {next(iter(broken.values()))}'
    )
    problems = [p for p in problems if p.problem_id not in broken]
    judgements = {key: row for key, row in judgements.items() if key[0] not in broken}
    program_digests = {k: digest for k, digest in program_digests.items() if k[0] not in broken}
  num_samples = completeness.check_samples(
      [p.problem_id for p in problems],
      judgements,
      program_digests.keys(),
      None if config.submissions else config.sample.num_samples,
  )
  problem_digests = {p.problem_id: completeness.digest_problem(p) for p in problems}
  completeness.check_digests(judgements, program_digests, problem_digests)
  table = summary.tabulate_samples(problems, num_samples, judgements, forms)
  training_set = _find_training_set(config, run)
  scores = _compute_scores(config, table, judgements, training_set)
  jsonl.write_json(run / 'scores.json', {**scores, 'left_out': broken})


def _compute_scores(
    config: mlc.ConfigDict,
    table: summary.ProblemTable,
    judgements: Mapping[completeness.Key, records.Judgement],
    training_set: dict[str, Any],
) -> dict[str, Any]:
  """Returns the contents of scores.json."""
  num_draws = config.num_bootstrap
  pass_at_k = {k: summary.summarize_pass_at_k(table, k, num_draws) for k in (1, *config.ks)}
  return {
      'name': config.name,
      **training_set,
      'seed': config.seed,
      'num_problems': len(table.problem_ids),
      'num_samples': table.num_samples,
      'pass_at_1': pass_at_k[1]['value'],
      'pass_at_1_interval': pass_at_k[1]['interval'],
      **summary.summarize_rates(table),
      **summary.summarize_completed(table, num_draws),
      'pass_at_k': {str(k): pass_at_k[k] for k in sorted(pass_at_k)},
      'verdicts': summary.count_verdicts(judgements),
      'by_difficulty': summary.summarize_difficulties(table, num_draws),
      **_summarize_judge(judgements),
      'command': config.command,
      'problems': summary.list_problems(table),
  }


def _find_training_set(config: mlc.ConfigDict, run: pathlib.Path) -> dict[str, Any]:
  """Returns which traces the student was trained on, and how many.

  The run's own files decide, whatever the config says now: subset.json if the student was trained
  in this workdir, otherwise what sampling.json records of the student that was sampled.
  """
  subset, student = {}, {}
  if not config.submissions:
    subset = _read_optional_json(run / 'subset.json')
    student = _read_optional_json(run / 'sampling.json').get('student', {})
  if student and student.get('subset_sha256') != subset.get('ids_sha256'):
    subset = {
        'subset': student.get('config.subset', ''),
        'ids_sha256': student.get('subset_sha256'),
        'num_traces': student.get('config.num_traces', config.num_traces),
    }
  num_traces = subset.get('num_traces', config.num_traces)
  # -1 means all traces of a subset, however many; only the config may then name a number.
  if num_traces < 0 < config.num_traces:
    num_traces = config.num_traces
  if num_traces < 0:
    raise errors.UserError(
        f'{run / "subset.json"} does not record on how many traces the student was trained; run'
        ' `train` first, or set config.num_traces if it was trained elsewhere.'
    )
  return {
      'num_traces': num_traces,
      # An untrained student has no subset, whatever the config names.
      'subset': subset.get('subset', '') if num_traces else '',
      'subset_sha256': subset.get('ids_sha256'),
  }


def _read_optional_json(path: pathlib.Path) -> dict[str, Any]:
  return jsonl.read_json(path) if path.exists() else {}


def _read_judgements(path: pathlib.Path) -> dict[completeness.Key, records.Judgement]:
  _check_exists(path, 'execute')
  judgement_file.check_finished(path)
  rows = jsonl.read_rows(path, records.Judgement)
  return completeness.collect_unique(
      ((records.sample_key(row), row) for row in rows),
      str(path),
      'run `execute` again, which keeps the last one',
  )


def _read_submissions(path: pathlib.Path) -> dict[completeness.Key, str]:
  """Returns the hash of each program."""
  _check_exists(path, 'execute')
  rows = jsonl.read_rows(path, records.Submission)
  return completeness.collect_unique(
      ((records.sample_key(row), completeness.digest_program(row)) for row in rows), str(path)
  )


def _read_completions(
    path: pathlib.Path,
) -> tuple[dict[completeness.Key, summary.CompletionForm], dict[completeness.Key, str]]:
  """Returns the form of each completion, and the hash of its program.

  Completions are read one at a time: their texts can be many gigabytes.
  """
  _check_exists(path, 'sample')
  columns = completeness.collect_unique(
      (
          (records.sample_key(row), (summary.describe_form(row), _digest_completion(row)))
          for row in jsonl.read_rows(path, records.Completion)
      ),
      str(path),
  )
  return (
      {key: form for key, (form, _) in columns.items()},
      {key: digest for key, (_, digest) in columns.items()},
  )


def _digest_completion(completion: records.Completion) -> str:
  return completeness.digest_program(programs.make_submission(completion))


def _check_exists(path: pathlib.Path, verb: str) -> None:
  if not path.exists():
    raise errors.UserError(f'{path} does not exist; run `{verb}` first.')


def _summarize_judge(judgements: Mapping[Any, records.Judgement]) -> dict[str, Any]:
  """Returns under which isolation and rules the judgements were made."""
  rows = judgements.values()
  profiles = sorted({row.profile.value for row in rows})
  if len(profiles) > 1:
    raise errors.UserError(
        f'Judgements were made under {len(profiles)} profiles ({", ".join(profiles)}), which cannot'
        ' be compared; run `execute` under one of them, which judges the others anew.'
    )
  seconds = [row.calibration for row in rows if row.calibration]
  return {
      'tier': '+'.join(sorted({row.tier for row in rows if row.tier})),
      'waivers': sorted({name for row in rows for name in row.waivers}),
      'profile': profiles[0],
      # CPU seconds of one reference loop on each judging host: [least, most].
      'calibration': [min(seconds), max(seconds)] if seconds else None,
  }


if __name__ == '__main__':
  entry.run(score)
