"""What an execution means: the rules, apart from how it was run.

The order matters. A limit that was passed comes before what was printed, since an output that
came too late or too large is not an answer; then the exit status, because a program that says it
failed has failed; the comparison is last.

The profile lcb_compat compares outputs as LiveCodeBench's grader does
(lcb_runner/evaluation/testing_util.py); the half that runs the program is `inside/lcb_inside.py`.
Not reproduced are cheats that need the expected output in the program's process (in a caller's
frame, in the comparison).
"""

from collections.abc import Callable
import decimal
import math

from valley_jax import records
from valley_jax.execution import checkers
from valley_jax.execution import submission_run
from valley_jax.execution.confinement import sandbox

_V = records.Verdict
_LIMIT_VERDICTS = {
    sandbox.StopReason.OUTPUT: _V.OUTPUT_LIMIT,
    sandbox.StopReason.MEMORY: _V.MEMORY_LIMIT,
    sandbox.StopReason.CPU: _V.TIME_LIMIT,
    sandbox.StopReason.WALL: _V.IDLE_LIMIT,
}
# Reports of the program's process, believed as they are only to its disadvantage.
_REPORTED_VERDICTS = {b'memory': _V.MEMORY_LIMIT, b'time': _V.TIME_LIMIT}
_MAX_MESSAGE_CHARACTERS = 1000


def decide_verdict(
    execution: sandbox.Execution,
    run: submission_run.SubmissionRun,
    test: records.TestCase,
    nonce: bytes,
) -> records.Verdict:
  """Returns the verdict on one test.

  Where the problem has a checker program, AC is provisional: the worker still asks it.
  """
  problem = run.problem
  if failure := _find_failure(execution, run):
    return failure
  if problem.mode is records.Mode.ASSERT:
    # Only the end of the test code knows the nonce.
    is_passed = execution.report == nonce
    return _V.ACCEPTED if is_passed else _V.RUNTIME_ERROR
  is_lcb = run.profile is records.Profile.LCB_COMPAT
  if problem.mode is records.Mode.FUNCTION:
    is_equal = equal_lcb_values if is_lcb else _equal_values
    return _judge_value(execution.report, test.expected, is_equal)
  if problem.checker == 'program':
    return _V.ACCEPTED
  checker = checkers.build_checker(problem.checker, problem.flags)
  if is_lcb and problem.checker == 'tokens':  # Whatever tolerance it has: theirs has none.
    checker = equal_lcb_outputs
  is_right = checker(test.expected.encode(), execution.stdout)
  return _V.ACCEPTED if is_right else _V.WRONG_ANSWER


def decide_dialogue_verdict(
    execution: sandbox.Execution,
    run: submission_run.SubmissionRun,
    interactor_ended_first: bool,
    ask_interactor: Callable[[], bool],
) -> records.Verdict:
  """Returns the verdict on a dialogue.

  A submission that fails after the interactor has rejected it is wrong: it failed because its
  partner had hung up.
  """
  failure = _find_failure(execution, run)
  if failure is _V.OUTPUT_LIMIT or (failure and not interactor_ended_first):
    return failure
  if not ask_interactor():
    return _V.WRONG_ANSWER
  return failure or _V.ACCEPTED


def _find_failure(
    execution: sandbox.Execution, run: submission_run.SubmissionRun
) -> records.Verdict | None:
  """Returns the verdict if the output does not matter, None if it is still to be compared."""
  if verdict := _find_exceeded_limit(execution, run.limits):
    return verdict
  if execution.exit_code == 0:
    return None
  if verdict := _REPORTED_VERDICTS.get(execution.report):
    return verdict
  if run.problem.mode is records.Mode.ASSERT and execution.report == b'assert':
    return _V.WRONG_ANSWER
  return _V.RUNTIME_ERROR


def _find_exceeded_limit(
    execution: sandbox.Execution, limits: records.Limits
) -> records.Verdict | None:
  if execution.stopped is not None:
    return _LIMIT_VERDICTS[execution.stopped]
  # The process ended by itself, perhaps between two looks of the monitor.
  if len(execution.stdout) > limits.output_kib << 10:
    return _V.OUTPUT_LIMIT
  if execution.memory_mib > limits.memory_mib:
    return _V.MEMORY_LIMIT
  if execution.cpu_seconds > (limits.cpu_seconds or math.inf):
    return _V.TIME_LIMIT
  return None


def _equal_values(expected: str, returned: bytes) -> bool:
  value = checkers.parse_json(returned)
  return checkers.equal_json_values(checkers.parse_json(expected), value)


def _judge_value(report: bytes, expected: str, is_equal) -> records.Verdict:
  """Compares the JSON that a function returned."""
  if report.startswith(b'type'):
    return _V.WRONG_ANSWER  # A value that JSON does not have.
  if not report.startswith(b'value'):
    return _V.RUNTIME_ERROR  # It ended before it returned.
  try:
    is_right = is_equal(expected, report.removeprefix(b'value'))
  except ValueError:
    return _V.RUNTIME_ERROR  # A report that our encoder did not write.
  except RecursionError:
    is_right = False
  return _V.ACCEPTED if is_right else _V.WRONG_ANSWER


def explain_compile_failure(execution: sandbox.Execution | None) -> str:
  """Returns why a program does not compile."""
  message = extract_message(execution, _V.COMPILE_ERROR) if execution else ''
  return message or 'Compiling it passes the limits.'


def extract_message(execution: sandbox.Execution, verdict: records.Verdict) -> str:
  """Returns the end of what a rejected program wrote to stderr, or its exit status."""
  if verdict is _V.ACCEPTED:
    return ''
  message = execution.stderr.decode('utf-8', 'replace').strip()
  for prefix in (b'type', b'error'):
    if execution.report.startswith(prefix):
      text = execution.report.removeprefix(prefix).decode('utf-8', 'replace')
      message = f'{message}\n{text}'.strip()
  if not message and execution.exit_code:
    code = execution.exit_code
    message = f'signal {-code}' if code < 0 else f'exit status {code}'
  return message[-_MAX_MESSAGE_CHARACTERS:]


# Why LiveCodeBench may accept the program, keyed by the strict verdict.
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
