"""Checkers and interactors that come with a problem: how they are called and what they answer.

Such a program is not under judgement, but it may be wrong, slow or hostile as well, so it runs in
a sandbox of its own. Before a problem's first submission its checker is asked about the jury's own
answer. If it crashes there, passes its limits or answers nonsense, the problem is broken (BP). If
it does so only at the output of a submission, that output is the cause: the submission is wrong. An
interactor without an answer is a failure of ours (IE): there is no jury's program to try it with.
"""

import concurrent.futures
import os
import select

from valley_jax import records
from valley_jax.execution.confinement import sandbox

LIMITS = records.Limits(cpu_seconds=30.0, memory_mib=1024)
_P = records.Protocol
_INPUT, _OUTPUT, _ANSWER, _FEEDBACK = 'input', 'output', 'answer', 'feedback/'
# The exit codes that accept and that reject; testlib's 2 is a wrong format, 4 an output with
# something after it, 7, 13 and those from 16 up a partial score.
_EXIT_CODES = {
    _P.KATTIS: ({42}, {43}),
    _P.TESTLIB: ({0}, {1, 2, 4, 5, 7, 8, 13, *range(16, 64)}),
    _P.PYTHON: ({0}, set()),
}
_ACCEPTING_WORDS = (b'1', b'1.0', b'100', b'100.0', b'True')


class BrokenProgramError(sandbox.SandboxError):
  """A problem's own program does not compile."""


class NoAnswerError(BrokenProgramError):
  """A problem's own program has neither accepted nor rejected."""


def compute_interactor_limits(limits: records.Limits) -> records.Limits:
  """Returns an interactor's limits: it must outlast a submission that lets it wait."""
  cpu_seconds = max(LIMITS.cpu_seconds or 0.0, 2 * (limits.cpu_seconds or 0.0))
  return records.replace(LIMITS, cpu_seconds=cpu_seconds + 1.0)


def build_program_call(
    problem: records.Problem, test: records.TestCase, output: bytes = b''
) -> tuple[bytes, tuple[str, ...], dict[str, bytes]]:
  """Returns standard input, arguments and files of the problem's program for one test."""
  program = problem.program
  assert program is not None
  files = {_INPUT: test.input.encode(), _ANSWER: test.expected.encode()}
  if program.language == 'python':  # Modules that the main file imports.
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


def is_accepted_by(program: records.Program, execution: sandbox.Execution) -> bool:
  """Returns whether the problem's program has accepted.

  Raises:
    NoAnswerError: it has done neither.
  """
  accepting, rejecting = _EXIT_CODES[program.protocol]
  code = execution.exit_code
  if execution.stopped is None and code in accepting:
    if program.protocol is not _P.PYTHON:
      return True
    if score := execution.stdout.split()[:1]:
      return score[0] in _ACCEPTING_WORDS
  if execution.stopped is None and code in rejecting:
    return False
  limit = execution.stopped.name if execution.stopped else 'none'
  raise NoAnswerError(
      f"The problem's own {program.protocol.value} program gave no answer: exit status {code},"
      f' limit passed: {limit}; expected exit status {sorted(accepting | rejecting)}.'
      f' {read_last_words(execution)}'.strip()
  )


def read_last_words(execution: sandbox.Execution) -> str:
  """Returns the end of what a problem's own program wrote to stderr."""
  return execution.stderr.decode('utf-8', 'replace').strip()[-500:]


class DialoguePipes:
  """Two pipes, crossed: each end pair is (standard input, standard output) of one program.

  `unread` duplicates the end from which the submission reads: an interactor must be able to write
  to a submission that has ended, and not fail at it.
  """

  def __init__(self):
    (first, second), (third, fourth) = os.pipe(), os.pipe()
    self.submission_ends, self.interactor_ends = (first, fourth), (third, second)
    self.unread = os.dup(first)

  def close_ends(self) -> None:
    """Closes our copies once both programs have theirs, or nobody would read an end of file."""
    for fd in (*self.submission_ends, *self.interactor_ends):
      os.close(fd)
    self.submission_ends = self.interactor_ends = ()

  def __enter__(self) -> 'DialoguePipes':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close_ends()
    os.close(self.unread)


def run_dialogue(
    submission: sandbox.Sandbox, interactor: sandbox.Sandbox, unread: int, arguments, files
) -> tuple[sandbox.Execution, sandbox.Execution, bool]:
  """Returns what submission and interactor did, and whether the interactor ended first.

  Raises:
    SandboxError: our machinery failed.
  """
  with concurrent.futures.ThreadPoolExecutor(1) as executor:
    future = executor.submit(interactor.run_test, b'', b'', arguments, files)
    execution = submission.run_test(b'')
    poller = select.poll()
    poller.register(unread, select.POLLIN)
    while not future.done():  # A full pipe that nobody reads must not block the interactor.
      if poller.poll(20) and not os.read(unread, 1 << 16):
        break
    answer = future.result()
  return execution, answer, answer.end_seconds < execution.end_seconds
