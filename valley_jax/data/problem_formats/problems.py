"""Reads problems with their tests: `read_problems('humaneval:PATH')`.

    jsonl          our own rows, `records.Problem`
    mini           the directory of an embedded world: its evaluation
    apps taco      APPS and TACO
    codecontests   CodeContests
    codeforces     open-r1/codeforces
    humaneval mbpp leetcode livecodebench
    kattis         a problem package, or a tree of packages

PATH is a .jsonl, .jsonl.gz, .jsonl.zst or .parquet file, or a directory of such files, which are
read in the order of their names; only `kattis` reads something else. The problems always come in
the same order.

Where a statement allows an error, as in "absolute or relative error of at most 10^-6", and the row
names no checker of its own, the problem gets that tolerance among its `flags`.

To add a format: write the struct of its row and a function that yields problems of a row, and name
both in `_READERS`.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import os
import pathlib
import re
from typing import Any
import warnings

from valley_jax import errors
from valley_jax import records
from valley_jax.data.problem_formats import apps
from valley_jax.data.problem_formats import asserts
from valley_jax.data.problem_formats import contests
from valley_jax.data.problem_formats import conversion
from valley_jax.data.problem_formats import kattis
from valley_jax.data.problem_formats import livecodebench

# A negative power of ten in the spellings of statements; `10-6` has lost its superscript.
_POWER = re.compile(
    r'10\s*(?:\^|\*\*)\s*\{?\s*[-−–]\s*\{?\s*(?P<power>\d{1,2})|10[-−–](?P<bare>\d{1,2})(?!\d)'
    r'|10⁻(?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2})|\b1(?:\.0+)?[eE][-−](?P<scientific>\d{1,2})'
    r'|\b0\.(?P<zeros>0+)1\b'
)
_RAISED = str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹', '0123456789')
_ERROR = re.compile(
    r'\b(?:error|absolute|relative|toleran\w+|precision|accura\w+|differ\w*)\b', re.I
)
_SENTENCE_CHARACTERS = 200  # An error is spoken of this near to its size.
_MAX_NAMED = 10  # Ids in a warning; the others are counted.

Reader = Callable[[str], Iterator[conversion.Item]]


def _row_reader(row_type: Any, convert: conversion.Convert) -> Reader:
  return lambda path: conversion.read_items(path, row_type, convert)


_read_own_rows = _row_reader(records.Problem, lambda row, place: [row])


def _read_mini_world(path: str) -> Iterator[conversion.Item]:
  return _read_own_rows(os.path.join(path, 'problems.jsonl') if os.path.isdir(path) else path)


_READERS: dict[str, Reader] = {
    'apps': _row_reader(apps.AppsRow, functools.partial(apps.convert_apps_row, source='apps')),
    'codecontests': _row_reader(contests.CodeContestsRow, contests.convert_codecontests_row),
    'codeforces': _row_reader(contests.CodeforcesRow, contests.convert_codeforces_row),
    'humaneval': _row_reader(asserts.HumanEvalRow, asserts.convert_humaneval_row),
    'jsonl': _read_own_rows,
    'kattis': lambda path: kattis.read_packages(pathlib.Path(path)),
    'leetcode': _row_reader(asserts.LeetCodeRow, asserts.convert_leetcode_row),
    'livecodebench': _row_reader(
        livecodebench.LiveCodeBenchRow, livecodebench.convert_livecodebench_row
    ),
    'mbpp': _row_reader(asserts.MbppRow, asserts.convert_mbpp_row),
    'mini': _read_mini_world,
    'taco': _row_reader(apps.AppsRow, functools.partial(apps.convert_apps_row, source='taco')),
}


def read_problems(spec: str) -> list[records.Problem]:
  """Returns the problems of `FORMAT:PATH`, in the file's order.

  Warns once, with ids, of problems that are left out because they could not be judged fairly, and
  of those that are kept with a flaw.

  Raises:
    UserError: an unknown format, no file, no problem, or one id twice.
    records.BadRowError: a row that is not of the format.
  """
  name, colon, path = spec.partition(':')
  if not colon or name not in _READERS:
    raise errors.UserError(
        f'Problems {spec!r} are not FORMAT:PATH with a known format; formats:'
        f' {", ".join(sorted(_READERS))}, as in jsonl:problems.jsonl.'
    )
  if not path or not pathlib.Path(path).exists():
    raise errors.UserError(
        f'Problems {spec!r}: there is no file {path}; set `problems` of the config to one that'
        ' exists.'
    )
  problems, remarks = [], {}  # Ids by remark: one warning, however many problems it is about.
  for item in _READERS[name](path):
    if isinstance(item, conversion.Remark):
      remarks.setdefault(item.text, []).append(item.problem_id)
    else:
      problems.append(_apply_tolerance(item))
  summary = '; '.join(_summarise_remark(text, ids) for text, ids in remarks.items())
  if not problems:
    why = f'no problem that can be judged: {summary}' if summary else 'no row'
    raise errors.UserError(f'Problems {spec!r}: {path} has {why}.')
  _refuse_repeated_ids(spec, problems)
  if summary:
    warnings.warn(f'Problems {spec!r}: {summary}.')
  return problems


def find_tolerance(statement: str) -> str:
  """Returns the error that a statement allows, or ''.

  Example:
    >>> find_tolerance('The absolute or relative error must not exceed $10^{-6}$.')
    '1e-6'
  """
  for match in _POWER.finditer(statement):
    start = max(0, match.start() - _SENTENCE_CHARACTERS)
    sentence = re.split(r'[.!?]\s+(?=[A-Z])|\n\s*\n', statement[start : match.start()])[-1]
    rest = re.split(r'[.!?]\s|\n', statement[match.end() :][:_SENTENCE_CHARACTERS])[0]
    if not _ERROR.search(sentence) and not _ERROR.search(rest):
      continue
    groups = match.groupdict()
    if zeros := groups.pop('zeros'):
      return f'1e-{len(zeros) + 1}'
    (power,) = filter(None, groups.values())
    return f'1e-{int(power.translate(_RAISED))}'
  return ''


def _apply_tolerance(problem: records.Problem) -> records.Problem:
  is_text = problem.mode is records.Mode.STDIN and problem.checker == 'tokens'
  if not is_text or problem.flags or not (tolerance := find_tolerance(problem.statement)):
    return problem
  return records.replace(problem, flags=('float_tolerance', tolerance))


def _summarise_remark(text: str, ids: list[str]) -> str:
  named = ', '.join(ids[:_MAX_NAMED])
  more = f' and {len(ids) - _MAX_NAMED:,} more' if ids[_MAX_NAMED:] else ''
  return f'{len(ids):,} {text} ({named}{more})'


def _refuse_repeated_ids(spec: str, problems: list[records.Problem]) -> None:
  seen = set()
  for problem in problems:
    if problem.problem_id in seen:
      raise errors.UserError(
          f'Problems {spec!r}: {problem.problem_id!r} occurs twice; give each problem an id of'
          ' its own.'
      )
    seen.add(problem.problem_id)
