"""Sets whose tests are Python code with asserts: HumanEval, MBPP, LeetCode's contests.

HumanEval (2107.03374): a submission is a complete program. The prompt runs ahead of it only for the
imports and helper functions that it defines (`poly` of HumanEval/32); its unfinished function is
then defined anew by the submission.

MBPP (2108.07732), also in its sanitized form: every assert of `test_list` is a test case of its
own, after the setup code. The first is shown in the statement, or nobody could know the function's
name. The challenge tests are not used, as in the published numbers.

LeetCode (LeetCodeDataset's first form): a row brings its prompt, a `class Solution` to be finished,
and `test`, which makes a `Solution` and asserts what its method returns.
"""

import builtins
from collections.abc import Iterator
import keyword
import re

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.problem_formats import conversion

# What runs ahead of every submission on LeetCode: most of the standard library is imported there,
# and the node classes are defined.
LEETCODE_PRELUDE = """\
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

_CALLED = re.compile(r'(?<![\w.])([A-Za-z_]\w*)\s*\(')


class HumanEvalRow(msgspec.Struct):
  """The columns of HumanEval."""

  task_id: str
  prompt: str
  entry_point: str
  test: str


def convert_humaneval_row(
    row: HumanEvalRow, unused_place: conversion.Place
) -> Iterator[conversion.Item]:
  """Yields the problem with one test case: its function `check`."""
  code = f'{row.test}\ncheck({row.entry_point})\n'
  yield records.Problem(
      problem_id=row.task_id,
      statement=row.prompt,
      tests=(records.TestCase(input=code),),
      mode=records.Mode.ASSERT,
      entry_point=row.entry_point,
      starter_code=row.prompt,
      source='humaneval',
  )


class MbppRow(msgspec.Struct):
  """The columns of both forms of MBPP."""

  task_id: int
  test_list: list[str]
  text: str = ''
  prompt: str = ''  # What the sanitized form calls `text`.
  test_setup_code: str = ''
  test_imports: list[str] = []


def find_entry_point(test: str) -> str:
  """Returns the function that an assert tests, or ''.

  Example:
    >>> find_entry_point('assert set(f([1, 2])) == set([2])')
    'f'
  """
  called = [x for x in _CALLED.findall(test) if not keyword.iskeyword(x)]
  # `set(f(1))` tests f: builtins only count if nothing else is called.
  own = [name for name in called if not hasattr(builtins, name)]
  return next(iter(own or called), '')  # MBPP/126 asks for a `sum`.


def convert_mbpp_row(row: MbppRow, unused_place: conversion.Place) -> Iterator[conversion.Item]:
  """Yields the problem `mbpp/<task_id>`."""
  problem_id = f'mbpp/{row.task_id}'
  if not row.test_list:
    yield conversion.Remark(problem_id, 'left out: no tests')
    return
  name = find_entry_point(row.test_list[0])
  if not name:
    raise errors.UserError('`test_list`: its first assert calls no function')
  setup = '\n'.join(filter(None, [*row.test_imports, row.test_setup_code]))
  text = (row.text or row.prompt).strip()
  if not text:
    raise errors.UserError('`text`, `prompt`: both are empty')
  yield records.Problem(
      problem_id=problem_id,
      statement=f'{text}\nYour code should pass this test:\n\n{row.test_list[0]}\n',
      tests=tuple(
          records.TestCase(input=f'{setup}\n{test}\n', is_sample=i == 0)
          for i, test in enumerate(row.test_list)
      ),
      mode=records.Mode.ASSERT,
      entry_point=name,
      source='mbpp',
  )


class _LeetCodeMeta(msgspec.Struct):
  difficulty: str = ''


class LeetCodeRow(msgspec.Struct):
  """The columns that a problem of LeetCode needs."""

  task_id: str
  prompt: str
  test: str
  meta: _LeetCodeMeta
  start_time: int | None = None  # When the contest started, seconds since 1970.


def convert_leetcode_row(
    row: LeetCodeRow, unused_place: conversion.Place
) -> Iterator[conversion.Item]:
  """Yields the problem with one test case: all of its asserts."""
  # The last method: a prompt may define ListNode ahead of its Solution.
  methods = re.findall(r'^ +def +(\w+)\(self', row.prompt, re.MULTILINE)
  if not methods:
    raise errors.UserError('`prompt`: no method `def name(self, ...)` in it')
  with conversion.naming_column('start_time'):
    date = conversion.format_timestamp_day(row.start_time)
  yield records.Problem(
      problem_id=row.task_id,
      statement=row.prompt,
      tests=(records.TestCase(input=row.test),),
      mode=records.Mode.ASSERT,
      entry_point=methods[-1],
      starter_code=LEETCODE_PRELUDE,
      difficulty=row.meta.difficulty.lower(),
      source='leetcode',
      platform='leetcode',
      date=date,
  )
