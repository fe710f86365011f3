"""sample writes the same bytes, whoever draws and however often it dies."""

import random

import pytest

from tests import forked
from tests import marks
from tests import tiny
from tests import train_program
from valley_jax import jsonl
from valley_jax import records
from valley_jax import sample


def _config(world, **changes):
  config = tiny.config(world, num_traces=0).unlock()
  config.checkpoint = f'{world}/student/checkpoints'
  config.sample.update(
      num_samples=3,
      temperature=1.0,
      chunk_len=4,
      # Of the 18 samples some outgrow the first stage, and a few the second.
      stages=(64, 128),
      max_new_tokens=96,
      **changes,
  )
  return config.lock()


@pytest.fixture(scope='module')
def world(tiny_student, tmp_path_factory):
  """A world, a student that knows nothing, and all samples at once."""
  path = tmp_path_factory.mktemp('world')
  tiny.link_world(tiny_student.parent, path)
  sample.sample(_config(path), str(path / 'whole'))
  return path


def _bytes(workdir):
  return (workdir / 'completions.jsonl').read_bytes()


def _done(workdir):
  """Returns the keys of all whole rows, wherever they lie."""
  found = []
  for path in [*workdir.glob('samples/done-*'), workdir / 'completions.jsonl']:
    if path.exists():
      whole = path.read_bytes().rpartition(b'\n')[0].splitlines()
      rows = [records.from_json(row, records.Completion) for row in whole]
      found.append([records.sample_key(row) for row in rows])
  return found


def _start_sample(world, workdir, kill_at=forked.NEVER):
  return forked.start(
      ['-m', 'tests.killed_sample', _config(world).to_json(), workdir, kill_at],
      JAX_NUM_CPU_DEVICES='1',
      JAX_COMPILATION_CACHE_DIR=f'{world}/compiled',
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
  )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize('num_kills', marks.long_but_first([1, 20]))
def test_killed_again_and_again_no_sample_is_lost_or_doubled(world, tmp_path, num_kills):
  rng, before, num_killed = random.Random(0), set(), 0
  while num_killed < num_kills:
    program = _start_sample(world, tmp_path, rng.randint(1, 20))
    if program.wait() == 0:  # It came to its end: begin again.
      assert _bytes(tmp_path) == _bytes(world / 'whole')
      tmp_path, before = tmp_path / 'again', set()
      tmp_path.mkdir()
      continue
    assert program.returncode == -9, program.read_output()
    num_killed += 1
    files = _done(tmp_path)
    assert all(len(keys) == len(set(keys)) for keys in files)
    found = {key for keys in files for key in keys}
    assert before <= found
    before = found
  program = _start_sample(world, tmp_path)
  assert program.wait() == 0, program.read_output()
  assert _bytes(tmp_path) == _bytes(world / 'whole')
  assert not (tmp_path / 'samples').exists()


def test_some_samples_outgrow_each_stage(world):
  rows = jsonl.read_rows(world / 'whole' / 'completions.jsonl', records.Completion)
  lengths = [row.num_prompt_tokens + len(row.tokens) for row in rows]
  assert any(64 < n <= 128 for n in lengths)
  assert any(n > 128 for n in lengths)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('num_done', [0, 17])  # 17 of 18: one has nothing left.
def test_two_processes_draw_what_one_draws(world, tmp_path, num_done):
  lines = _bytes(world / 'whole').splitlines(keepends=True)[:num_done]
  (tmp_path / 'run' / 'samples').mkdir(parents=True)
  done = tmp_path / 'run' / 'samples' / 'done-00000.jsonl'
  done.write_bytes(b''.join(lines))
  config = train_program.write_config(tmp_path / 'config.py', _config(world))
  statuses, said = train_program.wait(
      train_program.start(config, tmp_path / 'run', hosts=2, program=('-m', 'valley_jax.sample'))
  )
  assert statuses == [0, 0], said
  assert _bytes(tmp_path / 'run') == _bytes(world / 'whole')
  assert said.count('18 completions') == 1
  assert said.count('programs.') == 2  # Both drew.


@pytest.mark.long
def test_slots_and_chunks_change_no_byte(world, tmp_path):
  changed = _config(world).unlock()
  changed.sample.update(num_slots=3, chunk_len=7)
  sample.sample(changed.lock(), str(tmp_path))
  assert _bytes(tmp_path) == _bytes(world / 'whole')


@pytest.mark.parametrize(
    ('kind', 'resume', 'goes_on'),
    [
        ('grown', 'exact', True),
        ('grown', 'fast', True),
        ('live', 'exact', False),
        ('live', 'fast', True),
    ],
)
def test_what_was_in_its_slot_goes_on_only_where_that_was_asked_for(
    world, tmp_path, kind, resume, goes_on
):
  rows = jsonl.read_rows(world / 'whole' / 'completions.jsonl', records.Completion)
  row = max(rows, key=lambda row: len(row.tokens))
  # Tokens that no run draws, to be known again.
  partial = records.PartialCompletion(
      problem_id=row.problem_id,
      sample_index=row.sample_index,
      tokens=(7,) * 20,
      log_prob=0.0,
      log_prob_tempered=0.0,
  )
  jsonl.write_rows(tmp_path / 'samples' / f'{kind}-00001.jsonl', [partial])
  sample.sample(_config(world, resume=resume), str(tmp_path))
  rows = jsonl.read_rows(tmp_path / 'completions.jsonl', records.Completion)
  found = {records.sample_key(r): r.tokens for r in rows}[records.sample_key(row)]
  assert (found[:20] == (7,) * 20) == goes_on
  assert (_bytes(tmp_path) == _bytes(world / 'whole')) == (not goes_on)
