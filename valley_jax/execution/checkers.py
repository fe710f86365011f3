"""Is this output right? Pure functions, run on the host only.

A text checker is `(expected, printed) -> bool` on bytes, since a program may
print anything; `equal_json` compares the return value of a function.
"""

from collections.abc import Callable
import json
import math
from typing import Any

# What answers with floats are graded to where a statement says nothing else.
FLOAT_TOLERANCE = 1e-5


def tokens(expected: bytes, printed: bytes) -> bool:
  """Equal up to the amount and kind of whitespace between tokens."""
  return expected.split() == printed.split()


def exact(expected: bytes, printed: bytes) -> bool:
  """Equal byte for byte."""
  return expected == printed


CHECKERS: dict[str, Callable[[bytes, bytes], bool]] = {
    'tokens': tokens,
    'exact': exact,
}


def named(name: str) -> Callable[[bytes, bytes], bool]:
  """Returns the text checker of that name.

  Raises:
    ValueError: there is none.
  """
  if name not in CHECKERS:
    raise ValueError(
        f'Checker {name!r} is unknown; set `checker` of the problem to one of'
        f' {", ".join(sorted(CHECKERS))}.'
    )
  return CHECKERS[name]


def parse_json(text: str | bytes) -> Any:
  """Parses JSON whose integers may have any number of digits."""
  return json.loads(text, parse_int=_parse_int)


def _parse_int(digits: str) -> int:
  # int() refuses over 4,300 digits, a guard that is global state: go in parts.
  if len(digits) <= 4000:
    return int(digits)
  sign, digits = (-1, digits[1:]) if digits[0] == '-' else (1, digits)
  value = 0
  for start in range(0, len(digits), 4000):
    part = digits[start : start + 4000]
    value = value * 10 ** len(part) + int(part)
  return sign * value


def equal_json(expected: Any, returned: Any) -> bool:
  """Equal in type and value; floats up to FLOAT_TOLERANCE.

  True is not 1, and 1.0 is not 1 where an integer is expected; an integer
  passes for a float of its value. Tuples have become lists on their way.

  Example:
    >>> equal_json([0.3, 1], [0.1 + 0.2, 1]), equal_json(1, True)
    (True, False)
  """
  if isinstance(expected, list):
    return (
        isinstance(returned, list)
        and len(expected) == len(returned)
        and all(map(equal_json, expected, returned))
    )
  if isinstance(expected, dict):
    return (
        isinstance(returned, dict)
        and expected.keys() == returned.keys()
        and all(equal_json(expected[k], returned[k]) for k in expected)
    )
  if isinstance(expected, float):
    return type(returned) in (int, float) and _close(expected, returned)
  return type(expected) is type(returned) and expected == returned


def _close(expected: float, returned: float | int) -> bool:
  if math.isnan(expected):
    return returned != returned
  try:
    return math.isclose(
        expected, returned, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE
    )
  except OverflowError:  # An integer beyond all floats.
    return False
