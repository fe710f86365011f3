"""train ends with the same bits, however often it is killed on its way."""

import functools
import json
import shutil
import signal
import time
import warnings

import grain
import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp
import pytest

from tests import forked
from tests import tiny
from valley_jax import jsonl
from valley_jax import train
from valley_jax.models import parameters
from valley_jax.models import student as student_lib
from valley_jax.runtime import checkpoints

NUM_STEPS = 50


@pytest.fixture(scope='module')
def world(tiny_world, tmp_path_factory):
  path = tmp_path_factory.mktemp('world')
  tiny.link_world(tiny_world, path)
  return path


def _state(workdir, step):
  """The checkpoint of a step: all of its arrays, by name."""
  path = workdir / 'checkpoints' / str(step)
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Sharding info not provided')
    tree = ocp.load_checkpointables(path)['state']
  return {
      jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in jax.tree.leaves_with_path(tree)
  }


def _assert_same_bits(state, other):
  assert state.keys() == other.keys()
  for name, x in state.items():
    assert x.tobytes() == other[name].tobytes(), name


def _metrics(workdir):
  rows = list(jsonl.read_rows(workdir / 'metrics.jsonl', dict))
  speeds = {'step_seconds', 'num_slow_steps', 'supervised_tokens_per_second'}
  speeds |= {'tokens_per_second_per_chip'}
  return [{k: v for k, v in row.items() if k not in speeds} for row in rows]


# Killed, in programs of one device.


def _start_train(config, workdir, kill_at=forked.NEVER):
  # Compiled once for all of them.
  compiled = workdir.parent / 'compiled'
  return forked.start_verb('train', config.to_json(), workdir, kill_at, compiled)


def _wait(program):
  assert program.wait() in (0, -signal.SIGKILL), program.read_output()
  return program.returncode


def _steps_written(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


@pytest.fixture(scope='module')
def killed_and_not(world):
  """Workdirs of an interrupted and an uninterrupted run, and what was seen."""
  config = tiny.config(
      world, num_traces=10, train={'batch_size': 2, 'epochs': 10, 'checkpoint_every': 4}
  )
  killed, whole = world / 'killed', world / 'whole'
  assert _wait(_start_train(config, whole)) == 0
  latest = [checkpoints.find_latest_step(killed / 'checkpoints')]

  def see():
    latest.append(checkpoints.find_latest_step(killed / 'checkpoints'))

  # In the midst of the first save, so before there is a checkpoint.
  assert _wait(_start_train(config, killed, kill_at=12)) == -signal.SIGKILL
  see()
  # In the midst of a later save.
  assert _wait(_start_train(config, killed, kill_at=48)) == -signal.SIGKILL
  see()
  # In the midst of a step, wherever that is.
  process = _start_train(config, killed)
  while _steps_written(killed) < 20 and process.poll() is None:
    time.sleep(0.001)
  process.kill()
  assert _wait(process) == -signal.SIGKILL
  see()
  # A power cut may leave half a line, and half of a deleted checkpoint.
  with open(killed / 'metrics.jsonl', 'a') as f:
    f.write('{"step": 3')
  (killed / 'checkpoints/1/state').mkdir(parents=True)
  assert _wait(_start_train(config, killed)) == 0
  see()
  return killed, whole, latest


def test_the_kills_were_where_they_were_meant(killed_and_not):
  _, _, latest = killed_and_not
  assert latest[:2] == [None, None]
  assert 0 < latest[2] < latest[3] < NUM_STEPS
  assert latest[4] == NUM_STEPS


def test_resumed_equals_uninterrupted_bit_for_bit(killed_and_not):
  killed, whole, _ = killed_and_not
  _assert_same_bits(_state(killed, NUM_STEPS), _state(whole, NUM_STEPS))


def test_a_resumed_run_writes_every_step_once(killed_and_not):
  killed, whole, _ = killed_and_not
  rows = _metrics(killed)
  assert [row['step'] for row in rows] == list(range(1, NUM_STEPS + 1))
  assert rows == _metrics(whole)
  assert rows[-1]['loss'] < 0.7 * rows[0]['loss']


# In this program, on eight devices.

_EIGHT = {'mesh': {'data': 2, 'fsdp': 4}, 'train': {'epochs': 2}}


@pytest.fixture(scope='module')
def finished(world):
  """The workdir of a finished run of four steps; leave it as it is."""
  workdir = world / 'finished'
  train.train(tiny.config(world, **_EIGHT), str(workdir))
  return workdir


def _tree(workdir):
  return {
      str(path.relative_to(workdir)): (path.stat().st_mtime_ns, path.is_file())
      for path in workdir.rglob('*')
  }


def test_a_finished_run_does_nothing(world, finished, capsys):
  before = _tree(finished)
  train.train(tiny.config(world, **_EIGHT), str(finished))
  assert _tree(finished) == before
  assert 'is complete (3 steps)' in capsys.readouterr().out


def test_a_run_writes_what_ran(world, finished):
  config = json.loads((finished / 'config.json').read_text())
  assert config == json.loads(tiny.config(world, **_EIGHT).to_json())
  assert list((finished / 'tensorboard').glob('events.*'))
  assert set(_metrics(finished)[0]) == {
      'step', 'loss', 'loss_think', 'loss_answer', 'grad_norm',
      'learning_rate', 'fill',
  }  # fmt: skip


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'seed': 1}, 'config.seed=0, now it is 1'),
        ({'num_traces': 9}, 'config.num_traces=10, now it is 9'),
        ({'train': {'learning_rate': 1.0}}, 'config.train.learning_rate=0.002, now it is 1.0'),
        ({'train': {'epochs': 3}}, 'config.train.epochs=2, now it is 3'),
        ({'data': {'pack': 'best_fit'}}, "config.data.pack='none', now"),
    ],
)
def test_another_config_is_refused_and_leaves_no_trace(world, finished, changes, message):
  before = _tree(finished)
  config = tiny.config(world, **_EIGHT).unlock()
  config.update(changes)
  with pytest.raises(ValueError, match=f'{message}.*another --workdir'):
    train.train(config.lock(), str(finished))
  assert _tree(finished) == before


def test_other_data_is_refused(world, finished, tmp_path):
  tiny.write_world(tmp_path)
  manifest = jsonl.read_json(tmp_path / 'shards/manifest.json')
  manifest['template_sha256'] = 'another'
  jsonl.write_json(tmp_path / 'shards/manifest.json', manifest)
  config = tiny.config(world, **_EIGHT, shards=f'{tmp_path}/shards')
  with pytest.raises(ValueError, match="template_sha256=.*now it is 'another'"):
    train.train(config, str(finished))


def test_how_often_it_saves_may_change(world, finished):
  config = tiny.config(world, **_EIGHT).unlock()
  config.train.update(checkpoint_every=1, keep=3)
  train.train(config.lock(), str(finished))


def test_no_traces_save_the_initial_student(world, tmp_path):
  config = tiny.config(world, num_traces=0, **_EIGHT)
  train.train(config, str(tmp_path))
  state = _state(tmp_path, 0)
  assert state["['step']"] == 0
  with tiny.mesh(data=2, fsdp=4):
    student = student_lib.build_preset('mini', 300, config.vocab_multiple)
    initial = parameters.init_params(student, jax.random.key(config.seed))
  for name, x in jax.tree.leaves_with_path(initial):
    saved = state[f"['params']{jax.tree_util.keystr(name)}"]
    np.testing.assert_array_equal(saved, x)
  before = _tree(tmp_path)
  train.train(config, str(tmp_path))
  assert _tree(tmp_path) == before


def test_a_student_begins_where_another_ended(world, finished, tmp_path):
  init = f'checkpoint:{finished}/checkpoints'
  config = tiny.config(world, num_traces=0, init=init, **_EIGHT)
  train.train(config, str(tmp_path))
  state, ended = _state(tmp_path, 0), _state(finished, 3)
  params = {k: x for k, x in ended.items() if "['params']" in k}
  assert params
  _assert_same_bits({k: state[k] for k in params}, params)
  # Its parameters only: the optimiser and the count of steps begin anew.
  assert state["['step']"] == 0
  moments = [x for k, x in state.items() if "['mu']" in k]
  assert moments and not any(x.any() for x in moments)


def test_another_beginning_is_refused(world, finished):
  init = f'checkpoint:{finished}/checkpoints'
  config = tiny.config(world, **_EIGHT, init=init)
  with pytest.raises(ValueError, match="config.init='random', now it is 'chec"):
    train.train(config, str(finished))


def test_a_preset_of_other_sizes_is_refused(world, finished, tmp_path):
  init = f'checkpoint:{finished}/checkpoints'
  config = tiny.config(world, num_traces=0, init=init, student='qwen3_8b')
  with pytest.raises(ValueError, match='num_layers=4, not 36.*embed_dim=128'):
    train.train(config, str(tmp_path))


def test_a_student_of_fewer_tokens_is_refused(world, finished, tmp_path):
  manifest = jsonl.read_json(world / 'shards/manifest.json')
  shutil.copytree(world / 'shards', tmp_path / 'shards')
  manifest['vocab_size'] = 385
  jsonl.write_json(tmp_path / 'shards/manifest.json', manifest)
  init = f'checkpoint:{finished}/checkpoints'
  config = tiny.config(world, init=init, shards=f'{tmp_path}/shards')
  with pytest.raises(ValueError, match='has 385 tokens.* 384 rows'):
    train.train(config, str(tmp_path))


def test_examples_beyond_the_students_positions_are_refused(world, tmp_path):
  config = tiny.config(world).unlock()
  config.data.max_len = 40_000
  with pytest.raises(ValueError, match='max_len=40,000 is beyond the 32,768'):
    train.train(config.lock(), str(tmp_path))


@pytest.mark.parametrize(
    'init, message',
    [
        ('checkpoint:/nowhere', '/nowhere holds no checkpoint.*train'),
        ('zeros', "config.init='zeros': want hf:DIR.* or random"),
    ],
)
def test_no_student_to_begin_with_is_an_error(world, tmp_path, init, message):
  with pytest.raises(ValueError, match=message):
    train.train(tiny.config(world, init=init), str(tmp_path))


def test_a_checkpoint_is_the_state_of_its_step_though_training_goes_on(tmp_path):
  """Buffers are donated to the next step while the save still reads them."""

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state):
    return jax.tree.map(lambda x: x + 1, state)

  batches = iter(grain.MapDataset.range(100).to_iter_dataset())
  with tiny.mesh(data=2, fsdp=2, tp=2), checkpoints.open_checkpointer(tmp_path, keep=100) as saver:
    big = jax.device_put(np.zeros((1024, 2048), np.float32), jax.P('fsdp', 'tp'))
    state = {'step': jnp.zeros((), jnp.int32), 'big': big, 'more': big + 0}
    for n in range(1, 31):
      state = step(state)
      next(batches)
      if n % 10 == 0:
        checkpoints.save_checkpoint(saver, n, state, batches, {}, n)
  for n in (10, 20, 30):
    saved = _state(tmp_path, n)
    assert saved["['step']"] == n
    assert (saved["['big']"] == n).all()
    assert (saved["['more']"] == n).all()


def test_state_and_data_position_come_back_together(tmp_path):
  batches = iter(grain.MapDataset.range(9).to_iter_dataset())
  with checkpoints.open_checkpointer(tmp_path, keep=1) as saver:
    for n in range(4):
      next(batches)
      checkpoints.save_checkpoint(saver, n + 1, {'x': jnp.full(3, n)}, batches, {}, 9)
  assert checkpoints.find_latest_step(tmp_path / 'checkpoints') == 4
  assert len(list((tmp_path / 'checkpoints').iterdir())) == 1  # keep
  batches = iter(grain.MapDataset.range(9).to_iter_dataset())
  with checkpoints.open_checkpointer(tmp_path, keep=1) as saver:
    state = checkpoints.restore_latest(saver, {'x': jnp.zeros(3, int)}, batches)
  assert state['x'].tolist() == [3, 3, 3]
  assert next(batches) == 4


def test_a_checkpoint_moves_to_another_mesh(tmp_path):
  batches = iter(grain.MapDataset.range(9).to_iter_dataset())
  student = tiny.student()
  params = tiny.params(student)
  with tiny.mesh(data=2, fsdp=2, tp=2):
    with checkpoints.open_checkpointer(tmp_path, keep=1) as saver:
      checkpoints.save_checkpoint(saver, 1, tiny.put_params(student), batches, {}, 1)
  with tiny.mesh(fsdp=4):
    with checkpoints.open_checkpointer(tmp_path, keep=1) as saver:
      like = jax.tree.map(jnp.zeros_like, tiny.put_params(student))
      state = checkpoints.restore_latest(saver, like, batches)
  jax.tree.map(np.testing.assert_array_equal, state, params)
  assert state['embed_VD'].addressable_shards[0].data.shape == (10, 16)


def test_a_student_in_mid_training_is_not_one_to_sample(tmp_path):
  dataset = grain.MapDataset.range(9)
  with tiny.mesh():
    params = tiny.put_params(tiny.student())
    with checkpoints.open_checkpointer(tmp_path, keep=1) as saver:
      batches = iter(dataset.to_iter_dataset())
      checkpoints.save_checkpoint(saver, 3, {'params': params}, batches, {}, num_steps=9)
    with pytest.raises(ValueError, match='at step 3 of 9.*train'):
      checkpoints.load_latest_params(tmp_path / 'checkpoints', params)


def test_a_diverged_run_ends_with_its_step_and_a_remedy(world, tmp_path):
  config = tiny.config(world, num_traces=8).unlock()
  config.train.learning_rate = 1e38
  with pytest.raises(ValueError, match='Step .*diverged.*learning_rate'):
    train.train(config.lock(), str(tmp_path))
