"""One run of a submission over its problem's tests: its limits, its cache key, its results."""

import contextlib
import functools
import marshal
import pathlib

from valley_jax import errors
from valley_jax import records
from valley_jax.execution import cache
from valley_jax.execution import checkers
from valley_jax.execution import languages
from valley_jax.execution import settings as settings_lib
from valley_jax.execution.confinement import sandbox

_M = records.Mode
_MAX_INPUT_CHARACTERS = 200 << 20  # An input must fit into the sandbox's files.


def check_pair(problem: records.Problem, submission: records.Submission) -> None:
  """Raises a UserError if the submission cannot be judged by the problem's tests."""
  if problem.problem_id != submission.problem_id:
    raise errors.UserError(
        f'A submission to {submission.problem_id!r} is paired with problem'
        f' {problem.problem_id!r}; pair them by `problem_id`.'
    )
  language = languages.parse_language_name(submission.language)
  if problem.mode in (_M.FUNCTION, _M.ASSERT) and language != 'python':
    raise errors.UserError(
        f'Submission {records.sample_key(submission)} is in {language!r}, and mode'
        f' {problem.mode.value} of its problem calls Python; submit a Python program.'
    )
  _check_problem(_SameObject(problem))


class _SameObject:
  """A problem that equals only itself: comparing and hashing all its tests takes long."""

  def __init__(self, value: records.Problem):
    self.value = value

  def __eq__(self, other) -> bool:
    return self.value is other.value

  def __hash__(self) -> int:
    return id(self.value)


@functools.lru_cache(maxsize=64)
def _compute_problem_digest(problem: _SameObject) -> str:
  return cache.compute_digest(problem.value).hex()


@functools.lru_cache(maxsize=64)
def _check_problem(same_object: _SameObject) -> None:
  """Raises a UserError if the tests of a problem cannot be judged."""
  problem = same_object.value
  if problem.program:
    _check_program(problem.problem_id, problem.program)
  if problem.checker == 'program' or problem.mode is _M.INTERACTIVE:
    return
  checker = checkers.build_checker(problem.checker, problem.flags)
  for index, test in enumerate(problem.tests):
    try:
      if len(test.input) > _MAX_INPUT_CHARACTERS:
        raise errors.UserError(
            f'its input has {len(test.input):,} characters, over {_MAX_INPUT_CHARACTERS:,}; leave'
            ' the test out.'
        )
      if problem.mode is _M.FUNCTION:
        _encode_arguments(test)
        checkers.parse_json(test.expected)
      elif problem.checker in ('json', 'any_of'):
        checker(test.expected.encode(), b'')  # Parses what is expected.
    except ValueError as e:
      raise errors.UserError(f'Test {index} of problem {problem.problem_id}: {e}') from e


def _check_program(problem_id: str, program: records.Program) -> None:
  languages.parse_language_name(program.language)
  paths = [pathlib.PurePosixPath(name) for name in program.files]
  if not paths or any(
      path.is_absolute() or '..' in path.parts or path.name.startswith('-') for path in paths
  ):
    raise errors.UserError(
        f'`program` of problem {problem_id} has the files {sorted(program.files)}; it needs at'
        ' least one, and names that stay inside their folder and do not begin with `-`.'
    )


def _encode_arguments(test: records.TestCase) -> bytes:
  """Returns the arguments of a call, marshalled."""
  arguments = checkers.parse_json(test.input, checkers.parse_exact_int)
  if not isinstance(arguments, list):
    raise errors.UserError(f'its input {test.input[:80]!r} is no JSON list of arguments; mend it.')
  try:
    return marshal.dumps(arguments)
  except ValueError as e:  # 'object too deeply nested to marshal'
    raise errors.UserError(f'its input is an {e}; leave the test out.') from e


class SubmissionRun:
  """What one run over a problem's tests has shown so far.

  Seconds and MiB are those of the largest test.
  """

  def __init__(
      self,
      problem: records.Problem,
      submission: records.Submission,
      profile: records.Profile,
      settings: settings_lib.Settings,
  ):
    self.problem, self.submission, self.profile = problem, submission, profile
    self.language = languages.parse_language_name(submission.language)
    self.limits = settings.compute_limits(problem, self.language)
    self.stop_at_failure = settings.stop_at_failure
    self.num_passed = 0
    self.first_failed: int | None = None
    self.cpu_seconds = self.wall_seconds = self.memory_mib = 0.0

  def compute_problem_digest(self) -> str:
    """Returns a hash of the problem and its tests."""
    return _compute_problem_digest(_SameObject(self.problem))

  def compute_key(self, *machine) -> bytes:
    """Returns a hash of all that the judgement depends on.

    Args:
      *machine: Tier, waivers and compiler, on which it depends as well.
    """
    problem = self.compute_problem_digest()
    language = repr(languages.LANGUAGES[self.language])
    # The statement, which a program never sees, is part of the problem's digest all the same.
    rules = (self.limits, self.profile, self.stop_at_failure, cache.describe_engine())
    code = self.submission.source
    return cache.compute_digest(problem, language, code, rules, machine)

  def build_python_request(self) -> tuple[tuple[str, ...], str, str]:
    """Returns sources, mode and entry point for the harness."""
    mode = self.problem.mode.value
    if self.profile is records.Profile.LCB_COMPAT:
      if self.problem.mode in (_M.STDIN, _M.FUNCTION):
        mode = f'lcb_{mode}'
    sources = (self.submission.source,)
    is_called = self.problem.mode in (_M.FUNCTION, _M.ASSERT)
    if is_called and self.problem.starter_code:
      sources = (self.problem.starter_code, *sources)
    return sources, mode, self.problem.entry_point

  @contextlib.contextmanager
  def multiply_cpu_limit(self, factor: float):
    """Grants more CPU time, as on a host that is slower by this factor."""
    limits = self.limits
    assert limits.cpu_seconds is not None
    self.limits = records.replace(limits, cpu_seconds=limits.cpu_seconds * factor)
    try:
      yield
    finally:
      self.limits = limits

  def build_input(self, test: records.TestCase, nonce: bytes) -> tuple[bytes, bytes]:
    """Returns a test's standard input and its private input."""
    if self.problem.mode is _M.FUNCTION:
      return b'', _encode_arguments(test)
    if self.problem.mode is _M.ASSERT:
      return b'', test.input.encode() + nonce  # The nonce is last: it is read last.
    return test.input.encode(), b''

  def add_execution(self, execution: sandbox.Execution) -> None:
    """Keeps the largest figures."""
    self.cpu_seconds = max(self.cpu_seconds, execution.cpu_seconds)
    self.wall_seconds = max(self.wall_seconds, execution.wall_seconds)
    self.memory_mib = max(self.memory_mib, execution.memory_mib)

  def build_judgement(self, verdict, message: str, **fields) -> records.Judgement:
    return records.Judgement(
        problem_id=self.problem.problem_id,
        sample_index=self.submission.sample_index,
        verdict=verdict,
        message=message,
        tests_passed=self.num_passed,
        num_tests=len(self.problem.tests),
        first_failed=self.first_failed,
        cpu_seconds=round(self.cpu_seconds, 6),
        wall_seconds=round(self.wall_seconds, 6),
        memory_mib=round(self.memory_mib, 3),
        profile=self.profile,
        **fields,
    )
