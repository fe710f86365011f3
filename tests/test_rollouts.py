"""Rollouts: a sample, its program and its verdict."""

import pytest

from tests import rows
from valley_jax import rollouts
from valley_jax.sampling import samples as samples_lib


def _make_rollout(index, source):
  request = samples_lib.Request('p', index, (1,))
  return rollouts.Rollout(samples_lib.Sample(request), text='', source=source)


def _accept_all(pairs):
  return [rows.make_judgement('p', submission.sample_index, 'AC') for _, submission in pairs]


def test_verdicts_are_the_judges_and_no_program_is_a_compile_error():
  drawn = [_make_rollout(0, None), _make_rollout(1, 'print(1)')]
  judged = rollouts.judge_rollouts(drawn, [rows.make_problem('p')], _accept_all)
  assert [rollout.verdict.value for rollout in judged] == ['CE', 'AC']


def test_a_program_that_was_not_judged_has_no_verdict():
  with pytest.raises(ValueError, match=r"\('p', 0\) has not been judged"):
    _ = _make_rollout(0, 'print(1)').verdict


def test_a_judge_that_leaves_a_program_out_is_an_error():
  drawn = [_make_rollout(0, 'print(1)'), _make_rollout(1, 'print(2)')]
  with pytest.raises(KeyError):
    rollouts.judge_rollouts(drawn, [rows.make_problem('p')], lambda pairs: _accept_all(pairs[:1]))
