"""`score` gives a whole score or none, and the same one after a kill."""

import json

import ml_collections as mlc
import pytest

from tests import forked
from tests import rows
from valley_jax import jsonl
from valley_jax import records
from valley_jax import score
from valley_jax.execution import settings as judge_settings
from valley_jax.scoring import completeness


def _make_config(workdir, **changes):
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


def _make_problem(name, **fields):
  return rows.make_problem(name, difficulty=name, **fields)


def _compute_digest(name, submission=None, cpu_seconds=1.0):
  settings = judge_settings.Settings(cpu_seconds=cpu_seconds)
  digester = completeness.Digester.from_problems([_make_problem(name)], settings)
  return digester.digest_judgement(name, submission)


def _write_run(workdir, verdicts):
  """Two problems, easy and hard, with one completion a verdict."""
  jsonl.write_rows(workdir / 'problems.jsonl', map(_make_problem, verdicts))
  samples = [
      (name, index, verdict) for name, row in verdicts.items() for index, verdict in enumerate(row)
  ]
  jsonl.write_rows(
      workdir / 'completions.jsonl',
      [rows.make_completion(name, index, '<think>', tokens=(1, 2)) for name, index, _ in samples],
  )
  jsonl.write_rows(
      workdir / 'judgements.jsonl',
      [rows.make_judgement(*sample, digest=_compute_digest(sample[0])) for sample in samples],
  )


_VERDICTS = {'easy': ['AC', 'AC'], 'hard': ['WA', 'AC']}


def test_scores_hold_the_counts_and_what_follows_from_them(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  score.score(_make_config(tmp_path), str(tmp_path))
  scores = jsonl.read_json(tmp_path / 'scores.json')
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


_SUBSET = {'subset': 'hard_4k', 'num_traces': 4000, 'ids_sha256': 'abc'}
_STUDENT = {'config.subset': 'hard_4k', 'config.num_traces': 1000, 'subset_sha256': 'abc'}


def _score_training_set(workdir, subset=None, student=None, **changes):
  """Scores a run with these files beside it."""
  _write_run(workdir, _VERDICTS)
  if subset:
    jsonl.write_json(workdir / 'subset.json', subset)
  if student:
    jsonl.write_json(workdir / 'sampling.json', {'student': student})
  score.score(_make_config(workdir, **changes), str(workdir))
  scores = jsonl.read_json(workdir / 'scores.json')
  return tuple(scores[k] for k in ('subset', 'num_traces', 'subset_sha256'))


def test_scores_name_the_subset_its_size_and_its_hash(tmp_path):
  training_set = _score_training_set(tmp_path, _SUBSET, _STUDENT, num_traces=-1)
  assert training_set == ('hard_4k', 4000, 'abc')


def test_what_a_student_was_trained_on_does_not_depend_on_the_config(tmp_path):
  training_set = _score_training_set(tmp_path, _SUBSET, _STUDENT, num_traces=30_000)
  assert training_set == ('hard_4k', 4000, 'abc')


def test_a_student_of_another_run_is_known_by_what_was_sampled(tmp_path):
  other = {**_SUBSET, 'subset': 'easy_4k', 'ids_sha256': 'def'}
  training_set = _score_training_set(tmp_path, other, _STUDENT, num_traces=0)
  assert training_set == ('hard_4k', 1000, 'abc')


def test_a_student_of_a_whole_subset_elsewhere_is_not_taken_for_the_base(tmp_path):
  student = {**_STUDENT, 'config.num_traces': -1}
  with pytest.raises(ValueError, match='set config.num_traces'):
    _score_training_set(tmp_path, None, student, num_traces=0)
  training_set = _score_training_set(tmp_path, None, student, num_traces=4000)
  assert training_set == ('hard_4k', 4000, 'abc')


def test_the_student_as_it_is_was_trained_on_no_subset(tmp_path):
  subset = {**_SUBSET, 'num_traces': 0}
  assert _score_training_set(tmp_path, subset)[:2] == ('', 0)


def test_without_a_word_of_it_the_config_says_what_was_score_training_set(tmp_path):
  assert _score_training_set(tmp_path) == ('', 16, None)


def _rewrite_rows(path, record_type, change):
  before = list(jsonl.read_rows(path, record_type))
  jsonl.write_rows(path, [change(i, row) for i, row in enumerate(before)])


def _write_submissions(workdir):
  """The same samples as programs from elsewhere, judged."""
  (workdir / 'completions.jsonl').unlink()
  path = workdir / 'judgements.jsonl'
  submissions = [
      rows.make_submission(row.sample_index, problem_id=row.problem_id, source='x')
      for row in jsonl.read_rows(path, records.Judgement)
  ]
  jsonl.write_rows(workdir / 'submissions.jsonl', submissions)
  _rewrite_rows(
      path,
      records.Judgement,
      lambda i, row: records.replace(row, digest=_compute_digest(row.problem_id, submissions[i])),
  )
  return _make_config(workdir, submissions=f'{workdir}/submissions.jsonl')


def test_submissions_are_scored_without_completions(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  score.score(_write_submissions(tmp_path), str(tmp_path))
  scores = jsonl.read_json(tmp_path / 'scores.json')
  assert scores['pass_at_1'] == 0.75
  assert scores['completion_rate'] is None


def test_a_submission_that_changed_has_no_score_until_it_is_judged(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  config = _write_submissions(tmp_path)
  _rewrite_rows(
      tmp_path / 'submissions.jsonl',
      records.Submission,
      lambda i, row: records.replace(row, source='xy'[i == 2]),
  )
  with pytest.raises(ValueError, match=r'1 .*changed.*hard\[0\].*`execute`'):
    score.score(config, str(tmp_path))


def test_a_completion_that_changed_has_no_score_until_it_is_judged(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  program = '```python\nprint(1)\n```'
  _rewrite_rows(
      tmp_path / 'completions.jsonl',
      records.Completion,
      lambda i, row: records.replace(row, text=program) if i == 2 else row,
  )
  with pytest.raises(ValueError, match=r'1 .*changed.*hard\[0\].*`execute`'):
    score.score(_make_config(tmp_path), str(tmp_path))


def test_tests_that_changed_have_no_score_until_they_are_run(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  other = (records.TestCase(input='1', expected='2'),)
  jsonl.write_rows(
      tmp_path / 'problems.jsonl', [_make_problem('easy'), _make_problem('hard', tests=other)]
  )
  with pytest.raises(ValueError, match=r'2 .*problems.*changed.*hard\[0\]'):
    score.score(_make_config(tmp_path), str(tmp_path))


def test_another_statement_is_the_same_test(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  problems = [_make_problem(name, statement='!') for name in _VERDICTS]
  jsonl.write_rows(tmp_path / 'problems.jsonl', problems)
  score.score(_make_config(tmp_path), str(tmp_path))


def test_judgements_by_two_sets_of_rules_do_not_mix(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  other = _compute_digest('hard', cpu_seconds=3.0)
  _rewrite_rows(
      tmp_path / 'judgements.jsonl',
      records.Judgement,
      lambda i, row: records.replace(row, digest=other) if i == 3 else row,
  )
  with pytest.raises(ValueError, match=r'1 .*rules.*hard\[1\].*`execute`'):
    score.score(_make_config(tmp_path), str(tmp_path))


def test_a_file_that_is_being_rebuilt_has_no_score(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  (tmp_path / 'judgements.jsonl.next').touch()
  with pytest.raises(ValueError, match='run `execute` to the end'):
    score.score(_make_config(tmp_path), str(tmp_path))


def test_a_sample_that_is_judged_twice_names_the_verb_that_mends_it(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  path = tmp_path / 'judgements.jsonl'
  path.write_bytes(path.read_bytes() * 2)
  with pytest.raises(ValueError, match=r'easy\[0\] twice; run `execute`'):
    score.score(_make_config(tmp_path), str(tmp_path))


def test_scores_record_isolation_and_rules(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  _rewrite_rows(
      tmp_path / 'judgements.jsonl',
      records.Judgement,
      lambda i, row: records.replace(
          row,
          tier=['T0', '', 'T1', 'T1'][i],
          waivers=((), (), ('b', 'a'), ('b',))[i],
          calibration=[0.2, 0.0, 0.3, 0.25][i],
      ),
  )
  score.score(_make_config(tmp_path), str(tmp_path))
  scores = jsonl.read_json(tmp_path / 'scores.json')
  assert scores['tier'] == 'T0+T1'
  assert scores['waivers'] == ['a', 'b']
  assert scores['profile'] == 'strict'
  assert scores['calibration'] == [0.2, 0.3]


def test_a_second_run_writes_the_same_bytes(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  score.score(_make_config(tmp_path), str(tmp_path))
  before = (tmp_path / 'scores.json').read_bytes()
  score.score(_make_config(tmp_path), str(tmp_path))
  assert (tmp_path / 'scores.json').read_bytes() == before


def test_the_order_of_judgements_does_not_matter(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  score.score(_make_config(tmp_path), str(tmp_path))
  before = (tmp_path / 'scores.json').read_bytes()
  path = tmp_path / 'judgements.jsonl'
  path.write_bytes(b''.join(reversed(path.read_bytes().splitlines(True))))
  score.score(_make_config(tmp_path), str(tmp_path))
  assert (tmp_path / 'scores.json').read_bytes() == before


def test_no_score_is_written_while_one_is_refused(tmp_path):
  _write_run(tmp_path, {'easy': ['AC', 'IE']})
  with pytest.raises(ValueError, match='IE'):
    score.score(_make_config(tmp_path), str(tmp_path))
  assert not (tmp_path / 'scores.json').exists()


def test_pass_at_more_than_was_sampled_names_the_remedy(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  with pytest.raises(ValueError, match='n=2 .* at least 5'):
    score.score(_make_config(tmp_path, ks=(5,)), str(tmp_path))


def test_judgements_of_two_profiles_do_not_mix(tmp_path):
  _write_run(tmp_path, _VERDICTS)
  lcb = records.Profile.LCB_COMPAT
  _rewrite_rows(
      tmp_path / 'judgements.jsonl',
      records.Judgement,
      lambda i, row: records.replace(row, profile=lcb) if i == 3 else row,
  )
  with pytest.raises(ValueError, match='2 profiles'):
    score.score(_make_config(tmp_path), str(tmp_path))


@pytest.mark.parametrize('missing', ['judgements', 'completions'])
def test_a_missing_file_names_the_verb_that_writes_it(tmp_path, missing):
  _write_run(tmp_path, _VERDICTS)
  (tmp_path / f'{missing}.jsonl').unlink()
  verb = {'judgements': 'execute', 'completions': 'sample'}[missing]
  with pytest.raises(ValueError, match=f'run `{verb}` first'):
    score.score(_make_config(tmp_path), str(tmp_path))


@pytest.mark.parametrize('operation', range(1, 6))
def test_killed_and_run_again_gives_the_same_file(tmp_path, operation):
  _write_run(tmp_path, _VERDICTS)
  config = _make_config(tmp_path)
  score.score(config, str(tmp_path))
  path = tmp_path / 'scores.json'
  uninterrupted = path.read_bytes()
  path.unlink()
  killed = forked.start_verb('score', json.dumps(config.to_dict()), tmp_path, operation)
  assert killed.wait() == -9, killed.read_output()
  assert not path.exists()
  score.score(config, str(tmp_path))
  assert path.read_bytes() == uninterrupted


def test_a_problem_with_a_broken_checker_is_left_out_by_name(tmp_path, capsys):
  _write_run(tmp_path, {'broken': ['BP', 'AC'], **_VERDICTS})
  score.score(_make_config(tmp_path), str(tmp_path))
  scores = jsonl.read_json(tmp_path / 'scores.json')
  assert [row['problem_id'] for row in scores['problems']] == ['easy', 'hard']
  assert (scores['num_problems'], scores['pass_at_1']) == (2, 0.75)
  assert [*scores['left_out']] == ['broken']
  assert 'is broken (BP): 1, broken.' in capsys.readouterr().out
