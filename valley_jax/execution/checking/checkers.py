"""Is this output right? Pure functions, run on the host only.

A checker is `(expected, printed) -> bool` on bytes, since a program may print
anything; `named` makes that of a problem. Outputs are hostile and may be
large: a checker takes linear time and little memory, and answers False, not an
error, to whatever was printed. Whitespace is that of ASCII.
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
Tolerance = tuple[float, float]  # Absolute, and relative to what is expected.
TEXT_TOLERANCE = 1e-6, 1e-6  # What most statements with floats ask for.
JSON_TOLERANCE = 1e-5, 1e-5  # What LeetCode grants to the values of functions.
_CHUNK = 1 << 20  # Bytes that are split into tokens at a time.
_SPACE, _WORD = re.compile(rb'\s'), re.compile(rb'\S+')
# Neither 1_000 nor 0x1, which Python and C read, is how a number is printed.
_DECIMAL = re.compile(rb'[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?')
_NOT_FINITE = re.compile(rb'[+-]?(nan|inf|infinity)', re.IGNORECASE)


def tokens(
    expected: bytes,
    printed: bytes,
    tolerance: Tolerance | None = None,
    integers: bool = False,
    case_sensitive: bool = True,
    space_change_sensitive: bool = False,
) -> bool:
  """Equal up to whitespace around tokens, or as near as is asked for.

  A tolerance is for tokens that are expected to be a float: with a point or an
  exponent, nan or inf; any spelling of a decimal number is then read. Words
  are text, and so are integers, unless `integers` makes floats of them.
  """
  if expected == printed:
    return True
  layouts = (_WORD.sub(b'.', text) for text in (expected, printed))
  if space_change_sensitive and not operator.eq(*layouts):
    return False
  if not case_sensitive:
    expected, printed = expected.lower(), printed.lower()
  same = operator.eq
  if tolerance:
    same = functools.partial(_is_near, tolerance, integers)
  return _all(same, _tokens(expected), _tokens(printed))


def lines(expected: bytes, printed: bytes) -> bool:
  """Equal line by line, up to whitespace at the ends of lines and of all."""
  texts = (io.BytesIO(text.rstrip()) for text in (expected, printed))
  return _all(operator.eq, *(map(bytes.rstrip, text) for text in texts))


def unordered(expected: bytes, printed: bytes) -> bool:
  """The same lines in any order, each compared as tokens; no empty ones."""
  texts = (io.BytesIO(text) for text in (expected, printed))
  wanted, given = ((b' '.join(x.split()) for x in text) for text in texts)
  missing = collections.Counter(filter(None, wanted))
  for line in filter(None, given):
    if not missing[line]:
      return False
    missing[line] -= 1
  return not any(missing.values())


def any_of(expected: bytes, printed: bytes) -> bool:
  """Equal as tokens to one text of the JSON list that is expected."""
  texts = parse_json(expected)
  if not isinstance(texts, list) or not {*map(type, texts)} <= {str}:
    raise errors.UserError(f'{expected[:80]!r} is no JSON list of texts; mend `expected`.')
  return any(tokens(text.encode(), printed) for text in texts)


def json_texts(expected: bytes, printed: bytes, tolerance: Tolerance = JSON_TOLERANCE) -> bool:
  """Equal as JSON values, in type too; see `equal_json`."""
  value = parse_json(expected)
  try:
    return equal_json(value, parse_json(printed), tolerance)
  except ValueError:
    return False


_ANY_CASE = {'case_sensitive': False}
_SWITCHES = ('case_sensitive', 'space_change_sensitive')
_BOUNDS = tuple(f'float_{x}tolerance' for x in ('', 'absolute_', 'relative_'))
_CHECKERS: dict[str, tuple[Callable[..., bool], dict, tuple[str, ...]]] = {
    'tokens': (tokens, {}, ()),
    'lines': (lines, {}, ()),
    'exact': (operator.eq, {}, ()),
    'case': (tokens, _ANY_CASE, ()),
    'unordered': (unordered, {}, ()),
    'any_of': (any_of, {}, ()),
    'float': (tokens, {'tolerance': TEXT_TOLERANCE}, _BOUNDS),
    'json': (json_texts, {}, _BOUNDS),
    # The default validator of Kattis problem packages. With a tolerance an
    # integer is a float to it: C++ prints the answer 3.0 as 3.
    'kattis': (tokens, _ANY_CASE | {'integers': True}, _BOUNDS + _SWITCHES),
}


def named(name: str, flags: tuple[str, ...] = ()) -> Checker:
  """Returns a text checker, tuned; raises a ValueError if it is unknown."""
  if name not in _CHECKERS:
    raise errors.UserError(
        f'{name!r} is no checker of texts; set `checker` of the problem to one'
        f' of {", ".join(_CHECKERS)}, or to program and bring one.'
    )
  checker, options, known = _CHECKERS[name]
  absolute, relative, rest = 0.0, 0.0, iter(flags)
  for flag in rest:
    if flag not in known:
      raise errors.UserError(
          f'{flag!r} is no flag of checker {name}, which takes'
          f' {", ".join(known) or "none"}; mend `flags` of the problem.'
      )
    if flag in _SWITCHES:
      options = {**options, flag: True}
      continue
    text = next(rest, '')
    bound = _number(text.encode())
    if bound is None or not 0 <= bound < math.inf:
      raise errors.UserError(f'{flag} is {text!r}, not from 0 up; mend `flags` of the problem.')
    absolute = absolute if 'relative' in flag else bound
    relative = relative if 'absolute' in flag else bound
    options = {**options, 'tolerance': (absolute, relative)}
  return functools.partial(checker, **options)


def comparable_int(digits: str) -> int | decimal.Decimal:
  """Reads an integer that is only compared: a long one in linear time."""
  return int(digits) if len(digits) <= 4000 else decimal.Decimal(digits)


def exact_int(digits: str) -> int:
  """Reads an integer of any length, which int() refuses; for trusted text."""
  if len(digits) <= 4000:
    return int(digits)
  sign, middle = '-' * digits.startswith('-'), len(digits) // 2
  head, tail = exact_int(digits[:-middle]), exact_int(sign + digits[-middle:])
  return head * 10**middle + tail


def parse_json(text, parse_int=comparable_int, object_hook=None) -> Any:
  """Parses JSON, which may be hostile: raises nothing but ValueErrors."""
  try:  # Decoded here: json would guess UTF-16, and pass over a BOM.
    text = text.decode() if isinstance(text, bytes) else text
    return json.loads(text, parse_int=parse_int, object_hook=object_hook)
  except (ValueError, RecursionError) as e:
    raise errors.UserError(f'{text[:80]!r} is no JSON: {e}; mend it.') from e


def equal_json(expected: Any, returned: Any, tolerance: Tolerance = JSON_TOLERANCE) -> bool:
  """Equal in type and value; floats up to the tolerance.

  True is not 1, and 1.0 is not 1 where an integer is expected; an integer
  passes for a float of its value. Tuples have become lists on their way.
  """
  pairs = [(expected, returned)]  # No recursion: values may be deep.
  while pairs:
    a, b = pairs.pop()
    if isinstance(a, float) and type(b) in (int, float):
      if not _is_close(a, b, tolerance):
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


def _all(same: Checker, expected: Iterator, printed: Iterator) -> bool:
  # No token and no stripped line is a newline: it pairs with what is missing.
  pairs = itertools.zip_longest(expected, printed, fillvalue=b'\n')
  return all(itertools.starmap(same, pairs))


def _tokens(text: bytes) -> Iterator[bytes]:
  start = 0
  while start < len(text):
    space = _SPACE.search(text, start + _CHUNK)  # No token is cut.
    end = space.start() if space else len(text)
    yield from text[start:end].split()
    start = end


def _is_near(tolerance: Tolerance, integers: bool, a: bytes, b: bytes) -> bool:
  if a == b or (a.lstrip(b'+-').isdigit() and not integers):
    return a == b
  x, y = _number(a), _number(b)
  return x is not None and y is not None and _is_close(x, y, tolerance)


def _number(token: bytes) -> float | None:
  """Reads a float; None if it is none, or finite but beyond all floats."""
  if _DECIMAL.fullmatch(token):
    value = float(token)
    return None if math.isinf(value) else value
  return float(token) if _NOT_FINITE.fullmatch(token) else None


def _is_close(expected: float, given: float, tolerance: Tolerance) -> bool:
  """Within either bound; only nan is close to nan, and only inf to inf."""
  if expected == given or (expected != expected and given != given):
    return True
  bound = max(tolerance[0], tolerance[1] * abs(expected))
  return expected - bound <= given <= expected + bound
