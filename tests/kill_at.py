"""Runs a verb and kills it with SIGKILL at its n-th file operation.

  python kill_at.py VERB CONFIG_JSON WORKDIR N

An operation is an open, a rename or a removal under WORKDIR, seen by an audit
hook, so that nothing of the verb is replaced. A verb that ends before its n-th
operation ends normally.
"""

import importlib
import json
import os
import signal
import sys

import ml_collections as mlc


def main(verb: str, config: str, workdir: str, kill_at: str) -> None:
  """See above."""
  function = getattr(importlib.import_module(f'valley_jax.{verb}'), verb)
  operations = 0

  def watch(event: str, args: tuple) -> None:
    nonlocal operations
    if event in ('open', 'os.rename', 'os.remove') and workdir in str(args):
      operations += 1
      if operations == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(watch)
  function(mlc.ConfigDict(json.loads(config)).lock(), workdir)


if __name__ == '__main__':
  main(*sys.argv[1:])
