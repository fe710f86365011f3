"""Subsets are what their selections say, and the same on every machine."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import tables
from valley_jax.data.subsets import drawing
from valley_jax.data.subsets import selections

TABLE = tables.drawn(240)


def _no_files(path):
  raise AssertionError(path)


def _evaluate(*chosen, table=TABLE, seed=0, read_ids=_no_files, **more):
  rows = selections.select_rows(table, {'it': chosen, **more}, 'it', seed=seed, read_ids=read_ids)
  return rows.tolist()


def _ids(*chosen, **more):
  table = more.get('table', TABLE)
  return [table.ids[row] for row in _evaluate(*chosen, **more)]


# One of each.
_EACH = {
    'where': ({'where': 'difficulty', 'equals': 'hard'},),
    'random': ({'random': 17},),
    'per_question': ({'per_question': 2},),
    'token_budget': ({'token_budget': 50_000},),
    'match': (
        {'match': 'is_correct', 'take': True, 'other': False, 'on': ('difficulty', 'num_tokens')},
    ),
    'mixture': ({'mixture': {'hard': 3, 'easy': 1}, 'size': 40},),
    'ids': ({'ids': 'a.json'},),
}
_PARTS = {name: ({'where': 'difficulty', 'equals': name},) for name in ('hard', 'easy')}


def _shuffled(table, order):
  return dataclasses.replace(
      table,
      **{
          f.name: np.asarray(getattr(table, f.name), object)[order].tolist()
          for f in dataclasses.fields(table)
      },
  )


@pytest.mark.parametrize('name', _EACH)
def test_the_order_of_the_traces_does_not_matter(name):
  order = np.random.default_rng(1).permutation(len(TABLE))
  more = {'read_ids': lambda _: ['t3', 't77', 't5'], **_PARTS}
  found = _ids(*_EACH[name], **more)
  assert found
  table = _shuffled(TABLE, order)
  assert _ids(*_EACH[name], table=table, **more) == found


@pytest.mark.parametrize('name', _EACH)
def test_a_subset_is_in_the_order_of_the_nested_ones(name):
  more = {'read_ids': lambda _: ['t3', 't77', 't5'], **_PARTS}
  rows = _evaluate(*_EACH[name], **more)
  ranked = drawing.draw_nested(TABLE.ids, len(TABLE), 0).tolist()
  assert rows == [row for row in ranked if row in set(rows)]


@hypothesis.given(st.integers(1, 240), st.integers(0, 9))
def test_random_is_the_nested_subset_of_that_size(n, seed):
  expected = drawing.draw_nested(TABLE.ids, n, seed).tolist()
  assert _evaluate({'random': n}, seed=seed) == expected


def test_where_keeps_a_value_some_values_others_or_a_window():
  table = tables.table(
      {'difficulty': 'easy', 'num_tokens': 5},
      {'difficulty': 'hard', 'num_tokens': 6, 'is_correct': False},
      {'difficulty': 'medium', 'num_tokens': 7, 'is_correct': True},
      {'num_tokens': 8, 'pass_rate': 0.5},
  )

  def kept(field, **test):
    return set(_evaluate({'where': field, **test}, table=table))

  assert kept('difficulty', equals='hard') == {1}
  assert kept('difficulty', among=('hard', 'easy')) == {0, 1}
  assert kept('difficulty', none_of=('hard',)) == {0, 2}
  assert kept('is_correct', equals=False) == {1}
  assert kept('is_correct', equals=None) == {0, 3}
  assert kept('num_tokens', least=6, most=7) == {1, 2}
  assert kept('num_tokens', least=7) == {2, 3}
  assert kept('pass_rate', most=0.9) == {3}  # An unknown rate is in no window.


@hypothesis.given(st.integers(1, 4), st.integers(0, 99))
def test_a_question_has_at_most_so_many_traces_and_they_nest(k, seed):
  rows = _evaluate({'per_question': k}, seed=seed)
  counts = np.unique([TABLE.problem_ids[r] for r in rows], return_counts=True)[1]
  assert counts.tolist() == [k] * 60
  assert set(rows) <= set(_evaluate({'per_question': k + 1}, seed=seed))


def test_a_question_of_many_traces_is_drawn_no_sooner_than_one_of_few():
  rows = [{'problem_ids': f'p{max(i - 9, 0)}'} for i in range(20)]
  table = tables.table(*rows)  # p0 has ten traces, the others one.
  both = ({'per_question': 1}, {'random': 1})
  first = [_evaluate(*both, table=table, seed=seed)[0] for seed in range(500)]
  # Of 11 questions; binomial, 45 +- 6.4. By one hash it would be half of them.
  assert sum(row < 10 for row in first) < 80


@hypothesis.settings(max_examples=30)
@hypothesis.given(st.integers(10_000, 500_000), st.integers(10_000, 500_000))
def test_token_budgets_nest_and_are_used_up_to_a_trace(n, m):
  small, large = (_evaluate({'token_budget': b}) for b in sorted([n, m]))
  assert large[: len(small)] == small
  used = int(TABLE.num_tokens[small].sum())
  following = drawing.draw_nested(TABLE.ids, len(small) + 1, 0)[-1]
  assert used <= min(n, m) < used + TABLE.num_tokens[following]


def test_a_mixture_has_its_weights_and_nests():
  def mixed(size):
    return _ids({'mixture': {'hard': 3, 'easy': 1}, 'size': size}, **_PARTS)

  def hard(ids):
    return sum(TABLE.difficulty[TABLE.ids.index(i)] == 'hard' for i in ids)

  assert [(len(mixed(n)), hard(mixed(n))) for n in (4, 8, 100)] == [
      (4, 3), (8, 6), (100, 75),
  ]  # fmt: skip
  for size in range(1, 40):
    assert set(mixed(size)) <= set(mixed(size + 1))


def test_selections_are_applied_one_after_the_other():
  hard = {'where': 'difficulty', 'equals': 'hard'}
  first, then = _ids(hard, {'random': 50}), _ids({'random': 50}, hard)
  assert len(first) == 50 > len(then)
  assert set(then) <= set(first)


def test_what_is_held_out_is_in_no_subset():
  without = [3, 77, 5]
  for name in _EACH.keys() - {'ids'}:
    rows = selections.select_rows(
        TABLE, {'it': _EACH[name], **_PARTS}, 'it', seed=0, read_ids=_no_files, without=without
    )
    assert not set(rows.tolist()) & set(without)


@pytest.mark.parametrize(
    ('chosen', 'message'),
    [
        ({'were': 'ids'}, "the first key is 'were', want one of"),
        ({'where': 'colour', 'equals': 1}, "no 'colour'; they have"),
        ({'where': 'teacher', 'equals': 'x'}, r"'DeepSeek-R1': 120.*'QwQ"),
        ({'where': 'teacher'}, "want 'equals', 'among'"),
        ({'where': 'teacher', 'least': 2}, 'a window is of numbers'),
        ({'random': 241}, '241 of 240 traces cannot be drawn'),
        ({'random': 1, 'sed': 3}, "unexpected keyword argument 'sed'"),
        ({'token_budget': 10**9}, r'have [\d,]+ tokens'),
        ({'mixture': {'it': 1}, 'size': 3}, "mixture of itself: .'it', 'it'"),
        ({'mixture': {'all': 1, 'hard': 1}, 'size': 3}, 'are in two of its'),
        ({'mixture': {'hard': 1}, 'size': 239}, "239 traces of 'hard' are need"),
        ({'ids': 'a.json'}, r"1 of its 2 ids, such as 'none', are not in"),
    ],
)
def test_what_cannot_be_selected_says_what_and_why(chosen, message):
  more = {'read_ids': lambda _: ['t1', 'none'], 'all': (), **_PARTS}
  with pytest.raises(ValueError, match=f"Subset 'it'.*{message}"):
    _evaluate(chosen, **more)


def test_a_subset_that_is_not_there_names_those_that_are():
  with pytest.raises(ValueError, match=r"config.subset='x': .*\['a', 'b'\]"):
    selections.select_rows(TABLE, {'b': (), 'a': ()}, 'x', seed=0, read_ids=_no_files)


def test_the_files_of_a_subset_are_those_of_all_that_is_in_it():
  subsets = {
      'a': ({'ids': 'a.json'}, {'random': 3}),
      'b': ({'mixture': {'a': 1, 'c': 1}, 'size': 2},),
      'c': ({'ids': 'c.json'},),
      'd': ({'random': 3},),
      'e': ({'phases': ('d', 'b')},),
  }
  assert selections.list_id_files(subsets, 'b') == {'a.json', 'c.json'}
  assert selections.list_id_files(subsets, 'e') == {'a.json', 'c.json'}
  assert selections.list_id_files(subsets, 'd') == set()
