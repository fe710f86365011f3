"""execute judges every program once, whatever happens in between."""

import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import ml_collections as mlc
import msgspec
import pytest

from tests import forked
from tests import judged
from tests import rows as rows_lib
from valley_jax import execute
from valley_jax import jsonl
from valley_jax import records

ROOT = pathlib.Path(__file__).parents[2]
PATH = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
MEASURED = (
    'cpu_seconds', 'wall_seconds', 'memory_mib', 'calibration', 'message'
)  # fmt: skip
SOURCES = [judged.CONTROL, 'print(3)', '1/0', 'print(']


def _make_config(tmp_path, **fields) -> mlc.ConfigDict:
  values = {
      'problems': f'jsonl:{tmp_path}/problems.jsonl',
      'submissions': f'{tmp_path}/submissions.jsonl',
      'cpu_seconds': 2.0,
      'multipliers': {'python': 1.0, 'cpp17': 1.0},
      'profile': 'strict',
      'all_tests': False,
      'tier': '',
      'waivers': (),
      'num_workers': 2,
      'ray': '',
      'cache': '',
  }
  return mlc.ConfigDict({**values, **fields}).lock()


def _write_inputs(tmp_path, num_problems: int = 2) -> None:
  problems = [
      msgspec.structs.replace(judged.build_problem(), problem_id=f'p{i}')
      for i in reversed(range(num_problems))
  ]
  jsonl.write_rows(tmp_path / 'problems.jsonl', problems)
  jsonl.write_rows(
      tmp_path / 'submissions.jsonl',
      [
          records.Submission(problem_id=f'p{i}', sample_index=j, source=source)
          for j, source in enumerate(SOURCES)
          for i in range(num_problems)
      ],
  )


def _read_timeless_rows(workdir) -> list[dict]:
  rows = jsonl.read_rows(workdir / 'judgements.jsonl', dict)
  return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def _read_verdicts(workdir) -> list[tuple]:
  return [
      (row['problem_id'], row['sample_index'], row['verdict'])
      for row in _read_timeless_rows(workdir)
  ]


def _read_lines(workdir) -> list[bytes]:
  return (workdir / 'judgements.jsonl').read_bytes().splitlines()


def _change_submissions(tmp_path, change) -> None:
  path = tmp_path / 'submissions.jsonl'
  rows = list(jsonl.read_rows(path, records.Submission))
  jsonl.write_rows(path, change(rows))


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """A run that was never disturbed; do not write to it."""
  tmp_path = tmp_path_factory.mktemp('unbroken')
  _write_inputs(tmp_path)
  execute.execute(_make_config(tmp_path), str(tmp_path / 'w'))
  return tmp_path


@pytest.fixture
def judged_before(unbroken, tmp_path):
  """A directory of one's own, in which everything has been judged."""
  shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
  return tmp_path


@pytest.fixture
def no_sandbox(monkeypatch):
  """A machine on which whatever is judged raises an error."""
  monkeypatch.setenv('PATH', '/nonexistent')


def test_every_program_is_judged_in_the_programs_order(unbroken):
  assert _read_verdicts(unbroken / 'w') == [
      (problem, sample, verdict)
      for sample, verdict in enumerate(['AC', 'WA', 'RE', 'CE'])
      for problem in ('p0', 'p1')
  ]


def test_the_second_run_does_nothing(judged_before, capsys, no_sandbox):
  path = judged_before / 'w/judgements.jsonl'
  before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
  execute.execute(_make_config(judged_before), str(judged_before / 'w'))
  assert before == (
      path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
  )  # fmt: skip
  assert '8 programs: AC 2  WA 2  RE 2  CE 2' in capsys.readouterr().out


def test_only_a_program_that_changed_is_judged_anew(judged_before):
  def mend(rows):
    return [
        records.replace(row, source=judged.CONTROL) if i == 3 else row for i, row in enumerate(rows)
    ]

  before = _read_lines(judged_before / 'w')
  _change_submissions(judged_before, mend)
  execute.execute(_make_config(judged_before), str(judged_before / 'w'))
  after = _read_lines(judged_before / 'w')
  assert [i for i in range(8) if after[i] != before[i]] == [3]
  assert _read_verdicts(judged_before / 'w')[3] == ('p1', 1, 'AC')


@pytest.mark.parametrize(
    'rule',
    [
        {'cpu_seconds': 3.0},
        {'multipliers': {'python': 2.0, 'cpp17': 1.0}},
        {'profile': 'lcb_compat'},
        {'all_tests': True},
    ],
    ids=str,
)
def test_other_rules_are_judged_by_anew(judged_before, no_sandbox, rule):
  with pytest.raises(ValueError, match='bubblewrap'):
    execute.execute(_make_config(judged_before, **rule), str(judged_before / 'w'))


def test_tests_that_changed_are_run_anew(judged_before, no_sandbox):
  path = judged_before / 'problems.jsonl'
  rows = list(jsonl.read_rows(path, records.Problem))
  changed = records.replace(rows[1], tests=rows[1].tests[:1])
  jsonl.write_rows(path, [rows[0], changed])
  with pytest.raises(ValueError, match='bubblewrap'):
    execute.execute(_make_config(judged_before), str(judged_before / 'w'))


@pytest.mark.parametrize(
    'way',
    [{'num_workers': 1}, {'cache': '/nonexistent/x'}, {'waivers': ('x',)}, {'ray': 'local'}],
    ids=str,
)
def test_another_way_to_the_same_verdicts_judges_nothing(judged_before, no_sandbox, way):
  before = _read_lines(judged_before / 'w')
  execute.execute(_make_config(judged_before, **way), str(judged_before / 'w'))
  assert _read_lines(judged_before / 'w') == before


def test_another_order_moves_rows_and_judges_nothing(judged_before, no_sandbox):
  before = _read_lines(judged_before / 'w')
  _change_submissions(judged_before, lambda rows: rows[::-1])
  execute.execute(_make_config(judged_before), str(judged_before / 'w'))
  assert _read_lines(judged_before / 'w') == before[::-1]
  assert not (judged_before / 'w/judgements.jsonl.next').exists()


def test_programs_that_come_later_are_put_in_their_place(judged_before):
  new = records.Submission(problem_id='p1', sample_index=7, source=judged.CONTROL)
  before = _read_lines(judged_before / 'w')
  _change_submissions(judged_before, lambda rows: [*rows[:5], new, *rows[5:]])
  execute.execute(_make_config(judged_before), str(judged_before / 'w'))
  after = _read_lines(judged_before / 'w')
  assert after[:5] + after[6:] == before
  assert _read_verdicts(judged_before / 'w')[5] == ('p1', 7, 'AC')


@pytest.mark.parametrize(
    ('field', 'remedy'),
    [
        ({'profile': 'lax'}, "profile='lax' .* 'strict', 'lcb_compat'"),
        ({'tier': 'T9'}, "tier='T9' .* '', 'T0', 'T1', 'T2'"),
        ({'cpu_seconds': 0.0}, 'cpu_seconds=0.0 is not above 0'),
        ({'multipliers': {'python': -1.0}}, 'multipliers.python=-1.0 is not'),
        ({'num_workers': -1}, 'num_workers=-1 is below 0; give'),
    ],
    ids=str,
)
def test_a_field_that_says_nothing_names_its_values(tmp_path, field, remedy):
  _write_inputs(tmp_path)
  with pytest.raises(ValueError, match=remedy):
    execute.execute(_make_config(tmp_path, **field), str(tmp_path / 'w'))


def test_ray_without_its_package_names_the_remedy(tmp_path, monkeypatch):
  _write_inputs(tmp_path)
  monkeypatch.setitem(sys.modules, 'ray', None)  # Not to be imported.
  with pytest.raises(ValueError, match='pip install .* leave `ray` of'):
    execute.execute(_make_config(tmp_path, ray='local'), str(tmp_path / 'w'))


def test_a_completion_without_a_program_does_not_compile(tmp_path):
  _write_inputs(tmp_path)
  program = f'<think>so</think>```python\n{judged.CONTROL}\n```'
  texts = ['<think>no', program, 'no', 'no']
  jsonl.write_rows(
      tmp_path / 'w/completions.jsonl',
      [rows_lib.make_completion('p0', i, text) for i, text in enumerate(texts)],
  )
  execute.execute(_make_config(tmp_path, submissions=''), str(tmp_path / 'w'))
  verdicts = [verdict for *_, verdict in _read_verdicts(tmp_path / 'w')]
  assert verdicts == ['CE', 'AC', 'CE', 'CE']
  assert b'no program in the completion' in _read_lines(tmp_path / 'w')[0]


def test_a_failure_of_ours_is_judged_again_at_the_next_run(judged_before):
  path = judged_before / 'w/judgements.jsonl'
  rows = list(jsonl.read_rows(path, records.Judgement))
  failed = records.replace(rows[3], verdict=records.Verdict.INTERNAL_ERROR, message='power cut')
  jsonl.write_rows(path, [*rows[:3], failed, *rows[4:]])
  execute.execute(_make_config(judged_before), str(judged_before / 'w'))
  after = list(jsonl.read_rows(path, records.Judgement))
  assert after[3].verdict is rows[3].verdict
  assert after[:3] + after[4:] == rows[:3] + rows[4:]


def _measure_peak_kib(workdir, num_samples: int) -> int:
  """Memory at most, to judge so many completions without a program."""
  jsonl.write_rows(
      workdir / 'w/completions.jsonl',
      [rows_lib.make_completion(f'p{i % 2}', i // 2, 'none') for i in range(num_samples)],
  )
  tracemalloc.start()
  try:
    execute.execute(_make_config(workdir, submissions=''), str(workdir / 'w'))
    return tracemalloc.get_traced_memory()[1] // 1024
  finally:
    tracemalloc.stop()


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_programs(tmp_path):
  _write_inputs(tmp_path)
  _measure_peak_kib(tmp_path, 1)  # What a first run imports.
  few = _measure_peak_kib(tmp_path, 500)
  many = _measure_peak_kib(tmp_path, 40_000)
  # A pointer a row would be 308 KiB more; buffers account for some 60.
  assert many < few + 200


def test_no_sandbox_leaves_no_verdict(tmp_path, monkeypatch):
  _write_inputs(tmp_path)
  monkeypatch.setenv('PATH', '/nonexistent')
  with pytest.raises(ValueError, match='apt-get install bubblewrap'):
    execute.execute(_make_config(tmp_path), str(tmp_path / 'w'))
  assert not (tmp_path / 'w/judgements.jsonl').read_bytes()


def test_an_unknown_problem_is_an_error_with_its_remedy(tmp_path):
  _write_inputs(tmp_path)
  lost = records.Submission(problem_id='lost', sample_index=4, source='x')
  jsonl.write_rows(tmp_path / 'submissions.jsonl', [lost])
  with pytest.raises(ValueError, match="'lost' of sample 4.*set `problems`"):
    execute.execute(_make_config(tmp_path), str(tmp_path / 'w'))


def test_one_sample_twice_is_an_error(tmp_path):
  _write_inputs(tmp_path)
  path = tmp_path / 'submissions.jsonl'
  path.write_bytes(path.read_bytes() * 2)
  with pytest.raises(ValueError, match='occurs twice'):
    execute.execute(_make_config(tmp_path), str(tmp_path / 'w'))


def test_judgements_of_other_samples_are_not_mixed_in(judged_before, no_sandbox):
  before = _read_lines(judged_before / 'w')
  _write_inputs(judged_before, num_problems=1)
  with pytest.raises(ValueError, match='4 samples that are not to be judged'):
    execute.execute(_make_config(judged_before), str(judged_before / 'w'))
  assert _read_lines(judged_before / 'w') == before


def test_missing_completions_name_the_verb_that_writes_them(tmp_path):
  _write_inputs(tmp_path)
  with pytest.raises(ValueError, match='valley_jax.sample'):
    execute.execute(_make_config(tmp_path, submissions=''), str(tmp_path / 'w'))


def _mark_most_as_long(numbers, *but_these):
  return [pytest.param(n, marks=() if n in but_these else pytest.mark.long) for n in numbers]


def _start_execute(workdir, kill_at: int) -> forked.Program:
  return forked.start_verb('execute', _make_config(workdir).to_json(), workdir / 'w', kill_at)


@pytest.mark.parametrize('kill_at', _mark_most_as_long(range(1, 6), 3))
def test_killed_at_a_file_operation_and_resumed_equals_unbroken(tmp_path, kill_at, unbroken):
  _write_inputs(tmp_path)
  _start_execute(tmp_path, kill_at).wait()
  execute.execute(_make_config(tmp_path), str(tmp_path / 'w'))
  assert _read_timeless_rows(tmp_path / 'w') == _read_timeless_rows(unbroken / 'w')


@pytest.mark.parametrize('kill_at', _mark_most_as_long(range(6, 18), 8, 13))
def test_killed_while_the_file_is_built_anew_equals_unbroken(judged_before, kill_at, unbroken):
  path = judged_before / 'w/judgements.jsonl'
  rows = list(jsonl.read_rows(path, records.Judgement))
  rows[5] = records.replace(rows[5], digest='of another program')
  # An earlier run was killed while it built the file anew, too.
  jsonl.write_rows(f'{path}.next', rows[:2])
  jsonl.write_rows(path, [rows[0], *rows[3:]])
  _start_execute(judged_before, kill_at).wait()
  execute.execute(_make_config(judged_before), str(judged_before / 'w'))
  assert _read_timeless_rows(judged_before / 'w') == _read_timeless_rows(unbroken / 'w')
  assert not pathlib.Path(f'{path}.next').exists()
  final = list(jsonl.read_rows(path, records.Judgement))
  assert [final[i] == rows[i] for i in range(8)] == [i not in (2, 5) for i in range(8)]


@pytest.mark.parametrize('num_rows', [1, 4])
def test_killed_in_mid_judging_and_resumed_equals_unbroken(tmp_path, num_rows, unbroken):
  _write_inputs(tmp_path)
  process = _start_execute(tmp_path, kill_at=0)
  path = tmp_path / 'w/judgements.jsonl'
  while process.poll() is None:
    if path.exists() and path.read_bytes().count(b'\n') >= num_rows:
      process.send_signal(signal.SIGKILL)
      break
    time.sleep(0.001)
  process.wait()
  kept = path.read_bytes().count(b'\n')
  path.write_bytes(path.read_bytes() + b'{"problem_id":"p0","sam')
  execute.execute(_make_config(tmp_path), str(tmp_path / 'w'))
  assert _read_timeless_rows(tmp_path / 'w') == _read_timeless_rows(unbroken / 'w')
  assert kept >= num_rows


def test_the_command_teaches_and_runs_without_jax(tmp_path):
  _write_inputs(tmp_path, num_problems=1)
  program = (
      'import runpy, sys\n'
      "sys.modules.update(dict.fromkeys(['jax', 'jaxlib', 'flax']))\n"
      "runpy.run_module('valley_jax.execute', run_name='__main__')"
  )
  command = [
      sys.executable, '-c', program, '--config', ROOT / 'configs/valley.py',
      '--workdir', tmp_path / 'w',
      f'--config.problems=jsonl:{tmp_path}/problems.jsonl',
      f'--config.submissions={tmp_path}/submissions.jsonl',
  ]  # fmt: skip
  done = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True,
      env={**os.environ, 'PYTHONPATH': PATH},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert '4 programs: AC 1  WA 1  RE 1  CE 1' in done.stdout


def test_a_language_that_is_not_there_is_said_before_anything_is_judged(tmp_path):
  _write_inputs(tmp_path)
  row = records.Submission(problem_id='p0', sample_index=9, source='', language='ada')
  with jsonl.Appender(tmp_path / 'submissions.jsonl') as file:
    file.append(row)
  with pytest.raises(ValueError, match="'ada' is unknown.*cpp17"):
    execute.execute(_make_config(tmp_path), str(tmp_path / 'out'))
  assert not (tmp_path / 'out' / 'judgements.jsonl').exists()


def test_two_runs_in_one_workdir_do_not_mix(tmp_path):
  _write_inputs(tmp_path)
  fd = os.open(tmp_path, os.O_RDONLY)
  fcntl.flock(fd, fcntl.LOCK_EX)
  with pytest.raises(ValueError, match='Another execute is at work'):
    execute.execute(_make_config(tmp_path), str(tmp_path))
  os.close(fd)
  assert not (tmp_path / 'judgements.jsonl').exists()
