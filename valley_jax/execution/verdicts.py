"""What an execution means: the rules, apart from how it was run.

The order matters. A limit that was passed comes before what was printed, since
an output that came too late or too large is not an answer; then the exit
status, because a program that says it failed has failed; the comparison is
last.
"""

from collections.abc import Callable
import math

from valley_jax import records
from valley_jax.execution import attempt as attempt_lib
from valley_jax.execution.checking import checkers
from valley_jax.execution.checking import lcb
from valley_jax.execution.confinement import sandbox

_V = records.Verdict
_STOPPED = {
    sandbox.Stop.OUTPUT: _V.OUTPUT_LIMIT,
    sandbox.Stop.MEMORY: _V.MEMORY_LIMIT,
    sandbox.Stop.CPU: _V.TIME_LIMIT,
    sandbox.Stop.WALL: _V.IDLE_LIMIT,
}
# What a program's last words may say, to its disadvantage only.
_REPORTED = {b'memory': _V.MEMORY_LIMIT, b'time': _V.TIME_LIMIT}
_MESSAGE_CHARACTERS = 1000


def judge(
    execution: sandbox.Execution, attempt: attempt_lib.Attempt, test: records.TestCase, nonce: bytes
) -> records.Verdict:
  """Returns the verdict on one test.

  Where the checker is a program this says whether it is to be asked: AC.
  """
  problem = attempt.problem
  if failure := _failure(execution, attempt):
    return failure
  if problem.mode is records.Mode.ASSERT:
    # Only the end of the test code knows the nonce.
    passed = execution.report == nonce
    return _V.ACCEPTED if passed else _V.RUNTIME_ERROR
  is_lcb = attempt.profile is records.Profile.LCB_COMPAT
  if problem.mode is records.Mode.FUNCTION:
    equal = lcb.equal_values if is_lcb else _equal_values
    return _judge_value(execution.report, test.expected, equal)
  if problem.checker == 'program':
    return _V.ACCEPTED
  is_right = checkers.named(problem.checker, problem.flags)
  if is_lcb and problem.checker == 'tokens':
    is_right = lcb.equal_outputs
  is_accepted = is_right(test.expected.encode(), execution.stdout)
  return _V.ACCEPTED if is_accepted else _V.WRONG_ANSWER


def judge_dialogue(
    execution: sandbox.Execution,
    attempt: attempt_lib.Attempt,
    interactor_was_first: bool,
    accepts: Callable[[], bool],
) -> records.Verdict:
  """Returns the verdict on a dialogue.

  A submission that fails after the interactor has rejected it is wrong: it was
  the hung-up partner that made it fail.
  """
  failure = _failure(execution, attempt)
  if failure is _V.OUTPUT_LIMIT or (failure and not interactor_was_first):
    return failure
  if not accepts():
    return _V.WRONG_ANSWER
  return failure or _V.ACCEPTED


def _failure(execution: sandbox.Execution, attempt: attempt_lib.Attempt) -> records.Verdict | None:
  """Returns why the output need not be looked at, None if it is to be."""
  if limit := _passed_limit(execution, attempt.limits):
    return limit
  if execution.exit_code == 0:
    return None
  if verdict := _REPORTED.get(execution.report):
    return verdict
  mode = attempt.problem.mode
  if mode is records.Mode.ASSERT and execution.report == b'assert':
    return _V.WRONG_ANSWER
  return _V.RUNTIME_ERROR


def _passed_limit(execution: sandbox.Execution, limits: records.Limits) -> records.Verdict | None:
  if execution.stopped is not None:
    return _STOPPED[execution.stopped]
  if len(execution.stdout) > limits.output_kib << 10:
    return _V.OUTPUT_LIMIT
  if execution.memory_mib > limits.memory_mib:
    return _V.MEMORY_LIMIT
  if execution.cpu_seconds > (limits.cpu_seconds or math.inf):
    return _V.TIME_LIMIT
  return None


def _equal_values(expected: str, returned: bytes) -> bool:
  given = checkers.parse_json(returned)
  return checkers.equal_json(checkers.parse_json(expected), given)


def _judge_value(report: bytes, expected: str, equal) -> records.Verdict:
  """Compares the JSON that a function returned."""
  if report.startswith(b'type'):
    return _V.WRONG_ANSWER  # A value that JSON does not have.
  if not report.startswith(b'value'):
    return _V.RUNTIME_ERROR  # It ended before it returned.
  try:
    is_right = equal(expected, report.removeprefix(b'value'))
  except ValueError:
    return _V.RUNTIME_ERROR  # A report that our encoder did not write.
  except RecursionError:
    is_right = False
  return _V.ACCEPTED if is_right else _V.WRONG_ANSWER


def why_not(made: sandbox.Execution | None) -> str:
  """Returns why a program does not compile."""
  words = message(made, _V.COMPILE_ERROR) if made else ''
  return words or 'Compiling it passes the limits.'


def message(execution: sandbox.Execution, verdict: records.Verdict) -> str:
  """Returns the last words of a program that did not get through."""
  if verdict is _V.ACCEPTED:
    return ''
  words = execution.stderr.decode('utf-8', 'replace').strip()
  for prefix in (b'type', b'error'):
    if execution.report.startswith(prefix):
      text = execution.report.removeprefix(prefix).decode('utf-8', 'replace')
      words = f'{words}\n{text}'.strip()
  if not words and execution.exit_code:
    code = execution.exit_code
    words = f'signal {-code}' if code < 0 else f'exit status {code}'
  return words[-_MESSAGE_CHARACTERS:]
