"""Runs `sample` and kills it with SIGKILL at its n-th event.

  python killed_sample.py CONFIG_JSON WORKDIR N

An event is a row that is appended, a half of which is written before the kill,
or a file that is opened, renamed or removed under WORKDIR. A run that ends
before its n-th event ends normally.
"""

import json
import os
import signal
import sys

import ml_collections as mlc

from valley_jax import jsonl
from valley_jax import records
from valley_jax import sample


def main(config: str, workdir: str, kill_at: str) -> None:
  """See above."""
  events = 0

  def happens() -> bool:
    nonlocal events
    events += 1
    return events == int(kill_at)

  def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

  def watch(event: str, args: tuple) -> None:
    names = ('open', 'os.rename', 'os.remove', 'shutil.rmtree')
    if event in names and workdir in str(args) and happens():
      die()

  append = jsonl.Appender.append

  def append_or_die(self: jsonl.Appender, *rows) -> None:
    if happens():
      data = b''.join(records.to_json(row) + b'\n' for row in rows)
      self._file.write(data[: len(data) // 2])
      die()
    append(self, *rows)

  jsonl.Appender.append = append_or_die
  sys.addaudithook(watch)
  sample.sample(mlc.ConfigDict(json.loads(config)).lock(), workdir)


if __name__ == '__main__':
  main(*sys.argv[1:])
