"""Runs `shard` again and again, killed at another point each time.

  python killed_shard.py CONFIG_JSON DIRECTORY NUMBER SEED

A point is a file operation under the workdir (an open, a new directory, a
rename, a removal) or a call that our own code makes. For NUMBER of them, drawn
by SEED, half among the operations and half among all, a run in
DIRECTORY/<point> is killed with SIGKILL there, and a second one goes on to the
end. Each is a fork: what takes time, the imports, is done once.
"""

from collections.abc import Callable
import json
import os
import pathlib
import random
import signal
import sys
import traceback

import ml_collections as mlc

from valley_jax import shard

_OPERATIONS = ('open', 'os.mkdir', 'os.rename', 'os.remove', 'shutil.rmtree')
_OURS = str(pathlib.Path(shard.__file__).parent)


def _count(workdir: str, reached: Callable[[str], object]) -> None:
  """Has `reached` called at every point from here on."""

  def watch(event: str, args: tuple) -> None:
    if event in _OPERATIONS and workdir in str(args):
      reached('operation')

  def profile(frame, event: str, unused_argument) -> None:
    if event in ('call', 'c_call'):
      if frame.f_code.co_filename.startswith(_OURS):
        reached('call')

  sys.addaudithook(watch)
  sys.setprofile(profile)


def _run(config: str, workdir: str, kill_at: int) -> list[str]:
  """Runs in a fork; returns its points, none if it was killed."""
  read_end, write_end = os.pipe()
  child = os.fork()
  if child:
    os.close(write_end)
    with open(read_end) as f:
      said = f.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if kill_at else 0), (kill_at, status)
    return said.split()
  points = []

  def reached(point: str) -> None:
    points.append(point)
    if len(points) == kill_at:
      os.kill(os.getpid(), signal.SIGKILL)

  try:
    _count(workdir, reached)
    shard.shard(mlc.ConfigDict(json.loads(config)).lock(), workdir)
    sys.setprofile(None)
    with open(write_end, 'w') as f:
      f.write(' '.join(points))
    os._exit(0)
  except BaseException:
    traceback.print_exc()
    os._exit(1)


def main(config: str, directory: str, number: str, seed: str) -> None:
  """See above."""
  points = _run(config, f'{directory}/whole', 0)
  places = range(1, len(points) + 1)
  operations = [n for n in places if points[n - 1] == 'operation']
  rng = random.Random(int(seed))
  half = int(number) // 2
  chosen = rng.sample(operations, half)
  chosen += rng.sample([n for n in places if n not in chosen], half)
  for kill_at in chosen:
    _run(config, f'{directory}/{kill_at}', kill_at)
    _run(config, f'{directory}/{kill_at}', 0)
  print(len(points), len(operations))


if __name__ == '__main__':
  main(*sys.argv[1:])
