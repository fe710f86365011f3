"""APPS (2105.09938) and TACO (2312.14852), which have the same columns.

`input_output` is a JSON string {inputs, outputs, fn_name?}. Without `fn_name`, tests are texts, and
a text may be a list of lines. With it, inputs are lists of arguments, and the outputs of some
problems are each wrapped in one more list: see `are_outputs_wrapped`.
"""

from collections.abc import Iterator
import re
import urllib.parse

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.problem_formats import asserts
from valley_jax.data.problem_formats import conversion

_UNITS = {
    **dict.fromkeys(('second', 'seconds', 'secs', 'sec', 's'), 1.0),
    **dict.fromkeys(('milliseconds', 'ms'), 1e-3),
    **dict.fromkeys(('bytes',), 2.0**-20),
    **dict.fromkeys(('kilobytes', 'kb'), 2.0**-10),
    **dict.fromkeys(('megabytes', 'mb'), 1.0),
    **dict.fromkeys(('gigabytes', 'gb'), 2.0**10),
}
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


class _InputOutput(msgspec.Struct):
  inputs: list[msgspec.Raw]
  outputs: list[msgspec.Raw]
  fn_name: str | None = None


class AppsRow(msgspec.Struct):
  """The columns of APPS and TACO; those that one of them lacks are optional."""

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


def _decode_input_output(text: str | None) -> _InputOutput:
  if not text:
    return _InputOutput(inputs=[], outputs=[])
  return msgspec.json.decode(text, type=_InputOutput)


def _read_text_value(raw: bytes) -> str:
  """Returns a text, given as a string, a list of lines, or a number without quotes."""
  if raw.startswith(b'['):
    return '\n'.join(_read_line_value(bytes(line)) for line in _RAWS.decode(raw))
  return _read_line_value(raw)


def _read_line_value(raw: bytes) -> str:
  if raw.startswith((b'[', b'{')):
    raise errors.UserError(f'{raw[:40]!r} stands where a text should')
  return msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw.decode()


def _read_arguments(raw: bytes) -> str:
  """Returns the JSON list of arguments, given as such or as a text with one value a line."""
  if raw.startswith(b'['):
    return conversion.check_json_depth(raw.decode())
  try:
    return conversion.join_json_lines(_read_line_value(raw))
  except conversion.FAULTS as e:
    raise conversion.UnjudgeableError('its inputs are no arguments of a function') from e


def are_outputs_wrapped(outputs: list[bytes], starter_code: str) -> bool:
  """Whether every output is a list around the value that is meant.

  All of them must be lists of one element. If the starter code has an annotation, such as
  `-> List[int]`, they must also be nested deeper than that. A function without annotations that
  always returns a list of one element cannot be told from a wrapped one; it counts as wrapped, as
  in APPS's own grader.
  """
  for output in outputs:
    if not output.startswith(b'[') or len(_RAWS.decode(output)) != 1:
      return False
  annotation = re.search(r'->([^:\n]*):', starter_code)
  if not annotation:
    return True
  nested = len(re.findall(r'\b[Ll]ist\b', annotation[1]))
  return max(map(_measure_depth, outputs)) > nested


def _measure_depth(raw: bytes) -> int:
  opening = re.match(rb'[\[\s]*', raw)
  return opening[0].count(b'[') if opening else 0


def _list_function_tests(pairs: _InputOutput, starter_code: str) -> Iterator[records.TestCase]:
  inputs = list(map(bytes, pairs.inputs))
  outputs = list(map(bytes, pairs.outputs))
  # Python wrote these dicts with integer keys, and JSON made texts of the keys.
  if any(re.search(rb'[{,]\s*"-?\d+"\s*:', raw) for raw in inputs + outputs):
    raise conversion.UnjudgeableError('a dict with integer keys, which JSON cannot carry')
  # As bytes, never parsed to Python: integers of any length survive.
  if are_outputs_wrapped(outputs, starter_code):
    outputs = [bytes(_RAWS.decode(output)[0]) for output in outputs]
  for given, expected in zip(inputs, outputs, strict=True):
    yield records.TestCase(
        input=_read_arguments(given), expected=conversion.check_json_depth(expected.decode())
    )


def _build_tests(pairs: _InputOutput, starter_code: str) -> tuple[records.TestCase, ...]:
  if len(pairs.inputs) != len(pairs.outputs):
    raise errors.UserError(f'{len(pairs.inputs)} inputs, but {len(pairs.outputs)} outputs')
  if not pairs.inputs:
    raise conversion.UnjudgeableError('no tests')
  if pairs.fn_name:
    return tuple(_list_function_tests(pairs, starter_code))
  return tuple(
      records.TestCase(
          input=_read_text_value(bytes(given)), expected=_read_text_value(bytes(expected))
      )
      for given, expected in zip(pairs.inputs, pairs.outputs, strict=True)
  )


def parse_quantity(quantity: str | float | None) -> float | None:
  """Returns seconds or MiB: 256.0 for '256.0 megabytes'; None if nothing is stated.

  Raises:
    UserError: no number, or a unit that is not known.
  """
  text = str(quantity or '').strip().lower()
  if text in ('', 'none'):
    return None
  match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([a-z]*)', text)
  if not match or match[2] and match[2] not in _UNITS:
    raise errors.UserError(f'{quantity!r} is not understood')
  return float(match[1]) * _UNITS.get(match[2], 1.0)


def _find_platform(row: AppsRow) -> str:
  host = urllib.parse.urlsplit(row.url or '').hostname or ''
  return (row.source or ''.join(host.split('.')[-2:-1])).lower()


def _build_row_limits(row: AppsRow) -> records.Limits:
  return conversion.build_limits(parse_quantity(row.time_limit), parse_quantity(row.memory_limit))


def _build_problem_id(row: AppsRow, place: conversion.Place, source: str) -> str:
  number = next((x for x in (row.problem_id, row.id) if x is not None), None)
  # Without an id, the index from 0, as OpenCodeReasoning-2 counts.
  return f'{source}/{place.stem}/{place.index if number is None else number}'


def convert_apps_row(
    row: AppsRow, place: conversion.Place, source: str
) -> Iterator[conversion.Item]:
  """Yields the problem `source/split/id`; `source` is apps or taco."""
  problem_id = _build_problem_id(row, place, source)
  starter_code = row.starter_code or ''
  with conversion.naming_column('input_output'):
    pairs = _decode_input_output(row.input_output)
    try:
      tests = _build_tests(pairs, starter_code)
    except conversion.UnjudgeableError as e:
      yield conversion.Remark(problem_id, f'left out: {e}')
      return
  try:
    limits = _build_row_limits(row)
  except ValueError as e:
    yield conversion.Remark(problem_id, f"kept, with the config's limits: {e}")
    limits = records.Limits()
  with conversion.naming_column('date, url'):
    date, platform = conversion.format_iso_day(row.date or ''), _find_platform(row)
  statement, stub, name = row.question, '', pairs.fn_name or ''
  if name:
    statement, stub = conversion.ask_for_function(name, statement, starter_code)
  # A class Solution is LeetCode's, whose signatures name types that it provides.
  provided = asserts.LEETCODE_PRELUDE if 'class Solution' in starter_code else ''
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
