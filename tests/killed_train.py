"""Runs `python -m valley_jax.train FLAGS...` and kills it with SIGKILL.

  python killed_train.py OPERATION SECONDS FLAGS...

The kill comes SECONDS after the file operation of number OPERATION, or after the start if that is
0. A file operation is an open, a rename or a removal under the workdir, seen by an audit hook, so
that nothing of the program is replaced.
"""

import os
import runpy
import signal
import sys
import threading


def _kill() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
  """See above."""
  operation, seconds = int(sys.argv[1]), float(sys.argv[2])
  del sys.argv[1:3]
  workdir = next(x for x in sys.argv if x.startswith('--workdir='))[10:]
  timer = threading.Timer(seconds, _kill)
  timer.daemon = True
  seen = 0

  def watch(event: str, args: tuple) -> None:
    nonlocal seen
    if event in ('open', 'os.rename', 'os.remove') and workdir in str(args):
      seen += 1
      if seen == operation:
        timer.start() if seconds else _kill()

  if operation:
    sys.addaudithook(watch)
  else:
    timer.start()
  runpy.run_module('valley_jax.train', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
