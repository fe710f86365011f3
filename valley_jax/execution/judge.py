"""Judges submissions: one sandbox each, one process a test, many at a time.

    for judgement in judge.judge_all(pairs, num_workers=2, cpu_seconds=10.0):
      print(judgement.problem_id, judgement.verdict)

Before the first submission each worker proves that its sandbox confines (see
`probes.py`); a machine where it does not is an error, never a reason to go on
without one. The workers are threads that start processes by exec, never by
fork: the caller may hold JAX.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import concurrent.futures
import dataclasses
import itertools
import marshal
import os
import queue
import threading

import msgspec

from valley_jax import records
from valley_jax.execution import cgroups
from valley_jax.execution import checkers
from valley_jax.execution import harness
from valley_jax.execution import isolation as isolation_lib
from valley_jax.execution import probes
from valley_jax.execution import sandbox
from valley_jax.execution import verdicts

Pair = tuple[records.Problem, records.Submission]
_V = records.Verdict


def judge_all(
    pairs: Iterable[Pair], *, num_workers: int = 0, cpu_seconds: float = 10.0
) -> Iterator[records.Judgement]:
  """Yields a judgement a pair, in the order in which they are finished.

  Args:
    pairs: Problems with a submission; read lazily.
    num_workers: How many are judged at a time; 0 is one a core.
    cpu_seconds: The limit for problems that state none.

  Raises:
    isolation.IsolationError: this machine cannot confine programs.
    ValueError: a problem that cannot be judged, like an unknown checker.
  """
  num_workers = num_workers or len(os.sched_getaffinity(0))
  isolation = isolation_lib.prepare()
  workers = _Workers(isolation, cpu_seconds)
  executor = concurrent.futures.ThreadPoolExecutor(num_workers)
  pairs = iter(pairs)
  running: set[concurrent.futures.Future] = set()
  try:
    for pair in itertools.islice(pairs, 2 * num_workers):
      running.add(executor.submit(workers.judge, pair))
    while running:
      done, running = concurrent.futures.wait(
          running, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for pair in itertools.islice(pairs, len(done)):
        running.add(executor.submit(workers.judge, pair))
      for future in done:
        yield future.result()
  finally:
    workers.stop()
    executor.shutdown(cancel_futures=True)
    workers.close()
    isolation.close()


class _Workers:
  """The workers of a pool, one a thread, made when first used."""

  def __init__(self, isolation: isolation_lib.Isolation, cpu_seconds: float):
    self._isolation = isolation
    self._cpu_seconds = cpu_seconds
    self._local = threading.local()
    self._numbers = itertools.count()
    self._made: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    self._stopped = threading.Event()

  def judge(self, pair: Pair) -> records.Judgement:
    """Judges with the calling thread's worker."""
    if not hasattr(self._local, 'worker'):
      worker = Worker(
          self._isolation, next(self._numbers), self._cpu_seconds, self._stopped
      )
      self._made.put(worker)
      probes.prove(worker.isolation, worker.cgroup)
      self._local.worker = worker
    return self._local.worker.judge(*pair)

  def stop(self) -> None:
    """Lets what is running end early."""
    self._stopped.set()
    for _ in range(self._made.qsize()):
      worker = self._made.get()
      worker.kill()
      self._made.put(worker)

  def close(self) -> None:
    """Removes what the workers have made; their threads have ended."""
    while not self._made.empty():
      self._made.get().close()


class Worker:
  """Judges one submission at a time; lives in one thread."""

  def __init__(
      self,
      isolation: isolation_lib.Isolation,
      number: int,
      cpu_seconds: float,
      stopped: threading.Event,
  ):
    self.isolation = isolation_lib.stage(isolation)
    is_root = isolation.uid is not None
    self.cgroup = cgroups.create(number) if is_root else None
    # T0: root, bubblewrap and a cgroup. T1: bubblewrap alone.
    self.tier = 'T0' if self.cgroup else 'T1'
    self._cpu_seconds = cpu_seconds
    self._stopped = stopped
    self._box: sandbox.Sandbox | None = None

  def judge(
      self, problem: records.Problem, submission: records.Submission
  ) -> records.Judgement:
    """Runs the tests until one fails; a failure of ours is tried twice."""
    check_pair(problem, submission)
    limits = problem.limits
    if limits.cpu_seconds is None:
      limits = msgspec.structs.replace(limits, cpu_seconds=self._cpu_seconds)
    tally = _Tally(problem, submission, self.tier)
    if not submission.source.strip():
      return tally.end(_V.COMPILE_ERROR, 'The source is empty.')
    for attempt in range(2):
      tally = _Tally(problem, submission, self.tier)
      try:
        return self._run(problem, submission, limits, tally)
      except sandbox.SandboxError as e:
        if attempt or self._stopped.is_set():
          return tally.end(_V.INTERNAL_ERROR, str(e))
      finally:
        self._discard()
    raise AssertionError('unreachable')

  def _run(self, problem, submission, limits, tally) -> records.Judgement:
    for index, test in enumerate(problem.tests):
      if self._box is None or self._box.is_dirty:
        if failure := self._load(problem, submission, limits, tally):
          return failure
      assert self._box is not None
      nonce = os.urandom(harness.NONCE_BYTES)
      execution = self._box.run(*_input(problem.mode, test, nonce))
      verdict = verdicts.judge(execution, problem, test, limits, nonce)
      tally.add(execution)
      if verdict is not _V.ACCEPTED:
        message = verdicts.message(execution, verdict)
        return tally.end(verdict, message, first_failed=index)
      tally.passed += 1
    return tally.end(_V.ACCEPTED)

  def _load(self, problem, submission, limits, tally):
    """Puts the program into a fresh sandbox; a failure is a judgement."""
    self._discard()
    self._box = sandbox.Sandbox(self.isolation, self.cgroup, limits)
    if self._stopped.is_set():
      raise sandbox.SandboxError('The pool is being closed.')
    sources = (submission.source,)
    if problem.mode is records.Mode.ASSERT and problem.starter_code:
      sources = (problem.starter_code, submission.source)
    made = self._box.compile(sources, problem.mode, problem.entry_point)
    if made.report == b'code':
      return None
    message = verdicts.message(made, _V.COMPILE_ERROR)
    return tally.end(
        _V.COMPILE_ERROR, message or 'Compiling it passes the limits.'
    )

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
    """Removes the worker's cgroup."""
    if self.cgroup:
      self.cgroup.remove()


def check_pair(
    problem: records.Problem, submission: records.Submission
) -> None:
  """Raises a ValueError if the pair cannot be judged."""
  if problem.problem_id != submission.problem_id:
    raise ValueError(
        f'A submission to {submission.problem_id!r} is paired with problem'
        f' {problem.problem_id!r}; pair them by `problem_id`.'
    )
  if submission.language != 'python':
    raise ValueError(
        f'Submission {records.key(submission)} is in'
        f' {submission.language!r}; this judge runs: python.'
    )
  checkers.named(problem.checker)


def _input(
    mode: records.Mode, test: records.TestCase, nonce: bytes
) -> tuple[bytes, bytes]:
  """Returns a test's standard input and its private input."""
  if mode is records.Mode.STDIN:
    return test.input.encode(), b''
  if mode is records.Mode.FUNCTION:
    return b'', marshal.dumps(checkers.parse_json(test.input))
  return b'', test.input.encode() + nonce


@dataclasses.dataclass
class _Tally:
  """Adds up the tests of one submission."""

  problem: records.Problem
  submission: records.Submission
  tier: str
  passed: int = 0
  cpu_seconds: float = 0.0
  wall_seconds: float = 0.0
  memory_mib: float = 0.0

  def add(self, execution: sandbox.Execution) -> None:
    """Keeps the largest figures."""
    self.cpu_seconds = max(self.cpu_seconds, execution.cpu_seconds)
    self.wall_seconds = max(self.wall_seconds, execution.wall_seconds)
    self.memory_mib = max(self.memory_mib, execution.memory_mib)

  def end(
      self,
      verdict: records.Verdict,
      message: str = '',
      first_failed: int | None = None,
  ) -> records.Judgement:
    """Returns the judgement."""
    return records.Judgement(
        problem_id=self.problem.problem_id,
        sample_index=self.submission.sample_index,
        verdict=verdict,
        tests_passed=self.passed,
        num_tests=len(self.problem.tests),
        first_failed=first_failed,
        cpu_seconds=round(self.cpu_seconds, 6),
        wall_seconds=round(self.wall_seconds, 6),
        memory_mib=round(self.memory_mib, 3),
        tier=self.tier,
        message=message,
    )
