"""A program is not judged twice under the same conditions."""

import pathlib
import sqlite3
import subprocess
import sys
import threading

import pytest

from tests import judged
from valley_jax import records
from valley_jax.execution import cache as cache_lib
from valley_jax.execution import judge
from valley_jax.execution.confinement import cgroups
from valley_jax.execution.confinement import isolation as isolation_lib

# Tells two executions of one program apart: its output is never the same.
RANDOM = 'import os\nprint(os.urandom(8).hex())'


def _judge_with_cache(directory, source=RANDOM, p=None, **settings):
  p = p or judged.build_problem(('', 'x'))
  return judged.judge_program(p, source, cache_dir=str(directory), **settings)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('cache')
  _judge_with_cache(directory)
  return directory


def _count_rows(directory) -> int:
  database = sqlite3.connect(directory / 'judgements.sqlite')
  count = database.execute('SELECT COUNT(*) FROM judgements').fetchone()[0]
  database.close()
  return count


def test_the_second_judgement_is_the_first(directory):
  before = _count_rows(directory)
  first, second = _judge_with_cache(directory), _judge_with_cache(directory)
  assert first == second
  assert _count_rows(directory) == before == 1


def test_the_key_is_that_of_the_sample_that_asks(directory):
  p = judged.build_problem(('', 'x'))
  s = records.Submission(problem_id='p', sample_index=7, source=RANDOM)
  settings = judge.Settings(cpu_seconds=1.0, cache_dir=str(directory))
  [row] = judge.judge_all([(p, s)], settings)
  assert row.sample_index == 7
  assert _count_rows(directory) == 1


CHANGES = {
    'source': {'source': RANDOM + '\n'},
    'tests': {'p': judged.build_problem(('1', 'x'))},
    'checker': {'p': judged.build_problem(('', 'x'), checker='exact')},
    'limits': {'cpu_seconds': 2.0},
    'profile': {'profile': records.Profile.LCB_COMPAT},
    'tier': {'tier': 'T1'},
    'all tests': {'stop_at_failure': False},
}


@pytest.mark.parametrize('name', CHANGES)
def test_another_condition_is_judged_anew(tmp_path, name):
  _judge_with_cache(tmp_path)
  _judge_with_cache(tmp_path, **CHANGES[name])
  assert _count_rows(tmp_path) == 2


def test_another_engine_is_another_key(tmp_path, monkeypatch):
  _judge_with_cache(tmp_path)
  monkeypatch.setattr(cache_lib, 'describe_engine', lambda: 'another')
  _judge_with_cache(tmp_path)
  assert _count_rows(tmp_path) == 2


def test_our_failures_are_not_kept(tmp_path):
  crash = records.Program(
      language='python',
      files={'interactor.py': 'raise SystemExit(5)'},
      protocol=records.Protocol.KATTIS,
  )
  p = judged.build_problem(('', 'x'), mode=records.Mode.INTERACTIVE, program=crash)
  row = _judge_with_cache(tmp_path, p=p)
  assert row.verdict is records.Verdict.INTERNAL_ERROR
  assert _count_rows(tmp_path) == 0


def test_a_file_that_is_no_cache_is_named(tmp_path):
  (tmp_path / 'judgements.sqlite').write_text('hello, world' * 100)
  with pytest.raises(ValueError, match='judgements.sqlite.*Remove it'):
    _judge_with_cache(tmp_path)


def test_two_judges_share_a_directory(tmp_path):
  rows = []
  threads = [
      threading.Thread(target=lambda: rows.append(_judge_with_cache(tmp_path))) for _ in range(2)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [row.verdict.value for row in rows] == ['WA', 'WA']
  assert _count_rows(tmp_path) == 1


def test_binaries_are_kept_by_hash(tmp_path):
  source = '#include <stdio.h>\nint main() { puts("x"); }\n'
  first = _judge_with_cache(tmp_path, source=source, language='c')
  [binary] = (tmp_path / 'binaries').iterdir()
  stamp = binary.stat().st_mtime_ns
  other = judged.build_problem(('', 'y'))
  second = _judge_with_cache(tmp_path, source=source, p=other, language='c')
  assert (first.verdict.value, second.verdict.value) == ('AC', 'WA')
  assert [b.stat().st_mtime_ns for b in (tmp_path / 'binaries').iterdir()] == [stamp]


def test_a_quota_leaves_whole_cores_only(tmp_path, monkeypatch):
  monkeypatch.setattr(cgroups, 'ROOT', tmp_path)
  own = tmp_path / 'a' / 'b'
  own.mkdir(parents=True)
  monkeypatch.setattr(cgroups, 'find_own_groups', lambda: {'': own})
  assert cgroups.count_whole_cores(8) == 8
  (own / 'cpu.max').write_text('max 100000')
  assert cgroups.count_whole_cores(8) == 8
  (tmp_path / 'a' / 'cpu.max').write_text('250000 100000')
  assert cgroups.count_whole_cores(8) == 2
  (own / 'cpu.max').write_text('50000 100000')
  assert cgroups.count_whole_cores(8) == 1


def test_what_a_killed_pool_left_is_removed_by_the_next(tmp_path, monkeypatch):
  monkeypatch.setattr(isolation_lib.tempfile, 'tempdir', str(tmp_path))
  done = subprocess.run([sys.executable, '-c', 'import os; print(os.getpid())'],
                        capture_output=True, check=True)  # fmt: skip
  stale = tmp_path / f'valley_jax.{int(done.stdout)}.x' / 'pch'
  stale.mkdir(parents=True)
  alive = tmp_path / 'valley_jax.1.x'
  alive.mkdir()
  isolation_lib.prepare_isolation().close()
  assert [path.name for path in pathlib.Path(tmp_path).iterdir()] == [alive.name]


def test_a_pool_may_end_while_another_begins(tmp_path, monkeypatch):
  monkeypatch.setattr(isolation_lib.tempfile, 'tempdir', str(tmp_path))
  (tmp_path / 'valley_jax.1.x').mkdir()
  seen = pathlib.Path.glob

  def glob(path, pattern):
    found = list(seen(path, pattern))
    if path == tmp_path:  # The other one removes its own just now.
      (tmp_path / 'valley_jax.1.x').rmdir()
    return iter(found)

  monkeypatch.setattr(pathlib.Path, 'glob', glob)
  isolation_lib.prepare_isolation().close()
