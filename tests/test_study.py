"""A study ends the same, however often it was killed on its way."""

import json
import os
import pathlib
import subprocess
import sys

import ml_collections as mlc
import pytest

from configs import valley
from valley_jax import records
from valley_jax import study

_KILL_AT = pathlib.Path(__file__).with_name('kill_at.py')
_MEASURED = ('cpu_seconds', 'wall_seconds', 'memory_mib', 'calibration')


def _config():
  config = valley.get_config('mini').unlock()
  config.study.sizes = (0, 8)
  config.study.mini.update(
      num_base=24, num_problems=8, num_judged=4, vocab_size=400
  )
  config.train.update(epochs=1, checkpoint_every=1)
  config.sample.update(max_new_tokens=24, num_slots=8, prefill_tokens=512)
  config.num_bootstrap = 100
  return config.to_json()


def _run(workdir, kill_at):
  return subprocess.run(
      [sys.executable, _KILL_AT, 'study', _config(), workdir, str(kill_at)],
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
      capture_output=True,
      text=True,
  )


def _results(workdir):
  """Returns what a study found: all but times and file system order."""
  found = {}
  for path in sorted(workdir.rglob('*')):
    name = str(path.relative_to(workdir))
    if path.name == 'judgements.jsonl':
      rows = list(records.read_rows(path, dict))
      found[name] = [
          {k: v for k, v in row.items() if k not in _MEASURED} for row in rows
      ]
    elif path.name == 'metrics.jsonl':
      rows = records.read_rows(path, dict)
      found[name] = [(row['step'], row['loss']) for row in rows]
    elif path.name in ('completions.jsonl', 'traces.jsonl', 'curve.json'):
      found[name] = path.read_bytes()
    elif path.name == 'scores.json':
      found[name] = json.loads(path.read_bytes())
      del found[name]['calibration']
  return found


def test_the_base_student_learns_all_of_itself(tmp_path, monkeypatch):
  ran = []

  class Clock:

    def run(self, verb, config, where):
      ran.append((verb.__name__, config.train.lora_rank))

  monkeypatch.setattr(study, '_judge_teacher', lambda *_: None)
  config = mlc.ConfigDict(json.loads(_config()))
  config.train.lora_rank = 4
  learner = study._make_world(config, tmp_path, Clock())
  assert ran == [('shard', 0), ('train', 0)]
  assert learner.train.lora_rank == 4


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  # Paths are part of what a run is; so both studies run under one name.
  workdir = tmp_path_factory.mktemp('whole') / 'study'
  done = _run(str(workdir), 10**9)
  assert done.returncode == 0, done.stderr
  return workdir


def test_a_study_makes_every_file_of_the_flow(uninterrupted):
  found = _results(uninterrupted)
  for run in ('runs/n00000_s0', 'runs/n00008_s0'):
    for name in ('completions.jsonl', 'judgements.jsonl', 'scores.json'):
      assert f'{run}/{name}' in found
  assert found['runs/n00008_s0/scores.json']['num_traces'] == 8
  assert (uninterrupted / 'report.html').exists()


def test_teachers_are_labelled_by_execution(uninterrupted):
  path = uninterrupted / 'teachers' / 'careful' / 'traces.jsonl'
  labels = [t.is_correct for t in records.read_rows(path, records.Trace)]
  assert [x for x in labels if x is not None] == [True] * 4
  assert len(labels) > 4  # The others' problems have no tests.


def test_a_study_killed_again_and_again_ends_the_same(uninterrupted, tmp_path):
  workdir = tmp_path / 'study'
  for kill_at in (60, 130):
    killed = _run(str(workdir), kill_at)
    assert killed.returncode == -9, killed.stderr
  assert _run(str(workdir), 10**9).returncode == 0
  found, wanted = _results(workdir), _results(uninterrupted)
  assert found == wanted
