"""Quiet slots: moments in which one worker of a pool runs alone."""

import contextlib
import threading


class Gate:
  """Lets many run at once, or one alone: a quiet slot."""

  def __init__(self):
    self._condition = threading.Condition()
    self._running, self._alone = 0, False

  @contextlib.contextmanager
  def shared(self):
    """Runs beside others."""
    with self._condition:
      self._condition.wait_for(lambda: not self._alone)
      self._running += 1
    try:
      yield
    finally:
      with self._condition:
        self._running -= 1
        self._condition.notify_all()

  @contextlib.contextmanager
  def quiet(self):
    """Runs while nobody else of the pool does."""
    with self._condition:
      self._condition.wait_for(lambda: not self._alone)
      self._alone = True
      self._condition.wait_for(lambda: not self._running)
    try:
      yield
    finally:
      with self._condition:
        self._alone = False
        self._condition.notify_all()
