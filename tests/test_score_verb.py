"""`score` gives a whole score or none, and the same one after a kill."""

import json
import pathlib
import subprocess
import sys

import ml_collections as mlc
import pytest

from valley_jax import records
from valley_jax import score

_KILL_AT = pathlib.Path(__file__).with_name('kill_at.py')


def _config(workdir, **changes):
  values = dict(
      name='tiny',
      num_traces=16,
      seed=3,
      problems=f'jsonl:{workdir}/problems.jsonl',
      submissions='',
      sample=dict(num_samples=2),
      ks=(1, 2),
      num_bootstrap=100,
      command='python -m it',
  )
  return mlc.ConfigDict({**values, **changes}).lock()


def _judgement(name, index, verdict, **changes):
  values = dict(
      problem_id=name,
      sample_index=index,
      verdict=records.Verdict(verdict),
      tests_passed=0,
      num_tests=1,
      first_failed=None,
      cpu_seconds=0.0,
      wall_seconds=0.0,
      memory_mib=0.0,
      tier='T0',
  )
  return records.Judgement(**{**values, **changes})


def _write_run(workdir, verdicts):
  """Two problems, easy and hard, with one completion a verdict."""
  test = records.TestCase(input='1', expected='1')
  records.write_rows(
      workdir / 'problems.jsonl',
      [
          records.Problem(
              problem_id=name, statement='?', tests=(test,), difficulty=name
          )
          for name in verdicts
      ],
  )
  samples = [
      (name, index, verdict)
      for name, row in verdicts.items()
      for index, verdict in enumerate(row)
  ]
  records.write_rows(
      workdir / 'completions.jsonl',
      [
          records.Completion(
              problem_id=name,
              sample_index=index,
              text='<think>',
              finish_reason=records.FinishReason.EOS,
              num_prompt_tokens=1,
              tokens=(1, 2),
              log_prob=-1.0,
          )
          for name, index, _ in samples
      ],
  )
  records.write_rows(
      workdir / 'judgements.jsonl', [_judgement(*s) for s in samples]
  )


_VERDICTS = {'easy': ['AC', 'AC'], 'hard': ['WA', 'AC']}


def test_scores_hold_the_counts_and_what_follows_from_them(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  score.score(_config(tmp_path), str(tmp_path))
  scores = records.read_json(tmp_path / 'scores.json')
  assert scores['pass_at_1'] == 0.75
  assert scores['pass_at_k']['2']['value'] == 1.0
  assert scores['num_traces'] == 16
  assert scores['seed'] == 3
  assert scores['completion_rate'] == 1.0
  assert scores['mean_completion_tokens'] == 2.0
  assert scores['by_difficulty']['hard']['pass_at_1'] == 0.5
  assert scores['verdicts']['AC'] == 3
  assert scores['problems'][1] == {
      'problem_id': 'hard',
      'difficulty': 'hard',
      'num_samples': 2,
      'num_correct': 1,
  }


def test_submissions_are_scored_without_completions(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  (tmp_path / 'completions.jsonl').unlink()
  config = _config(tmp_path, submissions='jsonl:gold.jsonl')
  score.score(config, str(tmp_path))
  scores = records.read_json(tmp_path / 'scores.json')
  assert scores['pass_at_1'] == 0.75
  assert scores['completion_rate'] is None


def test_a_second_run_writes_the_same_bytes(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  score.score(_config(tmp_path), str(tmp_path))
  before = (tmp_path / 'scores.json').read_bytes()
  score.score(_config(tmp_path), str(tmp_path))
  assert (tmp_path / 'scores.json').read_bytes() == before


def test_the_order_of_judgements_does_not_matter(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  score.score(_config(tmp_path), str(tmp_path))
  before = (tmp_path / 'scores.json').read_bytes()
  path = tmp_path / 'judgements.jsonl'
  path.write_bytes(b''.join(reversed(path.read_bytes().splitlines(True))))
  score.score(_config(tmp_path), str(tmp_path))
  assert (tmp_path / 'scores.json').read_bytes() == before


def test_no_score_is_written_while_one_is_refused(tmp_path):
  _write_run(tmp_path, {'easy': ['AC', 'IE']})
  with pytest.raises(ValueError, match='IE'):
    score.score(_config(tmp_path), str(tmp_path))
  assert not (tmp_path / 'scores.json').exists()


def test_pass_at_more_than_was_sampled_names_the_remedy(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  with pytest.raises(ValueError, match='n=2 .* at least 5'):
    score.score(_config(tmp_path, ks=(5,)), str(tmp_path))


def test_judgements_of_two_profiles_do_not_mix(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  with records.Appender(tmp_path / 'judgements.jsonl') as rows:
    rows.append(_judgement('x', 0, 'AC', profile='lcb'))
    rows.append(_judgement('x', 1, 'AC', profile='lcb'))
  config = _config(tmp_path, submissions='jsonl:gold.jsonl')
  problems = list(
      records.read_rows(tmp_path / 'problems.jsonl', records.Problem)
  )
  more = records.Problem(problem_id='x', statement='?', tests=problems[0].tests)
  records.write_rows(tmp_path / 'problems.jsonl', [*problems, more])
  with pytest.raises(ValueError, match='2 profiles'):
    score.score(config, str(tmp_path))


@pytest.mark.parametrize('missing', ['judgements', 'completions'])
def test_a_missing_file_names_the_verb_that_writes_it(tmp_path, missing):
  _write_run(tmp_path, _VERDICTS)
  (tmp_path / f'{missing}.jsonl').unlink()
  verb = {'judgements': 'execute', 'completions': 'sample'}[missing]
  with pytest.raises(ValueError, match=f'run `{verb}` first'):
    score.score(_config(tmp_path), str(tmp_path))


@pytest.mark.parametrize('operation', range(1, 6))
def test_killed_and_run_again_gives_the_same_file(tmp_path, operation):
  _write_run(tmp_path, _VERDICTS)
  config = _config(tmp_path)
  score.score(config, str(tmp_path))
  path = tmp_path / 'scores.json'
  uninterrupted = path.read_bytes()
  path.unlink()
  killed = subprocess.run(
      [
          sys.executable,
          str(_KILL_AT),
          'score',
          json.dumps(config.to_dict()),
          str(tmp_path),
          str(operation),
      ],
      check=False,
      timeout=60,
  )
  assert killed.returncode == -9
  assert not path.exists()
  score.score(config, str(tmp_path))
  assert path.read_bytes() == uninterrupted
