"""How many slots there are, and of what length."""

import re

import jax.numpy as jnp
import pytest

from tests import tiny
from valley_jax.sampling import lanes

STUDENT = tiny.student()
# Two layers, keys and values, two heads of eight, four bytes.
BYTES_A_TOKEN = 2 * 2 * 2 * 8 * 4


def _plan(**changes):
  asked = {
      'lengths': (64, 128),
      'longest_prompt': 100,
      'max_new_tokens': 100,
      'num_slots': 0,
      'dtype': jnp.float32,
  }
  return lanes.plan_stages(STUDENT, **{**asked, **changes})


def _slots(found):
  return [(stage.length, stage.num_slots) for stage in found]


def test_slots_fill_most_of_the_memory_that_is_left():
  free = 100 * 64 * BYTES_A_TOKEN  # 85 slots of 64, as .85 of it are taken.
  with tiny.mesh():
    assert _slots(_plan(free_bytes=free)) == [(64, 85), (128, 42), (256, 21)]


def test_devices_hold_slots_each_and_tp_cuts_them():
  free = 100 * 64 * BYTES_A_TOKEN
  with tiny.mesh(data=2, fsdp=2):
    assert _plan(free_bytes=free)[0].num_slots == 4 * 85
  with tiny.mesh(tp=2):
    assert _plan(free_bytes=free)[0].num_slots == 170


def test_longer_slots_have_the_memory_of_the_number_that_was_asked_for():
  with tiny.mesh():
    assert _slots(_plan(num_slots=9)) == [(64, 9), (128, 4), (256, 2)]
    # At least one, so that the longest sample comes to its end.
    assert _slots(_plan(num_slots=1)) == [(64, 1), (128, 1), (256, 1)]


def test_stages_longer_than_the_longest_sample_are_left_out():
  with tiny.mesh():
    found = _plan(num_slots=4, lengths=(64, 256, 4096))
    assert [stage.length for stage in found] == [64, 256]


def test_a_slot_that_does_not_fit_is_an_error_with_both_figures():
  with tiny.mesh(), pytest.raises(ValueError, match=re.escape('2,097,664 positions')) as e:
    _plan(free_bytes=1e8, max_new_tokens=1 << 21)
  assert 'takes 0.5 GB' in str(e.value)
  assert '0.1 GB left' in str(e.value)


def test_memory_that_nobody_knows_is_an_error_with_its_remedy():
  with tiny.mesh(), pytest.raises(ValueError, match='num_slots=0.*set it'):
    _plan()


def test_a_plan_is_described_in_a_line():
  with tiny.mesh():
    said = lanes.describe_stages(STUDENT, _plan(num_slots=4), jnp.float32)
  assert said.startswith('4 slots of 64 positions (0.00 GB a device) → 2 slots')
