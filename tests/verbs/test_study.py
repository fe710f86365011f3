"""A study ends the same, however often it was killed on its way."""

import json
import pathlib
import shlex

import ml_collections as mlc
import pytest

from configs import valley
from tests import forked
from tests import tiny
from valley_jax import jsonl
from valley_jax import records
from valley_jax import study

_MEASURED = ('cpu_seconds', 'wall_seconds', 'memory_mib', 'calibration')


def _make_config():
  config = valley.get_config('mini').unlock()
  config.study.sizes = (0,)
  config.study.subsets = ('hard_8', 'easy_8')
  config.subsets = {
      name.replace('1k', '8'): (where, {'random': 8}) for name, (where, _) in config.subsets.items()
  }
  config.study.mini.update(num_base=24, num_problems=8, num_judged=4, vocab_size=400)
  config.train.update(epochs=1, checkpoint_every=1)
  config.sample.update(max_new_tokens=24, num_slots=8, prefill_tokens=512)
  config.num_bootstrap = 100
  return config.to_json()


def _start_study(workdir, kill_at=forked.NEVER):
  return forked.start_verb('study', _make_config(), workdir, kill_at)


def _read_results(workdir):
  """Returns the results of a study: all but times and file system order."""
  results = {}
  for path in sorted(workdir.rglob('*')):
    name = str(path.relative_to(workdir))
    if path.name == 'judgements.jsonl':
      rows = list(jsonl.read_rows(path, dict))
      results[name] = [{k: v for k, v in row.items() if k not in _MEASURED} for row in rows]
    elif path.name == 'metrics.jsonl':
      rows = jsonl.read_rows(path, dict)
      results[name] = [(row['step'], row['loss']) for row in rows]
    elif path.name in ('completions.jsonl', 'traces.jsonl', 'subsets.json'):
      results[name] = path.read_bytes()
    elif path.name == 'scores.json':
      results[name] = json.loads(path.read_bytes())
      del results[name]['calibration']
  return results


def test_the_base_student_learns_all_of_itself(tmp_path, monkeypatch):
  ran = []

  class Clock:

    def run_verb(self, verb, config, workdir):
      ran.append((verb.__name__, config.train.lora_rank))

  monkeypatch.setattr(study, 'judge_teacher', lambda *_: None)
  config = mlc.ConfigDict(json.loads(_make_config()))
  config.train.lora_rank = 4
  learner = study.make_world(config, tmp_path, Clock())
  assert ran == [('shard', 0), ('train', 0)]
  assert learner.train.lora_rank == 4


def _plan_runs(command='', **grid):
  config = mlc.ConfigDict(json.loads(_make_config()))
  config.command = command
  config.study.update(grid)
  return list(study.plan_runs(config.lock(), pathlib.Path('/s')))


def test_every_size_and_every_subset_is_run_with_every_seed():
  points = _plan_runs(sizes=(8, 0), subsets=('hard_8',), seeds=(3, 4))
  assert [(str(run), c.subset, c.num_traces, c.seed) for c, run in points] == [
      ('/s/runs/n00000_s3', '', 0, 3),
      ('/s/runs/n00008_s3', '', 8, 3),
      ('/s/runs/n00008_s4', '', 8, 4),
      ('/s/runs/hard_8_s3', 'hard_8', -1, 3),
      ('/s/runs/hard_8_s4', 'hard_8', -1, 4),
  ]


def test_the_command_of_a_run_makes_that_run_alone():
  typed = ['python', '--config.study.sizes=(0, 8)', '--config.study.seeds']
  typed += ['(0, 1)', "--config.study.subsets=('hard_8',)", '--config.seed=5']
  points = _plan_runs(shlex.join(typed), sizes=(8,), subsets=('hard_8',))
  assert [shlex.split(point.command) for point, _ in points] == [
      [
          'python',
          '--config.seed=5',
          f'--config.study.sizes={sizes}',
          f'--config.study.subsets={subsets}',
          '--config.study.seeds=(0,)',
      ]
      for sizes, subsets in (((8,), ()), ((), ('hard_8',)))
  ]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'study.subsets': ('hard_8', 'x')}, r"names \['x'\]; config.subsets"),
        ({'subset': 'hard_8'}, r"config.study.subsets=\('hard_8',\)"),
    ],
)
def test_a_wrong_subset_is_refused_before_anything_is_written(tmp_path, changes, message):
  config = mlc.ConfigDict(json.loads(_make_config()))
  config.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=message):
    study.study(config, str(tmp_path))
  assert not [*tmp_path.iterdir()]


def test_a_subset_that_lacks_traces_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
  tiny.write_world(tmp_path)
  monkeypatch.setattr(study.train, 'train', lambda *_: pytest.fail('trained'))
  subsets = {'few': ({'random': 2},), 'many': ({'random': 13},)}
  grid = {'world': '', 'sizes': (0, 4), 'subsets': ('few', 'many')}
  config = tiny.config(tmp_path, subsets=subsets, study=grid)
  with pytest.raises(ValueError, match="'many'.*13 of 12 traces"):
    study.study(config, str(tmp_path))


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  # Paths are part of what a run is; so both studies run under one name.
  workdir = tmp_path_factory.mktemp('whole') / 'study'
  program = _start_study(workdir)
  assert program.wait() == 0, program.read_output()
  return workdir


def test_a_study_makes_every_file_of_the_flow(uninterrupted):
  results = _read_results(uninterrupted)
  for run in ('runs/n00000_s0', 'runs/hard_8_s0', 'runs/easy_8_s0'):
    for name in ('completions.jsonl', 'judgements.jsonl', 'scores.json'):
      assert f'{run}/{name}' in results
  assert (uninterrupted / 'report.html').exists()


def test_two_subsets_of_one_size_are_two_runs_and_compared(uninterrupted):
  runs = uninterrupted / 'runs'
  for name in ('hard_8', 'easy_8'):
    scores = jsonl.read_json(runs / f'{name}_s0' / 'scores.json')
    assert (scores['subset'], scores['num_traces']) == (name, 8)
    manifest = jsonl.read_json(runs / f'{name}_s0' / 'subset.json')
    assert scores['subset_sha256'] == manifest['ids_sha256']
    assert manifest['difficulty'] == {name.removesuffix('_8'): 8}
  compared = jsonl.read_json(uninterrupted / 'subsets.json')['all']
  (pair,) = compared['pairs']
  assert (pair['name'], pair['other']) == ('hard_8', 'easy_8')


def test_teachers_are_labelled_by_execution(uninterrupted):
  path = uninterrupted / 'teachers' / 'careful' / 'traces.jsonl'
  labels = [t.is_correct for t in jsonl.read_rows(path, records.Trace)]
  assert [x for x in labels if x is not None] == [True] * 4
  assert len(labels) > 4  # The others' problems have no tests.


@pytest.mark.long
def test_a_study_killed_again_and_again_ends_the_same(uninterrupted, tmp_path):
  workdir = tmp_path / 'study'
  for kill_at in (60, 130):
    killed = _start_study(workdir, kill_at)
    assert killed.wait() == -9, killed.read_output()
  assert _start_study(workdir).wait() == 0
  results, wanted = _read_results(workdir), _read_results(uninterrupted)
  assert results == wanted
