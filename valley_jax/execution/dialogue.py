"""Lets a submission and an interactor talk to each other."""

import concurrent.futures
import os
import select

from valley_jax.execution.confinement import sandbox


class Pipes:
  """Two pipes, crossed: (source, sink) of the submission, of the interactor.

  `unread` is one more end for what the submission reads: an interactor must be
  able to write to a submission that has left, and not fail at it.
  """

  def __init__(self):
    (first, second), (third, fourth) = os.pipe(), os.pipe()
    self.own, self.other = (first, fourth), (third, second)
    self.unread = os.dup(first)

  def hand_over(self) -> None:
    """Closes our other ends, lest nobody ever reads an end of file."""
    for fd in (*self.own, *self.other):
      os.close(fd)
    self.own = self.other = ()

  def __enter__(self) -> 'Pipes':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.hand_over()
    os.close(self.unread)


def run(
    box: sandbox.Sandbox, other: sandbox.Sandbox, unread: int, arguments, files
) -> tuple[sandbox.Execution, sandbox.Execution, bool]:
  """Returns what submission and interactor did, and if the latter ended first.

  Raises:
    SandboxError: our machinery failed.
  """
  with concurrent.futures.ThreadPoolExecutor(1) as executor:
    future = executor.submit(other.run, b'', b'', arguments, files)
    mine = box.run(b'')
    poller = select.poll()
    poller.register(unread, select.POLLIN)
    while not future.done():  # What it says to nobody must not hold it up.
      if poller.poll(20) and not os.read(unread, 1 << 16):
        break
    theirs = future.result()
  return mine, theirs, theirs.end_seconds < mine.end_seconds
