"""A worker judges one submission at a time: loads it, runs its tests, decides."""

import contextlib
import functools
import itertools
import os
import threading

from valley_jax import records
from valley_jax.execution import cache as cache_lib
from valley_jax.execution import languages
from valley_jax.execution import probe
from valley_jax.execution import problem_programs
from valley_jax.execution import settings as settings_lib
from valley_jax.execution import submission_run
from valley_jax.execution import timing
from valley_jax.execution import verdicts
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import sandbox
from valley_jax.execution.inside import harness

_V, _M = records.Verdict, records.Mode
_MAX_REPEATS = 3  # Repeats of a test whose verdict may be the machine's fault.
_SLOW_FACTOR = 1.1  # A core is slow if the reference loop takes this many times its best.
_STARVED_SHARE = 0.1  # A program is starved if it waits longer than this share of the wall time.


class SharedResources:
  """What the workers of a pool have in common.

  Raises:
    IsolationError: this machine cannot confine programs.
    UserError: `cache_dir` cannot be used as a cache.
  """

  def __init__(self, settings: settings_lib.Settings):
    self.settings = settings
    self.cache = cache_lib.JudgementCache(settings.cache_dir)
    self.isolation = isolation_lib.prepare_isolation(
        settings.tier, settings.profile.value, settings.waivers
    )
    self.compilers = languages.Compilers(self.cache, self.isolation.public)
    self.clock = timing.ReferenceClock()
    self.slots = timing.QuietSlots()
    self.is_closing = threading.Event()
    self.numbers = itertools.count()  # Numbers of confinements; none is used twice.
    # Why a problem's own program is broken, '' if it is not; keys are hashes of problems.
    self.broken_problems: dict[str, str] = {}
    self.program_locks: dict[str, threading.Lock] = {}  # One a problem, held while it is tried.


class Worker:
  """Judges one submission at a time; lives in one thread, on one core.

  Attributes:
    confinement: Confinement of the submissions' sandboxes.
    box: The sandbox of the current submission, None between two.

  Raises:
    IsolationError: its sandboxes do not confine.
  """

  def __init__(self, shared: SharedResources, core: int):
    self._shared = shared
    self._isolation = bubblewrap.expose_binds(shared.isolation)
    os.sched_setaffinity(0, {core})  # This thread, and all that it starts.
    self.box: sandbox.Sandbox | None = None
    self._helper_confinement: isolation_lib.Confinement | None = None
    self._set_up_confinement()

  def _set_up_confinement(self) -> None:
    self.confinement = self._create_confinement()
    waivers = self._shared.settings.waivers
    try:
      self._waivers = probe.prove_confinement(self.confinement, waivers)
    except BaseException:
      self.confinement.close()
      raise

  def _create_confinement(self) -> isolation_lib.Confinement:
    return isolation_lib.create_confinement(self._isolation, next(self._shared.numbers))

  def _get_helper_confinement(self) -> isolation_lib.Confinement:
    """Returns that of compilers and checkers, which run while a submission is loaded."""
    if self._helper_confinement is None:
      self._helper_confinement = self._create_confinement()
    return self._helper_confinement

  def judge_submission(
      self, problem: records.Problem, submission: records.Submission
  ) -> records.Judgement:
    """Returns the judgement by the profile, from the cache if it is there."""
    submission_run.check_pair(problem, submission)
    profile = self._shared.settings.profile
    # Not with one run for both: programs see other streams, limits and modules in the other one.
    judgement = self._judge_by_profile(profile, problem, submission)
    if profile is records.Profile.STRICT:
      return judgement
    strict = self._judge_by_profile(records.Profile.STRICT, problem, submission)
    return records.replace(judgement, difference=verdicts.explain_difference(strict, judgement))

  def _judge_by_profile(self, profile, problem, submission) -> records.Judgement:
    shared = self._shared
    start_run = functools.partial(
        submission_run.SubmissionRun, problem, submission, profile, shared.settings
    )
    run = start_run()
    tier = self.confinement.isolation.tier
    version = languages.find_compiler_version(languages.LANGUAGES[run.language])
    key = run.compute_key(tier, self._waivers, version) if shared.cache else b''
    if cached := shared.cache.get_judgement(key):
      # The key knows only what was judged, so another sample may have stored it.
      return records.replace(
          cached, problem_id=problem.problem_id, sample_index=submission.sample_index
      )
    verdict, message = self._run_guarded(run)
    if verdict is _V.INTERNAL_ERROR and not shared.is_closing.is_set():
      self.close()  # The second try is that of a fresh worker.
      self._set_up_confinement()
      run = start_run()
      verdict, message = self._run_guarded(run)
    judgement = run.build_judgement(
        verdict, message, tier=tier, waivers=self._waivers, calibration=shared.clock.best_seconds
    )
    shared.cache.put_judgement(key, judgement)
    return judgement

  def _run_guarded(self, run) -> tuple[records.Verdict, str]:
    """Runs the tests; a failure of ours is the verdict IE."""
    try:
      if run.problem.program and (reason := self._find_broken_program(run)):
        return _V.BROKEN_PROBLEM, reason
      return self._run_tests(run)
    except sandbox.SandboxError as e:
      return _V.INTERNAL_ERROR, str(e)
    finally:
      self._close_box()

  def _find_broken_program(self, run) -> str:
    """Returns why the problem's own program cannot judge, '' if it can; tries it once."""
    shared, key, problem = self._shared, run.compute_problem_digest(), run.problem
    with shared.program_locks.setdefault(key, threading.Lock()):
      if key not in shared.broken_problems:
        shared.broken_problems[key] = self._try_program(problem)
      return shared.broken_problems[key]

  def _try_program(self, problem: records.Problem) -> str:
    """Returns why a problem's own program is broken, or ''."""
    assert problem.program is not None
    try:
      if problem.mode is _M.INTERACTIVE:  # There is no jury's program to talk to.
        with self._open_program(problem.program, problem_programs.LIMITS):
          return ''
      self._ask_checker(problem, problem.tests[0], problem.tests[0].expected.encode())
    except problem_programs.NoAnswerError as e:
      return f"At the jury's own answer: {e}"
    except problem_programs.BrokenProgramError as e:
      return str(e)
    return ''

  def _run_tests(self, run) -> tuple[records.Verdict, str]:
    """Returns verdict and message of the first test that fails, AC if none does."""
    if not run.submission.source.strip():
      return _V.COMPILE_ERROR, 'The source is empty.'
    result = _V.ACCEPTED, ''
    for index, test in enumerate(run.problem.tests):
      verdict, message = self._judge_test(run, test)
      if verdict is _V.COMPILE_ERROR:
        return verdict, message  # It concerns all tests, so none has failed first.
      if verdict is _V.ACCEPTED:
        run.num_passed += 1
        continue
      if run.first_failed is None:
        run.first_failed, result = index, (verdict, message)
      if run.stop_at_failure:
        break
    return result

  def _judge_test(self, run, test) -> tuple[records.Verdict, str]:
    """Runs a test; one that other processes may have slowed down is run again."""
    run_once, slots = self._run_test, self._shared.slots
    if run.problem.mode is _M.INTERACTIVE:
      run_once = self._run_interactive_test
    with slots.run_with_others():
      verdict, execution, message = run_once(run, test)
    for _ in range(_MAX_REPEATS):  # Noise only adds: one good run is enough.
      if execution is None or not self._is_doubtful(verdict, execution):
        break
      self._close_box()
      # The slowdown is measured once nobody else runs.
      with slots.run_alone(), run.multiply_cpu_limit(self._shared.clock.measure_slowdown()):
        verdict, execution, message = run_once(run, test)
      self._close_box()  # It has the limits of that moment.
    if execution:
      run.add_execution(execution)
    return verdict, message

  def _is_doubtful(self, verdict, execution) -> bool:
    """Returns whether a busy machine, and not the program, may be the reason for a verdict.

    This holds for a program that ended by itself over its CPU limit, one that was stopped while
    this core is slow, and one that was stopped for idling while it waited for a core.
    """
    if verdict is _V.TIME_LIMIT:
      has_ended = execution.stopped is None
      return has_ended or self._shared.clock.measure_slowdown() > _SLOW_FACTOR
    is_starved = execution.waited_seconds > _STARVED_SHARE * execution.wall_seconds
    return verdict is _V.IDLE_LIMIT and is_starved

  def _run_test(self, run, test):
    """Returns verdict, execution (None: it does not compile) and message."""
    if self.box is None or self.box.is_dirty:
      self._close_box()
      self.box = sandbox.Sandbox(self.confinement, run.limits)
      if message := self._load_submission(self.box, run):
        return _V.COMPILE_ERROR, None, message
    nonce = os.urandom(harness.NONCE_BYTES)  # New in every test: an earlier one cannot leak it.
    execution = self.box.run_test(*run.build_input(test, nonce))
    verdict = verdicts.decide_verdict(execution, run, test, nonce)
    if verdict is _V.ACCEPTED and run.problem.checker == 'program':
      try:
        is_accepted, words = self._ask_checker(run.problem, test, execution.stdout)
      except problem_programs.NoAnswerError as e:  # It had one at the jury's answer.
        is_accepted, words = False, str(e)
      if not is_accepted:
        return _V.WRONG_ANSWER, execution, words
    return verdict, execution, verdicts.extract_message(execution, verdict)

  def _load_submission(self, box: sandbox.Sandbox, run) -> str:
    """Puts the submission into a sandbox; returns why it does not compile."""
    if self._shared.is_closing.is_set():
      raise sandbox.SandboxError('The pool is being closed.')
    if run.language == 'python':
      execution = box.compile_python(*run.build_python_request())
      is_loaded = execution.report == b'code'
      return '' if is_loaded else verdicts.explain_compile_failure(execution)
    suffix = languages.LANGUAGES[run.language].suffixes[0]
    source = run.submission.source.encode('utf-8', 'replace')
    binary, execution = self._compile_files(run.language, {f'solution{suffix}': source})
    if binary:
      box.load_binary(binary)
    return '' if binary else verdicts.explain_compile_failure(execution)

  def _compile_files(self, language: str, files: dict[str, bytes]):
    return self._shared.compilers.compile_files(self._get_helper_confinement(), language, files)

  @contextlib.contextmanager
  def _open_program(self, program: records.Program, limits: records.Limits, ends=()):
    """Yields a sandbox with the problem's own program."""
    language = languages.parse_language_name(program.language)
    files = {name: text.encode() for name, text in program.files.items()}
    is_python = language == 'python'
    binary, execution = (b'', None) if is_python else self._compile_files(language, files)
    confinement = self._get_helper_confinement()
    with sandbox.Sandbox(confinement, limits, ends, may_write=True) as box:
      if is_python:
        sources = (next(iter(program.files.values())),)
        execution = box.compile_python(sources, _M.STDIN.value, '')
      elif binary:
        box.load_binary(binary)
      if not binary and (execution is None or execution.report != b'code'):
        raise problem_programs.BrokenProgramError(
            "The problem's own program does not compile:"
            f' {verdicts.explain_compile_failure(execution)}'
        )
      yield box

  def _ask_checker(self, problem, test, output: bytes) -> tuple[bool, str]:
    """Returns whether the problem's own program accepts an output, and its last words."""
    stdin, arguments, files = problem_programs.build_program_call(problem, test, output)
    with self._open_program(problem.program, problem_programs.LIMITS) as box:
      execution = box.run_test(stdin, b'', arguments, files)
    is_accepted = problem_programs.is_accepted_by(problem.program, execution)
    words = problem_programs.read_last_words(execution)
    return is_accepted, words or f'Its checker ends with exit status {execution.exit_code}.'

  def _run_interactive_test(self, run, test):
    """Runs submission and interactor, each on the other's output."""
    self._close_box()
    program = run.problem.program
    limits = problem_programs.compute_interactor_limits(run.limits)
    with problem_programs.DialoguePipes() as pipes, contextlib.ExitStack() as stack:
      stack.callback(self._close_box)
      interactor = stack.enter_context(self._open_program(program, limits, pipes.interactor_ends))
      self.box = sandbox.Sandbox(self.confinement, run.limits, pipes.submission_ends)
      pipes.close_ends()
      if message := self._load_submission(self.box, run):
        return _V.COMPILE_ERROR, None, message
      _, arguments, files = problem_programs.build_program_call(run.problem, test)
      execution, answer, interactor_ended_first = problem_programs.run_dialogue(
          self.box, interactor, pipes.unread, arguments, files
      )
    verdict = verdicts.decide_dialogue_verdict(
        execution,
        run,
        interactor_ended_first,
        lambda: problem_programs.is_accepted_by(program, answer),
    )
    return verdict, execution, verdicts.extract_message(execution, verdict)

  def _close_box(self) -> None:
    box, self.box = self.box, None  # First, so that `kill_sandbox` finds no closed one.
    if box is not None:
      box.close()

  def kill_sandbox(self) -> None:
    """Ends what is running; may be called from another thread."""
    box = self.box
    if box is not None:
      box.kill()

  def close(self) -> None:
    """Removes what was created for the worker."""
    self._close_box()
    self.confinement.close()
    if self._helper_confinement:
      self._helper_confinement.close()
      self._helper_confinement = None
