"""Checkpoints of a run: state and data position in one save, by Orbax v1.

Each save holds the state (step, params, opt_state), the data position, which is one integer
whatever the number of hosts, and the run's identity: what must not change between a run and its
continuation. A save is written aside and renamed, so a kill leaves the checkpoint before it.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import os
from typing import Any

from etils import epath
import grain
import jax
from orbax.checkpoint import v1 as ocp

from valley_jax import errors
from valley_jax.runtime import storage

# What Orbax and TensorStore raise for a disk that fails or a file that is damaged.
_ORBAX_ERRORS = (OSError, ValueError, LookupError, TypeError)


@contextlib.contextmanager
def open_checkpointer(
    workdir: str | os.PathLike, keep: int, keep_every: int = 0
) -> Iterator[ocp.training.Checkpointer]:
  """Opens <workdir>/checkpoints; on exit, waits for the last save.

  Args:
    workdir: A directory, or gs://BUCKET/PATH.
    keep: Number of the latest steps that are kept.
    keep_every: Older steps that are multiples of this are kept as well; 0: none.

  Raises:
    UserError: the last save has failed, see `save_checkpoint`.
  """
  # The loop decides when to save. (Any: Orbax's protocols deny its policies.)
  always: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
  policies = ocp.training.preservation_policies
  kept: list[Any] = [policies.LatestN(keep)]
  if keep_every:
    kept.append(policies.EveryNSteps(keep_every))
  preserved: Any = policies.AnyPreservationPolicy(kept)
  checkpointer = ocp.training.Checkpointer(
      str(storage.absolute_path(workdir) / 'checkpoints'),
      save_decision_policy=always,
      preservation_policy=preserved,
      cleanup_tmp_directories=True,
  )
  try:
    yield checkpointer
  finally:
    with _explain_failed_save(checkpointer):
      checkpointer.close()


@contextlib.contextmanager
def _explain_failed_save(checkpointer: ocp.training.Checkpointer) -> Iterator[None]:
  """Re-raises a failed save as an error that names the remedy."""
  try:
    yield
  except _ORBAX_ERRORS as e:
    directory = checkpointer.directory
    step = find_latest_step(directory)
    kept = 'There is no earlier one' if step is None else f'Step {step:,} is whole'
    # `from None`: the traces of Orbax's threads would bury the message.
    raise errors.UserError(
        f'A checkpoint could not be written to {directory}: {_find_root_cause(e)}. {kept}. Mend'
        ' what is wrong there (make room, allow writing) and run the same command again: it goes on'
        ' from there.'
    ) from None


def _find_root_cause(error: BaseException) -> str:
  """Returns the first cause of an error, in a line."""
  while error.__cause__ is not None:
    error = error.__cause__
  text = str(error).partition('[tensorstore_spec')[0].strip().rstrip('.')
  return f'{type(error).__name__}: {" ".join(text.split())[:400]}'


def _unreadable_error(path: str, reason: str) -> errors.UserError:
  """Returns the error for a checkpoint that cannot be read."""
  others = [s for s in list_steps(epath.Path(path).parent) if not path.endswith(f'/{s}')]
  before = f'step {max(others):,}' if others else 'the beginning'
  return errors.UserError(
      f'Checkpoint {path} cannot be read: {reason}. Part of it is lost or changed. Remove that'
      f' directory and run again, to go on from {before}.'
  )


def save_checkpoint(
    checkpointer: ocp.training.Checkpointer,
    step: int,
    state: Any,
    batches: grain.DatasetIterator,
    identity: Mapping[str, Any],
    num_steps: int,
) -> None:
  """Saves in the background; the next save waits for this one.

  Args:
    checkpointer: The run's, of `open_checkpointer`.
    step: Steps done.
    state: All that training carries from step to step.
    batches: The run's iterator, for its position.
    identity: Values that must be equal in a run and its continuation, by name.
    num_steps: Steps of the whole run.

  Raises:
    UserError: this save, or the one before, has failed (a full disk, say); what was saved before
      them is still there.
  """
  with _explain_failed_save(checkpointer):
    checkpointer.save_checkpointables_async(
        step,
        {'state': state},
        custom_metadata={
            'data_position': batches.get_state()['next_index'],
            'identity': dict(identity),
            'num_steps': num_steps,
        },
    )


def _step_path(directory: str | os.PathLike, step: int) -> str:
  return str(storage.absolute_path(directory) / str(step))


def _read_metadata(path: str) -> dict[str, Any]:
  """Returns what was stored with the arrays.

  Raises:
    UserError: it cannot be read.
  """
  try:
    custom: Any = ocp.checkpointables_metadata(path).custom_metadata
  except _ORBAX_ERRORS as e:
    raise _unreadable_error(path, _find_root_cause(e)) from None
  if not custom or 'identity' not in custom:
    raise _unreadable_error(path, '_CHECKPOINT_METADATA has no identity of its run')
  return custom


def read_finished_identity(directory: str | os.PathLike) -> dict[str, Any]:
  """Returns what the run of these checkpoints was, with its last step.

  Raises:
    UserError: there is no checkpoint, or the run has not come to its end.
  """
  step = find_latest_step(directory)
  if step is None:
    raise errors.UserError(
        f'{directory} holds no checkpoint; run `python -m valley_jax.train` there first, or name'
        ' another directory.'
    )
  custom = _read_metadata(_step_path(directory, step))
  if step < custom['num_steps']:
    raise errors.UserError(
        f'{directory} is at step {step:,} of {custom["num_steps"]:,}: that student is not trained'
        ' to the end; run `python -m valley_jax.train` there again first.'
    )
  return {'step': step, **custom['identity']}


def check_identity(directory: str | os.PathLike, identity: Mapping[str, Any]) -> None:
  """Refuses to go on with the checkpoints of another run.

  Args:
    directory: A directory of checkpoints; may be empty.
    identity: Values that must not have changed since, by name.

  Raises:
    UserError: it names what differs.
  """
  step = find_latest_step(directory)
  if step is None:
    return
  path = _step_path(directory, step)
  saved = _read_metadata(path)['identity']
  for name in sorted({*saved, *identity}):
    if saved.get(name) != identity.get(name):
      raise errors.UserError(
          f'Checkpoint {path} was written with {name}={saved.get(name)!r}, now it is'
          f' {identity.get(name)!r}; go on with what it was begun with, or take another --workdir.'
      )


def restore_latest(
    checkpointer: ocp.training.Checkpointer, state: Any, batches: grain.DatasetIterator
) -> Any:
  """Returns the latest saved state and moves `batches` to its position.

  Without a checkpoint, returns `state` as it is.

  Args:
    checkpointer: The run's, of `open_checkpointer`.
    state: The initial state: structure, shapes, dtypes and shardings.
    batches: The run's iterator, moved in place.

  Raises:
    UserError: it cannot be read; names the checkpoint and the remedy.
  """
  latest = checkpointer.latest
  if latest is None:
    return state
  path = _step_path(checkpointer.directory, latest.step)
  position = _read_metadata(path)['data_position']
  try:
    loaded = checkpointer.load_checkpointables(latest.step, {'state': describe_arrays(state)})
  except _ORBAX_ERRORS as e:
    raise _unreadable_error(path, _find_root_cause(e)) from None
  batches.set_state({'next_index': position})
  return loaded['state']


def describe_arrays(tree: Any) -> Any:
  """Returns shapes, dtypes and shardings of a tree of arrays."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def find_latest_step(directory: str | os.PathLike) -> int | None:
  """Returns the last finished step of a checkpoint directory, or None."""
  return max(list_steps(directory), default=None)


def list_steps(directory: str | os.PathLike) -> list[int]:
  """Returns the finished steps of a checkpoint directory, in no order."""
  root = storage.absolute_path(directory)
  names = [path.name for path in root.iterdir()] if root.exists() else []
  return [int(name) for name in names if name.isdigit() and _is_finished(root / name)]


def _is_finished(path: epath.Path) -> bool:
  """A bucket has no rename; there a file says that a checkpoint is whole."""
  return not storage.is_remote(path) or (path / 'commit_success.txt').exists()


def load_latest_params(directory: str | os.PathLike, like: Any) -> Any:
  """Loads the parameters of the latest step.

  Args:
    directory: A directory of checkpoints.
    like: Shapes, dtypes and shardings of the parameters.

  Raises:
    UserError: no finished run there, or one of another student.
  """
  path = _step_path(directory, read_finished_identity(directory)['step'])
  metadata: Any = ocp.checkpointables_metadata(path).metadata
  saved = metadata['state']['params']
  shapes, wanted = _list_shapes(saved), _list_shapes(like)
  for name in sorted({*shapes, *wanted}):
    if shapes.get(name) != wanted.get(name):
      raise errors.UserError(
          f'{path} is of another student: {name} is {shapes.get(name)} there, here'
          f' {wanted.get(name)}; change config.student or config.vocab_multiple, or name another'
          ' directory.'
      )
  context = ocp.Context()
  context.pytree.loading.partial_load = True  # Leaves the moments on disk.
  with context:
    loaded = ocp.load_checkpointables(path, {'state': {'params': like}})
  return loaded['state']['params']


def _list_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Returns the shape of each leaf, named `blocks/q_DKGH`."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
      jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape for path, leaf in leaves
  }
