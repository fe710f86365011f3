"""Judges on many hosts with Ray: an actor a host, in each a pool of its own.

    pip install 'valley_jax[ray]'      on every host, the same version

What comes out is what `judge.judge_all` gives on one host, in the same order.
A host that is lost takes only time along: its batches are judged again by the
others, and its actor is started anew, elsewhere if need be. What was yielded is
not judged again.
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

_PAIRS = 16  # Of a batch, a core: small enough to stream, large to fill it.
_BATCH_BYTES = 64 << 20  # Or as many pairs as fit, if their tests are large.
_IN_FLIGHT = 2  # Batches a host, so that it never waits for the next.
_WINDOW = 4  # Batches a host that wait for a slow one before them.
_RETRIES = 3  # Of a batch whose host is lost.
_CONNECT_SECONDS, _CLOSE_SECONDS = 10.0, 5.0


class HostError(errors.UserError):
  """Ray has lost what it was to judge."""


@dataclasses.dataclass
class _Batch:
  """Encoded rows, for Ray knows nothing of records; each problem once."""

  problems: list[bytes]
  submissions: list[tuple[int, bytes]]  # With the index of their problem.
  judgements: list[bytes] | None = None
  num_lost: int = 0  # How often its host was lost.

  def pairs(self) -> Iterator[judge.Pair]:
    problems = [records.from_json(p, records.Problem) for p in self.problems]
    for index, row in self.submissions:
      yield problems[index], records.from_json(row, records.Submission)


def _next_batch(pairs: Iterator[judge.Pair], most: int) -> _Batch:
  """Takes the next pairs; an empty batch says that there are none."""
  batch, size = _Batch([], []), 0
  indices: dict[int, int] = {}  # By identity: comparing tests takes long.
  kept = []  # What has an identity must live.
  while len(batch.submissions) < most and size < _BATCH_BYTES:
    pair = next(pairs, None)
    if pair is None:
      break
    problem, submission = pair
    if id(problem) not in indices:
      indices[id(problem)] = len(kept)
      kept.append(problem)
      batch.problems.append(records.to_json(problem))
      size += len(batch.problems[-1])
    row = records.to_json(submission)
    batch.submissions.append((indices[id(problem)], row))
    size += len(row)
  return batch


class _Actor:
  """Judges batches with the cores of its host, some batches at a time."""

  def __init__(self, settings: settings_lib.Settings, engine: str):
    self._settings, self._engine = settings, engine
    self._lock = threading.Lock()
    self._pool: judge.Pool | None = None

  def judge(self, batch: _Batch) -> list[bytes]:
    """Returns an encoded judgement a pair."""
    if cache.engine() != self._engine:
      raise errors.UserError(
          'A host of the Ray cluster has another version of valley_jax or of'
          ' Python than this one; install the same on all of them.'
      )
    with contextlib.suppress(PermissionError):
      # Ray's niceness would be the programs': others on the host starve them.
      os.setpriority(os.PRIO_PROCESS, 0, 0)  # Of this thread, and its own.
    with self._lock:  # Not at the start, whose errors Ray does not hand on.
      self._pool = self._pool or judge.Pool(self._settings)
    return [records.to_json(r) for r in self._pool.judge_all(batch.pairs())]

  def close(self) -> None:
    """Ends what is running."""
    if self._pool:
      self._pool.close()


class _Host:
  """An actor as seen from here, and the batches that it has."""

  def __init__(self, ray, node: dict[str, Any], settings):
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    make = ray.remote(
        num_cpus=0,  # It is not Ray that deals out the cores.
        max_concurrency=_IN_FLIGHT + 1,  # And `close`.
        scheduling_strategy=affinity(node['NodeID'], soft=True),
    )(_Actor)
    self._start = lambda: make.remote(settings, cache.engine())
    self.actor = self._start()
    self.batch_pairs = _PAIRS * max(1, int(node['Resources'].get('CPU', 1)))
    self.in_flight: dict[Any, _Batch] = {}  # By Ray's reference.

  def judge(self, batch: _Batch) -> None:
    """Begins to judge a batch."""
    self.in_flight[self.actor.judge.remote(batch)] = batch

  def start_anew(self) -> list[_Batch]:
    """Gives back the batches of an actor that is lost."""
    lost = list(self.in_flight.values())
    self.in_flight.clear()
    self.actor = self._start()
    return lost


def judge_all(
    pairs: Iterable[judge.Pair], settings: settings_lib.Settings, address: str
) -> Iterator[records.Judgement]:
  """Yields a judgement a pair, in the order of the pairs.

  Args:
    pairs: Read lazily.
    settings: As of the local pool; every host takes them.
    address: Of the Ray cluster; 'local' starts one on this machine.

  Raises:
    ValueError: Ray is not installed, or there is no cluster; a pair that cannot
      be judged.
    isolation.IsolationError: a host cannot confine programs.
    HostError: a batch was lost too often.
  """
  try:
    import ray  # pyright: ignore[reportMissingImports]
    import ray.exceptions  # pyright: ignore[reportMissingImports]
    import ray.util.scheduling_strategies  # pyright: ignore
  except ImportError as e:
    raise errors.UserError(
        'Ray is not installed; `pip install "valley_jax[ray]"`, or leave `ray`'
        ' of the config empty to judge on this host alone.'
    ) from e
  is_ours = not ray.is_initialized()
  if is_ours:
    _connect(ray, address)
  nodes = [node for node in ray.nodes() if node['Alive']]
  hosts = [_Host(ray, node, settings) for node in nodes]
  try:
    yield from _judge_on(ray, hosts, iter(pairs))
  except ray.exceptions.RayTaskError as e:
    raise e.cause from None  # What the judge of that host has raised.
  finally:
    _close(ray, hosts)
    if is_ours:
      ray.shutdown()


def _connect(ray, address: str) -> None:
  host, _, port = address.removeprefix('ray://').rpartition(':')
  try:
    if host:  # Ray itself would try for minutes.
      socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    ray.init(address, log_to_driver=False, logging_level='warning')
  except (OSError, ValueError) as e:
    raise errors.UserError(
        f'There is no Ray cluster at {address!r} ({e}); start one with'
        " `ray start --head`, or set `ray` of the config to 'local'."
    ) from e


def _judge_on(ray, hosts: list[_Host], pairs: Iterator[judge.Pair]) -> Iterator[records.Judgement]:
  """Keeps every host busy, and yields what they answer in order."""
  window = collections.deque()  # All batches that are not yielded, in order.
  again = collections.deque()  # Those whose host was lost.
  while True:
    for host in hosts:
      while len(host.in_flight) < _IN_FLIGHT:
        if again:
          batch = again.popleft()
        elif len(window) < _WINDOW * len(hosts):
          batch = _next_batch(pairs, host.batch_pairs)
          if not batch.submissions:
            break
          window.append(batch)
        else:
          break
        host.judge(batch)
    if not window:
      return
    running = [ref for host in hosts for ref in host.in_flight]
    done = ray.wait(running, num_returns=1)[0]
    for host in hosts:
      again.extend(_collect(ray, host, done))
    while window and window[0].judgements is not None:
      for row in window.popleft().judgements:
        yield records.from_json(row, records.Judgement)


def _collect(ray, host: _Host, done) -> list[_Batch]:
  """Takes what a host has answered; returns what was lost with it."""
  for ref in [ref for ref in done if ref in host.in_flight]:
    try:
      host.in_flight[ref].judgements = ray.get(ref)
      del host.in_flight[ref]
    except ray.exceptions.RayTaskError:
      raise
    except ray.exceptions.RayError as e:
      lost = host.start_anew()
      for batch in lost:
        batch.num_lost += 1
        if batch.num_lost > _RETRIES:
          raise HostError(
              f'A batch of {len(batch.submissions)} programs was lost'
              f' {batch.num_lost} times with its host: {e} Look into the logs'
              ' of Ray (/tmp/ray/session_latest/logs); when it is run again,'
              ' what is judged stays.'
          ) from e
      return lost
  return []


def _close(ray, hosts: list[_Host]) -> None:
  closing = [host.actor.close.remote() for host in hosts]
  with contextlib.suppress(ray.exceptions.RayError):
    ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
  for host in hosts:
    ray.kill(host.actor)
