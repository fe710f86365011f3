"""LiveCodeBench (2403.07974): test.jsonl .. test6.jsonl, one a release.

The private tests may be base64 of zlib of a pickle of a JSON string. A pickle
is a program, so it is never loaded: its opcodes are read one by one, and any
but those of a single string is refused.
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
from valley_jax.data.formats import leetcode
from valley_jax.data.formats import rows

# What the private tests of a problem may unpack to. The largest are some
# hundred MB; a kilobyte of zlib can ask for a megabyte.
MAX_BYTES = 2**30

_STRINGS = {'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'UNICODE'}
_FRAMING = {'PROTO', 'FRAME', 'MEMOIZE', 'PUT', 'BINPUT', 'LONG_BINPUT', 'STOP'}


class _Test(msgspec.Struct):
  input: str
  output: str
  testtype: Literal['stdin', 'functional']


class _Metadata(msgspec.Struct):
  func_name: str = ''


class Row(msgspec.Struct):
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


_TESTS = msgspec.json.Decoder(list[_Test])


def unpickle_string(data: bytes) -> str:
  """Returns the string that a pickle holds, without running the pickle.

  Raises:
    ValueError: it is no pickle, or one of anything but a single string.
  """
  strings = []
  for opcode, argument, _ in pickletools.genops(data):
    if opcode.name in _STRINGS:
      strings.append(argument)
    elif opcode.name not in _FRAMING:
      raise errors.UserError(
          f'its pickle has the opcode {opcode.name}, where only a string may'
          ' be; it could run code and is not loaded'
      )
  if len(strings) != 1:
    raise errors.UserError(f'its pickle holds {len(strings)} strings instead of one')
  return strings[0]


def unpack(text: str, max_bytes: int = MAX_BYTES) -> str:
  """Returns the JSON in base64 of zlib of a pickle.

  Raises:
    ValueError, zlib.error: it is not that, or more than `max_bytes`.
  """
  unzip = zlib.decompressobj()
  data = unzip.decompress(base64.b64decode(text, validate=True), max_bytes + 1)
  if len(data) > max_bytes:
    raise errors.UserError(f'it unpacks to more than max_bytes={max_bytes:,}')
  if not unzip.eof or unzip.unused_data:
    raise errors.UserError('its zlib stream is cut off, or something follows it')
  return unpickle_string(data)


def _tests(text: str, is_sample: bool) -> list[tuple[str, records.TestCase]]:
  """The (testtype, test) of a column, which is JSON or packed."""
  if text and not text.lstrip().startswith('['):
    text = unpack(text)
  tests = []
  for test in _TESTS.decode(text or '[]'):
    given, expected = test.input, test.output
    if test.testtype == 'functional':
      given = rows.json_arguments(given)
      expected = rows.json_text(expected)
    case = records.TestCase(input=given, expected=expected, is_sample=is_sample)
    tests.append((test.testtype, case))
  return tests


def _release(stem: str) -> str:
  """The first release with the file: test.jsonl v1, test6.jsonl v6."""
  found = re.fullmatch(r'test([2-9]|\d\d)?', stem)
  return f'v{found[1] or 1}' if found else ''


def problems(row: Row, place: rows.Place) -> Iterator[rows.Item]:
  """Yields the problem; public tests are samples and come first."""
  with rows.field('public_test_cases'):
    pairs = _tests(row.public_test_cases, True)
  with rows.field('private_test_cases'):
    pairs += _tests(row.private_test_cases, False)
  with rows.field('metadata'):
    metadata = msgspec.json.decode(row.metadata or '{}', type=_Metadata)
  with rows.field('contest_date'):
    date = rows.date(row.contest_date)
  kinds = {kind for kind, _ in pairs}
  if len(kinds) > 1:
    raise errors.UserError('`testtype`: some tests are stdin and some functional')
  if not pairs:
    yield rows.Remark(row.question_id, 'left out: no tests')
    return
  is_function = kinds == {'functional'}
  name = metadata.func_name if is_function else ''
  statement, stub = row.question_content, ''
  if is_function:
    statement, stub = rows.ask_for(name, statement, row.starter_code)
  yield rows.check_hidden(
      records.Problem(
          problem_id=row.question_id,
          statement=statement,
          tests=tuple(test for _, test in pairs),
          mode=records.Mode.FUNCTION if is_function else records.Mode.STDIN,
          entry_point=name,
          # Theirs is an unfinished class; these are what LeetCode provides.
          starter_code=leetcode.PROVIDED if is_function else '',
          stub=stub,
          difficulty=row.difficulty,
          source='livecodebench',
          platform=row.platform,
          date=date,
          release=_release(place.stem),
      )
  )
