"""Compares outputs as LiveCodeBench's grader does, for the profile lcb_compat.

The rules are those of its lcb_runner/evaluation/testing_util.py; the half that runs the program
is `inside/lcb_inside.py`. Not reproduced are cheats that need the expected output in the
program's process (in a caller's frame, in the comparison).
"""

import decimal

from valley_jax import records
from valley_jax.execution import checkers

_V = records.Verdict
# By strict verdict: why LiveCodeBench may accept the program.
_REASONS_TO_ACCEPT = {
    _V.WRONG_ANSWER: 'compares rows of numbers as decimals and values by ==',
    _V.TIME_LIMIT: 'measures wall time, by an alarm that a program can stop',
    _V.MEMORY_LIMIT: 'does not limit memory',
    _V.OUTPUT_LIMIT: 'does not limit output',
}
_REASON_TO_REJECT = (
    'it sees what went through `sys.stdout` till the last line, and wants the same lines, the same'
    ' floats, and no inner tuples'
)
_LIMITS = {_V.TIME_LIMIT: 'time', _V.MEMORY_LIMIT: 'memory'}
_EqualsAll = type('_EqualsAll', (), {'__eq__': lambda self, other: True})


def equal_lcb_outputs(expected: bytes, printed: bytes) -> bool:
  """Returns whether stripped lines are equal, each as text or as a row of decimals."""
  texts = (text.decode('utf-8', 'surrogateescape') for text in (expected, printed))
  expected_lines, printed_lines = (text.strip().split('\n') for text in texts)
  return len(expected_lines) == len(printed_lines) and all(
      map(_is_same_line, expected_lines, printed_lines)
  )


def _is_same_line(expected: str, printed: str) -> bool:
  rows = (map(decimal.Decimal, line.split()) for line in (printed, expected))
  try:
    return expected.strip() == printed.strip() or [*next(rows)] == [*next(rows)]
  except decimal.InvalidOperation:  # A word.
    return False


def equal_lcb_values(expected: str, returned: bytes) -> bool:
  """Returns whether values are equal by Python's ==: True is 1 is 1.0, an inner tuple is no list.

  Args:
    expected: JSON.
    returned: The report of `lcb_inside.run_function`, without its b'value'.
  """
  try:
    value = checkers.parse_json(returned, object_hook=_decode_tagged)
    return value == checkers.parse_json(expected)
  except (RecursionError, KeyError, TypeError):
    return False


def _decode_tagged(tagged: dict) -> object:
  """Reads {'dict': pairs}, or {'other': whether the value equals anything}."""
  if 'dict' in tagged:
    return dict(tagged['dict'])
  return _EqualsAll() if tagged['other'] else object()


def explain_difference(strict: records.Judgement, compat: records.Judgement) -> str:
  """Returns a sentence on why the two profiles' verdicts differ; '' if they do not."""
  strict_verdict, lcb_verdict = strict.verdict, compat.verdict
  if strict_verdict is lcb_verdict:
    return ''
  reason = 'it ' + _REASONS_TO_ACCEPT.get(strict_verdict, 'has rules of its own')
  if lcb_verdict in _LIMITS:
    reason = f'it runs out of {_LIMITS[lcb_verdict]}: it has streams of its own'
  elif lcb_verdict is not _V.ACCEPTED:
    reason = compat.message.strip().rpartition('\n')[2] or _REASON_TO_REJECT
  elif strict.message.startswith('exit status'):
    reason = f'it ignores the {strict.message}'
  elif 'is not defined' in strict.message:
    reason = 'it imports much of the standard library beforehand'
  return f'strict {strict_verdict.value}, LiveCodeBench {lcb_verdict.value}: {reason}'
