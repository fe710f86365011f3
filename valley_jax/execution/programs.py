"""Checkers and interactors that come with a problem: how they are called.

Such a program is not under judgement, but it may be wrong, slow or hostile as
well, and so it runs in a sandbox of its own. One that crashes, passes its
limits or answers nonsense is a failure of ours (IE): it says nothing about the
submission.
"""

from valley_jax import records
from valley_jax.execution.confinement import sandbox

LIMITS = records.Limits(cpu_seconds=30.0, memory_mib=1024)
_P = records.Protocol
_INPUT, _OUTPUT, _ANSWER, _FEEDBACK = 'input', 'output', 'answer', 'feedback/'
# The exit codes that accept and that reject; testlib's 2 is a wrong format,
# 4 an output with something after it, 7 a partial score.
_EXITS = {_P.KATTIS: ({42}, {43}), _P.TESTLIB: ({0}, {1, 2, 4, 5, 7, 8}), _P.PYTHON: ({0}, set())}


def beside(limits: records.Limits) -> records.Limits:
  """Returns an interactor's limits: it must outlast who lets it wait."""
  seconds = max(LIMITS.cpu_seconds or 0.0, 2 * (limits.cpu_seconds or 0.0))
  return records.replace(LIMITS, cpu_seconds=seconds + 1.0)


def call(
    problem: records.Problem, test: records.TestCase, output: bytes = b''
) -> tuple[bytes, tuple[str, ...], dict[str, bytes]]:
  """Returns standard input, arguments and files of the program on one test."""
  program = problem.program
  assert program is not None
  files = {_INPUT: test.input.encode(), _ANSWER: test.expected.encode()}
  if program.language == 'python':  # What the main file imports.
    others = list(program.files.items())[1:]
    files |= {name: text.encode() for name, text in others}
  if program.protocol is _P.KATTIS:
    files[_FEEDBACK] = b''
    return output, (_INPUT, _ANSWER, _FEEDBACK, *problem.flags), files
  if problem.mode is not records.Mode.INTERACTIVE:
    files[_OUTPUT] = output
  arguments = (_INPUT, _OUTPUT, _ANSWER)
  if program.protocol is _P.PYTHON:
    arguments = (_INPUT, _ANSWER, _OUTPUT)
  return b'', arguments, files


def accepts(program: records.Program, execution: sandbox.Execution) -> bool:
  """Reads the program's answer.

  Raises:
    SandboxError: it has given none.
  """
  accepting, rejecting = _EXITS[program.protocol]
  code = execution.exit_code
  if execution.stopped is None and code in accepting:
    if program.protocol is not _P.PYTHON:
      return True
    if score := execution.stdout.split()[:1]:
      return score[0] in (b'1', b'1.0', b'100', b'100.0', b'True')
  if execution.stopped is None and code in rejecting:
    return False
  words = execution.stderr.decode('utf-8', 'replace')[-500:]
  raise sandbox.SandboxError(
      f"The problem's own {program.protocol.value} program gave no answer: exit"
      f' status {code}, stopped by {execution.stopped}; expected one of'
      f' {sorted(accepting | rejecting)}. {words}'.strip()
  )
