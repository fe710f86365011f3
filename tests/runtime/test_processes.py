"""Whoever starts a run on several hosts either says all of it or is told."""

import pytest

from valley_jax.runtime import processes


def test_without_a_word_a_run_has_one_process():
  processes.join({'JAX_PLATFORMS': 'cpu'})
  assert processes.is_first()


def test_half_of_what_is_needed_is_refused_by_name():
  environ = {'JAX_COORDINATOR_ADDRESS': '1.2.3.4:5', 'JAX_PROCESS_ID': '0'}
  with pytest.raises(ValueError, match='JAX_NUM_PROCESSES is not; set all'):
    processes.join(environ)
