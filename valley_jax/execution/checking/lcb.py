"""Compares as LiveCodeBench's grader does, for the profile lcb_compat.

The rules are those of its lcb_runner/evaluation/testing_util.py; the half that
runs the program is `lcb_inside.py`. Cheats that need the expected output beside
the program (in a caller's frame, in the comparison) are not reproduced.
"""

import decimal

from valley_jax import records
from valley_jax.execution.checking import checkers

_V = records.Verdict
_ACCEPTS = {  # Why it accepts what is not accepted.
    _V.WRONG_ANSWER: 'compares rows of numbers as decimals and values by ==',
    _V.TIME_LIMIT: 'measures wall time, by an alarm that a program can stop',
    _V.MEMORY_LIMIT: 'does not limit memory',
    _V.OUTPUT_LIMIT: 'does not limit output',
}
_REJECTS = (
    'it sees what went through `sys.stdout` till the last line, and wants the'
    ' same lines, the same floats, and no inner tuples'
)
_STOPS = {_V.TIME_LIMIT: 'time', _V.MEMORY_LIMIT: 'memory'}
_EqualsAll = type('_EqualsAll', (), {'__eq__': lambda self, other: True})


def equal_outputs(expected: bytes, printed: bytes) -> bool:
  """Equal line by line, stripped, as text or as a row of decimals."""
  texts = (t.decode('utf-8', 'surrogateescape') for t in (expected, printed))
  ours, theirs = (t.strip().split('\n') for t in texts)
  return len(ours) == len(theirs) and all(map(_is_same_line, ours, theirs))


def _is_same_line(expected: str, printed: str) -> bool:
  rows = (map(decimal.Decimal, line.split()) for line in (printed, expected))
  try:
    return expected.strip() == printed.strip() or [*next(rows)] == [*next(rows)]
  except decimal.InvalidOperation:  # A word.
    return False


def equal_values(expected: str, returned: bytes) -> bool:
  """Equal by Python's ==: True is 1 is 1.0, and an inner tuple is no list.

  `returned` is what `lcb_inside.run_function` reports after b'value'.
  """
  try:
    given = checkers.parse_json(returned, object_hook=_untag)
    return given == checkers.parse_json(expected)
  except (RecursionError, KeyError, TypeError):
    return False


def _untag(tagged: dict) -> object:
  """Reads {'dict': pairs}, or {'other': whether it equals anything}."""
  if 'dict' in tagged:
    return dict(tagged['dict'])
  return _EqualsAll() if tagged['other'] else object()


def explain(strict: records.Judgement, compat: records.Judgement) -> str:
  """Says in a sentence why two verdicts differ; '' if they do not."""
  ours, theirs = strict.verdict, compat.verdict
  if ours is theirs:
    return ''
  why = 'it ' + _ACCEPTS.get(ours, 'has rules of its own')
  if theirs in _STOPS:
    why = f'it runs out of {_STOPS[theirs]}: it has streams of its own'
  elif theirs is not _V.ACCEPTED:
    why = compat.message.strip().rpartition('\n')[2] or _REJECTS
  elif strict.message.startswith('exit status'):
    why = f'it ignores the {strict.message}'
  elif 'is not defined' in strict.message:
    why = 'it imports much of the standard library beforehand'
  return f'strict {ours.value}, LiveCodeBench {theirs.value}: {why}'
