"""score: turns judgements into pass@k with intervals, and rates.

  python -m valley_jax.score --config configs/valley.py --workdir RUN

Reads   RUN/judgements.jsonl   verdicts, from `execute`
        RUN/completions.jsonl  texts, from `sample`; or config.submissions
        config.problems        for difficulties, and to see that none is missing
        RUN/subset.json, RUN/sampling.json   what the student was trained on
Writes  RUN/scores.json

A score is given for all samples or not at all. While a judgement is IE (our
own failure), a program has no judgement or has changed since, as have its
tests, or a problem lacks one of its samples 0..n-1, `score` refuses and says
what to run.

pass@k is the unbiased estimator; intervals are 95 % percentile bootstrap
intervals over problems (config.num_bootstrap draws), because the problem is
the unit of uncertainty. completion_rate is the share of completions that end
within the token budget; think_tag_rate the share that begin with `<think>`.
"""

import pathlib
from typing import Any

import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import programs
from valley_jax import records
from valley_jax.data.formats import problems as problems_lib
from valley_jax.runtime import entry
from valley_jax.scoring import completeness
from valley_jax.scoring import digests
from valley_jax.scoring import judgement_file
from valley_jax.scoring import summary


def score(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/scores.json; running it again writes the same bytes."""
  run = pathlib.Path(workdir)
  problems = problems_lib.read_problems(config.problems)
  judgements = _read_judgements(run / 'judgements.jsonl')
  if config.submissions:
    forms = None
    hashes = _read_submissions(pathlib.Path(config.submissions))
  else:
    forms, hashes = _read_completions(run / 'completions.jsonl')
  num_samples = completeness.check(
      [p.problem_id for p in problems],
      judgements,
      hashes.keys(),
      None if config.submissions else config.sample.num_samples,
  )
  completeness.check_digests(
      judgements, hashes, {p.problem_id: digests.of_problem(p) for p in problems}
  )
  table = summary.tabulate(problems, num_samples, judgements, forms)
  scores = _scores(config, table, judgements, _trained_on(config, run))
  jsonl.write_json(run / 'scores.json', scores)


def _scores(
    config: mlc.ConfigDict,
    table: summary.Table,
    judgements: dict[completeness.Key, records.Judgement],
    trained_on: dict[str, Any],
) -> dict[str, Any]:
  """Returns what scores.json says."""
  draws = config.num_bootstrap
  pass_at_k = {k: summary.pass_at(table, k, draws) for k in (1, *config.ks)}
  return {
      'name': config.name,
      **trained_on,
      'seed': config.seed,
      'num_problems': len(table.problem_ids),
      'num_samples': table.num_samples,
      'pass_at_1': pass_at_k[1]['value'],
      'pass_at_1_interval': pass_at_k[1]['interval'],
      **summary.rates(table),
      **summary.given_completion(table, draws),
      'pass_at_k': {str(k): pass_at_k[k] for k in sorted(pass_at_k)},
      'verdicts': summary.verdicts(judgements),
      'by_difficulty': summary.by_difficulty(table, draws),
      **_conditions(judgements),
      'command': config.command,
      'problems': summary.by_problem(table),
  }


def _trained_on(config: mlc.ConfigDict, run: pathlib.Path) -> dict[str, Any]:
  """Returns which traces the student was trained on, and how many.

  The student says it itself, whatever the config asks for now: by subset.json
  if it was trained here, and else by what was sampled.
  """
  made, student = {}, {}
  if not config.submissions:
    made = _read_if_there(run / 'subset.json')
    student = _read_if_there(run / 'sampling.json').get('student', {})
  if student and student.get('subset_sha256') != made.get('ids_sha256'):
    made = {
        'subset': student.get('config.subset', ''),
        'ids_sha256': student.get('subset_sha256'),
        'num_traces': student.get('config.num_traces', config.num_traces),
    }
  num_traces = made.get('num_traces', config.num_traces)
  if num_traces < 0 < config.num_traces:  # All of a subset; only it says more.
    num_traces = config.num_traces
  if num_traces < 0:
    raise errors.UserError(
        f'How many traces the student was trained on does not stand in'
        f' {run / "subset.json"}; run `train` first, or say it by'
        ' config.num_traces if it was trained elsewhere.'
    )
  return {
      'num_traces': num_traces,
      # The student as it is was trained on no subset.
      'subset': made.get('subset', '') if num_traces else '',
      'subset_sha256': made.get('ids_sha256'),
  }


def _read_if_there(path: pathlib.Path) -> dict[str, Any]:
  return jsonl.read_json(path) if path.exists() else {}


def _read_judgements(path: pathlib.Path) -> dict[completeness.Key, records.Judgement]:
  _require(path, 'execute')
  if judgement_file.next_path(path).exists():
    raise errors.UserError(
        f'{path} is being made anew, and that has not ended; run `execute`' ' to the end.'
    )
  rows = jsonl.read_rows(path, records.Judgement)
  return completeness.by_key(
      ((records.sample_key(row), row) for row in rows),
      str(path),
      'run `execute` again, which keeps the last one',
  )


def _read_submissions(path: pathlib.Path) -> dict[completeness.Key, str]:
  """Returns the hash of each program."""
  _require(path, 'execute')
  rows = jsonl.read_rows(path, records.Submission)
  return completeness.by_key(
      ((records.sample_key(row), digests.of_program(row)) for row in rows), str(path)
  )


def _read_completions(
    path: pathlib.Path,
) -> tuple[dict[completeness.Key, summary.Form], dict[completeness.Key, str]]:
  """Returns the form of each completion, and the hash of its program.

  Completions are read one at a time: their texts can be many gigabytes.
  """
  _require(path, 'sample')
  rows = jsonl.read_rows(path, records.Completion)
  found = completeness.by_key(
      ((records.sample_key(row), (summary.form_of(row), _hash(row))) for row in rows), str(path)
  )
  return (
      {key: form for key, (form, _) in found.items()},
      {key: program for key, (_, program) in found.items()},
  )


def _hash(completion: records.Completion) -> str:
  return digests.of_program(programs.make_submission(completion))


def _require(path: pathlib.Path, verb: str) -> None:
  if not path.exists():
    raise errors.UserError(f'{path} is not there; run `{verb}` first.')


def _conditions(judgements: dict) -> dict[str, Any]:
  """Returns under which protection and rules the judgements were made."""
  rows = judgements.values()
  profiles = sorted({row.profile.value for row in rows})
  if len(profiles) > 1:
    raise errors.UserError(
        f'Judgements were made under {len(profiles)} profiles'
        f' ({", ".join(profiles)}), which do not compare; run `execute` under'
        ' one of them, which judges the others anew.'
    )
  seconds = [row.calibration for row in rows if row.calibration]
  return {
      'tier': '+'.join(sorted({row.tier for row in rows if row.tier})),
      'waivers': sorted({name for row in rows for name in row.waivers}),
      'profile': profiles[0],
      # CPU seconds of the same loop wherever it was judged: [least, most].
      'calibration': [min(seconds), max(seconds)] if seconds else None,
  }


if __name__ == '__main__':
  entry.run(score)
