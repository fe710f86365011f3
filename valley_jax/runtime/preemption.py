"""Notice that the machine will be taken away: SIGTERM, some 30 s ahead.

A run hears of it here, saves, and leaves with an exit status of its own, by
which a launcher can tell "start me again" from success and from failure.
"""

import signal
import threading
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: "the user is invited to retry".


class Notice:
  """Listens for SIGTERM while it is open.

  With several processes, jax.distributed has taken the signal over, and agrees
  on a step that all of them can still reach.
  """

  def __enter__(self) -> 'Notice':
    self._was_given = False
    self._former = None
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and not jax.distributed.is_initialized():
      self._former = signal.signal(signal.SIGTERM, self._hear)
    return self

  def __exit__(self, *unused_exception) -> None:
    self._unlisten()

  def _hear(self, *unused_signal_and_frame) -> None:
    self._was_given = True
    self._unlisten()  # A second signal ends the process as ever.

  def _unlisten(self) -> None:
    if self._former is not None:
      signal.signal(signal.SIGTERM, self._former)
      self._former = None

  def is_reached(self, steps_done: int) -> bool:
    """Says whether to save and to leave now; call it after every step."""
    if jax.distributed.is_initialized():
      return multihost_utils.reached_preemption_sync_point(steps_done)
    return self._was_given


def leave(workdir: str, steps_done: int, num_steps: int) -> NoReturn:
  """Says how to go on, and ends the program with `EXIT_STATUS`."""
  print(
      f'train: stopped by SIGTERM; {workdir} is saved at step {steps_done:,} of'
      f' {num_steps:,}. Run the same command again to go on (exit status'
      f' {EXIT_STATUS}).',
      flush=True,
  )
  raise SystemExit(EXIT_STATUS)
