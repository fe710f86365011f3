"""Rates measure what their names say."""

import pytest

from tests import rows
from valley_jax import records
from valley_jax.scoring import summary

Verdict = records.Verdict


def _index_judgements(*judgements):
  return {records.sample_key(judgement): judgement for judgement in judgements}


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
  form = summary.describe_form(rows.make_completion(text=text))
  assert (form.think_tag, form.think_closed) == (think_tag, think_closed)


@pytest.mark.parametrize('reason', [records.FinishReason.EOS, records.FinishReason.STOP])
def test_completed_is_all_but_out_of_budget(reason):
  assert summary.describe_form(rows.make_completion(finish_reason=reason)).completed
  truncated = rows.make_completion(finish_reason=records.FinishReason.LENGTH)
  assert not summary.describe_form(truncated).completed


def test_pass_at_1_given_completion_leaves_the_truncated_out():
  judgements = _index_judgements(
      rows.make_judgement('p', 0),
      rows.make_judgement('p', 1, Verdict.WRONG_ANSWER),
      rows.make_judgement('p', 2, Verdict.WRONG_ANSWER),
  )
  forms = {
      ('p', i): summary.CompletionForm(
          completed=i < 2, think_tag=True, think_closed=False, no_program=False, num_tokens=4
      )
      for i in range(3)
  }
  table = summary.tabulate_samples([rows.make_problem('p')], 3, judgements, forms)
  scores = summary.summarize_completed(table, 10)
  assert scores['pass_at_1_given_completion'] == 0.5
  assert summary.summarize_pass_at_k(table, 1, 10)['value'] == 1 / 3


def test_rates_of_submissions_are_unknown_and_not_zero():
  table = summary.tabulate_samples(
      [rows.make_problem('p')], 1, _index_judgements(rows.make_judgement('p', 0)), None
  )
  rates = summary.summarize_rates(table)
  assert rates['completion_rate'] is None
  assert rates['think_tag_rate'] is None
  assert summary.summarize_completed(table, 10) == {
      'pass_at_1_given_completion': None,
      'pass_at_1_given_completion_interval': None,
  }


def test_difficulties_come_from_easy_to_hard_and_unknown_last():
  problems = [
      rows.make_problem('a'),
      rows.make_problem('b', difficulty='hard'),
      rows.make_problem('c', difficulty='rated 800'),
      rows.make_problem('d', difficulty='easy'),
  ]
  judgements = _index_judgements(*(rows.make_judgement(p.problem_id) for p in problems))
  table = summary.tabulate_samples(problems, 1, judgements, None)
  assert list(summary.summarize_difficulties(table, 10)) == ['easy', 'hard', 'rated 800', 'unknown']


@pytest.mark.parametrize('text, no_program', [('```python\n1 +\n```', False), ('1 + 1', True)])
def test_a_missing_program_is_told_from_one_that_does_not_parse(text, no_program):
  assert summary.describe_form(rows.make_completion(text=text)).no_program is no_program
