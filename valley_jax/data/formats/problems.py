"""Reads problems with their tests: `read_problems('humaneval:PATH')`.

    jsonl          our own rows, `records.Problem`
    mini           the directory of an embedded world: its evaluation
    apps taco      APPS and TACO
    codecontests   CodeContests
    codeforces     open-r1/codeforces
    humaneval mbpp leetcode livecodebench
    kattis         a problem package, or a tree of packages

PATH is a .jsonl, .jsonl.gz or .parquet file, or a directory of such files,
which are read by name; only `kattis` reads something else. The problems come
in the same order whenever they are read.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import pathlib
from typing import Any
import warnings

from valley_jax import errors
from valley_jax import records
from valley_jax.data.formats import apps
from valley_jax.data.formats import codecontests
from valley_jax.data.formats import codeforces
from valley_jax.data.formats import humaneval
from valley_jax.data.formats import kattis
from valley_jax.data.formats import leetcode
from valley_jax.data.formats import livecodebench
from valley_jax.data.formats import mbpp
from valley_jax.data.formats import rows

_MOST_NAMED = 10  # Ids in a warning; the others are counted.


Reader = Callable[[pathlib.Path], Iterator[rows.Item]]


def _of(row_type: Any, convert: rows.Convert) -> Reader:
  return lambda path: rows.read(path, row_type, convert)


_read_own = _of(records.Problem, lambda row, place: [row])


def _read_mini(path: pathlib.Path) -> Iterator[rows.Item]:
  return _read_own(path / 'problems.jsonl' if path.is_dir() else path)


_READERS: dict[str, Reader] = {
    'apps': _of(apps.Row, functools.partial(apps.problems, source='apps')),
    'codecontests': _of(codecontests.Row, codecontests.problems),
    'codeforces': _of(codeforces.Row, codeforces.problems),
    'humaneval': _of(humaneval.Row, humaneval.problems),
    'jsonl': _read_own,
    'kattis': kattis.read,
    'leetcode': _of(leetcode.Row, leetcode.problems),
    'livecodebench': _of(livecodebench.Row, livecodebench.problems),
    'mbpp': _of(mbpp.Row, mbpp.problems),
    'mini': _read_mini,
    'taco': _of(apps.Row, functools.partial(apps.problems, source='taco')),
}


def read_problems(spec: str) -> list[records.Problem]:
  """Returns the problems of `FORMAT:PATH`, in the file's order.

  Warns once, with ids, of problems that are left out since they could not be
  judged honestly, and of those that are kept with a flaw.

  Raises:
    ValueError: an unknown format, no file, no problem, or one id twice.
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
        f'Problems {spec!r}: there is no file {path}; set `problems` of the'
        ' config to one that exists.'
    )
  problems, remarks = [], {}
  for item in _READERS[name](pathlib.Path(path)):
    if isinstance(item, rows.Remark):
      remarks.setdefault(item.text, []).append(item.problem_id)
    else:
      problems.append(item)
  said = '; '.join(_count(text, ids) for text, ids in remarks.items())
  if not problems:
    why = f'no problem that can be judged: {said}' if said else 'no row'
    raise errors.UserError(f'Problems {spec!r}: {path} has {why}.')
  _refuse_doubles(spec, problems)
  if said:
    warnings.warn(f'Problems {spec!r}: {said}.')
  return problems


def _count(text: str, ids: list[str]) -> str:
  named = ', '.join(ids[:_MOST_NAMED])
  more = f' and {len(ids) - _MOST_NAMED:,} more' if ids[_MOST_NAMED:] else ''
  return f'{len(ids):,} {text} ({named}{more})'


def _refuse_doubles(spec: str, problems: list[records.Problem]) -> None:
  seen = set()
  for problem in problems:
    if problem.problem_id in seen:
      raise errors.UserError(
          f'Problems {spec!r}: {problem.problem_id!r} occurs twice; give each'
          ' problem an id of its own.'
      )
    seen.add(problem.problem_id)
