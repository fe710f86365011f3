"""A question that is a problem of an evaluation is found, with the passages."""

import random

import numpy as np
import pytest

from tests import planted
from valley_jax.data.cleaning import contamination
from valley_jax.data.cleaning import texts
from valley_jax.runtime import config_groups

RNG = random.Random(3)
PROBLEMS = [(f'eval-{i}', planted.statement(RNG)) for i in range(30)]
PROBLEM = PROBLEMS[7][1]
STRANGER = planted.statement(RNG)


def _build_settings(**changes):
  group = config_groups.get_contamination_group() | changes
  return contamination.Settings.from_config(group)


def _find_problem(question, problems=PROBLEMS, embed=None, **changes):
  settings = _build_settings(**changes)
  return contamination.Contamination(problems, settings, embed).find_problem(question)


@pytest.mark.parametrize(
    ('edit', 'method'),
    [
        (lambda text, rng: text, 'n-grams'),
        (planted.respaced, 'n-grams'),
        (planted.reformatted, 'n-grams'),
        (lambda text, rng: text.upper(), 'n-grams'),
        (lambda text, rng: f'{STRANGER} {text} {STRANGER}', 'n-grams'),
        (planted.renamed, 'alignment'),
        (lambda text, rng: f'Solve this. {planted.renamed(text, rng)} Go!', 'alignment'),
    ],
    ids=['same', 'spaces', 'page', 'case', 'inside', 'renamed', 'both'],
)
def test_a_problem_is_found_however_it_was_changed(edit, method):
  match = _find_problem(edit(PROBLEM, RNG))
  assert match
  assert (match.problem_id, match.method.value) == ('eval-7', method)


def test_a_stranger_is_none():
  assert _find_problem(STRANGER) is None


def test_the_score_is_the_share_of_the_problem_that_is_there():
  words = [f'word{chr(97 + i // 26)}{chr(97 + i % 26)}' for i in range(100)]
  problem = [('p', ' '.join(words))]
  question = ' '.join(words[:68] + [w + 'x' for w in words])
  match = _find_problem(question, problem, aligned=0)
  # 56 of the 88 runs of 13 words.
  assert match and match.score == pytest.approx(56 / 88)
  assert _find_problem(question, problem, aligned=0, threshold=0.65) is None


def test_the_passages_are_the_texts_as_they_were():
  question = 'Well:  **Given $n$ cats\tand M dogs**, count the pairs of them. ok'
  problem = 'given n cats and m dogs count the pairs of them'
  passages = 'Given $n$ cats\tand M dogs**, count the pairs of them', problem
  match = _find_problem(question, [('p', problem)])
  assert match and (match.question_text, match.problem_text) == passages


def test_an_excerpt_of_a_problem_is_found():
  words = PROBLEM.split()
  for length in (8, 12, 40):
    match = _find_problem(' '.join(words[3 : 3 + length]), min_words=6)
    assert match and (match.problem_id, match.score) == ('eval-7', 1)
    assert match.method is contamination.Method.NGRAMS


def test_a_short_question_is_compared_by_whole_words():
  problem = [('p', f'Count the ways to build all of these towers. {PROBLEM}')]
  question = 'count the ways to build all of these tower'
  assert _find_problem(question, problem) is None
  assert _find_problem(question + 's', problem)


def test_the_nearest_of_several_versions_is_named():
  other = PROBLEM.replace('integer', 'fraction').replace('line', 'row')
  question = planted.renamed(PROBLEM, RNG)
  for order in ([0, 1], [1, 0]):
    problems = [[('other', other), ('own', PROBLEM)][i] for i in order]
    match = _find_problem(question, problems, threshold=0)
    assert match and match.problem_id == 'own'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('**Given** `n`, add_2 to <b class="x">it</b>!', 'given n add 2 to it'),
        ('$a_i \\le 10^{5}$ and \\textbf{b}', 'a i 10 5 and b'),
        ('a&nbsp;&lt;&#160;b see https://x.org/a?b c', 'a b see c'),
        ('1 < n and m > 2', '1 n and m 2'),
        ('ｎ ﬁt Ünï', 'n fit ünï'),
        ('数x列', '数 x 列'),
        ('a\ud800b', 'a b'),
        ('', ''),
    ],
)
def test_the_form_of_a_text_is_passed_over(text, words):
  assert b' '.join(texts.parse_statement(text).words).decode() == words


def test_runs_of_variables_are_one_word():
  masked = texts.mask_variables(texts.parse_statement('sum a[i] + 17 over n, not all'))
  assert masked.words == [b'sum', b'_', b'over', b'_', b'not', b'all']
  assert masked.cut_passage(1, 3) == 'a[i] + 17 over'


def test_very_short_problems_must_be_all_that_is_said():
  short = [('sum', 'Add two numbers.'), ('zero', '')]
  match = _find_problem('add TWO  numbers', short)
  assert match and match.problem_id == 'sum'
  assert _find_problem('Add two numbers modulo p.', short) is None
  assert _find_problem('', short) is None


def test_phrases_of_many_problems_align_nothing():
  phrase = (
      'Write a function which takes the list that is given below and then'
      ' returns to its caller what the following sentence is asking for'
  )
  problems = [(f'p{i}', f'{phrase}: {planted.statement(RNG)[:60]}') for i in range(30)]
  question = f'{phrase}: {STRANGER[:60]}'
  assert _find_problem(question, problems, threshold=0) is None
  assert _find_problem(question, problems[:3], threshold=0, aligned=0.7)


def test_each_look_can_be_turned_off():
  assert _find_problem(PROBLEM, threshold=0, aligned=0) is None
  assert _find_problem(planted.renamed(PROBLEM, RNG), aligned=0) is None


def test_an_embedding_finds_what_shares_no_run():
  def embed(questions):  # A bag of words, by first letter.
    letters = [[w[0] for w in texts.parse_statement(q).words] for q in questions]
    return np.array([[x.count(c) for c in b'abc'] for x in letters])

  problems = [('abc', 'a b c'), ('aab', 'aa ab b')]
  match = _find_problem('b a ay', problems, embed)
  assert match and match.method is contamination.Method.EMBEDDING
  assert match.problem_id == 'aab' and match.score == pytest.approx(1)
  assert (match.question_text, match.problem_text) == ('b a ay', 'aa ab b')
  assert _find_problem('c c', problems[1:], embed) is None
  assert _find_problem('b a ay', problems, embed, cosine=0) is None


def test_without_problems_nothing_is_found():
  assert _find_problem(PROBLEM, []) is None


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({'threshold': 50}, 'threshold=50: want a number from 0 to 1'),
        ({'cosine': -0.1}, 'cosine=-0.1: want'),
        ({'min_words': 14}, 'min_words=14 is not from 1 to n=13'),
    ],
)
def test_a_setting_that_cannot_be_names_value_and_remedy(settings, said):
  with pytest.raises(ValueError, match=said):
    _build_settings(**settings)
