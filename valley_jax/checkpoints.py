"""Checkpoints of a run: state and data position in one save, by Orbax v1.

Each save holds the state (step, params, opt_state), the data position, which
is one integer whatever the number of hosts, and the run's identity: what must
not change between a run and its continuation. A save is written
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
  # The loop decides when to save. (Any: Orbax's protocols deny its policies.)
  always: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
  latest: Any = ocp.training.preservation_policies.LatestN(keep)
  return ocp.training.Checkpointer(
      str(pathlib.Path(workdir).absolute() / 'checkpoints'),
      save_decision_policy=always,
      preservation_policy=latest,
      cleanup_tmp_directories=True,
  )


def save(
    checkpointer: ocp.training.Checkpointer,
    step: int,
    state: Any,
    batches: grain.DatasetIterator,
    identity: Mapping[str, Any],
    num_steps: int,
) -> None:
  """Saves in the background; the next save waits for this one.

  Args:
    checkpointer: Where to.
    step: Steps done.
    state: What training carries.
    batches: The run's iterator, for its position.
    identity: What must not change between a run and its continuation.
    num_steps: Steps of the whole run.
  """
  checkpointer.save_checkpointables_async(
      step,
      {'state': state},
      custom_metadata={
          'data_position': batches.get_state()['next_index'],
          'identity': dict(identity),
          'num_steps': num_steps,
      },
  )


def _path(directory: str | os.PathLike, step: int) -> str:
  return str(pathlib.Path(directory).absolute() / str(step))


def _metadata(path: str) -> dict[str, Any]:
  custom: Any = ocp.checkpointables_metadata(path).custom_metadata
  return custom


def finished_identity(directory: str | os.PathLike) -> dict[str, Any]:
  """Returns what the run of these checkpoints was, with its last step.

  Raises:
    ValueError: there is no checkpoint, or the run has not come to its end.
  """
  step = latest_step(directory)
  if step is None:
    raise ValueError(
        f'{directory} holds no checkpoint; run `python -m valley_jax.train`'
        ' there first, or name another directory.'
    )
  custom = _metadata(_path(directory, step))
  if step < custom['num_steps']:
    raise ValueError(
        f'{directory} is at step {step:,} of {custom["num_steps"]:,}: that'
        ' student is not trained to the end; run `python -m valley_jax.train`'
        ' there again first.'
    )
  return {'step': step, **custom['identity']}


def check_identity(
    directory: str | os.PathLike, identity: Mapping[str, Any]
) -> None:
  """Refuses to go on with the checkpoints of another run.

  Args:
    directory: Of checkpoints; may be empty.
    identity: What must not have changed since, by name.

  Raises:
    ValueError: it names what differs.
  """
  step = latest_step(directory)
  if step is None:
    return
  path = _path(directory, step)
  saved = _metadata(path)['identity']
  for name in sorted({*saved, *identity}):
    if saved.get(name) != identity.get(name):
      raise ValueError(
          f'Checkpoint {path} was written with {name}={saved.get(name)!r}, now'
          f' it is {identity.get(name)!r}; go on with what it was begun with,'
          ' or take another --workdir.'
      )


def restore_latest(
    checkpointer: ocp.training.Checkpointer,
    state: Any,
    batches: grain.DatasetIterator,
) -> Any:
  """Returns the latest saved state and moves `batches` to its position.

  Without a checkpoint, returns `state` as it is.

  Args:
    checkpointer: Where to look.
    state: The initial state: structure, shapes, dtypes and shardings.
    batches: The run's iterator, moved in place.
  """
  latest = checkpointer.latest
  if latest is None:
    return state
  metadata = checkpointer.checkpointables_metadata(latest.step)
  custom: Any = metadata.custom_metadata
  loaded = checkpointer.load_checkpointables(
      latest.step, {'state': abstract(state)}
  )
  batches.set_state({'next_index': custom['data_position']})
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


def load_params(directory: str | os.PathLike, like: Any) -> Any:
  """Loads the parameters of the latest step.

  Args:
    directory: Of checkpoints.
    like: Shapes, dtypes and shardings of the parameters.

  Raises:
    ValueError: no finished run there, or one of another student.
  """
  path = _path(directory, finished_identity(directory)['step'])
  metadata: Any = ocp.checkpointables_metadata(path).metadata
  saved = metadata['state']['params']
  found, wanted = _shapes(saved), _shapes(like)
  for name in sorted({*found, *wanted}):
    if found.get(name) != wanted.get(name):
      raise ValueError(
          f'{path} is of another student: {name} is {found.get(name)} there,'
          f' here {wanted.get(name)}; change config.student or'
          ' config.vocab_multiple, or name another directory.'
      )
  context = ocp.Context()
  context.pytree.loading.partial_load = True  # Leaves the moments on disk.
  with context:
    loaded = ocp.load_checkpointables(path, {'state': {'params': like}})
  return loaded['state']['params']


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Returns the shape of each leaf, named `blocks/q_DKGH`."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
      jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
      for path, leaf in leaves
  }
