"""execute judges every program once, whatever happens in between."""

import collections
import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import judged
import ml_collections as mlc
import msgspec
import pytest

from valley_jax import execute
from valley_jax import records

ROOT = pathlib.Path(__file__).parents[1]
HUMANEVAL = ROOT.parent / 'shared/data/HumanEval.jsonl.gz'
PATH = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
MEASURED = ('cpu_seconds', 'wall_seconds', 'memory_mib', 'message')
SOURCES = [judged.CONTROL, 'print(3)', '1/0', 'print(']


def _config(tmp_path, **fields) -> mlc.ConfigDict:
  values = {
      'problems': f'jsonl:{tmp_path}/problems.jsonl',
      'submissions': f'{tmp_path}/submissions.jsonl',
      'cpu_seconds': 2.0,
      'num_workers': 2,
  }
  return mlc.ConfigDict({**values, **fields}).lock()


def _write_inputs(tmp_path, num_problems: int = 2) -> None:
  problems = [
      msgspec.structs.replace(judged.problem(), problem_id=f'p{i}')
      for i in reversed(range(num_problems))
  ]
  records.write_rows(tmp_path / 'problems.jsonl', problems)
  records.write_rows(
      tmp_path / 'submissions.jsonl',
      [
          records.Submission(problem_id=f'p{i}', sample_index=j, source=source)
          for j, source in enumerate(SOURCES)
          for i in range(num_problems)
      ],
  )


def _rows(workdir) -> list[dict]:
  rows = records.read_rows(workdir / 'judgements.jsonl', dict)
  return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def _verdicts(workdir) -> list[tuple]:
  return [
      (row['problem_id'], row['sample_index'], row['verdict'])
      for row in _rows(workdir)
  ]


def test_every_program_is_judged_in_the_problems_order(tmp_path):
  _write_inputs(tmp_path)
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  assert _verdicts(tmp_path / 'w') == [
      (problem, sample, verdict)
      for problem in ('p1', 'p0')
      for sample, verdict in enumerate(['AC', 'WA', 'RE', 'CE'])
  ]


def test_the_second_run_does_nothing(tmp_path, capsys):
  _write_inputs(tmp_path)
  path = tmp_path / 'w/judgements.jsonl'
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  assert before == (
      path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
  )  # fmt: skip
  assert 'AC 2  WA 2  RE 2  CE 2' in capsys.readouterr().out


def test_a_program_that_changed_is_judged_anew(tmp_path):
  _write_inputs(tmp_path)
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  path = tmp_path / 'submissions.jsonl'
  rows = list(records.read_rows(path, records.Submission))
  records.write_rows(
      path, [records.replace(row, source=judged.CONTROL) for row in rows]
  )
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  assert {verdict for *_, verdict in _verdicts(tmp_path / 'w')} == {'AC'}


def test_a_completion_without_a_program_does_not_compile(tmp_path):
  _write_inputs(tmp_path)
  texts = [f'<think>so</think>```python\n{judged.CONTROL}\n```', '<think>no']
  records.write_rows(
      tmp_path / 'w/completions.jsonl',
      [
          records.Completion(
              problem_id='p0', sample_index=i, text=text,
              finish_reason=records.FinishReason.EOS, num_prompt_tokens=1,
              tokens=(1,), log_prob=0.0,
          )
          for i, text in enumerate(texts)
      ],
  )  # fmt: skip
  execute.execute(_config(tmp_path, submissions=''), str(tmp_path / 'w'))
  assert _verdicts(tmp_path / 'w') == [('p0', 0, 'AC'), ('p0', 1, 'CE')]
  text = (tmp_path / 'w/judgements.jsonl').read_text()
  assert 'no program in the completion' in text


def test_a_failure_of_ours_is_judged_again_at_the_next_run(tmp_path):
  _write_inputs(tmp_path)
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  path = tmp_path / 'w/judgements.jsonl'
  rows = list(records.read_rows(path, records.Judgement))
  failed = msgspec.structs.replace(
      rows[3], verdict=records.Verdict.INTERNAL_ERROR, message='power cut'
  )
  records.write_rows(path, [*rows[:3], failed, *rows[4:]])
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  assert [row[2] for row in _verdicts(tmp_path / 'w')] == [
      'AC', 'WA', 'RE', 'CE'
  ] * 2  # fmt: skip


def test_no_sandbox_leaves_no_verdict(tmp_path, monkeypatch):
  _write_inputs(tmp_path)
  monkeypatch.setenv('PATH', '/nonexistent')
  with pytest.raises(RuntimeError, match='apt-get install bubblewrap'):
    execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  assert not (tmp_path / 'w/judgements.jsonl').read_bytes()


def test_an_unknown_problem_is_an_error_with_its_remedy(tmp_path):
  _write_inputs(tmp_path)
  lost = records.Submission(problem_id='lost', sample_index=4, source='x')
  records.write_rows(tmp_path / 'submissions.jsonl', [lost])
  with pytest.raises(ValueError, match="'lost' of sample 4.*set `problems`"):
    execute.execute(_config(tmp_path), str(tmp_path / 'w'))


def test_one_sample_twice_is_an_error(tmp_path):
  _write_inputs(tmp_path)
  path = tmp_path / 'submissions.jsonl'
  path.write_bytes(path.read_bytes() * 2)
  with pytest.raises(ValueError, match='occurs twice'):
    execute.execute(_config(tmp_path), str(tmp_path / 'w'))


def test_judgements_of_other_samples_are_not_mixed_in(tmp_path):
  _write_inputs(tmp_path)
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  _write_inputs(tmp_path, num_problems=1)
  with pytest.raises(ValueError, match='4 samples that are not to be judged'):
    execute.execute(_config(tmp_path), str(tmp_path / 'w'))


def test_missing_completions_name_the_verb_that_writes_them(tmp_path):
  _write_inputs(tmp_path)
  with pytest.raises(ValueError, match='valley_jax.sample'):
    execute.execute(_config(tmp_path, submissions=''), str(tmp_path / 'w'))


def _start(config: mlc.ConfigDict, workdir, kill_at: int) -> subprocess.Popen:
  return subprocess.Popen(
      [
          sys.executable, ROOT / 'tests/kill_at.py', 'execute',
          config.to_json(), str(workdir), str(kill_at),
      ],
      env={**os.environ, 'PYTHONPATH': PATH},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
  )  # fmt: skip


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  tmp_path = tmp_path_factory.mktemp('unbroken')
  _write_inputs(tmp_path)
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  return _rows(tmp_path / 'w')


@pytest.mark.parametrize('kill_at', range(1, 6))
def test_killed_at_a_file_operation_and_resumed_equals_unbroken(
    tmp_path, kill_at, unbroken
):
  _write_inputs(tmp_path)
  process = _start(_config(tmp_path), tmp_path / 'w', kill_at)
  process.wait()
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  assert _rows(tmp_path / 'w') == unbroken


@pytest.mark.parametrize('num_rows', [1, 4])
def test_killed_in_mid_judging_and_resumed_equals_unbroken(
    tmp_path, num_rows, unbroken
):
  _write_inputs(tmp_path)
  process = _start(_config(tmp_path), tmp_path / 'w', kill_at=0)
  path = tmp_path / 'w/judgements.jsonl'
  while process.poll() is None:
    if path.exists() and path.read_bytes().count(b'\n') >= num_rows:
      process.send_signal(signal.SIGKILL)
      break
    time.sleep(0.001)
  process.wait()
  kept = path.read_bytes().count(b'\n')
  path.write_bytes(path.read_bytes() + b'{"problem_id":"p0","sam')
  execute.execute(_config(tmp_path), str(tmp_path / 'w'))
  assert _rows(tmp_path / 'w') == unbroken
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


@pytest.fixture(scope='module')
def humaneval(tmp_path_factory):
  if not HUMANEVAL.exists():
    pytest.skip(f'{HUMANEVAL} is not there')
  tmp_path = tmp_path_factory.mktemp('humaneval')
  lines = gzip.decompress(HUMANEVAL.read_bytes()).splitlines()
  rows = [json.loads(line) for line in lines]
  bodies = [
      [r['canonical_solution'] for r in rows],
      ['    pass\n'] * len(rows),
      ['    return 123456\n'] * len(rows),
  ]
  records.write_rows(
      tmp_path / 'submissions.jsonl',
      [
          records.Submission(
              problem_id=row['task_id'],
              sample_index=index,
              source=row['prompt'] + body[i],
          )
          for index, body in enumerate(bodies)
          for i, row in enumerate(rows)
      ],
  )
  config = _config(tmp_path, problems=f'humaneval:{HUMANEVAL}', num_workers=0)
  execute.execute(config, str(tmp_path / 'w'))
  counts = collections.defaultdict(collections.Counter)
  for _, sample, verdict in _verdicts(tmp_path / 'w'):
    counts[sample][verdict] += 1
  return counts


def test_every_humaneval_solution_is_accepted(humaneval):
  assert humaneval[0] == {'AC': 164}


@pytest.mark.parametrize('sample', [1, 2], ids=['pass', 'a constant'])
def test_no_humaneval_stub_is_accepted(humaneval, sample):
  assert humaneval[sample].total() == 164
  assert humaneval[sample]['AC'] == humaneval[sample]['IE'] == 0
