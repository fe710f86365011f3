"""A world on disk is complete, marked as such, and written once."""

import collections
import subprocess
import sys

import pytest

from valley_jax import jsonl
from valley_jax import records
from valley_jax.mini import world

SIZES = {'num_base': 60, 'num_train': 40, 'num_eval': 20, 'num_careless': 10}
TRACES = ['base_traces', 'train_traces', 'careless_traces']
PROBLEMS = ['train_problems', 'problems']


def read_world_rows(directory, name):
  kind = records.Trace if name in TRACES else records.Problem
  return list(jsonl.read_rows(directory / f'{name}.jsonl', kind))


def read_change_times(directory):
  return {p.name: p.stat().st_mtime_ns for p in directory.iterdir()}


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('world')
  world.write_world(path, **SIZES, seed=3)
  return path


def test_every_file_holds_the_asked_number_of_records(directory):
  nums = {name: len(read_world_rows(directory, name)) for name in TRACES + PROBLEMS}
  assert list(nums.values()) == [60, 40, 10, 10, 20]


def test_both_teachers_traces_have_problems_to_judge_them_by(directory):
  problem_ids = [p.problem_id for p in read_world_rows(directory, 'train_problems')]
  careful = read_world_rows(directory, 'train_traces')
  careless = read_world_rows(directory, 'careless_traces')
  assert [t.problem_id for t in careful[:10]] == problem_ids
  assert [t.problem_id for t in careless] == problem_ids
  assert {t.teacher for t in careful} == {'careful'}
  assert {t.teacher for t in careless} == {'careless'}


def test_every_id_of_the_world_is_its_own(directory):
  ids = [t.trace_id for name in TRACES for t in read_world_rows(directory, name)]
  assert len(set(ids)) == len(ids)


def test_the_evaluation_is_balanced_and_asks_nothing_trained_on(directory):
  evaluation = read_world_rows(directory, 'problems')
  counts = collections.Counter(p.difficulty for p in evaluation)
  assert counts == {f'depth-{d}': 5 for d in (1, 2, 3, 4)}
  trained = {t.question for name in TRACES for t in read_world_rows(directory, name)}
  assert not trained & {p.statement for p in evaluation}


def test_a_second_call_writes_nothing(directory):
  before = read_change_times(directory)
  world.write_world(directory, **SIZES, seed=3)
  assert read_change_times(directory) == before


def test_an_unfinished_world_is_written_again_alike(directory, tmp_path):
  world.write_world(tmp_path, **SIZES, seed=3)
  rows = (tmp_path / 'problems.jsonl').read_bytes()
  (tmp_path / 'problems.jsonl').unlink()
  (tmp_path / world.SEAL).unlink()  # The seal comes last, so it is not there.
  world.write_world(tmp_path, **SIZES, seed=3)
  assert (tmp_path / 'problems.jsonl').read_bytes() == rows
  assert (directory / 'problems.jsonl').read_bytes() == rows


def test_a_world_of_other_settings_is_refused(directory):
  with pytest.raises(ValueError, match='choose another directory'):
    world.write_world(directory, **SIZES, seed=4)


def test_a_smaller_world_is_a_prefix_of_a_larger(directory, tmp_path):
  world.write_world(tmp_path, **SIZES | {'num_train': 25}, seed=3)
  for name in ('train_traces', 'careless_traces', 'train_problems'):
    small, large = read_world_rows(tmp_path, name), read_world_rows(directory, name)
    assert small == large[: len(small)]


def test_a_world_can_be_made_by_hand(directory, tmp_path):
  options = [f'--{name}={value}' for name, value in SIZES.items()]
  command = [sys.executable, '-m', 'valley_jax.mini.world', str(tmp_path)]
  subprocess.run(command + options + ['--seed=3'], check=True)
  assert read_world_rows(tmp_path, 'problems') == read_world_rows(directory, 'problems')
