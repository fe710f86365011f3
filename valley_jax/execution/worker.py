"""A worker judges one submission at a time: loads it, runs tests, decides."""

import contextlib
import functools
import itertools
import os
import threading

from valley_jax import records
from valley_jax.execution import attempt as attempt_lib
from valley_jax.execution import cache as cache_lib
from valley_jax.execution import calibration
from valley_jax.execution import compilers as compilers_lib
from valley_jax.execution import dialogue
from valley_jax.execution import gate as gate_lib
from valley_jax.execution import languages
from valley_jax.execution import programs
from valley_jax.execution import settings as settings_lib
from valley_jax.execution import verdicts
from valley_jax.execution.checking import lcb
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import place as place_lib
from valley_jax.execution.confinement import probes
from valley_jax.execution.confinement import sandbox
from valley_jax.execution.inside import harness

_V, _M = records.Verdict, records.Mode
_REPEATS = 3  # Of a test whose verdict may be the machine's fault.
_SLOW = 1.1  # Times the reference loop's best: then a core is slow.
_STARVED = 0.1  # Of the wall time: who waits longer for a core is starved.


class Shared:
  """What the workers of a pool have in common.

  Raises:
    IsolationError: this machine cannot confine programs.
    ValueError: what is to be the cache is none.
  """

  def __init__(self, settings: settings_lib.Settings):
    self.settings = settings
    self.cache = cache_lib.Cache(settings.cache_dir)
    self.isolation = isolation_lib.prepare(settings.tier, settings.profile.value, settings.waivers)
    public = self.isolation.public
    self.compilers = compilers_lib.Compilers(self.cache, public)
    self.clock = calibration.Clock()
    self.gate = gate_lib.Gate()
    self.stopped = threading.Event()
    self.numbers = itertools.count()  # Of places.


class Worker:
  """Judges one submission at a time; lives in one thread, on one core.

  Raises:
    IsolationError: its sandboxes do not confine.
  """

  def __init__(self, shared: Shared, core: int):
    self._shared = shared
    self._isolation = bubblewrap.stage(shared.isolation)
    os.sched_setaffinity(0, {core})  # This thread, and all that it starts.
    self._box: sandbox.Sandbox | None = None
    self._aside: place_lib.Place | None = None
    self._take_place()

  def _take_place(self) -> None:
    self._place = self._new_place()
    waivers = self._shared.settings.waivers
    try:
      self._waivers = probes.prove(self._place, waivers)
    except BaseException:
      self._place.close()
      raise

  def _new_place(self) -> place_lib.Place:
    return place_lib.take(self._isolation, next(self._shared.numbers))

  def _beside(self) -> place_lib.Place:
    """Where compilers and checkers run while a submission is loaded."""
    if self._aside is None:
      self._aside = self._new_place()
    return self._aside

  def judge(self, problem: records.Problem, submission: records.Submission) -> records.Judgement:
    """Returns the judgement by the profile, from the cache if it is there."""
    attempt_lib.check_pair(problem, submission)
    profile = self._shared.settings.profile
    judgement = self._judge_as(profile, problem, submission)
    if profile is records.Profile.STRICT:
      return judgement
    strict = self._judge_as(records.Profile.STRICT, problem, submission)
    return records.replace(judgement, difference=lcb.explain(strict, judgement))

  def _judge_as(self, profile, problem, submission) -> records.Judgement:
    shared = self._shared

    begin = functools.partial(attempt_lib.Attempt, problem, submission, profile, shared.settings)
    attempt = begin()
    tier = self._place.isolation.tier
    language = languages.LANGUAGES[attempt.language]
    version = languages.compiler_version(language)
    key = attempt.key(tier, self._waivers, version) if shared.cache else b''
    if found := shared.cache.get(key):
      return records.replace(
          found, problem_id=problem.problem_id, sample_index=submission.sample_index
      )
    verdict, message = self._try(attempt)
    if verdict is _V.INTERNAL_ERROR and not shared.stopped.is_set():
      self.close()  # The second attempt is a fresh worker's.
      self._take_place()
      attempt = begin()
      verdict, message = self._try(attempt)
    judgement = attempt.judgement(
        verdict, message, tier=tier, waivers=self._waivers, calibration=shared.clock.best
    )
    shared.cache.put(key, judgement)
    return judgement

  def _try(self, attempt) -> tuple[records.Verdict, str]:
    try:
      return self._run(attempt)
    except sandbox.SandboxError as e:
      return _V.INTERNAL_ERROR, str(e)
    finally:
      self._discard()

  def _run(self, attempt) -> tuple[records.Verdict, str]:
    """Runs the tests and returns the first failure, or that there is none."""
    if not attempt.submission.source.strip():
      return _V.COMPILE_ERROR, 'The source is empty.'
    result = _V.ACCEPTED, ''
    for index, test in enumerate(attempt.problem.tests):
      verdict, message = self._judge_test(attempt, test)
      if verdict is _V.COMPILE_ERROR:
        return verdict, message
      if verdict is _V.ACCEPTED:
        attempt.passed += 1
        continue
      if attempt.first_failed is None:
        attempt.first_failed, result = index, (verdict, message)
      if attempt.stop_at_failure:
        break
    return result

  def _judge_test(self, attempt, test) -> tuple[records.Verdict, str]:
    """Runs one test; one that others may have slowed down is run again."""
    run, slowdown = self._run_test, self._shared.clock.slowdown
    if attempt.problem.mode is _M.INTERACTIVE:
      run = self._converse
    with self._shared.gate.shared():
      verdict, execution, message = run(attempt, test)
    for _ in range(_REPEATS):  # Noise only adds: one good run is enough.
      if execution is None or not self._is_doubtful(verdict, execution):
        break
      self._discard()
      with self._shared.gate.quiet(), attempt.slowed(slowdown()):
        verdict, execution, message = run(attempt, test)
      self._discard()  # Its sandbox has the limits of that moment.
    if execution:
      attempt.add(execution)
    return verdict, message

  def _is_doubtful(self, verdict, execution) -> bool:
    """Whether a busy machine, and not the program, may be the reason.

    That is a program that ended by itself over its CPU limit, one that was
    stopped while this core is slow, or one that was stopped for idling while
    it waited for a core.
    """
    if verdict is _V.TIME_LIMIT:
      is_over = execution.stopped is None
      return is_over or self._shared.clock.slowdown() > _SLOW
    starved = execution.waited_seconds > _STARVED * execution.wall_seconds
    return verdict is _V.IDLE_LIMIT and starved

  def _run_test(self, attempt, test):
    """Returns verdict, execution (None: it does not compile) and message."""
    if self._box is None or self._box.is_dirty:
      self._discard()
      self._box = sandbox.Sandbox(self._place, attempt.limits)
      if message := self._load(self._box, attempt):
        return _V.COMPILE_ERROR, None, message
    nonce = os.urandom(harness.NONCE_BYTES)
    execution = self._box.run(*attempt.input(test, nonce))
    verdict = verdicts.judge(execution, attempt, test, nonce)
    if verdict is _V.ACCEPTED and attempt.problem.checker == 'program':
      if not self._check(attempt.problem, test, execution.stdout):
        verdict = _V.WRONG_ANSWER
    return verdict, execution, verdicts.message(execution, verdict)

  def _load(self, box: sandbox.Sandbox, attempt) -> str:
    """Puts the submission into a sandbox; returns why it does not compile."""
    if self._shared.stopped.is_set():
      raise sandbox.SandboxError('The pool is being closed.')
    if attempt.language == 'python':
      made = box.compile(*attempt.python())
      return '' if made.report == b'code' else verdicts.why_not(made)
    suffix = languages.LANGUAGES[attempt.language].suffixes[0]
    source = attempt.submission.source.encode('utf-8', 'replace')
    files = {f'solution{suffix}': source}
    binary, made = self._build(attempt.language, files)
    if binary:
      box.load(binary)
    return '' if binary else verdicts.why_not(made)

  def _build(self, language: str, files: dict[str, bytes]):
    return self._shared.compilers.build(self._beside(), language, files)

  @contextlib.contextmanager
  def _open_program(self, program: records.Program, limits: records.Limits, ends=()):
    """Yields a sandbox with the problem's own program."""
    language = languages.parse_language_name(program.language)
    files = {name: text.encode() for name, text in program.files.items()}
    is_python = language == 'python'
    binary, made = (b'', None) if is_python else self._build(language, files)
    place = self._beside()
    with sandbox.Sandbox(place, limits, ends, writes=True) as box:
      if is_python:
        sources = (next(iter(program.files.values())),)
        made = box.compile(sources, _M.STDIN.value, '')
      elif binary:
        box.load(binary)
      if not binary and (made is None or made.report != b'code'):
        raise sandbox.SandboxError(
            "The problem's own program does not compile:" f' {verdicts.why_not(made)}'
        )
      yield box

  def _check(self, problem, test, output: bytes) -> bool:
    """Asks the problem's own program about an output."""
    stdin, arguments, files = programs.call(problem, test, output)
    with self._open_program(problem.program, programs.LIMITS) as box:
      execution = box.run(stdin, b'', arguments, files)
    return programs.accepts(problem.program, execution)

  def _converse(self, attempt, test):
    """Runs submission and interactor on one another's output."""
    self._discard()
    problem = attempt.problem
    with dialogue.Pipes() as pipes, contextlib.ExitStack() as stack:
      stack.callback(self._discard)
      other = stack.enter_context(
          self._open_program(problem.program, programs.beside(attempt.limits), pipes.other)
      )
      self._box = sandbox.Sandbox(self._place, attempt.limits, pipes.own)
      pipes.hand_over()
      if message := self._load(self._box, attempt):
        return _V.COMPILE_ERROR, None, message
      _, arguments, files = programs.call(problem, test)
      mine, theirs, was_first = dialogue.run(self._box, other, pipes.unread, arguments, files)
    verdict = verdicts.judge_dialogue(
        mine, attempt, was_first, lambda: programs.accepts(problem.program, theirs)
    )
    return verdict, mine, verdicts.message(mine, verdict)

  def _discard(self) -> None:
    box, self._box = self._box, None
    if box is not None:
      box.close()

  def kill(self) -> None:
    """Ends what is running; may be called from another thread."""
    box = self._box
    if box is not None:
      box.kill()

  def close(self) -> None:
    """Removes what was made for the worker."""
    self._discard()
    self._place.close()
    if self._aside:
      self._aside.close()
      self._aside = None
