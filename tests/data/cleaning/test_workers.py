"""What workers find comes in order; nobody works on for what nobody reads."""

import functools
import multiprocessing
import time

import pytest

from valley_jax.data.cleaning import workers


def _sleeper(seconds):
  return functools.partial(_sleep, seconds)


def _sleep(seconds, item):
  time.sleep(seconds * item)
  return -item


def _each(items, num_workers, seconds=0.0):
  make = functools.partial(_sleeper, seconds)
  return workers.each(make, items, num_workers, 1)


@pytest.mark.parametrize('num_workers', [0, 1, 3])
def test_what_is_found_comes_in_the_order_of_the_items(num_workers):
  items = [3, 1, 0, 2, 1, 0, 0, 1]
  found = [*_each(items, num_workers, seconds=0.05)]
  assert found == [(item, -item) for item in items]


def test_what_is_worked_at_is_given_up_when_nobody_reads_on():
  found = _each([0, 1000, 1000, 1000], 2, seconds=1)
  next(found)
  start = time.monotonic()
  found.close()
  assert time.monotonic() - start < 60  # A thousand are asked for.
  assert not multiprocessing.active_children()


def test_no_item_is_asked_for_before_it_is_its_turn():
  taken = []
  items = (taken.append(i) or i for i in range(20))
  for read, _ in enumerate(_each(items, 2)):
    assert len(taken) - read <= 4  # At work, and waiting; and this one.


@pytest.mark.parametrize('number', [0, 1, 4, 5])
def test_batches_are_all_items(number):
  found = [*workers.batches(range(number), 2)]
  assert sum(found, []) == [*range(number)]
  assert [len(batch) for batch in found[:-1]] == [2] * (len(found) - 1)
