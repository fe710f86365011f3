"""Rates say what their names say; a score with holes is refused."""

import pytest

from valley_jax import records
from valley_jax.scoring import completeness
from valley_jax.scoring import summary

Verdict = records.Verdict


def _problem(name, difficulty=''):
  return records.Problem(
      problem_id=name,
      statement='',
      tests=(records.TestCase(input='1', expected='1'),),
      difficulty=difficulty,
  )


def _judgement(name, index, verdict=Verdict.ACCEPTED, message=''):
  return records.Judgement(
      problem_id=name,
      sample_index=index,
      verdict=verdict,
      tests_passed=0,
      num_tests=1,
      first_failed=None,
      cpu_seconds=0.0,
      wall_seconds=0.0,
      memory_mib=0.0,
      tier='T0',
      message=message,
  )


def _completion(text, finish_reason=records.FinishReason.EOS):
  return records.Completion(
      problem_id='p',
      sample_index=0,
      text=text,
      finish_reason=finish_reason,
      num_prompt_tokens=1,
      tokens=(1, 2, 3),
      log_prob=-1.0,
  )


def _judged(*rows):
  return {records.sample_key(row): row for row in rows}


@pytest.mark.parametrize(
    'text, think_tag, think_closed',
    [
        ('<think>a</think>b', True, True),
        ('\n <think>a', True, False),
        ('So: <think>a</think>', False, False),
        ('a</think>b', False, False),
        ('', False, False),
    ],
)
def test_a_think_tag_stands_at_the_beginning(text, think_tag, think_closed):
  form = summary.form_of(_completion(text))
  assert (form.think_tag, form.think_closed) == (think_tag, think_closed)


@pytest.mark.parametrize('reason', [records.FinishReason.EOS, records.FinishReason.STOP])
def test_completed_is_all_but_out_of_budget(reason):
  assert summary.form_of(_completion('', reason)).completed
  truncated = _completion('', records.FinishReason.LENGTH)
  assert not summary.form_of(truncated).completed


def test_pass_at_1_given_completion_leaves_the_truncated_out():
  judgements = _judged(
      _judgement('p', 0),
      _judgement('p', 1, Verdict.WRONG_ANSWER),
      _judgement('p', 2, Verdict.WRONG_ANSWER),
  )
  forms = {
      ('p', i): summary.Form(
          completed=i < 2, think_tag=True, think_closed=False, no_program=False, num_tokens=4
      )
      for i in range(3)
  }
  table = summary.tabulate([_problem('p')], 3, judgements, forms)
  scores = summary.given_completion(table, 10)
  assert scores['pass_at_1_given_completion'] == 0.5
  assert summary.pass_at(table, 1, 10)['value'] == 1 / 3


def test_rates_of_submissions_are_unknown_and_not_zero():
  table = summary.tabulate([_problem('p')], 1, _judged(_judgement('p', 0)), None)
  rates = summary.rates(table)
  assert rates['completion_rate'] is None
  assert rates['think_tag_rate'] is None
  assert summary.given_completion(table, 10) == {
      'pass_at_1_given_completion': None,
      'pass_at_1_given_completion_interval': None,
  }


def test_difficulties_come_from_easy_to_hard_and_unknown_last():
  problems = [
      _problem('a'),
      _problem('b', 'hard'),
      _problem('c', 'rated 800'),
      _problem('d', 'easy'),
  ]
  judgements = _judged(*(_judgement(p.problem_id, 0) for p in problems))
  table = summary.tabulate(problems, 1, judgements, None)
  assert list(summary.by_difficulty(table, 10)) == ['easy', 'hard', 'rated 800', 'unknown']


@pytest.mark.parametrize('text, no_program', [('```python\n1 +\n```', False), ('1 + 1', True)])
def test_a_missing_program_is_told_from_one_that_does_not_parse(text, no_program):
  assert summary.form_of(_completion(text)).no_program is no_program


def test_an_internal_error_is_no_score():
  judgements = _judged(_judgement('p', 0, Verdict.INTERNAL_ERROR, 'lost'))
  with pytest.raises(ValueError, match=r'IE.*lost.*p\[0\]; run `execute`'):
    completeness.check(['p'], judgements, judgements.keys(), 1)


def test_a_completion_without_judgement_is_no_score():
  judgements = _judged(_judgement('p', 0))
  with pytest.raises(ValueError, match=r'no judgement: p\[1\]; run `execute`'):
    completeness.check(['p'], judgements, {('p', 0), ('p', 1)}, 2)


def test_a_judgement_of_other_completions_is_no_score():
  judgements = _judged(_judgement('p', 0), _judgement('p', 1))
  with pytest.raises(ValueError, match=r'no completion: p\[1\]'):
    completeness.check(['p'], judgements, {('p', 0)}, 1)


def test_a_missing_sample_is_no_score():
  judgements = _judged(_judgement('p', 0), _judgement('p', 2))
  with pytest.raises(ValueError, match=r'1 of 3 samples .* missing: p\[1\]'):
    completeness.check(['p'], judgements, judgements.keys(), 3)


def test_submissions_of_unequal_number_are_no_score():
  judgements = _judged(_judgement('p', 0), _judgement('p', 1), _judgement('q', 0))
  with pytest.raises(ValueError, match=r'missing: q\[1\]'):
    completeness.check(['p', 'q'], judgements, judgements.keys(), None)


def test_more_samples_than_asked_for_are_no_score():
  judgements = _judged(_judgement('p', 0), _judgement('p', 1))
  with pytest.raises(ValueError, match=r'samples 0..0: p\[1\]'):
    completeness.check(['p'], judgements, judgements.keys(), 1)


def test_a_sample_that_comes_twice_is_no_score():
  with pytest.raises(ValueError, match=r'judgements.jsonl holds p\[0\] twice'):
    completeness.by_key([(('p', 0), 1), (('p', 0), 1)], 'judgements.jsonl')


def test_two_problems_of_one_name_are_no_score():
  judgements = _judged(_judgement('p', 0))
  with pytest.raises(ValueError, match='2 problems with 1 names'):
    completeness.check(['p', 'p'], judgements, judgements.keys(), None)
