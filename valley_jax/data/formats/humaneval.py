"""HumanEval (2107.03374).

A submission is a complete program. The prompt runs ahead of it only for the
imports and helper functions that it defines (`poly` of HumanEval/32); its
unfinished function is then defined anew by the submission.
"""

from collections.abc import Iterator

import msgspec

from valley_jax import records
from valley_jax.data.formats import rows


class Row(msgspec.Struct):
  """The columns of HumanEval."""

  task_id: str
  prompt: str
  entry_point: str
  test: str


def problems(row: Row, unused_place: rows.Place) -> Iterator[rows.Item]:
  """Yields the problem with one test case: its `check`."""
  code = f'{row.test}\ncheck({row.entry_point})\n'
  yield records.Problem(
      problem_id=row.task_id,
      statement=row.prompt,
      tests=(records.TestCase(input=code),),
      mode=records.Mode.ASSERT,
      entry_point=row.entry_point,
      starter_code=row.prompt,
      source='humaneval',
  )
