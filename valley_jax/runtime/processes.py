"""The processes of one run: who the others are, and which of them writes.

A TPU pod tells its workers. Elsewhere three environment variables do, all of
them or none:

    JAX_COORDINATOR_ADDRESS=10.0.0.1:1234    of process 0, the same for all
    JAX_NUM_PROCESSES=2                      the same for all
    JAX_PROCESS_ID=0                         of this one, from 0
"""

from collections.abc import Mapping
import glob
import importlib.util

import jax
from jax.experimental import multihost_utils

from valley_jax import errors

_NAMES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


def join(environ: Mapping[str, str]) -> None:
  """Meets the run's other processes, if there are any; first thing to do.

  Args:
    environ: The environment, see the module's docstring.

  Raises:
    ValueError: some of the three variables are set and others are not.
  """
  given = [name for name in _NAMES if environ.get(name)]
  if len(given) == len(_NAMES):
    jax.distributed.initialize(
        environ['JAX_COORDINATOR_ADDRESS'],
        int(environ['JAX_NUM_PROCESSES']),
        int(environ['JAX_PROCESS_ID']),
    )
  elif given:
    missing = [name for name in _NAMES if name not in given]
    raise errors.UserError(
        f'{", ".join(given)} is set and {", ".join(missing)} is not; set all'
        ' three, for a run of several processes, or none of them.'
    )
  elif _is_tpu_vm(environ):
    jax.distributed.initialize()  # It asks the machine's metadata.


def _is_tpu_vm(environ: Mapping[str, str]) -> bool:
  """Says whether there are TPU chips here, without touching them."""
  platforms = environ.get('JAX_PLATFORMS', '')
  return (
      (not platforms or 'tpu' in platforms)
      and importlib.util.find_spec('libtpu') is not None
      and bool(glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*'))
  )


def meet(what: str) -> None:
  """Waits until all processes of the run are here; one need not wait.

  Args:
    what: Of all processes the same, and no other time of this run.
  """
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def is_first() -> bool:
  """Says whether this process writes what is written once a run."""
  return jax.process_index() == 0
