"""`shard` writes the same bytes, whoever works and wherever it is killed."""

import json
import multiprocessing
import pathlib
import signal
import subprocess
import sys
import threading
import time

import ml_collections as mlc
import pytest

from configs import valley
from tests import marks
from valley_jax import errors
from valley_jax import records
from valley_jax import shard
from valley_jax.data.shards import building
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization

_HERE = pathlib.Path(__file__).parents[1]
_OCR2 = _HERE / 'fixtures' / 'ocr2'


def _config(num_workers=0):
  usual = valley.get_config()
  return mlc.ConfigDict(
      dict(
          traces=f'ocr2:{_OCR2}/python.jsonl',
          questions=str(_OCR2 / 'questions'),
          tokenizer='bpe:400',
          chat_template='',
          prompt='plain',
          data=dict(max_len=384, min_len=0, traces_per_shard=5, num_workers=num_workers),
          **{name: usual[name].to_dict() for name in ('filters', 'duplicates')},
          contamination={
              **usual.contamination.to_dict(),
              'problems': (f'jsonl:{_HERE}/fixtures/problems.jsonl',),
          },
      )
  ).lock()


def _files(workdir):
  """Returns the bytes of every file; hidden ones are scratch files."""
  return {
      str(path.relative_to(workdir)): path.read_bytes()
      for path in workdir.rglob('*')
      if path.is_file() and not path.name.startswith('.')
  }


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The files of an uninterrupted run."""
  workdir = tmp_path_factory.mktemp('whole')
  shard.shard(_config(), str(workdir))
  return _files(workdir)


def _program(name, *arguments):
  return [sys.executable, str(_HERE / name), *map(str, arguments)]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize('num_kills', marks.long_but_first([2, 20]))
def test_killed_at_any_point_it_ends_with_the_same_bytes(whole, tmp_path, num_kills):
  config = json.dumps(_config().to_dict())
  done = subprocess.run(
      _program('killed_shard.py', config, tmp_path, num_kills, 0), capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  runs = list(tmp_path.iterdir())
  assert len(runs) == num_kills + 2  # Two were not killed.
  for workdir in runs:
    assert _files(workdir) == whole, workdir


@pytest.mark.parametrize('num_workers', marks.long_but_first([2, 1, 4]))
def test_workers_write_the_bytes_of_one_process(whole, tmp_path, num_workers):
  shard.shard(_config(num_workers), str(tmp_path))
  assert _files(tmp_path) == whole


def _children(pid):
  return pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ('there', 'how'),
    [
        ('.decisions.jsonl.tmp', signal.SIGINT),  # They look at traces,
        pytest.param('.decisions.jsonl.tmp', signal.SIGKILL, marks=pytest.mark.long),
        pytest.param('00001.json', signal.SIGKILL, marks=pytest.mark.long),  # and tokenise.
    ],
)
def test_killed_above_its_workers_it_ends_with_the_same_bytes(whole, tmp_path, there, how):
  config = json.dumps(_config(num_workers=2).to_dict())
  never = str(10**9)
  running = subprocess.Popen(
      _program('kill_at.py', 'shard', config, tmp_path, never), stderr=subprocess.DEVNULL
  )
  # Two, and one of `multiprocessing` itself.
  while not (
      (tmp_path / 'shards' / there).exists() and len(workers := _children(running.pid)) == 3
  ):
    assert running.poll() is None
    time.sleep(0.002)
  running.send_signal(how)
  assert running.wait() != 0
  shard.shard(_config(), str(tmp_path))
  assert _files(tmp_path) == whole
  while any(pathlib.Path(f'/proc/{pid}').exists() for pid in workers):
    time.sleep(0.01)


def _kill_a_worker(once):
  while not (once.exists() and (children := multiprocessing.active_children())):
    time.sleep(0.01)
  children[0].kill()


@pytest.mark.parametrize('once', ['.decisions.jsonl.tmp', 'decisions.jsonl'])
def test_a_worker_that_dies_is_an_error_with_a_remedy(whole, tmp_path, once):
  path = tmp_path / 'shards' / once
  killer = threading.Thread(target=_kill_a_worker, args=(path,))
  killer.start()
  with pytest.raises(errors.UserError, match='workers of shard died.*num_workers'):
    shard.shard(_config(2), str(tmp_path))
  killer.join()
  is_decided = (tmp_path / 'shards' / 'decisions.jsonl').exists()
  assert is_decided == (once == 'decisions.jsonl')
  shard.shard(_config(), str(tmp_path))
  assert _files(tmp_path) == whole


def test_few_blocks_are_on_their_way(tmp_path):
  traces = [
      records.Trace(trace_id=str(i), problem_id='', question='a', response='b') for i in range(20)
  ]
  tokenization.train_bpe(tmp_path / 'tokenizer', traces, 270)
  settings = building.BlockSettings(
      directory=tmp_path,
      prompt=prompts.load_prompt('plain'),
      max_len=384,
      traces_per_shard=2,
      num_workers=1,
  )
  ended = []

  def feed():
    for i, trace in enumerate(traces):
      assert i // 2 - len(ended) <= 2  # One is worked at, one waits.
      yield trace

  building.write_blocks(settings, feed(), ended.append)
  assert ended == [2] * 10
