"""Scores of one run: pass@k, rates, verdicts, and all of it by difficulty.

The rates are those of *The Valley of Code Reasoning* (2510.06101, section 3):
the completion rate is the share of completions that end within the token
budget, the think-tag rate the share that begin with `<think>`. Added here is
what tells apart the causes of a dip: think tags that are closed, completions
without a program, and pass@1 among the completions that did end.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from valley_jax import programs
from valley_jax import records
from valley_jax.scoring import bootstrap
from valley_jax.scoring import pass_at_k

_DIFFICULTIES = ('easy', 'medium', 'medium_hard', 'hard', 'very_hard')
_VERDICTS = tuple(v for v in records.Verdict if v is not records.Verdict.INTERNAL_ERROR)


_COMPLETED = (records.FinishReason.EOS, records.FinishReason.STOP)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Form:
  """The form of a completion, whatever its program is worth."""

  completed: bool  # Ended within the token budget, and by itself.
  think_tag: bool  # Begins with `<think>`.
  think_closed: bool  # ... and has a `</think>`.
  no_program: bool  # Nothing in it to execute.
  num_tokens: int


def form_of(completion: records.Completion) -> Form:
  """Returns the form of a completion."""
  text = completion.text.lstrip()
  think_tag = text.startswith('<think>')
  return Form(
      completed=completion.finish_reason in _COMPLETED,
      think_tag=think_tag,
      think_closed=think_tag and '</think>' in text,
      no_program=programs.extract_program(completion.text) is None,
      num_tokens=len(completion.tokens),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Counts by problem: (problems,) arrays, each over its n samples."""

  problem_ids: list[str]
  difficulties: list[str]
  num_samples: int
  correct: np.ndarray
  # What needs the completions' texts: None if submissions were judged.
  completed: np.ndarray | None = None
  completed_correct: np.ndarray | None = None
  think_tag: np.ndarray | None = None
  think_closed: np.ndarray | None = None
  no_program: np.ndarray | None = None
  num_tokens: np.ndarray | None = None

  def of(self, difficulty: str) -> 'Table':
    """Returns the rows of one difficulty."""
    rows = [i for i, d in enumerate(self.difficulties) if d == difficulty]
    columns = {}
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, list):
        value = [value[i] for i in rows]
      elif isinstance(value, np.ndarray):
        value = value[rows]
      columns[field.name] = value
    return Table(**columns)


def tabulate(
    problems: Sequence[records.Problem],
    num_samples: int,
    judgements: Mapping[tuple[str, int], records.Judgement],
    forms: Mapping[tuple[str, int], Form] | None,
) -> Table:
  """Counts, over the samples 0..n-1 of each problem, what a table holds."""

  def count(of) -> np.ndarray:
    return np.array(
        [sum(of((p.problem_id, i)) for i in range(num_samples)) for p in problems], np.int64
    )

  def correct(key) -> bool:
    return judgements[key].verdict is records.Verdict.ACCEPTED

  columns = {}
  if forms is not None:
    columns = {
        f.name: count(lambda key, f=f, forms=forms: getattr(forms[key], f.name))
        for f in dataclasses.fields(Form)
    }
    columns['completed_correct'] = count(lambda key: forms[key].completed and correct(key))
  return Table(
      problem_ids=[p.problem_id for p in problems],
      difficulties=[p.difficulty or 'unknown' for p in problems],
      num_samples=num_samples,
      correct=count(correct),
      **columns,
  )


def pass_at(table: Table, k: int, num_draws: int) -> dict[str, Any]:
  """Returns {value, interval} of pass@k."""
  values = pass_at_k.per_problem(
      [table.num_samples] * len(table.correct), table.correct.tolist(), k
  )
  return {
      'value': pass_at_k.mean(values),
      'interval': list(bootstrap.mean_interval(values, num_draws)),
  }


def rates(table: Table) -> dict[str, float | None]:
  """Returns shares of all samples; None where no completions were scored."""
  total = table.num_samples * len(table.correct)

  def share(counts: np.ndarray | None) -> float | None:
    return None if counts is None else int(counts.sum()) / total

  completion_rate = share(table.completed)
  return {
      'completion_rate': completion_rate,
      'think_tag_rate': share(table.think_tag),
      'think_closed_rate': share(table.think_closed),
      'truncation_rate': (
          None if table.completed is None else (total - int(table.completed.sum())) / total
      ),
      'no_program_rate': share(table.no_program),
      'mean_completion_tokens': share(table.num_tokens),
  }


def given_completion(table: Table, num_draws: int) -> dict[str, Any]:
  """Returns pass@1 among the completions that ended, with its interval.

  A ratio of two counts, both of which vary from resample to resample.
  """
  value = interval = None
  if table.completed is not None and table.completed_correct is not None and table.completed.any():
    counts = np.stack([table.completed_correct, table.completed], axis=1)
    correct, completed = bootstrap.resampled_means(counts, num_draws).T
    ratios = correct[completed > 0] / completed[completed > 0]
    value = int(counts[:, 0].sum()) / int(counts[:, 1].sum())
    interval = list(bootstrap.percentile_interval(ratios))
  return {'pass_at_1_given_completion': value, 'pass_at_1_given_completion_interval': interval}


def by_difficulty(table: Table, num_draws: int) -> dict[str, dict[str, Any]]:
  """Returns the scores of each difficulty, from easy to hard."""
  scores = {}
  for name in sorted(set(table.difficulties), key=_difficulty_order):
    part = table.of(name)
    first = pass_at(part, 1, num_draws)
    scores[name] = {
        'num_problems': len(part.correct),
        'pass_at_1': first['value'],
        'interval': first['interval'],
        **rates(part),
    }
  return scores


def _difficulty_order(name: str) -> tuple[int, str]:
  if name in _DIFFICULTIES:
    return _DIFFICULTIES.index(name), name
  return len(_DIFFICULTIES) + (name == 'unknown'), name


def verdicts(judgements: Mapping[Any, records.Judgement]) -> dict[str, int]:
  """Returns how many judgements had each verdict; IE never gets here."""
  found = [row.verdict for row in judgements.values()]
  return {v.value: found.count(v) for v in _VERDICTS}


def by_problem(table: Table) -> list[dict[str, Any]]:
  """Returns n and c of each problem, from which all else can be redone."""
  return [
      {
          'problem_id': name,
          'difficulty': difficulty,
          'num_samples': table.num_samples,
          'num_correct': int(correct),
      }
      for name, difficulty, correct in zip(
          table.problem_ids, table.difficulties, table.correct, strict=True
      )
  ]
