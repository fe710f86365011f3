"""Killed at random moments, training ends with the same bits."""

import pathlib
import random
import signal

import pytest

from tests import tiny
from tests import train_program

pytestmark = pytest.mark.long  # test_train_verb.py kills three times.
NUM_STEPS = 150


def _draw_moments(num_kills: int) -> list[tuple[int, float]]:
  """Draws file operations and seconds after them; operation 0 is the program's start."""
  rng = random.Random(0)
  during_startup = [(0, rng.uniform(0, 3)) for _ in range(num_kills // 5)]
  # A save is some twenty operations: these fall into saves,
  moments = [(rng.randrange(1, 50), 0.0) for _ in range(num_kills // 2)]
  # and these between them, or into the end of one.
  while len(moments) + len(during_startup) < num_kills:
    moments.append((rng.randrange(1, 50), rng.uniform(0, 0.03)))
  moments += during_startup
  rng.shuffle(moments)
  return moments


@pytest.fixture(scope='module')
def killed_and_not(tmp_path_factory):
  """Workdirs of a run that is killed this many times, and of an uninterrupted one."""
  world = tmp_path_factory.mktemp('killed')
  tiny.write_world(world)
  config = train_program.write_config(
      world / 'config.py',
      tiny.config(world, train={'batch_size': 2, 'epochs': 30, 'checkpoint_every': 3}),
  )
  killed, whole = world / 'killed', world / 'whole'
  statuses, said = train_program.wait(train_program.start(config, whole))
  assert statuses == [0], said
  program = pathlib.Path(__file__).parents[1] / 'killed_train.py'
  for operation, seconds in _draw_moments(20):
    moment = program, str(operation), str(seconds)
    statuses, said = train_program.wait(train_program.start(config, killed, program=moment))
    assert statuses == [-signal.SIGKILL], said
  statuses, said = train_program.wait(train_program.start(config, killed))
  assert statuses == [0], said
  return killed, whole


@pytest.mark.timeout(1800)
def test_parameters_and_moments_are_the_same_bits(killed_and_not):
  killed, whole = (train_program.state(w, NUM_STEPS) for w in killed_and_not)
  assert killed.keys() == whole.keys()
  assert [k for k in whole if killed[k].tobytes() != whole[k].tobytes()] == []


def test_every_step_is_written_once_with_the_same_loss(killed_and_not):
  killed, whole = map(train_program.metrics, killed_and_not)
  assert [row['step'] for row in killed] == list(range(1, NUM_STEPS + 1))
  assert killed == whole
