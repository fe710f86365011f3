"""A pool runs one worker per core, on cores that no other pool uses."""

import os

import pytest

from valley_jax.execution import timing

ALLOWED = sorted(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def own_socket_names(monkeypatch):
  name = f'\0valley_jax.test.{os.getpid()}.'  # Other tests judge as well.
  monkeypatch.setattr(timing, 'CORE_SOCKET_PREFIX', name)


def _claim_and_release(*numbers: int) -> list[list[int]]:
  pools = [timing.CoreClaims(number) for number in numbers]
  taken = [pool.cores for pool in pools]
  for pool in pools:
    pool.close()
  return taken


def test_there_are_never_more_workers_than_cores():
  assert len(_claim_and_release(0)[0]) == len(_claim_and_release(10_000)[0]) <= len(ALLOWED)


def test_two_pools_take_different_cores_while_there_are():
  (first,), (second,) = _claim_and_release(1, 1)
  assert len(ALLOWED) == 1 or first != second


def test_a_pool_that_finds_none_shares():
  _, [core] = _claim_and_release(0, 1)
  assert core in ALLOWED


def test_what_is_given_back_is_free_again():
  assert _claim_and_release(1) == _claim_and_release(1)
