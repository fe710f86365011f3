"""Checkpoints of a run: state and data position in one save, by Orbax v1.

Each save holds the state (step, params, opt_state), the data position, which
is one integer whatever the number of hosts, and the run's identity: hashes of
what must not change between a run and its continuation. A save is written
aside and renamed, so a kill leaves the checkpoint before it.
"""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

import grain
import jax
from orbax.checkpoint import v1 as ocp


def open_checkpointer(
    workdir: str | os.PathLike, keep: int
) -> ocp.training.Checkpointer:
  """Opens <workdir>/checkpoints, where the latest `keep` steps stay."""
  policies = ocp.training.save_decision_policies
  return ocp.training.Checkpointer(
      pathlib.Path(workdir).absolute() / 'checkpoints',
      save_decision_policy=policies.FixedIntervalPolicy(1),  # The loop decides.
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
  )


def save(
    checkpointer: ocp.training.Checkpointer,
    step: int,
    state: Any,
    batches: grain.DatasetIterator,
    identity: Mapping[str, Any],
) -> None:
  """Saves in the background; the next save waits for this one."""
  checkpointer.save_checkpointables_async(
      step,
      {'state': state},
      custom_metadata={
          'data_position': batches.get_state()['next_index'],
          'identity': dict(identity),
      },
  )


def restore_latest(
    checkpointer: ocp.training.Checkpointer,
    state: Any,
    batches: grain.DatasetIterator,
    identity: Mapping[str, Any],
) -> Any:
  """Returns the latest saved state and moves `batches` to its position.

  Without a checkpoint, returns `state` as it is.

  Args:
    checkpointer: Where to look.
    state: The initial state: structure, shapes, dtypes and shardings.
    batches: The run's iterator, moved in place.
    identity: What must not have changed since.

  Raises:
    ValueError: the checkpoint is of a run with another identity.
  """
  latest = checkpointer.latest
  if latest is None:
    return state
  metadata = checkpointer.checkpointables_metadata(latest.step).custom_metadata
  saved = metadata['identity']
  for name, value in identity.items():
    if saved.get(name) != value:
      raise ValueError(
          f'Checkpoint {latest.path} was written with {name}='
          f'{saved.get(name)!r}, now it is {value!r}; resume with what it was'
          ' begun with, or take another --workdir.'
      )
  loaded = checkpointer.load_checkpointables(
      latest.step, {'state': abstract(state)}
  )
  batches.set_state({'next_index': metadata['data_position']})
  return loaded['state']


def abstract(tree: Any) -> Any:
  """Returns shapes, dtypes and shardings of a tree of arrays."""
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      tree,
  )


def latest_step(directory: str | os.PathLike) -> int | None:
  """Returns the last finished step of a checkpoint directory, or None."""
  steps = [
      int(path.name)
      for path in pathlib.Path(directory).glob('[0-9]*')
      if path.name.isdigit()
  ]
  return max(steps, default=None)


def load_params(directory: str | os.PathLike, params: Any) -> Any:
  """Loads the parameters of the latest step into the layout of `params`.

  Raises:
    ValueError: the directory holds no checkpoint.
  """
  step = latest_step(directory)
  if step is None:
    raise ValueError(
        f'{directory} holds no checkpoint; run `python -m valley_jax.train`'
        ' there first, or name another directory.'
    )
  path = pathlib.Path(directory).absolute() / str(step)
  context = ocp.Context()
  context.pytree.loading.partial_load = True  # Leaves the moments on disk.
  with context:
    loaded = ocp.load_checkpointables(
        path, {'state': {'params': abstract(params)}}
    )
  return loaded['state']['params']
