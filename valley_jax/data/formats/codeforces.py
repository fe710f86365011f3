"""open-r1/codeforces.

The set holds no interactors, so that interactive problems are left out, as are
those that read files. Where `official_tests_complete` is false, Codeforces
shows its long tests only in part and they are missing: such a problem is kept,
since what is there is right, with a remark that it is easier to pass.
"""

from collections.abc import Iterator

import msgspec

from valley_jax import records
from valley_jax.data.formats import rows


class _Example(msgspec.Struct):
  input: str
  output: str


class Row(msgspec.Struct):
  """The columns that a problem needs."""

  id: str
  title: str | None
  description: str | None
  official_tests: list[_Example] | None
  official_tests_complete: bool | None = None
  input_format: str | None = None
  output_format: str | None = None
  interaction_format: str | None = None
  note: str | None = None
  examples: list[_Example] | None = None
  generated_checker: str | None = None
  time_limit: float | None = None  # seconds
  memory_limit: float | None = None  # MiB
  rating: float | None = None
  input_mode: str | None = None
  contest_start: int | None = None


def _statement(row: Row) -> str:
  parts = [
      ('', row.title),
      ('', row.description),
      ('Input', row.input_format),
      ('Output', row.output_format),
  ]
  for example in row.examples or []:
    parts += [('Example input', example.input)]
    parts += [('Example output', example.output)]
  parts.append(('Note', row.note))
  return '\n\n'.join(
      f'{title}\n\n{text.strip()}' if title else text.strip()
      for title, text in parts
      if text and text.strip()
  )


def _tests(row: Row) -> Iterator[records.TestCase]:
  """The examples, then the official tests that are none of them."""
  shown = {example.input.strip() for example in row.examples or []}
  for example in row.examples or []:
    yield records.TestCase(input=example.input, expected=example.output, is_sample=True)
  for test in row.official_tests or []:
    if test.input.strip() not in shown:
      yield records.TestCase(input=test.input, expected=test.output)


def _left_out(row: Row) -> str:
  if row.interaction_format:
    return 'interactive, and the set has no interactors'
  if (row.input_mode or 'stdio') != 'stdio':
    return 'it reads or writes files'
  return '' if row.official_tests else 'no official tests'


def problems(row: Row, unused_place: rows.Place) -> Iterator[rows.Item]:
  """Yields the problem; examples are samples and come first."""
  if reason := _left_out(row):
    yield rows.Remark(row.id, f'left out: {reason}')
    return
  program = None
  if row.generated_checker:
    program = records.Program(
        language='python',
        files={'checker.py': row.generated_checker},
        protocol=records.Protocol.PYTHON,
    )
  with rows.field('time_limit, memory_limit'):
    limits = rows.limits(row.time_limit, row.memory_limit)
  with rows.field('contest_start'):
    date = rows.day(row.contest_start)
  item = rows.check_hidden(
      records.Problem(
          problem_id=row.id,
          statement=_statement(row),
          tests=tuple(_tests(row)),
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
    yield rows.Remark(row.id, 'kept, though its longest tests are missing')
  yield item
