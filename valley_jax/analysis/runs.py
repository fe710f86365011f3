"""The scored runs of a study: their groups, rates, losses, and samples to read.

A run is a directory with a scores.json. Beside it may be the metrics.jsonl of training, and the
completions and judgements that were scored.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.analysis import presentation

Group = int | str  # Traces of a nested random subset (0: the base student), or a subset's name.
Sample = tuple[records.Judgement, records.Completion]

RATES = (
    'completion_rate',
    'think_tag_rate',
    'think_closed_rate',
    'no_program_rate',
    'pass_at_1_given_completion',
)
_MAX_LOSSES = 300  # Points of a loss curve.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One scored run."""

  directory: pathlib.Path
  scores: Mapping[str, Any]

  @property
  def group(self) -> Group:
    return group_of_scores(self.scores)

  @property
  def seed(self) -> int:
    return self.scores['seed']

  @property
  def label(self) -> str:
    """The subset's name and size, or the size alone."""
    label = format_group(self.group)
    return f'{label} ({self.scores["num_traces"]:,})' if isinstance(self.group, str) else label

  @property
  def difficulties(self) -> dict[str, str]:
    """{problem_id: difficulty}, in the order of the problems."""
    return {p['problem_id']: p['difficulty'] for p in self.scores['problems']}


def group_of_scores(scores: Mapping[str, Any]) -> Group:
  """Returns the group of a run; scores without a subset are of a random one."""
  return scores.get('subset') or scores['num_traces']


def format_group(group: Group) -> str:
  """Returns a group as tables show it: `correct_6k`, `1,024` or `0 (base)`."""
  if isinstance(group, str):
    return group
  return f'{group:,}' if group else '0 (base)'


def find_runs(workdir: pathlib.Path, names: Sequence[str] = ()) -> list[Run]:
  """Returns the scored runs under `workdir`, sorted by size, then subset, and seed.

  Args:
    workdir: Directory of the study, or of one run.
    names: Subsets in the order in which to show them; others follow.
  """
  paths = sorted(workdir.rglob('scores.json'))
  if not paths:
    raise errors.UserError(
        f'There is no scores.json under {workdir}; run `score` (or `study`) first.'
    )
  rank = {name: i for i, name in enumerate(names)}

  def sort_key(run: Run) -> tuple:
    if isinstance(run.group, int):
      return 0, run.group, '', run.seed
    return 1, rank.get(run.group, len(rank)), run.group, run.seed

  runs = [Run(directory=path.parent, scores=jsonl.read_json(path)) for path in paths]
  return sorted(runs, key=sort_key)


def select_size_runs(runs: Sequence[Run]) -> list[Run]:
  """Returns the runs of random subsets, and the base student's."""
  return [run for run in runs if isinstance(run.group, int)]


def select_named_runs(runs: Sequence[Run]) -> list[Run]:
  """Returns the base student's runs and those of named subsets; [] without named subsets."""
  named = [run for run in runs if isinstance(run.group, str)]
  return [run for run in runs if run.group == 0] + named if named else []


def collect_runs_by_group(runs: Sequence[Run]) -> dict[Group, list[Run]]:
  """Returns {group: its runs}, in the order of the runs."""
  groups: dict[Group, list[Run]] = {}
  for run in runs:
    groups.setdefault(run.group, []).append(run)
  return groups


def average_rates(runs: Sequence[Run]) -> dict[str, float | None]:
  """Returns {rate: mean over the runs}; None if no run has it."""
  rates = {}
  for name in RATES:
    known = [run.scores[name] for run in runs if run.scores[name] is not None]
    rates[name] = sum(known) / len(known) if known else None
  return rates


def tabulate_runs(runs: Sequence[Run]) -> list[dict[str, str]]:
  """Returns {column: cell} of every run."""
  rows = []
  for run in runs:
    scores = run.scores
    tokens = scores['mean_completion_tokens']
    rates = {name: presentation.format_percent(scores[name]) for name in RATES}
    rows.append(
        {
            'traces': run.label,
            'seed': str(run.seed),
            'problems × n': f'{scores["num_problems"]:,} × {scores["num_samples"]}',
            'pass@1': presentation.format_percent(scores['pass_at_1']),
            '95 % interval': presentation.format_percent_interval(scores['pass_at_1_interval']),
            'completed': rates['completion_rate'],
            'think tag': rates['think_tag_rate'],
            'closed': rates['think_closed_rate'],
            'no program': rates['no_program_rate'],
            'pass@1 given completion': rates['pass_at_1_given_completion'],
            'tokens': '–' if tokens is None else f'{tokens:,.0f}',
            'judged on': _describe_judge(scores),
        }
    )
  return rows


def _describe_judge(scores: Mapping[str, Any]) -> str:
  """Returns what confined the programs, by whose rules, on how fast a machine."""
  parts = [scores['tier'] or 'nothing ran', scores['profile']]
  if broken := scores.get('left_out'):
    parts.append(f'left out, with a broken checker: {", ".join(sorted(broken))}')
  if scores['waivers']:
    parts.append(f'waived: {", ".join(scores["waivers"])}')
  if scores['calibration']:
    least, most = (f'{seconds:.3f}' for seconds in scores['calibration'])
    parts.append(f'loop {least if least == most else f"{least}–{most}"} s')
  return '; '.join(parts)


def restrict_to_difficulty(runs: Sequence[Run], difficulty: str) -> list[Run]:
  """Returns the runs with the problems of one difficulty only."""
  restricted = []
  for run in runs:
    problems = [p for p in run.scores['problems'] if p['difficulty'] == difficulty]
    restricted.append(dataclasses.replace(run, scores={**run.scores, 'problems': problems}))
  return restricted


def read_losses(run: Run) -> tuple[list[int], list[float]]:
  """Returns (steps, losses) of a run's training; empty if it was not trained.

  Long runs are thinned evenly in log(step), as they are drawn, and keep their first and last step.
  """
  path = run.directory / 'metrics.jsonl'
  rows = jsonl.read_rows(path, dict) if path.exists() else ()
  rows = [row for row in rows if 'loss' in row]
  if rows:
    kept = np.unique(np.geomspace(1, len(rows), _MAX_LOSSES).round())
    rows = [rows[int(i) - 1] for i in kept]
  return [row['step'] for row in rows], [row['loss'] for row in rows]


def read_samples(run: Run, limit: int) -> list[Sample]:
  """Returns at most `limit` samples of a run for a person to read; [] without texts."""
  judgements = run.directory / 'judgements.jsonl'
  completions = run.directory / 'completions.jsonl'
  if not judgements.exists() or not completions.exists():
    return []
  rows = list(jsonl.read_rows(judgements, records.Judgement))
  picked = {records.sample_key(row): row for row in pick_judgements(rows, run.difficulties, limit)}
  texts = {  # One at a time: the file can be many gigabytes.
      records.sample_key(row): row
      for row in jsonl.read_rows(completions, records.Completion)
      if records.sample_key(row) in picked
  }
  return [(row, texts[key]) for key, row in picked.items() if key in texts]


def pick_judgements(
    judgements: Sequence[records.Judgement], difficulties: Mapping[str, str], limit: int
) -> list[records.Judgement]:
  """Picks at most `limit` judgements, spread over difficulties and verdicts.

  All kinds are shown, not the typical one: samples are dealt out over the (difficulty, verdict)
  cells in turn, each cell in the order of the problems, so that runs show the same problems
  wherever they have the same verdicts.

  Args:
    judgements: All judgements of one run.
    difficulties: {problem_id: difficulty}, in the order of the problems.
    limit: Most judgements to return.
  """
  rank = {name: i for i, name in enumerate(difficulties)}
  cells = {}
  for row in sorted(judgements, key=lambda r: (rank[r.problem_id], r.sample_index)):
    cells.setdefault((difficulties[row.problem_id], row.verdict.value), []).append(row)
  picked = []
  for depth in range(limit):
    layer = [rows[depth] for _, rows in sorted(cells.items()) if len(rows) > depth]
    if not layer:
      break
    picked += layer
  return picked[:limit]


def truncate_text(text: str, max_chars: int) -> str:
  """Returns the text, or its beginning and end with a note on the gap."""
  if len(text) <= max_chars:
    return text
  head = max_chars // 2
  tail = max_chars - head
  left_out = len(text) - head - tail
  return f'{text[:head]}\n[… {left_out:,} characters left out …]\n{text[-tail:]}'


def split_thought(text: str) -> tuple[str, str]:
  """Returns (think text with its tags, answer); either may be empty."""
  if not text.lstrip().startswith('<think>'):
    return '', text
  thought, closing, answer = text.partition('</think>')
  return thought + closing, answer


def format_sample(
    sample: Sample, problem: records.Problem | None, max_chars: int
) -> dict[str, Any]:
  """Returns the fields of a sample that the page shows, cut to about `max_chars`."""
  judgement, completion = sample
  thought, answer = split_thought(completion.text)
  return {
      'problem_id': judgement.problem_id,
      'sample_index': judgement.sample_index,
      'verdict': judgement.verdict.value,
      'thought': truncate_text(thought, max_chars // 2),
      'answer': truncate_text(answer, max_chars // 2),
      'finish_reason': completion.finish_reason.value,
      'num_tokens': len(completion.tokens),
      'tests_passed': judgement.tests_passed,
      'num_tests': judgement.num_tests,
      'message': truncate_text(judgement.message, 400),
      'failed': _format_failed_test(judgement, problem),
  }


def _format_failed_test(judgement, problem) -> dict[str, Any] | None:
  index = judgement.first_failed
  if index is None:
    return None
  shown = {'number': index + 1, 'input': '', 'expected': ''}
  if problem is not None and index < len(problem.tests):
    test = problem.tests[index]
    shown['input'] = truncate_text(test.input, 300)
    shown['expected'] = truncate_text(test.expected, 300)
  return shown
