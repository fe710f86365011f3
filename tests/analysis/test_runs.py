"""Samples to read are of all kinds, and are cut without hiding it."""

from tests import rows as rows_lib
from valley_jax.analysis import runs


def _make_judgement(name, verdict):
  return rows_lib.make_judgement(name, 0, verdict)


def test_a_rare_verdict_is_shown_beside_a_common_one():
  rows = [_make_judgement(f'p{i}', 'CE') for i in range(9)] + [_make_judgement('q', 'AC')]
  difficulties = {row.problem_id: 'easy' for row in rows}
  picked = runs.pick_judgements(rows, difficulties, 3)
  assert [row.problem_id for row in picked] == ['q', 'p0', 'p1']


def test_every_difficulty_is_shown():
  rows = [_make_judgement(f'p{i}', 'WA') for i in range(6)]
  difficulties = {f'p{i}': 'easy' if i < 5 else 'hard' for i in range(6)}
  picked = runs.pick_judgements(rows, difficulties, 2)
  assert {difficulties[row.problem_id] for row in picked} == {'easy', 'hard'}


def test_the_order_of_judgements_does_not_matter():
  rows = [_make_judgement(f'p{i}', 'WA') for i in range(6)]
  difficulties = {row.problem_id: 'easy' for row in rows}
  assert runs.pick_judgements(rows, difficulties, 3) == runs.pick_judgements(
      rows[::-1], difficulties, 3
  )


def test_a_cut_text_keeps_both_ends_and_says_what_is_gone():
  text = 'a' * 50 + 'b' * 50
  assert runs.truncate_text(text, 10) == ('aaaaa\n[… 90 characters left out …]\nbbbbb')
  assert runs.truncate_text(text, 100) == text


def test_a_thought_that_never_ends_has_no_answer():
  assert runs.split_thought('<think>a') == ('<think>a', '')
  assert runs.split_thought('<think>a</think>b') == ('<think>a</think>', 'b')
  assert runs.split_thought('b</think>') == ('', 'b</think>')
