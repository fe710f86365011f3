"""Runs `shard` again and again, killed at another point each time.

  python killed_shard.py CONFIG_JSON DIRECTORY NUMBER SEED

A point is a file operation under the workdir (an open, a new directory, a
rename, a removal) or a call that our own code makes. At NUMBER of them, half of
each kind, drawn by SEED, a run in DIRECTORY/<kind><n> is killed with SIGKILL,
and a second run continues to the end. Each run is a fork, so that the imports,
which take most of the time, are done once.
"""

from collections.abc import Callable
import json
import os
import pathlib
import random
import signal
import sys

import ml_collections as mlc

from valley_jax import shard

_OPERATIONS = ('open', 'os.mkdir', 'os.rename', 'os.remove', 'shutil.rmtree')
_OURS = str(pathlib.Path(shard.__file__).parent)


def _count(kind: str, workdir: str, reached: Callable[[], object]) -> None:
  """Has `reached` called at every point of this kind from here on."""

  def watch(event: str, args: tuple) -> None:
    if event in _OPERATIONS and workdir in str(args):
      reached()

  def profile(frame, event: str, unused_argument) -> None:
    if event in ('call', 'c_call'):
      if frame.f_code.co_filename.startswith(_OURS):
        reached()

  if kind == 'operation':
    sys.addaudithook(watch)
  if kind == 'call':
    sys.setprofile(profile)


def _run(config: str, workdir: str, kind: str = '', kill_at: int = 0) -> int:
  """Runs in a fork, which may be killed; returns its points of this kind."""
  read_end, write_end = os.pipe()
  child = os.fork()
  if child:
    os.close(write_end)
    with open(read_end) as f:
      said = f.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if kill_at else 0), (kill_at, status)
    return int(said or 0)
  points = 0

  def reached() -> None:
    nonlocal points
    points += 1
    if points == kill_at:
      os.kill(os.getpid(), signal.SIGKILL)

  _count(kind, workdir, reached)
  shard.shard(mlc.ConfigDict(json.loads(config)).lock(), workdir)
  sys.setprofile(None)
  with open(write_end, 'w') as f:
    f.write(str(points))
  os._exit(0)


def main(config: str, directory: str, number: str, seed: str) -> None:
  """See above."""
  rng = random.Random(int(seed))
  for kind in ('operation', 'call'):
    total = _run(config, f'{directory}/whole_{kind}', kind)
    for point in rng.sample(range(1, total + 1), int(number) // 2):
      workdir = f'{directory}/{kind}{point}'
      _run(config, workdir, kind, point)
      _run(config, workdir)


if __name__ == '__main__':
  main(*sys.argv[1:])
