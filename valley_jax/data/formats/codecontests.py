"""CodeContests (2203.07814), in the columns that it has on the Hub.

There is no checker in it: an answer that differs from the stored one is wrong,
also where the statement allows several.
"""

from collections.abc import Iterator
from collections.abc import Sequence

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.formats import rows

_SOURCES = 'unknown codechef codeforces hackerearth codejam atcoder aizu'.split()
_DIFFICULTIES = 'unknown easy medium hard harder hardest external'.split() + list(
    'ABCDEFGHIJKLMNOPQRSTUV'
)


class _Tests(msgspec.Struct):
  input: list[str]
  output: list[str]


class _Duration(msgspec.Struct):
  seconds: int = 0
  nanos: int = 0


class Row(msgspec.Struct):
  """The columns of the Hub, without the solutions."""

  name: str
  description: str
  public_tests: _Tests
  private_tests: _Tests
  generated_tests: _Tests
  source: int | str = 0
  difficulty: int | str = 0
  cf_rating: int = 0
  time_limit: _Duration | None = None
  memory_limit_bytes: int = 0
  input_file: str = ''
  output_file: str = ''


def _named(value: int | str, names: Sequence[str]) -> str:
  if isinstance(value, str):
    return value.lower()
  if not 0 <= value < len(names):
    raise errors.UserError(f'{value} is none of 0 to {len(names) - 1}')
  return names[value] if value else ''


def _tests(row: Row) -> Iterator[records.TestCase]:
  for column in ('public_tests', 'private_tests', 'generated_tests'):
    tests = getattr(row, column)
    if len(tests.input) != len(tests.output):
      raise errors.UserError(
          f'`{column}`: {len(tests.input)} inputs, but' f' {len(tests.output)} outputs'
      )
    for given, expected in zip(tests.input, tests.output, strict=True):
      yield records.TestCase(input=given, expected=expected, is_sample=column == 'public_tests')


def problems(row: Row, unused_place: rows.Place) -> Iterator[rows.Item]:
  """Yields the problem; public tests are samples and come first."""
  tests = tuple(_tests(row))
  if not tests:
    yield rows.Remark(row.name, 'left out: no tests')
    return
  if row.input_file or row.output_file:
    yield rows.Remark(row.name, 'left out: it reads or writes files')
    return
  time = row.time_limit or _Duration()
  with rows.field('time_limit, memory_limit_bytes'):
    limits = rows.limits(time.seconds + time.nanos / 1e9, row.memory_limit_bytes / 2**20)
  with rows.field('source'):
    platform = _named(row.source, _SOURCES)
  with rows.field('difficulty'):
    difficulty = _named(row.difficulty, _DIFFICULTIES)
  yield rows.check_hidden(
      records.Problem(
          problem_id=row.name,
          statement=row.description,
          tests=tests,
          limits=limits,
          difficulty=str(row.cf_rating) if row.cf_rating else difficulty,
          source='codecontests',
          platform=platform,
      )
  )
