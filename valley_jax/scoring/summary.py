"""Scores of one run: pass@k, rates and verdicts, overall and by difficulty.

The rates are those of *The Valley of Code Reasoning* (2510.06101, section 3): the completion rate
is the share of completions that end within the token budget, the think-tag rate the share that
begin with `<think>`. Further rates separate the causes of a dip: think tags that are closed,
completions without a program, and pass@1 among the completions that did end.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from valley_jax import programs
from valley_jax import records
from valley_jax.scoring import completeness
from valley_jax.scoring import estimators

# Difficulties that are listed in this order; others follow alphabetically.
_DIFFICULTY_ORDER = ('easy', 'medium', 'medium_hard', 'hard', 'very_hard')
_COMPLETED = (records.FinishReason.EOS, records.FinishReason.STOP)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompletionForm:
  """The form of a completion, whatever its program is worth."""

  completed: bool  # Ended within the token budget, and not in a loop.
  think_tag: bool  # Begins with `<think>`.
  think_closed: bool  # Begins with `<think>` and contains `</think>`.
  no_program: bool  # Contains nothing to execute.
  num_tokens: int


def describe_form(completion: records.Completion) -> CompletionForm:
  """Returns the form of a completion."""
  text = completion.text.lstrip()
  think_tag = text.startswith('<think>')
  return CompletionForm(
      completed=completion.finish_reason in _COMPLETED,
      think_tag=think_tag,
      think_closed=think_tag and '</think>' in text,
      no_program=programs.extract_program(completion.text) is None,
      num_tokens=len(completion.tokens),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemTable:
  """Counts by problem, of its n samples: one row per problem in every column."""

  problem_ids: list[str]
  difficulties: list[str]
  num_samples: int
  correct: np.ndarray
  # Columns that need the completions' texts; None if submissions were judged.
  completed: np.ndarray | None = None
  completed_correct: np.ndarray | None = None
  think_tag: np.ndarray | None = None
  think_closed: np.ndarray | None = None
  no_program: np.ndarray | None = None
  num_tokens: np.ndarray | None = None

  def select_difficulty(self, difficulty: str) -> 'ProblemTable':
    """Returns the rows of one difficulty."""
    rows = [i for i, name in enumerate(self.difficulties) if name == difficulty]
    columns = {}
    for name, value in vars(self).items():
      if isinstance(value, list):
        columns[name] = [value[i] for i in rows]
      elif isinstance(value, np.ndarray):
        columns[name] = value[rows]
    return dataclasses.replace(self, **columns)


def tabulate_samples(
    problems: Sequence[records.Problem],
    num_samples: int,
    judgements: Mapping[completeness.Key, records.Judgement],
    forms: Mapping[completeness.Key, CompletionForm] | None,
) -> ProblemTable:
  """Counts what a table holds over the samples 0..n-1 of each problem."""

  def count_samples(value_of: Callable[[completeness.Key], int]) -> np.ndarray:
    return np.array(
        [sum(value_of((p.problem_id, i)) for i in range(num_samples)) for p in problems], np.int64
    )

  def is_correct(key: completeness.Key) -> bool:
    return judgements[key].verdict is records.Verdict.ACCEPTED

  columns = {}
  if forms is not None:
    for field in dataclasses.fields(CompletionForm):
      columns[field.name] = count_samples(lambda key, name=field.name: getattr(forms[key], name))
    columns['completed_correct'] = count_samples(
        lambda key: forms[key].completed and is_correct(key)
    )
  return ProblemTable(
      problem_ids=[p.problem_id for p in problems],
      difficulties=[p.difficulty or 'unknown' for p in problems],
      num_samples=num_samples,
      correct=count_samples(is_correct),
      **columns,
  )


def summarize_pass_at_k(table: ProblemTable, k: int, num_draws: int) -> dict[str, Any]:
  """Returns {value, interval} of pass@k."""
  values = estimators.estimate_each_problem(
      [table.num_samples] * len(table.correct), table.correct.tolist(), k
  )
  return {
      'value': estimators.average_problems(values),
      'interval': list(estimators.estimate_mean_interval(values, num_draws)),
  }


def summarize_rates(table: ProblemTable) -> dict[str, float | None]:
  """Returns shares of all samples; None where no completions were scored."""
  total = table.num_samples * len(table.correct)

  def share(counts: np.ndarray | None) -> float | None:
    return None if counts is None else int(counts.sum()) / total

  truncated = None if table.completed is None else table.num_samples - table.completed
  return {
      'completion_rate': share(table.completed),
      'think_tag_rate': share(table.think_tag),
      'think_closed_rate': share(table.think_closed),
      'truncation_rate': share(truncated),
      'no_program_rate': share(table.no_program),
      'mean_completion_tokens': share(table.num_tokens),
  }


def summarize_completed(table: ProblemTable, num_draws: int) -> dict[str, Any]:
  """Returns pass@1 among the completions that ended, with its interval.

  It is a ratio of two counts that both vary between resamples.
  """
  value = interval = None
  if table.completed is not None and table.completed_correct is not None and table.completed.any():
    counts = np.stack([table.completed_correct, table.completed], axis=1)
    correct, completed = estimators.resample_means(counts, num_draws).T
    ratios = correct[completed > 0] / completed[completed > 0]
    value = int(counts[:, 0].sum()) / int(counts[:, 1].sum())
    interval = list(estimators.central_interval(ratios))
  return {'pass_at_1_given_completion': value, 'pass_at_1_given_completion_interval': interval}


def summarize_difficulties(table: ProblemTable, num_draws: int) -> dict[str, dict[str, Any]]:
  """Returns the scores of each difficulty, from easy to hard."""
  scores = {}
  for name in sorted(set(table.difficulties), key=_difficulty_rank):
    part = table.select_difficulty(name)
    pass_at_1 = summarize_pass_at_k(part, 1, num_draws)
    scores[name] = {
        'num_problems': len(part.correct),
        'pass_at_1': pass_at_1['value'],
        'interval': pass_at_1['interval'],
        **summarize_rates(part),
    }
  return scores


def _difficulty_rank(name: str) -> tuple[int, str]:
  if name in _DIFFICULTY_ORDER:
    return _DIFFICULTY_ORDER.index(name), name
  return len(_DIFFICULTY_ORDER) + (name == 'unknown'), name


def count_verdicts(judgements: Mapping[Any, records.Judgement]) -> dict[str, int]:
  """Returns the number of judgements with each verdict; what is never scored is left out."""
  verdicts = [row.verdict for row in judgements.values()]
  return {
      verdict.value: verdicts.count(verdict)
      for verdict in records.Verdict
      if verdict.concerns_program
  }


def list_problems(table: ProblemTable) -> list[dict[str, Any]]:
  """Returns n and c of each problem, from which every pass@k can be recomputed."""
  names = ('problem_id', 'difficulty', 'num_samples', 'num_correct')
  num_samples = [table.num_samples] * len(table.correct)
  columns = (table.problem_ids, table.difficulties, num_samples, table.correct.tolist())
  return [dict(zip(names, row)) for row in zip(*columns, strict=True)]
