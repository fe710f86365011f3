"""MBPP (2108.07732), also in its sanitized form.

Every assert of `test_list` is a test case of its own, behind the setup code.
The first stands in the statement, or nobody could know the function's name.
The challenge tests are left aside, as the published numbers leave them.
"""

import builtins
from collections.abc import Iterator
import keyword
import re

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.formats import rows

_CALLED = re.compile(r'(?<![\w.])([A-Za-z_]\w*)\s*\(')


class Row(msgspec.Struct):
  """The columns of both forms."""

  task_id: int
  test_list: list[str]
  text: str = ''
  prompt: str = ''  # What the sanitized form calls `text`.
  test_setup_code: str = ''
  test_imports: list[str] = []


def entry_point(test: str) -> str:
  """Returns the function that an assert is about, or ''.

  Example:
    >>> entry_point('assert set(f([1, 2])) == set([2])')
    'f'
  """
  called = [x for x in _CALLED.findall(test) if not keyword.iskeyword(x)]
  own = [name for name in called if not hasattr(builtins, name)]
  return next(iter(own or called), '')  # MBPP/126 asks for a `sum`.


def problems(row: Row, unused_place: rows.Place) -> Iterator[rows.Item]:
  """Yields the problem `mbpp/<task_id>`."""
  problem_id = f'mbpp/{row.task_id}'
  if not row.test_list:
    yield rows.Remark(problem_id, 'left out: no tests')
    return
  name = entry_point(row.test_list[0])
  if not name:
    raise errors.UserError('`test_list`: its first assert calls no function')
  setup = '\n'.join(filter(None, [*row.test_imports, row.test_setup_code]))
  text = (row.text or row.prompt).strip()
  if not text:
    raise errors.UserError('`text`, `prompt`: both are empty')
  yield records.Problem(
      problem_id=problem_id,
      statement=(f'{text}\nYour code should pass this test:\n\n{row.test_list[0]}\n'),
      tests=tuple(
          records.TestCase(input=f'{setup}\n{test}\n', is_sample=i == 0)
          for i, test in enumerate(row.test_list)
      ),
      mode=records.Mode.ASSERT,
      entry_point=name,
      source='mbpp',
  )
