"""Starts `python -m valley_jax.train`, as a user does, on one host or more."""

import os
import pathlib
import socket

import jax
import ml_collections as mlc
import numpy as np
from orbax.checkpoint import v1 as ocp

from tests import forked
from valley_jax import jsonl


def write_config(path: pathlib.Path, config: mlc.ConfigDict) -> pathlib.Path:
  """Writes a config file for `--config`; returns its path."""
  path.write_text(
      'import json\nimport ml_collections\n\n\ndef get_config():\n  return'
      f' ml_collections.ConfigDict(json.loads({config.to_json()!r}))\n'
  )
  return path


def start(
    config: pathlib.Path,
    workdir: str | os.PathLike,
    *flags: str,
    hosts: int = 1,
    devices: int = 1,
    program: tuple[str | os.PathLike, ...] = ('-m', 'valley_jax.train'),
    **environ: str,
) -> list[forked.Program]:
  """Starts one process for each host, with `devices` devices."""
  environ = {
      'JAX_NUM_CPU_DEVICES': str(devices),
      # Compiled once for all of them.
      'JAX_COMPILATION_CACHE_DIR': f'{config.parent}/compiled',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      **environ,
  }
  if hosts > 1:
    environ['JAX_COORDINATOR_ADDRESS'] = f'127.0.0.1:{_free_port()}'
    environ['JAX_NUM_PROCESSES'] = str(hosts)
  arguments = [f'--config={config}', f'--workdir={workdir}', *flags]
  host_environs = [{'JAX_PROCESS_ID': str(host)} if hosts > 1 else {} for host in range(hosts)]
  return [forked.start([*program, *arguments], **environ, **host) for host in host_environs]


def _free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def wait(started: list[forked.Program]) -> tuple[list[int], str]:
  """Returns the exit statuses and all that was printed."""
  try:
    statuses = [program.wait() for program in started]
  finally:
    for program in started:
      program.kill()
  return statuses, '\n'.join(program.read_output() for program in started)


def state(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  """Returns the checkpoint of a step: all of its arrays, by name."""
  path = workdir / 'checkpoints' / str(step)
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
      ocp.checkpointables_metadata(path).metadata['state'],
  )
  tree = ocp.load_checkpointables(path, {'state': like})['state']
  return {
      jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in jax.tree.leaves_with_path(tree)
  }


def metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Returns the rows of metrics.jsonl, without what a clock has measured."""
  rows = list(jsonl.read_rows(workdir / 'metrics.jsonl', dict))
  speeds = {'step_seconds', 'num_slow_steps', 'supervised_tokens_per_second'}
  speeds |= {'tokens_per_second_per_chip'}
  return [{k: v for k, v in row.items() if k not in speeds} for row in rows]
