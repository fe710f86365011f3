"""The thread that owns the device: from a queue into slots, and tokens out.

A compiled chunk draws by one method, so slots that step together share one.
Each method that is asked for has a lane of its own, up to `num_lanes`, and an
idle lane makes room for the next method; jobs begin strictly in the order they
came, so one whose method has no lane waits until one is idle, and those behind
it wait too. That is simple, and nobody starves.

A method that is new is compiled here, while all others wait: seconds on a CPU,
a minute for a large student. Its program is kept.
"""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import dataclasses
import threading
from typing import Any, NamedTuple

from absl import logging
import jax

from valley_jax import records
from valley_jax.sampling import decode
from valley_jax.sampling import lanes as lanes_lib
from valley_jax.sampling import methods
from valley_jax.sampling import request as request_lib
from valley_jax.sampling import stages as stages_lib
from valley_jax.sampling import stops as stops_lib

_MAX_PROGRAMS = 32  # Methods whose programs are kept; then all are dropped.

Reason = records.FinishReason


class BusyError(RuntimeError):
  """As many jobs wait as may."""


class EndedError(RuntimeError):
  """Nothing is drawn any more."""


class Update(NamedTuple):
  """What a chunk has brought to a job."""

  tokens: list[int]  # The end token is the last of them, if one came.
  log_probs: list[float]  # Of each, raw.
  reason: Reason | None = None  # Set in the last update.
  error: str = ''  # Or this is, if the device has failed.


def named(seed: int, index: int, prompt: Sequence[int]) -> request_lib.Request:
  """Returns a request whose key depends on a seed and an index only."""
  return request_lib.Request(f'seed {seed}', index, tuple(prompt))


@dataclasses.dataclass(eq=False, kw_only=True)
class Job(request_lib.Sample):
  """A sample that somebody waits for.

  Attributes:
    method: How its tokens are drawn.
    max_new_tokens: A sample this long is truncated.
    end_tokens: Each ends it.
    stops: What else does.
    publish: Called with each update, from the device's thread.
    is_cancelled: Nobody waits any more; whoever learns that sets it.
  """

  method: methods.Method
  max_new_tokens: int
  end_tokens: frozenset[int]
  stops: stops_lib.Stops
  publish: Callable[[Update], object]
  is_cancelled: bool = False

  def draw(self, tokens: list[int], log_probs: list[float]) -> bool:
    """Adds a chunk up to the sample's end and tells of it; is it there?"""
    counted = self.take(
        tokens,
        limit=self.max_new_tokens,
        end_tokens=self.end_tokens,
        stops=self.stops,
    )
    reason = self.finish_reason
    self.publish(Update(tokens[:counted], log_probs[:counted], reason))
    return reason is not None

  def fail(self, error: str) -> None:
    """Tells whoever waits that nothing more will come."""
    self.publish(Update([], [], error=error))


class Loop:
  """Runs jobs until it is closed; `submit` from any thread."""

  def __init__(
      self,
      settings: lanes_lib.Settings,
      stage: stages_lib.Stage,
      *,
      num_lanes: int,
      max_waiting: int,
  ):
    """Starts nothing yet.

    Args:
      settings: Of all lanes; each has a method of its own. On the current mesh.
      stage: The slots of a lane, `lanes.width` of them or fewer.
      num_lanes: Methods that are drawn by at a time.
      max_waiting: Jobs that have no slot yet.

    Raises:
      ValueError: a number is less than 1.
    """
    if num_lanes < 1 or max_waiting < 1:
      raise ValueError(
          f'serve.num_lanes={num_lanes}, serve.max_waiting={max_waiting}: want'
          ' 1 or more of both.'
      )
    self._settings, self._stage = settings, stage
    self._num_lanes, self._max_waiting = num_lanes, max_waiting
    self._mesh = jax.sharding.get_mesh()
    self._width = lanes_lib.width(stage.num_slots)
    self._lanes: dict[methods.Method, lanes_lib.Lane] = {}
    self._compiled: set[methods.Method] = set()
    self._entering: list[Job] = []
    self._changed = threading.Condition()  # Guards the next three.
    self._waiting: list[Job] = []
    self._num_left = 0  # Jobs that nobody waited for any more.
    self._is_open = True
    self._thread = threading.Thread(target=self._run, name='device')

  def counts(self) -> dict[str, int]:
    """Returns how many jobs run, wait, and were left by who had asked."""
    lanes = list(self._lanes.values())
    return {
        'running': sum(lane.num_live for lane in lanes),
        'waiting': len(self._waiting),
        'left': self._num_left,
        'slots': self._stage.num_slots * self._num_lanes,
    }

  @property
  def is_alive(self) -> bool:
    """Whether jobs are run."""
    return self._thread.is_alive()

  def start(self) -> None:
    self._thread.start()

  def close(self) -> None:
    """Ends the thread after the chunk that runs; jobs on their way fail."""
    with self._changed:
      self._is_open = False
      self._changed.notify()
    self._thread.join()

  def submit(self, jobs: Sequence[Job]) -> None:
    """Queues jobs, all or none.

    Raises:
      BusyError: too many wait already.
      EndedError: the thread has ended, or is about to.
    """
    with self._changed:
      if not self._is_open:
        raise EndedError('The server is ending; start it again.')
      self._drop_left()
      if len(self._waiting) + len(jobs) > self._max_waiting:
        raise BusyError(
            f'{len(self._waiting)} samples wait for a slot, and'
            f' serve.max_waiting={self._max_waiting} may; ask again later.'
        )
      self._waiting += jobs
      self._changed.notify()

  def _run(self) -> None:
    try:
      with jax.set_mesh(self._mesh):
        while self._wait():
          try:
            self._admit()
            self._step()
          except RuntimeError as e:  # The device's: no memory, or lost.
            logging.exception('The device failed.')
            self._fail_live(f'{type(e).__name__}: {e}')
    finally:  # The end, or a bug: nobody shall wait for ever.
      with self._changed:
        self._is_open = False
        self._entering += self._waiting
        self._waiting = []
      self._fail_live('The server has ended; start it again.')

  def _wait(self) -> bool:
    """Waits for something to do; says whether there is, or it is the end."""
    is_busy = any(lane.num_live for lane in self._lanes.values())
    with self._changed:
      self._changed.wait_for(
          lambda: is_busy or self._waiting or not self._is_open
      )
      return self._is_open

  def _fail_live(self, error: str) -> None:
    """Fails all jobs in slots, and drops the slots: they may be no more."""
    live = [job for lane in self._lanes.values() for _, job in lane.live()]
    jobs = {id(job): job for job in (*live, *self._entering)}
    self._lanes, self._entering = {}, []
    for job in jobs.values():
      assert isinstance(job, Job)
      with contextlib.suppress(RuntimeError):  # Its event loop is closed.
        job.fail(error)

  def _admit(self) -> None:
    """Puts jobs into slots in the order they came, while the first has one."""
    while (method := self._first_method()) is not None:
      if not self._has_lane(method):
        return
      lane = self._lanes.get(method)
      num_free = lane.num_free if lane else self._stage.num_slots
      if not num_free:
        return
      self._entering = self._pop(method, num_free)
      if lane is None:
        lane = self._lanes[method] = self._allocate(method)
      lane.fill(self._entering)
      self._entering = []

  def _drop_left(self) -> None:
    before = len(self._waiting)
    self._waiting = [job for job in self._waiting if not job.is_cancelled]
    self._num_left += before - len(self._waiting)

  def _first_method(self) -> methods.Method | None:
    with self._changed:
      self._drop_left()
      return self._waiting[0].method if self._waiting else None

  def _pop(self, method: methods.Method, at_most: int) -> list[Job]:
    """Takes the first jobs of the queue, as long as they are of a method."""
    with self._changed:
      n = 0
      while n < min(at_most, len(self._waiting)):
        if self._waiting[n].method != method:
          break
        n += 1
      jobs, self._waiting = self._waiting[:n], self._waiting[n:]
      return jobs

  def _has_lane(self, method: methods.Method) -> bool:
    """Says whether a method has a lane or room for one; makes room."""
    if method in self._lanes or len(self._lanes) < self._num_lanes:
      return True
    idle = [m for m, lane in self._lanes.items() if not lane.num_live]
    if idle:
      del self._lanes[idle[0]]
    return bool(idle)

  def _allocate(self, method: methods.Method) -> lanes_lib.Lane:
    self._compiled.add(method)
    if len(self._compiled) > _MAX_PROGRAMS:
      compiled: Any = decode.decode_chunk
      compiled.clear_cache()
      self._compiled = {method, *self._lanes}
    settings = dataclasses.replace(self._settings, method=method)
    return lanes_lib.Lane(
        settings, self._stage.length, self._width, self._stage.num_slots
    )

  def _step(self) -> None:
    """Runs a chunk in each lane that has a job."""
    lanes = [lane for lane in self._lanes.values() if lane.num_live]
    # All begin before the first is waited for.
    chunks: list[tuple[lanes_lib.Lane, Any]] = [(x, x.step()) for x in lanes]
    for lane, arrays in chunks:
      tokens, log_probs = jax.device_get(arrays)
      for slot, job in lane.live():
        assert isinstance(job, Job)
        drawn = tokens[:, slot].tolist(), log_probs[:, 0, slot].tolist()
        if job.is_cancelled:
          lane.empty(slot)
          with self._changed:
            self._num_left += 1
        elif job.draw(*drawn):
          lane.empty(slot)
