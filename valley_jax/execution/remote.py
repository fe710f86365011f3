"""Judges on many hosts with Ray: an actor per host, each with a pool of its own.

    pip install 'valley_jax[ray]'      on every host, the same version

The results are those of `judge.judge_all` on one host, in the same order. A host that is lost
costs only time: the others judge its batches again, and its actor is started anew, elsewhere if
need be. What was yielded is not judged again.

Not by `max_restarts` and `max_task_retries`, though they are shorter: Ray spends all retries at
once, while the new actor is not yet reachable. Nor by `ray.data`, which reads all of its input.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import socket
import threading
from typing import Any

from valley_jax import errors
from valley_jax import records
from valley_jax.execution import cache
from valley_jax.execution import judge
from valley_jax.execution import settings as settings_lib

PAIRS_PER_CORE = 16  # Size of a batch: small enough to stream, large enough to keep a core busy.
MAX_BATCH_BYTES = 64 << 20  # A batch is smaller if its tests are large.
NUM_IN_FLIGHT = 2  # Batches per host, so that it never waits for the next.
NUM_IN_WINDOW = 4  # Batches per host that are read and not yet yielded.
_MAX_RETRIES = 3  # Retries of a batch whose host is lost.
_CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 5.0


class HostError(errors.UserError):
  """A batch was lost with its host, again and again."""


@dataclasses.dataclass
class Batch:
  """Encoded rows, as Ray knows nothing of records; each problem once."""

  problems: list[bytes]
  submissions: list[tuple[int, bytes]]  # With the index of their problem.
  judgements: list[bytes] | None = None
  num_losses: int = 0  # How often the host that had it was lost.

  def decode_pairs(self) -> Iterator[judge.Pair]:
    problems = [records.from_json(row, records.Problem) for row in self.problems]
    for index, row in self.submissions:
      yield problems[index], records.from_json(row, records.Submission)


def take_batch(pairs: Iterator[judge.Pair], max_pairs: int) -> Batch:
  """Takes the next pairs; the batch is empty if there are none."""
  batch, size = Batch([], []), 0
  indices: dict[int, int] = {}  # Keys are identities: comparing tests takes long.
  problems = []  # Kept alive, so that no identity is used twice.
  while len(batch.submissions) < max_pairs and size < MAX_BATCH_BYTES:
    pair = next(pairs, None)
    if pair is None:
      break
    problem, submission = pair
    if id(problem) not in indices:
      indices[id(problem)] = len(problems)
      problems.append(problem)
      batch.problems.append(records.to_json(problem))
      size += len(batch.problems[-1])
    row = records.to_json(submission)
    batch.submissions.append((indices[id(problem)], row))
    size += len(row)
  return batch


class JudgeActor:
  """Judges batches with the cores of its host, some batches at a time."""

  def __init__(self, settings: settings_lib.Settings, engine: str):
    self._settings, self._engine = settings, engine
    self._lock = threading.Lock()
    self._pool: judge.WorkerPool | None = None

  def judge_batch(self, batch: Batch) -> list[bytes]:
    """Returns an encoded judgement for each pair."""
    if cache.describe_engine() != self._engine:
      raise errors.UserError(
          'A host of the Ray cluster has another version of valley_jax or of Python than this one;'
          ' install the same on all of them.'
      )
    with contextlib.suppress(PermissionError):
      # Programs would inherit Ray's niceness, and starve if others use the host.
      os.setpriority(os.PRIO_PROCESS, 0, 0)  # Holds for this thread and what it starts.
    with self._lock:  # Not in the constructor, whose errors Ray does not hand on.
      self._pool = self._pool or judge.WorkerPool(self._settings)
    return [records.to_json(row) for row in self._pool.judge_all(batch.decode_pairs())]

  def close(self) -> None:
    """Ends what is running."""
    if self._pool:
      self._pool.close()


def judge_on_cluster(
    pairs: Iterable[judge.Pair], settings: settings_lib.Settings, address: str
) -> Iterator[records.Judgement]:
  """Yields a judgement for each pair, in the order of the pairs.

  Args:
    pairs: Problems and submissions, read lazily.
    settings: Settings of the pool of every host.
    address: Address of the Ray cluster; 'local' starts one on this machine.

  Raises:
    UserError: Ray is not installed, there is no cluster, or a pair cannot be judged.
    isolation.IsolationError: a host cannot confine programs.
    HostError: a batch was lost too often.
  """
  try:
    import ray  # pyright: ignore[reportMissingImports]
    import ray.exceptions  # pyright: ignore[reportMissingImports]
    import ray.util.scheduling_strategies  # pyright: ignore
  except ImportError as e:
    raise errors.UserError(
        'Ray is not installed; `pip install "valley_jax[ray]"`, or leave `ray` of the config empty'
        ' to judge on this host alone.'
    ) from e
  is_ours = not ray.is_initialized()
  if is_ours:
    connect_to_cluster(ray, address)
  nodes = [node for node in ray.nodes() if node['Alive']]
  hosts = [_Host(ray, node, settings) for node in nodes]
  try:
    yield from _judge_on_hosts(ray, hosts, iter(pairs))
  except ray.exceptions.RayTaskError as e:
    raise e.cause from None  # The error of that host's judge.
  finally:
    _close_hosts(ray, hosts)
    if is_ours:
      ray.shutdown()


def connect_to_cluster(ray, address: str) -> None:
  """Connects to the Ray cluster of an address, or raises a UserError."""
  host, _, port = address.removeprefix('ray://').rpartition(':')
  try:
    if host:  # Ray itself would try for minutes.
      socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    ray.init(address, log_to_driver=False, logging_level='warning')
  except (OSError, ValueError) as e:
    raise errors.UserError(
        f'There is no Ray cluster at {address!r} ({e}); start one with `ray start --head`, or set'
        " `ray` of the config to 'local'."
    ) from e


class _Host:
  """An actor as seen from here, and the batches that it has."""

  def __init__(self, ray, node: dict[str, Any], settings: settings_lib.Settings):
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    actor_class = ray.remote(
        num_cpus=0,  # The pool claims cores itself.
        max_concurrency=NUM_IN_FLIGHT + 1,  # And `close`.
        scheduling_strategy=affinity(node['NodeID'], soft=True),
    )(JudgeActor)
    self._start_actor = lambda: actor_class.remote(settings, cache.describe_engine())
    self.actor = self._start_actor()
    self.batch_pairs = PAIRS_PER_CORE * max(1, int(node['Resources'].get('CPU', 1)))
    self.in_flight: dict[Any, Batch] = {}  # By Ray's reference.

  def submit_batch(self, batch: Batch) -> None:
    self.in_flight[self.actor.judge_batch.remote(batch)] = batch

  def restart_actor(self) -> list[Batch]:
    """Replaces a lost actor; returns the batches that it had."""
    lost = list(self.in_flight.values())
    self.in_flight.clear()
    self.actor = self._start_actor()
    return lost


def _judge_on_hosts(
    ray, hosts: list[_Host], pairs: Iterator[judge.Pair]
) -> Iterator[records.Judgement]:
  """Keeps every host busy, and yields their judgements in order."""
  window = collections.deque()  # All batches that are not yielded, in order.
  lost = collections.deque()  # Those whose host was lost.
  while True:
    for host in hosts:
      while len(host.in_flight) < NUM_IN_FLIGHT:
        if lost:
          batch = lost.popleft()
        elif len(window) < NUM_IN_WINDOW * len(hosts):
          batch = take_batch(pairs, host.batch_pairs)
          if not batch.submissions:
            break
          window.append(batch)
        else:
          break
        host.submit_batch(batch)
    if not window:
      return
    running = [reference for host in hosts for reference in host.in_flight]
    done = ray.wait(running, num_returns=1)[0]
    for host in hosts:
      lost.extend(_collect_results(ray, host, done))
    while window and window[0].judgements is not None:
      for row in window.popleft().judgements:
        yield records.from_json(row, records.Judgement)


def _collect_results(ray, host: _Host, done) -> list[Batch]:
  """Stores a host's results in their batches; returns the batches that were lost with it."""
  for reference in [reference for reference in done if reference in host.in_flight]:
    try:
      host.in_flight[reference].judgements = ray.get(reference)
      del host.in_flight[reference]
    except ray.exceptions.RayTaskError:
      raise
    except ray.exceptions.RayError as e:
      lost = host.restart_actor()
      for batch in lost:
        batch.num_losses += 1
        if batch.num_losses > _MAX_RETRIES:
          raise HostError(
              f'A batch of {len(batch.submissions)} programs was lost {batch.num_losses} times with'
              f' its host: {e} See the logs of Ray (/tmp/ray/session_latest/logs); a new run keeps'
              ' what has been judged.'
          ) from e
      return lost
  return []


def _close_hosts(ray, hosts: list[_Host]) -> None:
  closing = [host.actor.close.remote() for host in hosts]
  with contextlib.suppress(ray.exceptions.RayError):
    ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
  for host in hosts:
    ray.kill(host.actor)
