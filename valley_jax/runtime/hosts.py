"""The processes of one run on several hosts, and the notice that a host will be taken away.

A TPU pod tells its processes about each other. Elsewhere three environment variables do, all of
them or none:

    JAX_COORDINATOR_ADDRESS=10.0.0.1:1234    address of process 0, the same for all
    JAX_NUM_PROCESSES=2                      the same for all
    JAX_PROCESS_ID=0                         number of this process, from 0

A host that will be preempted sends SIGTERM some 30 s ahead. The run then saves and exits with
EXIT_STATUS, by which a launcher can tell "start me again" from success and from failure.
"""

from collections.abc import Mapping
import glob
import importlib.util
import signal
import threading
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

from valley_jax import errors

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: "the user is invited to retry".
_VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


def join_processes(environ: Mapping[str, str]) -> None:
  """Connects to the run's other processes, if there are any; call it before any use of JAX.

  Args:
    environ: The environment; see the module's docstring.

  Raises:
    UserError: some of the three variables are set and others are not.
  """
  given = [name for name in _VARIABLES if environ.get(name)]
  if len(given) == len(_VARIABLES):
    address, num_processes, process_id = (environ[name] for name in _VARIABLES)
    jax.distributed.initialize(address, int(num_processes), int(process_id))
  elif given:
    missing = [name for name in _VARIABLES if name not in given]
    raise errors.UserError(
        f'{", ".join(given)} is set and {", ".join(missing)} is not; set all three, for a run of'
        ' several processes, or none of them.'
    )
  elif _is_tpu_host(environ):
    jax.distributed.initialize()  # Reads the metadata server of the pod.


def _is_tpu_host(environ: Mapping[str, str]) -> bool:
  """Returns whether this host has TPU chips, without initialising them."""
  platforms = environ.get('JAX_PLATFORMS', '')
  return (
      (not platforms or 'tpu' in platforms)
      and importlib.util.find_spec('libtpu') is not None
      and bool(glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*'))
  )


def wait_for_processes(barrier: str) -> None:
  """Waits until all processes of the run have reached this barrier.

  Args:
    barrier: Name of the barrier: the same in all processes, and used once per run.
  """
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(barrier)


def is_first_process() -> bool:
  """Returns whether this is the process that writes the files that exist once per run."""
  return jax.process_index() == 0


class PreemptionNotice:
  """Listens for SIGTERM while the context is open.

  With several processes jax.distributed handles the signal, and agrees on a step that all of them
  can still reach.
  """

  def __enter__(self) -> 'PreemptionNotice':
    self._is_given = False
    self._previous_handler = None
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and not jax.distributed.is_initialized():
      self._previous_handler = signal.signal(signal.SIGTERM, self._receive)
    return self

  def __exit__(self, *unused_exception) -> None:
    self._restore_handler()

  def _receive(self, *unused_signal_and_frame) -> None:
    self._is_given = True
    self._restore_handler()  # Now a second signal ends the process as usual.

  def _restore_handler(self) -> None:
    if self._previous_handler is not None:
      signal.signal(signal.SIGTERM, self._previous_handler)
      self._previous_handler = None

  def must_stop(self, steps_done: int) -> bool:
    """Returns whether to save and exit now; call it after every step, in all processes."""
    if jax.distributed.is_initialized():
      return multihost_utils.reached_preemption_sync_point(steps_done)
    return self._is_given


def exit_for_restart(workdir: str, steps_done: int, num_steps: int) -> NoReturn:
  """Prints how to resume the run, and exits with EXIT_STATUS."""
  print(
      f'train: stopped by SIGTERM; {workdir} is saved at step {steps_done:,} of {num_steps:,}. Run'
      f' the same command again to resume (exit status {EXIT_STATUS}).',
      flush=True,
  )
  raise SystemExit(EXIT_STATUS)
