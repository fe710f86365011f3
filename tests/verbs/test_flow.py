"""From OpenCodeReasoning-2 rows to a report, by the commands a user types."""

import json
import os
import pathlib
import subprocess
import sys

from absl import flags
from ml_collections import config_flags
import pytest

from valley_jax import execute
from valley_jax import jsonl
from valley_jax import records
from valley_jax import report
from valley_jax import sample
from valley_jax import score
from valley_jax import shard
from valley_jax import train
from valley_jax.data.shards import shards

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / 'tests' / 'fixtures'
VERBS = {
    'shard': shard.shard,
    'train': train.train,
    'sample': sample.sample,
    'execute': execute.execute,
    'score': score.score,
    'report': report.report,
}
CONFIG = [
    f'--config={ROOT}/configs/valley.py:mini,num_traces=16',
    f'--config.traces=ocr2:{FIXTURES}/ocr2/python.jsonl',
    f'--config.questions={FIXTURES}/ocr2/questions',
    f'--config.problems=jsonl:{FIXTURES}/problems.jsonl',
    '--config.tokenizer=bpe:512',
    '--config.data.max_len=320',
    '--config.data.traces_per_shard=8',
    '--config.train.batch_size=4',
    '--config.train.epochs=2',
    '--config.train.loss_chunk_len=320',
    '--config.sample.num_samples=2',
    '--config.sample.max_new_tokens=32',
    '--config.sample.num_slots=8',
    '--config.num_bootstrap=100',
]
# Three programs for the three problems: right, wrong, and not a program.
PROGRAMS = [
    ('sum', 'print(sum(map(int, input().split())))', 'AC'),
    ('backwards', 'print(input())', 'WA'),
    ('largest', 'print(', 'CE'),
]

# ml_collections loads config files in a way that Python wants to remove.
loads_config = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


def _run_verb(verb, *arguments):
  subprocess.run(
      [sys.executable, '-m', f'valley_jax.{verb}', *arguments],
      check=True,
      timeout=250,
      cwd=ROOT,
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
  )


def _parse_config(arguments):
  """Returns the config that the command line stands for."""
  values = flags.FlagValues()
  config = config_flags.DEFINE_config_file(
      'config', flag_values=values, sys_argv=['verb', *arguments]
  )
  values(['verb', *arguments])
  return config.value


def _list_files(directory):
  return {
      str(path.relative_to(directory)): path
      for path in sorted(directory.rglob('*'))
      if path.is_file()
  }


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A workdir after all six verbs."""
  workdir = tmp_path_factory.mktemp('run')
  for verb in VERBS:
    _run_verb(verb, *CONFIG, f'--workdir={workdir}')
  return workdir


def test_every_file_of_the_flow_is_there(run):
  files = [*_list_files(run)]
  for name in [
      'shards/00000.array_record',
      'shards/manifest.json',
      'shards/quarantine.jsonl',
      'shards/tokenizer/tokenizer.json',
      'config.json',
      'metrics.jsonl',
      'completions.jsonl',
      'judgements.jsonl',
      'scores.json',
      'report.html',
      'report.md',
      'curve.json',
      'figures/curve.png',
  ]:
    assert name in files
  for folder in ('tensorboard/', 'tensorboard_report/', 'checkpoints/'):
    assert any(name.startswith(folder) for name in files)
  # Nothing half-made is left behind.
  assert not [name for name in files if '.tmp' in name]


def test_every_usable_trace_is_in_the_shards(run):
  data = shards.Shards(run / 'shards')
  assert len(data) == 24
  assert data.manifest['quarantined'] == 6


def test_training_goes_over_the_subset_and_learns(run):
  rows = list(jsonl.read_rows(run / 'metrics.jsonl', dict))
  assert [row['step'] for row in rows] == [*range(1, len(rows) + 1)]
  assert rows[-1]['loss'] < rows[0]['loss']
  assert [p.name for p in (run / 'checkpoints').iterdir()] == [str(len(rows))]


def test_each_problem_is_sampled_and_judged_num_samples_times(run):
  wanted = [(n, i) for n in ('sum', 'backwards', 'largest') for i in (0, 1)]
  completions = list(jsonl.read_rows(run / 'completions.jsonl', records.Completion))
  judgements = list(jsonl.read_rows(run / 'judgements.jsonl', records.Judgement))
  assert [*map(records.sample_key, completions)] == wanted
  assert [*map(records.sample_key, judgements)] == wanted


def test_the_scores_say_what_was_measured(run):
  scores = jsonl.read_json(run / 'scores.json')
  assert scores['num_traces'] == 16
  assert scores['seed'] == 0
  assert scores['num_problems'] == 3
  assert scores['num_samples'] == 2
  low, high = scores['pass_at_1_interval']
  assert 0 <= low <= scores['pass_at_1'] <= high <= 1
  assert 0 <= scores['completion_rate'] <= 1
  assert 0 <= scores['think_tag_rate'] <= 1
  assert 'valley.py:mini,num_traces=16' in scores['command']


def test_the_report_shows_every_figure(run):
  page = (run / 'report.html').read_text()
  figures = [path.stem for path in (run / 'figures').glob('*.png')]
  assert 'curve' in figures
  assert page.count('<svg') >= len(figures)
  assert 'think' in page


def test_the_config_that_ran_is_kept(run):
  kept = json.loads((run / 'config.json').read_text())
  assert kept['train']['batch_size'] == 4
  assert kept['num_traces'] == 16


@loads_config
def test_every_verb_run_again_changes_nothing(run):
  before = {name: path.read_bytes() for name, path in _list_files(run).items()}
  times = {name: path.stat().st_mtime_ns for name, path in _list_files(run).items()}
  typed = json.loads((run / 'scores.json').read_text())['command']
  for name, verb in VERBS.items():
    config = _parse_config(CONFIG).unlock()
    config.command = typed.replace('valley_jax.score', f'valley_jax.{name}')
    verb(config.lock(), str(run))
  after = _list_files(run)
  made_anew = {'scores.json', 'curve.json', 'report.html', 'report.md'}
  events = {n for n in {*before, *after} if n.startswith('tensorboard_report')}
  assert after.keys() - events == before.keys() - events
  for name in before.keys() - events:
    assert after[name].read_bytes() == before[name], name
    if name not in made_anew and not name.startswith('figures/'):
      assert after[name].stat().st_mtime_ns == times[name], name


def test_programs_from_elsewhere_are_judged_and_scored(tmp_path):
  jsonl.write_rows(
      tmp_path / 'programs.jsonl',
      [
          records.Submission(problem_id=name, sample_index=0, source=source)
          for name, source, _ in PROGRAMS
      ],
  )
  arguments = [
      '--config=configs/evaluate.py:mini',
      f'--config.problems=jsonl:{FIXTURES}/problems.jsonl',
      f'--config.submissions={tmp_path}/programs.jsonl',
      f'--workdir={tmp_path}',
  ]
  _run_verb('execute', *arguments)
  _run_verb('score', *arguments)
  rows = jsonl.read_rows(tmp_path / 'judgements.jsonl', records.Judgement)
  assert [row.verdict.value for row in rows] == [v for _, _, v in PROGRAMS]
  scores = jsonl.read_json(tmp_path / 'scores.json')
  assert scores['pass_at_1'] == pytest.approx(1 / 3)


@pytest.mark.long
@loads_config
def test_a_trained_student_writes_the_same_elsewhere(run, tmp_path):
  # In this process, on eight devices.
  arguments = [
      f'--config={ROOT}/configs/evaluate.py:mini,num_samples=2',
      f'--config.problems=jsonl:{FIXTURES}/problems.jsonl',
      f'--config.checkpoint={run}/checkpoints',
      f'--config.shards={run}/shards',
      '--config.sample.max_new_tokens=32',
      '--config.sample.num_slots=8',
  ]
  sample.sample(_parse_config(arguments), str(tmp_path))
  there, here = (
      list(jsonl.read_rows(path / 'completions.jsonl', records.Completion))
      for path in (run, tmp_path)
  )
  assert [row.tokens for row in here] == [row.tokens for row in there]
