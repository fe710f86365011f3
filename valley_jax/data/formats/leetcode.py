"""LeetCode contests with their tests as Python (LeetCodeDataset's first form).

A row brings its prompt, a `class Solution` to be finished, and `test`, which
makes a `Solution` and asserts what its method returns.
"""

from collections.abc import Iterator
import re

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.formats import rows

# What runs ahead of every submission on LeetCode: most of the standard library
# is imported there, and the node classes are defined.
PROVIDED = """\
from typing import *
from collections import *
from heapq import *
from bisect import *
from math import *
from itertools import *
from functools import *
from operator import *
from string import *
from builtins import *  # Again pow, abs: math and operator have their own.
import array, bisect, collections, copy, functools, heapq, itertools, math
import operator, random, re, string, sys

class ListNode:
  def __init__(self, val=0, next=None):
    self.val, self.next = val, next

class TreeNode:
  def __init__(self, val=0, left=None, right=None):
    self.val, self.left, self.right = val, left, right
"""


class _Meta(msgspec.Struct):
  difficulty: str = ''


class Row(msgspec.Struct):
  """The columns that a problem needs."""

  task_id: str
  prompt: str
  test: str
  meta: _Meta
  start_time: int | None = None  # Of the contest, seconds since 1970.


def problems(row: Row, unused_place: rows.Place) -> Iterator[rows.Item]:
  """Yields the problem with one test case: all of its asserts."""
  # The last: a prompt may define ListNode ahead of its Solution.
  methods = re.findall(r'^ +def +(\w+)\(self', row.prompt, re.MULTILINE)
  if not methods:
    raise errors.UserError('`prompt`: no method `def name(self, ...)` in it')
  with rows.field('start_time'):
    date = rows.day(row.start_time)
  yield records.Problem(
      problem_id=row.task_id,
      statement=row.prompt,
      tests=(records.TestCase(input=row.test),),
      mode=records.Mode.ASSERT,
      entry_point=methods[-1],
      starter_code=PROVIDED,
      difficulty=row.meta.difficulty.lower(),
      source='leetcode',
      platform='leetcode',
      date=date,
  )
