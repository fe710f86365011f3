"""Traces far apart: greedy is what brute force says, whatever the order."""

import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import rows
from valley_jax.data.subsets import curation

TEXTS = st.lists(st.text('ab', max_size=6), min_size=1, max_size=7)


def _levenshtein(a, b):
  """The textbook's recursion, over the longer's length."""
  row = list(range(len(b) + 1))
  for i, x in enumerate(a, start=1):
    last, row[0] = row[0], i
    for j, y in enumerate(b, start=1):
      last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
  return row[-1] / max(len(a), len(b), 1)


def _brute_force(texts, first, number, sign):
  """Compares every text with every chosen one, every time."""
  chosen = [first]
  while len(chosen) < min(number, len(texts)):
    left = [i for i in range(len(texts)) if i not in chosen]
    values = [min(sign * _levenshtein(texts[i], texts[c]) for c in chosen) for i in left]
    chosen.append(left[int(np.argmax(values))])
  return chosen


@hypothesis.given(TEXTS, st.integers(1, 8), st.data())
def test_greedy_equals_brute_force(texts, number, data):
  first = data.draw(st.integers(0, len(texts) - 1))
  distances = curation.TextDistances(texts)
  far = curation.choose_farthest(distances, first, number)
  near = curation.choose_nearest(distances, first, number)
  assert far == _brute_force(texts, first, number, 1)
  assert near == _brute_force(texts, first, number, -1)


@hypothesis.given(TEXTS)
def test_the_medoid_has_the_least_sum_of_distances(texts):
  sums = [sum(_levenshtein(a, b) for b in texts) for a in texts]
  found = curation.find_medoid(curation.TextDistances(texts))
  assert sums[found] == pytest.approx(min(sums))


@pytest.mark.parametrize('start', ['medoid', 'longest'])
def test_the_order_of_the_traces_does_not_matter(start):
  traces = [('d', 'abab'), ('a', 'abba'), ('c', 'bbbb'), ('b', 'abba')]
  found = {
      str(curation.choose_traces(*zip(*order), 3, start=start))
      for order in itertools.permutations(traces)
  }
  assert len(found) == 1


@pytest.mark.parametrize('start', ['medoid', 'longest'])
def test_copies_of_a_trace_come_last(start):
  traces = [('a', 'xyz'), ('b', 'xyz'), ('c', 'xyz'), ('d', 'xyw'), ('e', 'q')]
  far, _ = curation.choose_traces(*zip(*traces), 5, start=start)
  assert len({dict(traces)[i] for i in far[:3]}) == 3


def test_the_nearest_are_the_copies():
  traces = [('a', 'xyz'), ('b', 'abc'), ('c', 'xyz'), ('d', 'xyz')]
  _, near = curation.choose_traces(*zip(*traces), 3, start='medoid')
  assert sorted(near) == ['a', 'c', 'd']


@pytest.mark.parametrize('number', [1, 2, 4, 9])
def test_the_control_has_as_many_traces(number):
  ids, texts = 'abcdef', ['abc', 'abd', 'bbb', 'xyz', '', 'abcabc']
  far, near = curation.choose_traces(ids, texts, number, start='medoid')
  assert len(set(far)) == len(set(near)) == min(number, 6)
  assert far[0] == near[0]


def test_a_text_that_is_behind_already_is_not_compared_again():
  texts = ['a' * i + 'b' + 'a' * (40 - i) for i in range(30)]
  texts += ['c' * 41, 'd' * 41, 'e' * 41]
  distances = curation.TextDistances(texts)
  assert curation.choose_farthest(distances, 0, 4) == [0, 30, 31, 32]
  assert len(distances._known) < 32 + 6  # Of 32 + 31 + 30.


def test_tokens_are_compared_one_by_one():
  rows = np.array([[0, 55296, 57343, 152_000], [0, 55296, 1, 152_000]])
  one, other = (curation.tokens_as_text(row) for row in rows)
  assert curation.TextDistances([one, other])(0, 1) == 0.25


def test_a_failure_of_the_judge_is_no_part_of_a_pass_rate():
  verdicts = {'p': ['AC', 'WA', 'IE', 'TLE'], 'q': ['IE'], 'r': ['AC']}
  judgements = [
      rows.make_judgement(name, i, verdict)
      for name, of_it in verdicts.items()
      for i, verdict in enumerate(of_it)
  ]
  assert curation.compute_pass_rates(judgements) == {'p': 1 / 3, 'r': 1.0}
