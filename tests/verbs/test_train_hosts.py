"""A run moves between one host and two, and can be told to go.

Real processes, over gloo. What is exact: the bits depend on the mesh and on the order in which
collectives add, not on who restores what. On two devices there is but one order, so one host of two
devices and two hosts of one do the same sums; that is what is tested here, bit for bit. On four
devices XLA's sums within a process and gloo's between processes differ in order.
"""

import functools

import pytest

from tests import tiny
from tests import train_program
from valley_jax.runtime import checkpoints
from valley_jax.runtime import hosts

NUM_STEPS = 12

# The run's own program, told to go as it opens metrics.jsonl, and then slow enough for the notice
# to reach jax.distributed, which looks every second, also on a machine that stalls.
_TOLD_TO_GO = """
import os, runpy, signal, sys, time

told = []

def watch(event, args):
  if event == 'open' and str(args[0]).endswith('metrics.jsonl') and not told:
    told.append(True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(8 if 'JAX_NUM_PROCESSES' in os.environ else 0)

sys.addaudithook(watch)
runpy.run_module('valley_jax.train', run_name='__main__', alter_sys=True)
"""


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The config, and the workdir of an uninterrupted run on one host."""
  world = tmp_path_factory.mktemp('hosts')
  tiny.write_world(world)
  config = train_program.write_config(
      world / 'config.py',
      tiny.config(
          world,
          num_traces=12,
          train={'batch_size': 4, 'epochs': 4, 'checkpoint_every': 1000},
          watch={
              'prompts': 4,
              'prompts_every': 6,
              'max_new_tokens': 8,
              'judge': True,  # By the first host.
          },
      ),
  )
  started = train_program.start(config, world / 'whole', devices=2)
  statuses, said = train_program.wait(started)
  assert statuses == [0], said
  return config, world / 'whole'


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('first, then', [(1, 2), (2, 1)])
def test_told_to_go_a_run_goes_on_with_other_hosts(whole, first, then):
  config, workdir = whole
  other = workdir.with_name(f'{first}_then_{then}')
  told = '-c', _TOLD_TO_GO  # Of two, the first only: it writes the metrics.
  statuses, said = train_program.wait(
      train_program.start(config, other, hosts=first, devices=2 // first, program=told)
  )
  assert statuses == [hosts.EXIT_STATUS] * first, said
  latest = checkpoints.find_latest_step(other / 'checkpoints')
  assert 0 < latest < NUM_STEPS
  assert f'saved at step {latest} of {NUM_STEPS}. Run the same command' in said
  statuses, said = train_program.wait(
      train_program.start(config, other, hosts=then, devices=2 // then)
  )
  assert statuses == [0] * then, said
  rows = train_program.metrics(other)
  assert [row['step'] for row in rows] == list(range(1, NUM_STEPS + 1))
  assert rows == train_program.metrics(workdir)
  looks = [row['step'] for row in rows if 'samples/pass@1' in row]
  assert looks == [6, 12]
  state = train_program.state(other, NUM_STEPS)
  expected = train_program.state(workdir, NUM_STEPS)
  assert state.keys() == expected.keys()
  wrong = [k for k in state if state[k].tobytes() != expected[k].tobytes()]
  assert not wrong, wrong


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_run_goes_on_with_four_hosts(whole, tmp_path):
  """The same data to the token, and the same losses but for rounding."""
  config, workdir = whole
  run = functools.partial(train_program.start, config, tmp_path / 'run')
  statuses, said = train_program.wait(run(devices=4, program=('-c', _TOLD_TO_GO)))
  assert statuses == [hosts.EXIT_STATUS], said
  done = checkpoints.find_latest_step(tmp_path / 'run' / 'checkpoints')
  assert 0 < done < NUM_STEPS
  statuses, said = train_program.wait(run(hosts=4, devices=1))
  assert statuses == [0] * 4, said
  rows = train_program.metrics(tmp_path / 'run')
  expected = train_program.metrics(workdir)
  for row, other in zip(rows, expected, strict=True):
    assert (row['step'], row['fill']) == (other['step'], other['fill'])
    assert row['loss'] == pytest.approx(other['loss'], rel=1e-4)
