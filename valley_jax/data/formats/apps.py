"""APPS (2105.09938) and TACO (2312.14852), which have the same columns.

`input_output` is a JSON string {inputs, outputs, fn_name?}. Without `fn_name`,
a text may be a list of lines. With it, inputs are lists of arguments, and the
outputs of some problems are each wrapped in one more list: see `is_wrapped`.
"""

from collections.abc import Iterator
import re
import urllib.parse

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.formats import leetcode
from valley_jax.data.formats import rows

_UNITS = {
    **dict.fromkeys(('second', 'seconds', 'secs', 'sec', 's'), 1.0),
    **dict.fromkeys(('milliseconds', 'ms'), 1e-3),
    **dict.fromkeys(('bytes',), 2.0**-20),
    **dict.fromkeys(('kilobytes', 'kb'), 2.0**-10),
    **dict.fromkeys(('megabytes', 'mb'), 1.0),
    **dict.fromkeys(('gigabytes', 'gb'), 2.0**10),
}
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


class _UnjudgeableError(Exception):
  """Why a well-formed row makes no problem."""


class _InputOutput(msgspec.Struct):
  inputs: list[msgspec.Raw]
  outputs: list[msgspec.Raw]
  fn_name: str | None = None


class Row(msgspec.Struct):
  """The columns that both have; those that one lacks are optional."""

  question: str
  input_output: str | None
  problem_id: int | str | None = None  # APPS from the Hub
  id: int | str | None = None  # APPS from its authors; TACO has neither.
  difficulty: str | None = None
  starter_code: str | None = None
  url: str | None = None
  source: str | None = None
  date: str | None = None
  time_limit: str | float | None = None  # '2.0 seconds'
  memory_limit: str | float | None = None  # '256.0 megabytes'


def _decode(text: str | None) -> _InputOutput:
  if not text:
    return _InputOutput(inputs=[], outputs=[])
  return msgspec.json.decode(text, type=_InputOutput)


def _text(raw: bytes) -> str:
  """A text, a list of its lines, or a number that someone left bare."""
  if raw.startswith(b'['):
    return '\n'.join(_line(bytes(line)) for line in _RAWS.decode(raw))
  return _line(raw)


def _line(raw: bytes) -> str:
  if raw.startswith((b'[', b'{')):
    raise errors.UserError(f'{raw[:40]!r} stands where a text should')
  return msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw.decode()


def _arguments(raw: bytes) -> str:
  """A list of arguments, or a text with one JSON value a line."""
  if raw.startswith(b'['):
    return rows.check_depth(raw.decode())
  try:
    return rows.json_arguments(_line(raw))
  except rows.FAULTS as e:
    raise _UnjudgeableError('its inputs are no arguments of a function') from e


def is_wrapped(outputs: list[bytes], starter_code: str) -> bool:
  """Whether every output is a list around the value that is meant.

  Only if all of them are lists of one element, and then only if the starter
  code does not speak against it: where it says `-> List[int]`, they must also
  be nested deeper than that. A function without annotations that always
  returns one element cannot be told from a wrapped one and counts as wrapped,
  as in APPS's own grader.
  """
  for output in outputs:
    if not output.startswith(b'[') or len(_RAWS.decode(output)) != 1:
      return False
  annotation = re.search(r'->([^:\n]*):', starter_code)
  if not annotation:
    return True
  nested = len(re.findall(r'\b[Ll]ist\b', annotation[1]))
  return max(map(_depth, outputs)) > nested


def _depth(raw: bytes) -> int:
  opening = re.match(rb'[\[\s]*', raw)
  return opening[0].count(b'[') if opening else 0


def _function_tests(found: _InputOutput, starter_code: str) -> Iterator[records.TestCase]:
  inputs = list(map(bytes, found.inputs))
  outputs = list(map(bytes, found.outputs))
  if any(re.search(rb'[{,]\s*"-?\d+"\s*:', raw) for raw in inputs + outputs):
    raise _UnjudgeableError('a dict with integer keys, which JSON cannot carry')
  if is_wrapped(outputs, starter_code):
    outputs = [bytes(_RAWS.decode(output)[0]) for output in outputs]
  for given, expected in zip(inputs, outputs, strict=True):
    yield records.TestCase(input=_arguments(given), expected=rows.check_depth(expected.decode()))


def _tests(found: _InputOutput, starter_code: str) -> tuple[records.TestCase, ...]:
  if len(found.inputs) != len(found.outputs):
    raise errors.UserError(f'{len(found.inputs)} inputs, but {len(found.outputs)} outputs')
  if not found.inputs:
    raise _UnjudgeableError('no tests')
  if found.fn_name:
    return tuple(_function_tests(found, starter_code))
  return tuple(
      records.TestCase(input=_text(bytes(given)), expected=_text(bytes(said)))
      for given, said in zip(found.inputs, found.outputs, strict=True)
  )


def quantity(said: str | float | None) -> float | None:
  """Returns the number of seconds or MiB in '256.0 megabytes'.

  Raises:
    ValueError: it says something else.
  """
  text = str(said or '').strip().lower()
  if text in ('', 'none'):
    return None
  found = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([a-z]*)', text)
  if not found or found[2] and found[2] not in _UNITS:
    raise errors.UserError(f'{said!r} is not understood')
  return float(found[1]) * _UNITS.get(found[2], 1.0)


def _platform(row: Row) -> str:
  host = urllib.parse.urlsplit(row.url or '').hostname or ''
  return (row.source or ''.join(host.split('.')[-2:-1])).lower()


def _limits(row: Row) -> records.Limits:
  return rows.limits(quantity(row.time_limit), quantity(row.memory_limit))


def problems(row: Row, place: rows.Place, source: str) -> Iterator[rows.Item]:
  """Yields the problem `source/split/id`; `source` is apps or taco."""
  number = next((x for x in (row.problem_id, row.id) if x is not None), None)
  # An index from 0, as OpenCodeReasoning-2 counts them.
  number = place.index if number is None else number
  problem_id = f'{source}/{place.stem}/{number}'
  starter_code = row.starter_code or ''
  with rows.field('input_output'):
    found = _decode(row.input_output)
    try:
      tests = _tests(found, starter_code)
    except _UnjudgeableError as e:
      yield rows.Remark(problem_id, f'left out: {e}')
      return
  try:
    limits = _limits(row)
  except ValueError as e:
    yield rows.Remark(problem_id, f"kept, with the config's limits: {e}")
    limits = records.Limits()
  with rows.field('date, url'):
    date, platform = rows.date(row.date or ''), _platform(row)
  statement, stub, name = row.question, '', found.fn_name or ''
  if name:
    statement, stub = rows.ask_for(name, statement, starter_code)
  provided = leetcode.PROVIDED if 'class Solution' in starter_code else ''
  yield records.Problem(
      problem_id=problem_id,
      statement=statement,
      tests=tests,
      mode=records.Mode.FUNCTION if name else records.Mode.STDIN,
      entry_point=name,
      starter_code=provided,
      stub=stub,
      limits=limits,
      difficulty=(row.difficulty or '').lower(),
      source=source,
      platform=platform,
      date=date,
  )
