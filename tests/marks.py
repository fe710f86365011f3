"""Marks of tests."""

from collections.abc import Iterable

import pytest


def long_but_first(values: Iterable) -> list:
  """Parameters of a test, all but the first of which run with `launch/test.sh --all` alone."""
  first, *others = values
  rows = (value if isinstance(value, tuple) else (value,) for value in others)
  return [first, *(pytest.param(*row, marks=pytest.mark.long) for row in rows)]
