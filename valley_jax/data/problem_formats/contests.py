"""Sets of contest problems with pairs of input and output: CodeContests, open-r1/codeforces.

CodeContests (2203.07814, in its columns on the Hub) has no checkers: an answer that differs from
the stored one is wrong, even where the statement allows several.

open-r1/codeforces has checkers, but no interactors: interactive problems are left out, as are those
that read files. Where `official_tests_complete` is false, Codeforces shows its long tests only in
part, and they are missing: such a problem is kept, since its other tests are right, with a remark
that it is easier to pass.
"""

from collections.abc import Iterator
from collections.abc import Sequence

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.problem_formats import conversion
from valley_jax.data.sources import ocr

# What the numbers of the columns `source` and `difficulty` stand for.
_PLATFORMS = 'unknown codechef codeforces hackerearth codejam atcoder aizu'.split()
_DIFFICULTIES = 'unknown easy medium hard harder hardest external'.split() + list(
    'ABCDEFGHIJKLMNOPQRSTUV'
)


class _TestColumns(msgspec.Struct):
  input: list[str]
  output: list[str]


class _Duration(msgspec.Struct):
  seconds: int = 0
  nanos: int = 0


class CodeContestsRow(msgspec.Struct):
  """The columns of the Hub, without the solutions."""

  name: str
  description: str
  public_tests: _TestColumns
  private_tests: _TestColumns
  generated_tests: _TestColumns
  source: int | str = 0
  difficulty: int | str = 0
  cf_rating: int = 0
  time_limit: _Duration | None = None
  memory_limit_bytes: int = 0
  input_file: str = ''
  output_file: str = ''


def _name_value(value: int | str, names: Sequence[str]) -> str:
  if isinstance(value, str):
    return value.lower()
  if not 0 <= value < len(names):
    raise errors.UserError(f'{value} is none of 0 to {len(names) - 1}')
  return names[value] if value else ''


def _list_codecontests_tests(row: CodeContestsRow) -> Iterator[records.TestCase]:
  for column in ('public_tests', 'private_tests', 'generated_tests'):
    tests = getattr(row, column)
    if len(tests.input) != len(tests.output):
      raise errors.UserError(
          f'`{column}`: {len(tests.input)} inputs, but {len(tests.output)} outputs'
      )
    for given, expected in zip(tests.input, tests.output, strict=True):
      yield records.TestCase(input=given, expected=expected, is_sample=column == 'public_tests')


def convert_codecontests_row(
    row: CodeContestsRow, unused_place: conversion.Place
) -> Iterator[conversion.Item]:
  """Yields the problem; public tests are samples and come first."""
  tests = tuple(_list_codecontests_tests(row))
  if not tests:
    yield conversion.Remark(row.name, 'left out: no tests')
    return
  if row.input_file or row.output_file:
    yield conversion.Remark(row.name, 'left out: it reads or writes files')
    return
  time = row.time_limit or _Duration()
  with conversion.naming_column('time_limit, memory_limit_bytes'):
    seconds, memory_mib = time.seconds + time.nanos / 1e9, row.memory_limit_bytes / 2**20
    limits = conversion.build_limits(seconds, memory_mib)
  with conversion.naming_column('source'):
    platform = _name_value(row.source, _PLATFORMS)
  # The rating of Codeforces says more than a letter.
  with conversion.naming_column('difficulty'):
    difficulty = _name_value(row.difficulty, _DIFFICULTIES)
  yield conversion.require_hidden_test(
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


class _Example(msgspec.Struct):
  input: str
  output: str


class CodeforcesRow(ocr.CodeforcesStatement, kw_only=True):
  """The columns of open-r1/codeforces that a problem needs."""

  id: str
  description: str | None
  official_tests: list[_Example] | None
  official_tests_complete: bool | None = None
  examples: list[_Example] | None = None
  interaction_format: str | None = None
  generated_checker: str | None = None
  time_limit: float | None = None  # seconds
  memory_limit: float | None = None  # MiB
  rating: float | None = None
  input_mode: str | None = None
  contest_start: int | None = None


def _list_codeforces_tests(row: CodeforcesRow) -> Iterator[records.TestCase]:
  """Yields the examples, then the official tests that are none of them."""
  # Stripped, since the examples often lack the last newline of the tests.
  shown = {example.input.strip() for example in row.examples or []}
  for example in row.examples or []:
    yield records.TestCase(input=example.input, expected=example.output, is_sample=True)
  for test in row.official_tests or []:
    if test.input.strip() not in shown:
      yield records.TestCase(input=test.input, expected=test.output)


def _explain_unjudgeable(row: CodeforcesRow) -> str:
  if row.interaction_format:
    return 'interactive, and the set has no interactors'
  if (row.input_mode or 'stdio') != 'stdio':
    return 'it reads or writes files'
  if not row.official_tests:
    return 'no official tests'
  return '' if row.statement else 'no description'


def convert_codeforces_row(
    row: CodeforcesRow, unused_place: conversion.Place
) -> Iterator[conversion.Item]:
  """Yields the problem; examples are samples and come first."""
  if reason := _explain_unjudgeable(row):
    yield conversion.Remark(row.id, f'left out: {reason}')
    return
  program = None
  if row.generated_checker:
    program = records.Program(
        language='python',
        files={'checker.py': row.generated_checker},
        protocol=records.Protocol.PYTHON,
    )
  with conversion.naming_column('time_limit, memory_limit'):
    limits = conversion.build_limits(row.time_limit, row.memory_limit)
  with conversion.naming_column('contest_start'):
    date = conversion.format_timestamp_day(row.contest_start)
  item = conversion.require_hidden_test(
      records.Problem(
          problem_id=row.id,
          statement=row.statement,
          tests=tuple(_list_codeforces_tests(row)),
          checker='program' if program else 'tokens',
          program=program,
          limits=limits,
          difficulty=f'{row.rating:.0f}' if row.rating else '',
          source='open-r1/codeforces',
          platform='codeforces',
          date=date,
      )
  )
  if row.official_tests_complete is False and isinstance(item, records.Problem):
    yield conversion.Remark(row.id, 'kept, though its longest tests are missing')
  yield item
