"""Results of workers come in order; nobody works on for results that nobody reads."""

import functools
import multiprocessing
import time

import pytest

from valley_jax.data import workers


def _sleep_and_negate(seconds, item):
  time.sleep(seconds * item)
  return -item


def _negate_in_order(items, num_workers, seconds=0.0):
  function = functools.partial(_sleep_and_negate, seconds)
  return workers.map_in_order(function, items, num_workers, 1)


@pytest.mark.parametrize('num_workers', [0, 1, 3])
def test_results_come_in_the_order_of_the_items(num_workers):
  items = [3, 1, 0, 2, 1, 0, 0, 1]
  results = [*_negate_in_order(items, num_workers, seconds=0.05)]
  assert results == [(item, -item) for item in items]


def test_unfinished_work_is_given_up_when_nobody_reads_on():
  results = _negate_in_order([0, 1000, 1000, 1000], 2, seconds=1)
  next(results)
  start = time.monotonic()
  results.close()
  assert time.monotonic() - start < 60  # An item takes a thousand.
  assert not multiprocessing.active_children()


def test_no_more_than_two_items_wait_beside_those_at_work():
  taken = []
  items = (taken.append(i) or i for i in range(20))
  for read, _ in enumerate(_negate_in_order(items, 2)):
    assert len(taken) - read <= 4  # Two at work, one waiting, and this one.


@pytest.mark.parametrize('number', [0, 1, 4, 5])
def test_batches_are_all_items(number):
  batches = [*workers.make_batches(range(number), 2)]
  assert sum(batches, []) == [*range(number)]
  assert [len(batch) for batch in batches[:-1]] == [2] * (len(batches) - 1)
