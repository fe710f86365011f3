"""What an execution means: the rules, apart from how it was run.

The order matters. A limit that was passed comes before what was printed, since
an output that came too late or too large is not an answer; then the exit
status, because a program that says it failed has failed; the comparison is
last.
"""

import math

from valley_jax import records
from valley_jax.execution import checkers
from valley_jax.execution import sandbox

_V = records.Verdict
_STOPPED = {
    sandbox.Stop.OUTPUT: _V.OUTPUT_LIMIT,
    sandbox.Stop.MEMORY: _V.MEMORY_LIMIT,
    sandbox.Stop.CPU: _V.TIME_LIMIT,
    sandbox.Stop.WALL: _V.IDLE_LIMIT,
}
_MESSAGE_CHARACTERS = 1000


def judge(
    execution: sandbox.Execution,
    problem: records.Problem,
    test: records.TestCase,
    limits: records.Limits,
    nonce: bytes,
) -> records.Verdict:
  """Returns the verdict on one test."""
  if limit := _passed_limit(execution, limits):
    return limit
  if execution.exit_code != 0:
    if execution.report == b'memory':
      return _V.MEMORY_LIMIT
    if problem.mode is records.Mode.ASSERT and execution.report == b'assert':
      return _V.WRONG_ANSWER
    return _V.RUNTIME_ERROR
  if problem.mode is records.Mode.ASSERT:
    # Only the end of the test code knows the nonce.
    passed = execution.report == nonce
    return _V.ACCEPTED if passed else _V.RUNTIME_ERROR
  if problem.mode is records.Mode.FUNCTION:
    return _judge_value(execution.report, test.expected)
  checker = checkers.named(problem.checker)
  is_right = checker(test.expected.encode(), execution.stdout)
  return _V.ACCEPTED if is_right else _V.WRONG_ANSWER


def _passed_limit(
    execution: sandbox.Execution, limits: records.Limits
) -> records.Verdict | None:
  if execution.stopped is not None:
    return _STOPPED[execution.stopped]
  if len(execution.stdout) > limits.output_kib << 10:
    return _V.OUTPUT_LIMIT
  if execution.memory_mib > limits.memory_mib:
    return _V.MEMORY_LIMIT
  if execution.cpu_seconds > (limits.cpu_seconds or math.inf):
    return _V.TIME_LIMIT
  return None


def _judge_value(report: bytes, expected: str) -> records.Verdict:
  """Compares the JSON that a function returned."""
  if report.startswith(b'type'):
    return _V.WRONG_ANSWER  # A value that JSON does not have.
  if not report.startswith(b'value'):
    return _V.RUNTIME_ERROR  # It ended before it returned.
  try:
    returned = checkers.parse_json(report.removeprefix(b'value'))
  except (ValueError, RecursionError):
    return _V.RUNTIME_ERROR  # A report that our encoder did not write.
  try:
    is_right = checkers.equal_json(checkers.parse_json(expected), returned)
  except RecursionError:
    is_right = False
  return _V.ACCEPTED if is_right else _V.WRONG_ANSWER


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
