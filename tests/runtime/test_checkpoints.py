"""What is wrong with a disk is said in a line, with what to do about it."""

import resource
import signal

import grain
import jax.numpy as jnp
import numpy as np
import pytest

from valley_jax import errors
from valley_jax.runtime import checkpoints

NUM_STEPS = 9


def _state(n):
  # Random: zeros would be compressed to nothing.
  return {'x': jnp.asarray(np.random.default_rng(n).random(9999, np.float32))}


def _save(workdir, *steps, **policy):
  batches = iter(grain.MapDataset.range(NUM_STEPS).to_iter_dataset())
  policy = {'keep': 9, **policy}
  with checkpoints.open_checkpointer(workdir, **policy) as saver:
    for n in steps:
      checkpoints.save_checkpoint(saver, n, _state(n), batches, {'seed': 0}, NUM_STEPS)


def _restore(workdir):
  batches = iter(grain.MapDataset.range(NUM_STEPS).to_iter_dataset())
  with checkpoints.open_checkpointer(workdir, keep=9) as saver:
    return checkpoints.restore_latest(saver, _state(0), batches)['x']


@pytest.mark.parametrize(
    'policy, kept', [({'keep': 2}, [5, 6]), ({'keep': 2, 'keep_every': 3}, [3, 5, 6])]
)
def test_the_latest_stay_and_every_kth(tmp_path, policy, kept):
  _save(tmp_path, *range(1, 7), **policy)
  assert sorted(checkpoints.list_steps(tmp_path / 'checkpoints')) == kept


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.filterwarnings('ignore:coroutine:RuntimeWarning')
@pytest.mark.parametrize(
    'file, keep_bytes',
    [
        ('_CHECKPOINT_METADATA', 150),
        ('state/_METADATA', 0),
        ('state/manifest.ocdbt', None),  # Gone.
        ('state/ocdbt.process_0/d/*', 4000),
    ],
)
def test_a_torn_checkpoint_is_named_with_the_remedy(tmp_path, file, keep_bytes):
  _save(tmp_path, 1, 2)
  latest = tmp_path / 'checkpoints/2'
  for path in latest.glob(file):
    if keep_bytes is None:
      path.unlink()
    else:
      path.write_bytes(path.read_bytes()[:keep_bytes])
  with pytest.raises(errors.UserError, match='Remove that directory.*step 1') as e:
    checkpoints.check_identity(tmp_path / 'checkpoints', {'seed': 0})
    _restore(tmp_path)
  assert f'Checkpoint {latest} cannot be read' in str(e.value)
  latest.rename(tmp_path / 'elsewhere')  # The remedy.
  np.testing.assert_array_equal(_restore(tmp_path), _state(1)['x'])


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
@pytest.mark.parametrize('last', [2, 3])
def test_a_full_disk_is_said_and_loses_nothing(tmp_path, last):
  """Found in the background: by the next save, or by the end."""
  _save(tmp_path, 1)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
  try:
    with pytest.raises(ValueError, match='Step 1 is whole.*make room') as e:
      _save(tmp_path, *range(2, last + 1))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)
  assert 'File too large' in str(e.value)
  np.testing.assert_array_equal(_restore(tmp_path), _state(1)['x'])
  _save(tmp_path, 2)  # There is room again.
  np.testing.assert_array_equal(_restore(tmp_path), _state(2)['x'])
