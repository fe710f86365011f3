"""LiveCodeBench (2403.07974): test.jsonl .. test6.jsonl, one a release.

The private tests may be base64 of zlib of a pickle of a JSON string. A pickle is a program, so it
is never loaded: its opcodes are read one by one, and any but those of a single string are refused.
"""

import base64
from collections.abc import Iterator
import pickletools
import re
from typing import Literal
import zlib

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.problem_formats import asserts
from valley_jax.data.problem_formats import conversion

# Limit of the unpacked private tests of a problem. The largest have some hundred MB; without a
# limit, a kilobyte of zlib could ask for a megabyte.
MAX_BYTES = 2**30

_STRINGS = {'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'UNICODE'}
_FRAMING = {'PROTO', 'FRAME', 'MEMOIZE', 'PUT', 'BINPUT', 'LONG_BINPUT', 'STOP'}


class _TestRow(msgspec.Struct):
  input: str
  output: str
  testtype: Literal['stdin', 'functional']


class _Metadata(msgspec.Struct):
  func_name: str = ''


class LiveCodeBenchRow(msgspec.Struct):
  """The columns of LiveCodeBench."""

  question_content: str
  platform: str
  question_id: str
  contest_date: str
  starter_code: str
  difficulty: str
  public_test_cases: str
  private_test_cases: str
  metadata: str = ''


_TESTS = msgspec.json.Decoder(list[_TestRow])


def read_pickled_string(data: bytes) -> str:
  """Returns the string that a pickle holds, without running the pickle.

  Raises:
    UserError: not a pickle, or one of anything but a single string.
  """
  strings = []
  for opcode, argument, _ in pickletools.genops(data):
    if opcode.name in _STRINGS:
      strings.append(argument)
    elif opcode.name not in _FRAMING:
      raise errors.UserError(
          f'its pickle has the opcode {opcode.name}, where only a string may be; it could run code'
          ' and is not loaded'
      )
  if len(strings) != 1:
    raise errors.UserError(f'its pickle holds {len(strings)} strings instead of one')
  return strings[0]


def unpack_tests(text: str, max_bytes: int = MAX_BYTES) -> str:
  """Returns the JSON in base64 of zlib of a pickle.

  Raises:
    ValueError, zlib.error: the text is something else, or unpacks to more than `max_bytes`.
  """
  unzip = zlib.decompressobj()
  # One byte more than allowed, to tell a text of just that size from a larger one.
  data = unzip.decompress(base64.b64decode(text, validate=True), max_bytes + 1)
  if len(data) > max_bytes:
    raise errors.UserError(f'it unpacks to more than max_bytes={max_bytes:,}')
  if not unzip.eof or unzip.unused_data:
    raise errors.UserError('its zlib stream is cut off, or something follows it')
  return read_pickled_string(data)


def _read_tests(text: str, is_sample: bool) -> list[tuple[str, records.TestCase]]:
  """Returns (testtype, test) for each test of a column, which is JSON or packed."""
  if text and not text.lstrip().startswith('['):
    text = unpack_tests(text)
  tests = []
  for test in _TESTS.decode(text or '[]'):
    given, expected = test.input, test.output
    if test.testtype == 'functional':
      given = conversion.join_json_lines(given)
      expected = conversion.check_json(expected)
    case = records.TestCase(input=given, expected=expected, is_sample=is_sample)
    tests.append((test.testtype, case))
  return tests


def _find_release(stem: str) -> str:
  """Returns the first release with the file: v1 for test.jsonl, v6 for test6.jsonl."""
  match = re.fullmatch(r'test([2-9]|\d\d)?', stem)
  return f'v{match[1] or 1}' if match else ''


def convert_livecodebench_row(
    row: LiveCodeBenchRow, place: conversion.Place
) -> Iterator[conversion.Item]:
  """Yields the problem; public tests are samples and come first."""
  with conversion.naming_column('public_test_cases'):
    pairs = _read_tests(row.public_test_cases, True)
  with conversion.naming_column('private_test_cases'):
    pairs += _read_tests(row.private_test_cases, False)
  with conversion.naming_column('metadata'):
    metadata = msgspec.json.decode(row.metadata or '{}', type=_Metadata)
  with conversion.naming_column('contest_date'):
    date = conversion.format_iso_day(row.contest_date)
  # A problem has one mode for all of its tests.
  kinds = {kind for kind, _ in pairs}
  if len(kinds) > 1:
    raise errors.UserError('`testtype`: some tests are stdin and some functional')
  if not pairs:
    yield conversion.Remark(row.question_id, 'left out: no tests')
    return
  is_function = kinds == {'functional'}
  name = metadata.func_name if is_function else ''
  statement, stub = row.question_content, ''
  if is_function:
    statement, stub = conversion.ask_for_function(name, statement, row.starter_code)
  yield conversion.require_hidden_test(
      records.Problem(
          problem_id=row.question_id,
          statement=statement,
          tests=tuple(test for _, test in pairs),
          mode=records.Mode.FUNCTION if is_function else records.Mode.STDIN,
          entry_point=name,
          # Theirs is an unfinished class; these are what LeetCode provides.
          starter_code=asserts.LEETCODE_PRELUDE if is_function else '',
          stub=stub,
          difficulty=row.difficulty,
          source='livecodebench',
          platform=row.platform,
          date=date,
          release=_find_release(place.stem),
      )
  )
