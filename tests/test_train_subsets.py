"""train takes the subset that the config names, and says which it was."""

import re

import numpy as np
import pytest
import tiny

from valley_jax import records
from valley_jax import train
from valley_jax.data import corpus

_SUBSETS = {
    'short': ({'where': 'num_tokens', 'most': 44}, {'random': 4}),
    'some': ({'random': 4},),
}


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  path = tmp_path_factory.mktemp('world')
  tiny.write_world(path)
  return path


def _config(world, **changes):
  changes = {'num_traces': -1, 'subset': 'short', **changes}
  return tiny.config(world, **changes, subsets=_SUBSETS)


@pytest.fixture(scope='module')
def run(world):
  workdir = world / 'run'
  train.train(_config(world, train={'epochs': 1}), str(workdir))
  return workdir


def _corpus(config):
  return train.corpus_of(config, train.shards_of(config, ''), '')


def test_a_run_says_what_it_was_trained_on(world, run):
  made = records.read_json(run / 'subset.json')
  assert made['subset'] == 'short' and made['num_traces'] == 4
  assert made['ids'] == corpus.read_ids(run / 'subset.json')
  assert made['selections'] == [
      {'where': 'num_tokens', 'most': 44},
      {'random': 4},
  ]
  assert max(map(int, re.findall(r'le_(\d+)', str(made['lengths'])))) <= 64


def test_it_goes_on_with_no_other_subset(world, run):
  before = (run / 'subset.json').read_bytes()
  for changes in ({'subset': 'some'}, {'subset': '', 'num_traces': 4}):
    config = _config(world, train={'epochs': 1}, **changes)
    with pytest.raises(ValueError, match='another --workdir'):
      train.train(config, str(run))
  assert (run / 'subset.json').read_bytes() == before


def test_a_subset_of_the_same_name_but_other_traces_is_refused(world, run):
  config = _config(world, train={'epochs': 1}).unlock()
  config.subsets.short = ({'random': 3},)
  with pytest.raises(ValueError, match='subset_sha256=.*another --workdir'):
    train.train(config.lock(), str(run))


def test_it_is_trained_on_the_traces_of_the_subset(world, run):
  config = _config(world)
  shards = train.shards_of(config, '')
  rows = _corpus(config).rows
  assert [shards.ids[row] for row in rows] == corpus.read_ids(
      run / 'subset.json'
  )
  with tiny.mesh():
    batches, _ = train._batches(config, shards, rows)
  found = {row.tobytes() for row in batches[0]['inputs'][0] if row.any()}
  inputs = [example.tokens[:-1] for example in shards.read(rows)]
  assert found == {np.pad(x, (0, 64 - len(x))).tobytes() for x in inputs}


def _batches(config):
  rows = _corpus(config).rows
  with tiny.mesh():
    return train._batches(config, train.shards_of(config, ''), rows)[0]


def test_fewer_traces_may_take_as_many_steps_as_more(world):
  def batches(num_traces, steps_of=0):
    fields = {'epochs': 3, 'batch_size': 2, 'steps_of': steps_of}
    changes = {'subset': '', 'num_traces': num_traces, 'train': fields}
    return _batches(_config(world, **changes))

  few, more, fixed = batches(4), batches(10), batches(4, steps_of=10)
  assert [len(few), len(more), len(fixed)] == [6, 15, 15]
  # It begins as it would without; but no batch is filled up at an end.
  for i in range(6):
    for name, x in few[i].items():
      np.testing.assert_array_equal(fixed[i][name], x)
  assert all(row.any() for i in range(15) for row in fixed[i]['weights'][0])


def test_steps_of_traces_that_are_not_there_are_refused(world):
  changes = {'subset': '', 'num_traces': 4, 'train': {'steps_of': 13}}
  with pytest.raises(ValueError, match='train.steps_of=13, but .* hold 12'):
    _batches(_config(world, **changes))


def test_the_untrained_student_takes_no_steps_of_others(world):
  changes = {'num_traces': 0, 'train': {'steps_of': 10}}
  assert len(_batches(_config(world, **changes))) == 0
