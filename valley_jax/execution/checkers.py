"""Is this output right? Pure functions, run on the host only.

A checker is `(expected, printed) -> bool` on bytes, since a program may print anything;
`build_checker` returns that of a problem. Outputs are hostile and may be large: a checker takes
linear time and little memory, and returns False, not an error, whatever was printed. Whitespace
is that of ASCII.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import decimal
import functools
import io
import itertools
import json
import math
import operator
import re
from typing import Any

from valley_jax import errors

Checker = Callable[[bytes, bytes], bool]
Tolerance = tuple[float, float]  # Absolute, and relative to the expected number.
TEXT_TOLERANCE = 1e-6, 1e-6  # What most statements with floats ask for.
JSON_TOLERANCE = 1e-5, 1e-5  # What LeetCode grants to the values of functions.
CHUNK_BYTES = 1 << 20  # Text is split into tokens in chunks of this size.
_MAX_INT_DIGITS = 4000  # int() takes quadratic time, and refuses more than 4,300 digits.
_SPACE, _WORD = re.compile(rb'\s'), re.compile(rb'\S+')
# Neither 1_000 nor 0x1, which Python and C read, is how a number is printed.
_DECIMAL = re.compile(rb'[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?')
_NOT_FINITE = re.compile(rb'[+-]?(nan|inf|infinity)', re.IGNORECASE)


def match_tokens(
    expected: bytes,
    printed: bytes,
    tolerance: Tolerance | None = None,
    integers: bool = False,
    case_sensitive: bool = True,
    space_change_sensitive: bool = False,
) -> bool:
  """Returns whether the tokens are equal, or within the tolerance if there is one.

  A tolerance applies to expected floats: tokens with a point or an exponent, nan and inf; any
  spelling of a decimal number is then read. Words are text. An expected integer asks for exactly
  its value, as 3 or as 3.0, unless `integers` makes it a float.
  """
  if expected == printed:
    return True
  layouts = (_WORD.sub(b'.', text) for text in (expected, printed))
  if space_change_sensitive and not operator.eq(*layouts):
    return False
  if not case_sensitive:
    expected, printed = expected.lower(), printed.lower()
  is_same = operator.eq
  if tolerance:
    is_same = functools.partial(_is_token_near, tolerance, integers)
  return _match_all(is_same, _split_tokens(expected), _split_tokens(printed))


def match_lines(expected: bytes, printed: bytes) -> bool:
  """Returns whether the lines are equal, up to whitespace at the ends of lines and of the text."""
  texts = (io.BytesIO(text.rstrip()) for text in (expected, printed))
  return _match_all(operator.eq, *(map(bytes.rstrip, text) for text in texts))


def match_unordered(expected: bytes, printed: bytes) -> bool:
  """Returns whether the lines are the same in any order, each as tokens, without empty lines."""
  texts = (io.BytesIO(text) for text in (expected, printed))
  expected_lines, printed_lines = ((b' '.join(x.split()) for x in text) for text in texts)
  missing = collections.Counter(filter(None, expected_lines))
  for line in filter(None, printed_lines):
    if not missing[line]:
      return False
    missing[line] -= 1
  return not any(missing.values())


def match_any_of(expected: bytes, printed: bytes) -> bool:
  """Returns whether the tokens are those of one text of the JSON list `expected`."""
  texts = parse_json(expected)
  if not isinstance(texts, list) or not {*map(type, texts)} <= {str}:
    raise errors.UserError(f'{expected[:80]!r} is no JSON list of texts; mend `expected`.')
  return any(match_tokens(text.encode(), printed) for text in texts)


def match_json(expected: bytes, printed: bytes, tolerance: Tolerance = JSON_TOLERANCE) -> bool:
  """Returns whether the JSON values are equal, in type too; see `equal_json_values`."""
  value = parse_json(expected)
  try:
    return equal_json_values(value, parse_json(printed), tolerance)
  except ValueError:
    return False


_ANY_CASE = {'case_sensitive': False}
_SWITCHES = ('case_sensitive', 'space_change_sensitive')
_BOUNDS = tuple(f'float_{x}tolerance' for x in ('', 'absolute_', 'relative_'))
# For each name: the function, its options, and the flags that a problem may add.
CHECKERS: dict[str, tuple[Callable[..., bool], dict, tuple[str, ...]]] = {
    'tokens': (match_tokens, {}, _BOUNDS),
    'lines': (match_lines, {}, ()),
    'exact': (operator.eq, {}, ()),
    'case': (match_tokens, _ANY_CASE, ()),
    'unordered': (match_unordered, {}, ()),
    'any_of': (match_any_of, {}, ()),
    'float': (match_tokens, {'tolerance': TEXT_TOLERANCE}, _BOUNDS),
    'json': (match_json, {}, _BOUNDS),
    # The default validator of Kattis problem packages. With a tolerance an integer is a float to
    # it: C++ prints the answer 3.0 as 3.
    'kattis': (match_tokens, _ANY_CASE | {'integers': True}, _BOUNDS + _SWITCHES),
}


def build_checker(name: str, flags: tuple[str, ...] = ()) -> Checker:
  """Returns the text checker of this name with its flags applied.

  Raises:
    UserError: there is no such checker, or it does not take one of the flags.
  """
  if name not in CHECKERS:
    raise errors.UserError(
        f'{name!r} is no checker of texts; set `checker` of the problem to one of'
        f' {", ".join(CHECKERS)}, or to program and supply the program.'
    )
  checker, options, known_flags = CHECKERS[name]
  absolute, relative, rest = 0.0, 0.0, iter(flags)
  for flag in rest:
    if flag not in known_flags:
      raise errors.UserError(
          f'{flag!r} is no flag of checker {name}, which takes'
          f' {", ".join(known_flags) or "none"}; mend `flags` of the problem.'
      )
    if flag in _SWITCHES:
      options = {**options, flag: True}
      continue
    text = next(rest, '')
    bound = _parse_number(text.encode())
    if bound is None or not 0 <= bound < math.inf:
      raise errors.UserError(f'{flag} is {text!r}, not from 0 up; mend `flags` of the problem.')
    absolute = absolute if 'relative' in flag else bound
    relative = relative if 'absolute' in flag else bound
    options = {**options, 'tolerance': (absolute, relative)}
  return functools.partial(checker, **options)


def parse_comparable_int(digits: str) -> int | decimal.Decimal:
  """Reads an integer that is only compared; a long one takes linear time."""
  return int(digits) if len(digits) <= _MAX_INT_DIGITS else decimal.Decimal(digits)


def parse_exact_int(digits: str) -> int:
  """Reads an integer of any length, which int() refuses; for trusted text."""
  if len(digits) <= _MAX_INT_DIGITS:
    return int(digits)
  sign, middle = '-' * digits.startswith('-'), len(digits) // 2
  head, tail = parse_exact_int(digits[:-middle]), parse_exact_int(sign + digits[-middle:])
  return head * 10**middle + tail


def parse_json(text, parse_int=parse_comparable_int, object_hook=None) -> Any:
  """Parses JSON, which may be hostile: raises nothing but ValueErrors."""
  try:  # Bytes are decoded here: json would guess UTF-16, and skip a byte order mark.
    text = text.decode() if isinstance(text, bytes) else text
    return json.loads(text, parse_int=parse_int, object_hook=object_hook)
  except (ValueError, RecursionError) as e:
    raise errors.UserError(f'{text[:80]!r} is no JSON: {e}; mend it.') from e


def equal_json_values(expected: Any, returned: Any, tolerance: Tolerance = JSON_TOLERANCE) -> bool:
  """Returns whether two values are equal in type and value, floats within the tolerance.

  True is not 1, and 1.0 is not 1 where an integer is expected; an integer counts as a float where
  one is expected. Tuples are lists by now, as JSON has no other sequence.
  """
  pairs = [(expected, returned)]  # No recursion: values may be deeply nested.
  while pairs:
    a, b = pairs.pop()
    if isinstance(a, float) and type(b) in (int, float):
      if not _is_within(a, b, tolerance):
        return False
    elif type(a) is not type(b):
      return False
    elif isinstance(a, list) and len(a) == len(b):
      pairs.extend(zip(a, b))
    elif isinstance(a, dict) and a.keys() == b.keys():
      pairs.extend((a[key], b[key]) for key in a)
    elif isinstance(a, (list, dict)) or a != b:
      return False
  return True


def _match_all(is_same: Checker, expected: Iterator, printed: Iterator) -> bool:
  # No token and no stripped line is a newline, so the fill value equals nothing.
  pairs = itertools.zip_longest(expected, printed, fillvalue=b'\n')
  return all(itertools.starmap(is_same, pairs))


def _split_tokens(text: bytes) -> Iterator[bytes]:
  # In chunks: split at once, the tokens of a text take 17 times its memory.
  start = 0
  while start < len(text):
    space = _SPACE.search(text, start + CHUNK_BYTES)  # A chunk never ends within a token.
    end = space.start() if space else len(text)
    yield from text[start:end].split()
    start = end


def _is_token_near(tolerance: Tolerance, integers: bool, a: bytes, b: bytes) -> bool:
  if a == b:
    return True
  if a.lstrip(b'+-').isdigit() and not integers:
    if len(b) > _MAX_INT_DIGITS or not _DECIMAL.fullmatch(b):
      return False
    try:
      return decimal.Decimal(a.decode()) == decimal.Decimal(b.decode())
    except decimal.InvalidOperation:  # An exponent beyond all bounds.
      return False
  x, y = _parse_number(a), _parse_number(b)
  return x is not None and y is not None and _is_within(x, y, tolerance)


def _parse_number(token: bytes) -> float | None:
  """Reads a float; None if the token is no number, or finite but too large for a float."""
  if _DECIMAL.fullmatch(token):
    value = float(token)
    return None if math.isinf(value) else value
  return float(token) if _NOT_FINITE.fullmatch(token) else None


def _is_within(expected: float, given: float, tolerance: Tolerance) -> bool:
  """Within either bound; only nan is close to nan, and only inf to inf."""
  if expected == given or (expected != expected and given != given):
    return True
  bound = max(tolerance[0], tolerance[1] * abs(expected))
  return expected - bound <= given <= expected + bound
