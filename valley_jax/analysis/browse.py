"""Chooses completions for a person to read, and cuts them to fit on a page.

All kinds are shown, not the typical one: a run's samples are dealt out over
its (difficulty, verdict) cells in turn, each cell in the order of the problems,
so that runs show the same problems wherever they have the same verdicts.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from valley_jax import records

Key = tuple[str, int]


def choose(
    judgements: Sequence[records.Judgement], difficulties: Mapping[str, str], limit: int
) -> list[records.Judgement]:
  """Returns at most `limit` judgements, spread over difficulty and verdict.

  Args:
    judgements: Of one run.
    difficulties: {problem_id: difficulty}, in the order of the problems.
    limit: How many to return.
  """
  rank = {name: i for i, name in enumerate(difficulties)}
  cells = {}
  for row in sorted(judgements, key=lambda r: (rank[r.problem_id], r.sample_index)):
    cell = difficulties[row.problem_id], row.verdict.value
    cells.setdefault(cell, []).append(row)
  chosen = []
  for depth in range(limit):
    layer = [rows[depth] for _, rows in sorted(cells.items()) if len(rows) > depth]
    if not layer:
      break
    chosen += layer
  return chosen[:limit]


def cut(text: str, max_chars: int) -> str:
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


def sample(
    judgement: records.Judgement,
    completion: records.Completion,
    problem: records.Problem | None,
    max_chars: int,
) -> dict[str, Any]:
  """Returns what the page shows of a sample, cut to about `max_chars`."""
  thought, answer = split_thought(completion.text)
  return {
      'problem_id': judgement.problem_id,
      'sample_index': judgement.sample_index,
      'verdict': judgement.verdict.value,
      'thought': cut(thought, max_chars // 2),
      'answer': cut(answer, max_chars // 2),
      'finish_reason': completion.finish_reason.value,
      'num_tokens': len(completion.tokens),
      'tests_passed': judgement.tests_passed,
      'num_tests': judgement.num_tests,
      'message': cut(judgement.message, 400),
      'failed': _failed_test(judgement, problem),
  }


def _failed_test(judgement, problem) -> dict[str, Any] | None:
  index = judgement.first_failed
  if index is None:
    return None
  shown = {'number': index + 1, 'input': '', 'expected': ''}
  if problem is not None and index < len(problem.tests):
    test = problem.tests[index]
    shown['input'] = cut(test.input, 300)
    shown['expected'] = cut(test.expected, 300)
  return shown
