"""A run on several hosts needs all of its three variables, or none."""

import pytest

from valley_jax.runtime import hosts


def test_without_variables_a_run_has_one_process():
  hosts.join_processes({'JAX_PLATFORMS': 'cpu'})
  assert hosts.is_first_process()


def test_missing_variables_are_named():
  environ = {'JAX_COORDINATOR_ADDRESS': '1.2.3.4:5', 'JAX_PROCESS_ID': '0'}
  with pytest.raises(ValueError, match='JAX_NUM_PROCESSES is not; set all'):
    hosts.join_processes(environ)
