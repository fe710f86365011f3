"""The pack plan holds every example once, within rows that are nearly full."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from valley_jax.data import batching
from valley_jax.data.tokens import tokenization

lengths_and_row = st.integers(1, 40).flatmap(
    lambda row_len: st.tuples(st.lists(st.integers(1, row_len), max_size=60), st.just(row_len))
)


def _build_example(tokens, weights, answer_start=0):
  return tokenization.Example(
      np.asarray(tokens, np.int32), np.asarray(weights, np.uint8), answer_start
  )


@hypothesis.given(lengths_and_row)
def test_every_example_is_in_exactly_one_row(case):
  lengths, row_len = case
  rows = batching.pack_best_fit(lengths, row_len)
  assert sorted(i for row in rows for i in row) == [*range(len(lengths))]


@hypothesis.given(lengths_and_row)
def test_no_row_overflows_and_none_is_empty(case):
  lengths, row_len = case
  for row in batching.pack_best_fit(lengths, row_len):
    assert 0 < sum(lengths[i] for i in row) <= row_len


@hypothesis.given(lengths_and_row)
def test_each_example_goes_where_it_leaves_the_least_room(case):
  lengths, row_len = case
  free = []
  for n in sorted(lengths, reverse=True):  # The definition, row by row.
    fitting = [r for r in range(len(free)) if free[r] >= n]
    best = min(fitting, key=lambda r: free[r], default=len(free))
    free[best:] = [*free[best:]] or [row_len]
    free[best] -= n
  rows = batching.pack_best_fit(lengths, row_len)
  free_by_plan = [row_len - sum(lengths[i] for i in row) for row in rows]
  assert sorted(free_by_plan) == sorted(free)


def test_best_fit_decreasing_by_hand():
  # 6 opens a row, 5 a second; 4 fills the first; 3 and 2 fill the second.
  assert batching.pack_best_fit([2, 3, 4, 5, 6], row_len=10) == [[4, 2], [3, 1, 0]]


def test_the_fullest_row_that_has_room_is_taken():
  # Rows with 3 and with 2 free: first fit would put the 2 into the former.
  assert batching.pack_best_fit([7, 8, 2], row_len=10) == [[1, 2], [0]]
  assert batching.pack_best_fit([8, 7, 3], row_len=10) == [[0], [1, 2]]


def test_rows_of_lognormal_traces_are_99_percent_full():
  lengths = np.random.default_rng(0).lognormal(8.6, 0.8, 20_000)
  lengths = lengths.astype(int).clip(64, 32_768)
  rows = batching.pack_best_fit(lengths, 32_768)
  assert batching.measure_fill(lengths, rows, 32_768) > 0.99


def test_a_hundred_thousand_examples_are_planned():
  lengths = np.random.default_rng(0).integers(1, 32_769, 100_000)
  rows = batching.pack_best_fit(lengths, 32_768)
  assert sum(map(len, rows)) == 100_000


def test_the_same_lengths_give_the_same_plan():
  lengths = np.random.default_rng(1).integers(1, 50, 1000)
  assert batching.pack_best_fit(lengths, 64) == batching.pack_best_fit(lengths.tolist(), 64)


@pytest.mark.parametrize('bad', [11, 0])
def test_an_example_that_no_row_can_take_names_the_limit_and_the_remedy(bad):
  with pytest.raises(ValueError, match=r'take 1 to 10\. .*data\.max_len'):
    batching.pack_best_fit([5, bad], row_len=10)


def test_fill_counts_tokens_over_positions():
  assert batching.measure_fill([3, 4, 1], [[0, 1], [2]], row_len=8) == 0.5
  assert batching.measure_fill([], [], row_len=8) == 0


def test_examples_are_shifted_before_they_are_laid_out():
  first = _build_example([7, 8, 9], [0, 1, 1], answer_start=2)
  second = _build_example([5, 6], [0, 1], answer_start=1)
  row = batching.lay_out_row([first, second], 4)
  assert {name: array.tolist() for name, array in row.items()} == {
      'inputs': [7, 8, 5, 0],
      'targets': [8, 9, 6, 0],
      'weights': [1, 1, 1, 0],
      'answers': [0, 1, 1, 0],
      'positions': [0, 1, 0, 0],
      'segments': [1, 1, 2, 0],
  }


def test_no_example_predicts_the_first_token_of_the_next():
  examples = [_build_example([i, i, i], [0, 1, 1]) for i in (1, 2, 3)]
  row = batching.lay_out_row(examples, 8)
  used = row['segments'] > 0
  assert (row['inputs'][used] == row['targets'][used]).all()


def test_a_prompt_is_no_target():
  row = batching.lay_out_row([_build_example([4, 5, 6, 7], [0, 0, 1, 1])], 3)
  assert row['targets'][row['weights'] == 1].tolist() == [6, 7]


def test_an_empty_row_has_no_weight_and_no_segment():
  row = batching.lay_out_row([], 4)
  assert not any(array.any() for array in row.values())


def test_weights_are_floats_and_the_rest_are_int32():
  row = batching.lay_out_row([_build_example([4, 5], [0, 1])], 4)
  kinds = {name: array.dtype for name, array in row.items()}
  assert kinds.pop('weights') == np.float32
  assert set(kinds.values()) == {np.dtype(np.int32)}


@hypothesis.given(lengths_and_row, st.randoms(use_true_random=False))
def test_a_packed_row_gives_back_its_examples(case, random):
  lengths, row_len = case
  examples = [
      _build_example(
          [random.randrange(99) for _ in range(n + 1)], [random.randrange(2) for _ in range(n + 1)]
      )
      for n in lengths
  ]
  for members in batching.pack_best_fit(lengths, row_len):
    row = batching.lay_out_row([examples[i] for i in members], row_len)
    for segment, i in enumerate(members, start=1):
      here = row['segments'] == segment
      n = lengths[i]
      assert row['inputs'][here].tolist() == examples[i].tokens[:-1].tolist()
      assert row['targets'][here].tolist() == examples[i].tokens[1:].tolist()
      assert row['weights'][here].tolist() == examples[i].weights[1:].tolist()
      assert row['positions'][here].tolist() == [*range(n)]
    assert not row['weights'][row['segments'] == 0].any()
