"""train takes the subset that the config names, and says which it was."""

import dataclasses
import re

import numpy as np
import pytest

from tests import tiny
from valley_jax import jsonl
from valley_jax import train
from valley_jax.data.subsets import corpus

_SUBSETS = {'short': ({'where': 'num_tokens', 'most': 44}, {'random': 4}), 'some': ({'random': 4},)}


@pytest.fixture(scope='module')
def world(tiny_world, tmp_path_factory):
  path = tmp_path_factory.mktemp('world')
  tiny.link_world(tiny_world, path)
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
  return train.choose_corpus(config, train.open_shards(config, ''), '')


def test_a_run_says_what_it_was_trained_on(world, run):
  made = jsonl.read_json(run / 'subset.json')
  assert made['subset'] == 'short' and made['num_traces'] == 4
  assert made['ids'] == corpus.read_manifest_ids(run / 'subset.json')
  assert made['selections'] == [{'where': 'num_tokens', 'most': 44}, {'random': 4}]
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
  shards = train.open_shards(config, '')
  found = _corpus(config)
  rows = found.rows
  assert [shards.ids[row] for row in rows] == corpus.read_manifest_ids(run / 'subset.json')
  with tiny.mesh():
    batches, _ = train.plan_batches(config, shards, found)
  found = {row.tobytes() for row in batches[0]['inputs'][0] if row.any()}
  inputs = [example.tokens[:-1] for example in shards.read_examples(rows)]
  assert found == {np.pad(x, (0, 64 - len(x))).tobytes() for x in inputs}


def _batches(config):
  found = _corpus(config)
  with tiny.mesh():
    return train.plan_batches(config, train.open_shards(config, ''), found)[0]


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


_PHASED = {
    'a': ({'where': 'problem_ids', 'among': [f'p{i}' for i in range(6)]},),
    'b': ({'where': 'problem_ids', 'none_of': [f'p{i}' for i in range(6)]},),
    'early': ({'mixture': {'a': 2, 'b': 1}, 'size': 3},),
    'late': ({'mixture': {'a': 1, 'b': 2}, 'size': 3},),
    'rising': ({'phases': ('early', 'late')},),
}


def _phased(world, **changes):
  return tiny.config(
      world,
      subset='rising',
      num_traces=-1,
      subsets=_PHASED,
      train={'epochs': 3, 'batch_size': 2, **changes},
  )


def test_training_goes_through_all_epochs_of_a_phase_before_the_next(world):
  config = _phased(world)
  shards = train.open_shards(config, '')
  found = _corpus(config)
  batches = _batches(config)
  name_of = {
      example.tokens[:-1].tobytes(): shards.ids[row]
      for row, example in zip(found.rows, shards.read_examples(found.rows), strict=True)
  }
  seen = [
      name_of[inputs[segments > 0].tobytes()]
      for i in range(len(batches))
      for inputs, segments in zip(batches[i]['inputs'][0], batches[i]['segments'][0], strict=True)
  ]
  ids = found.manifest['ids']
  assert len(seen) == 18 and found.manifest['phases'] == [3, 3]
  for epoch in range(3):
    assert set(seen[3 * epoch : 3 * epoch + 3]) == set(ids[:3])
    assert set(seen[9 + 3 * epoch : 12 + 3 * epoch]) == set(ids[3:])


def test_phases_that_a_fixed_number_of_steps_would_cut_are_refused(world):
  with pytest.raises(ValueError, match='cut off the last of the 2 phases'):
    _batches(_phased(world, steps_of=12))


def test_a_run_is_not_gone_on_with_in_other_phases(world):
  config = _phased(world)
  shards, found = train.open_shards(config, ''), _corpus(config)
  student = tiny.student()
  whole = train.describe_identity(config, shards, found, student)
  other = dataclasses.replace(found, phases=(2, 4))
  assert whole != train.describe_identity(config, shards, other, student)
