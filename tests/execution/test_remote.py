"""Ray judges on many hosts as the pool does on one; here two hosts are on one machine."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import warnings

import pytest

from tests import judged
from valley_jax import jsonl
from valley_jax import records
from valley_jax.execution import judge
from valley_jax.execution import remote

ray = pytest.importorskip('ray')
from ray import cluster_utils  # noqa: E402

SETTINGS = judge.Settings(num_workers=1, cpu_seconds=2.0)
PROGRAMS = (judged.CONTROL, 'print(3)', '1 / 0', 'print(', judged.CONTROL)
PROBLEMS = (judged.build_problem(), judged.build_problem(('4 5', '9')))
# Ray's own: not closed sockets and files at its shutdown.
pytestmark = pytest.mark.filterwarnings('ignore')


def _add_node(cluster):
  node = cluster.add_node(num_cpus=1, wait=False)  # It would wait for 30 s.
  cluster.wait_for_nodes(timeout=200)
  return node


@pytest.fixture(scope='module')
def cluster():
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    cluster = cluster_utils.Cluster()
    for _ in range(2):
      _add_node(cluster)
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def _build_pairs(number: int, read: list[int] | None = None):
  for i in range(number):
    if read is not None:
      read.append(i)
    yield PROBLEMS[i % 2], records.Submission(
        problem_id='p', sample_index=i, source=PROGRAMS[i % len(PROGRAMS)]
    )


def _drop_measurements(row: records.Judgement) -> records.Judgement:
  """Returns the judgement without what was measured."""
  measured = ('cpu_seconds', 'wall_seconds', 'memory_mib', 'calibration')
  return records.replace(row, **dict.fromkeys(measured, 0.0))


def _find_actor_pids() -> set[int]:
  """Returns the processes of the actors that judge now."""
  pids = set()
  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    try:
      if path.read_bytes().startswith(b'ray::JudgeActor'):
        pids.add(int(path.parent.name))
    except OSError:
      continue  # It has just ended.
  return pids


def test_all_hosts_give_what_one_pool_gives_in_the_same_order(cluster):
  before = _find_actor_pids()
  rows = remote.judge_on_cluster(_build_pairs(40), SETTINGS, cluster.address)
  everything, actors = [], set()
  for row in rows:
    everything.append(row)
    actors |= _find_actor_pids() - before
  assert len(actors) == 2
  local = list(judge.judge_all(_build_pairs(10), SETTINGS))
  assert [row.sample_index for row in everything] == list(range(40))
  for row in everything:
    expected = local[row.sample_index % 10]
    expected = records.replace(expected, sample_index=row.sample_index)
    assert _drop_measurements(row) == _drop_measurements(expected)


@pytest.mark.long
def test_what_waits_is_bounded_and_nothing_stays_when_nobody_asks(cluster, monkeypatch):
  monkeypatch.setattr(remote, 'CLOSE_SECONDS', 100.0)
  read, before = [], _find_actor_pids()
  rows = remote.judge_on_cluster(_build_pairs(10_000, read), SETTINGS, cluster.address)
  next(rows)
  assert len(read) <= 2 * remote.NUM_IN_WINDOW * remote.PAIRS_PER_CORE
  for _ in range(remote.NUM_IN_FLIGHT * remote.PAIRS_PER_CORE):
    next(rows)  # Now both hosts are at work.
  actors = _find_actor_pids() - before
  rows.close()
  folder = pathlib.Path(tempfile.gettempdir())
  left = [path for pid in actors for path in folder.glob(f'valley_jax.{pid}.*')]
  assert len(actors) == 2 and not left


def test_large_tests_make_small_batches():
  test = records.TestCase(input='x' * (remote.MAX_BATCH_BYTES // 4))
  problems = [records.replace(PROBLEMS[0], tests=(test,)) for _ in range(9)]
  [[_, submission]] = _build_pairs(1)
  pairs = iter([(problem, submission) for problem in problems])
  sizes = []
  while batch := remote.take_batch(pairs, 99).submissions:
    sizes.append(len(batch))
  assert sizes == [4, 4, 1]


def test_a_problem_travels_once_a_batch():
  batch = remote.take_batch(_build_pairs(12), 99)
  assert len(batch.problems) == 2
  assert list(batch.decode_pairs()) == list(_build_pairs(12))


def test_an_error_is_the_one_of_the_local_pool(cluster):
  settings = judge.Settings(num_workers=1, waivers=('x',))
  with pytest.raises(ValueError, match='name no property'):
    list(remote.judge_on_cluster(_build_pairs(1), settings, cluster.address))


def test_another_version_on_a_host_is_refused():
  actor = remote.JudgeActor(SETTINGS, 'another')
  with pytest.raises(ValueError, match='another version'):
    actor.judge_batch(remote.take_batch(_build_pairs(1), 1))


def test_execute_judges_on_the_cluster_that_the_config_names(cluster, tmp_path):
  jsonl.write_rows(tmp_path / 'problems.jsonl', PROBLEMS[:1])
  rows = [submission for _, submission in _build_pairs(5)]
  jsonl.write_rows(tmp_path / 'programs.jsonl', rows)
  command = [sys.executable, '-m', 'valley_jax.execute', '--workdir', tmp_path]
  command += ['--config=configs/evaluate.py']
  command += [f'--config.problems=jsonl:{tmp_path}/problems.jsonl']
  command += [f'--config.submissions={tmp_path}/programs.jsonl']
  command += [f'--config.ray={cluster.address}', '--config.num_workers=1']
  root = pathlib.Path(__file__).parents[2]
  subprocess.run(command, cwd=root, check=True, timeout=250)
  found = jsonl.read_rows(tmp_path / 'judgements.jsonl', records.Judgement)
  assert [row.verdict.value for row in found] == ['AC', 'WA', 'RE', 'CE', 'AC']


@pytest.mark.long
@pytest.mark.parametrize('loss', ['of the actor', 'of the host'])
def test_a_loss_loses_no_judgement(cluster, loss):
  node = _add_node(cluster) if loss == 'of the host' else None
  before, rows = _find_actor_pids(), []
  for row in remote.judge_on_cluster(_build_pairs(60), SETTINGS, cluster.address):
    rows.append(row)
    if len(rows) == 1 and node:
      cluster.remove_node(node, allow_graceful=False)
    elif len(rows) == 1:
      os.kill(min(_find_actor_pids() - before), signal.SIGKILL)
  assert [row.sample_index for row in rows] == list(range(60))
  for row in rows:
    assert (row.verdict is records.Verdict.ACCEPTED) == (
        PROGRAMS[row.sample_index % 5] is judged.CONTROL
    )


def test_no_cluster_is_an_error_that_says_what_to_do():
  with pytest.raises(ValueError, match='ray start --head'):
    remote.connect_to_cluster(ray, '127.0.0.1:1')
