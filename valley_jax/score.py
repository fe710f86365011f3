"""score: turns judgements into pass@k with intervals, and rates.

  python -m valley_jax.score --config configs/valley.py --workdir RUN

Reads   RUN/judgements.jsonl   verdicts, from `execute`
        RUN/completions.jsonl  texts, from `sample`; not if config.submissions
        config.problems        for difficulties, and to see that none is missing
Writes  RUN/scores.json

A score is given for all samples or not at all. While a judgement is IE (our
own failure), a completion has no judgement, or a problem lacks one of its
samples 0..n-1, `score` refuses and says what to run.

pass@k is the unbiased estimator; intervals are 95 % percentile bootstrap
intervals over problems (config.num_bootstrap draws), because the problem is
the unit of uncertainty. completion_rate is the share of completions that end
within the token budget; think_tag_rate the share that begin with `<think>`.
"""

import pathlib
from typing import Any

import ml_collections as mlc

from valley_jax import entry
from valley_jax import records
from valley_jax.data import problems as problems_lib
from valley_jax.scoring import completeness
from valley_jax.scoring import summary


def score(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/scores.json; running it again writes the same bytes."""
  run = pathlib.Path(workdir)
  problems = problems_lib.read_problems(config.problems)
  judgements = _read_judgements(run / 'judgements.jsonl')
  forms = None if config.submissions else _read_forms(run)
  num_samples = completeness.check(
      [p.problem_id for p in problems],
      judgements,
      None if forms is None else forms.keys(),
      None if forms is None else config.sample.num_samples,
  )
  table = summary.tabulate(problems, num_samples, judgements, forms)
  draws = config.num_bootstrap
  pass_at_k = {k: summary.pass_at(table, k, draws) for k in (1, *config.ks)}
  scores = {
      'name': config.name,
      'num_traces': config.num_traces,
      'seed': config.seed,
      'num_problems': len(problems),
      'num_samples': num_samples,
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
  records.write_json(run / 'scores.json', scores)


def _read_judgements(
    path: pathlib.Path,
) -> dict[completeness.Key, records.Judgement]:
  _require(path, 'execute')
  rows = records.read_rows(path, records.Judgement)
  return completeness.by_key(((records.key(r), r) for r in rows), str(path))


def _read_forms(run: pathlib.Path) -> dict[completeness.Key, summary.Form]:
  """Reads completions one at a time: their texts can be many gigabytes."""
  path = run / 'completions.jsonl'
  _require(path, 'sample')
  rows = records.read_rows(path, records.Completion)
  return completeness.by_key(
      ((records.key(row), summary.form_of(row)) for row in rows), str(path)
  )


def _require(path: pathlib.Path, verb: str) -> None:
  if not path.exists():
    raise ValueError(f'{path} is not there; run `{verb}` first.')


def _conditions(judgements: dict) -> dict[str, Any]:
  """Returns under which protection and rules the judgements were made."""
  rows = judgements.values()
  profiles = sorted({row.profile for row in rows})
  if len(profiles) > 1:
    raise ValueError(
        f'Judgements were made under {len(profiles)} profiles'
        f' ({", ".join(profiles)}), which do not compare; delete'
        ' judgements.jsonl and run `execute` again under one.'
    )
  return {
      'tier': '+'.join(sorted({row.tier for row in rows if row.tier})),
      'waivers': sorted({name for row in rows for name in row.waivers}),
      'profile': profiles[0],
  }


if __name__ == '__main__':
  entry.run(score)
