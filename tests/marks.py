"""Marks of tests."""

from collections.abc import Iterable

import pytest


def long_but_first(values: Iterable) -> list:
  """Parameters of a test, all but the first of which run with `launch/test.sh --all` alone."""
  first, *others = values
  return [first, *(pytest.param(value, marks=pytest.mark.long) for value in others)]
