"""What a verdict depends on, as three short hashes.

    <program>-<problem>-<rules>

stands in every row of judgements.jsonl. `execute` judges a row anew if one of
the three is another than today's; `score`, which knows programs and problems
but not how `execute` was set, refuses a row whose first two are not theirs,
and rows that differ in the third.
"""

from collections.abc import Iterable
import hashlib
from typing import Any

from valley_jax import records

_DESCRIBING = ('statement', 'stub', 'difficulty', 'source', 'platform', 'date', 'release')


def of_program(submission: records.Submission | None) -> str:
  """Returns the hash of a program; None is a completion without one."""
  return _hash(submission and (submission.language, submission.source))


def of_problem(problem: records.Problem) -> str:
  """Returns the hash of a problem without what only describes it."""
  # What a later record adds counts until it is named here.
  return _hash(records.replace(problem, **dict.fromkeys(_DESCRIBING, '')))


def of_rules(
    *,
    cpu_seconds: float,
    multipliers: Iterable[tuple[str, float]],
    profile: records.Profile,
    stop_at_failure: bool,
) -> str:
  """Returns the hash of `judge.Settings`, as far as a verdict depends on it."""
  factors = sorted((name, float(factor)) for name, factor in multipliers)
  return _hash((float(cpu_seconds), factors, profile, stop_at_failure))


def join(program: str, problem: str, rules: str) -> str:
  """Returns the digest of a judgement."""
  return f'{program}-{problem}-{rules}'


def split(digest: str) -> tuple[str, str, str]:
  """Returns (program, problem, rules); empty ones of a foreign digest."""
  parts = digest.split('-')
  return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ('', '', '')


def _hash(value: Any) -> str:
  return hashlib.blake2b(records.to_json(value), digest_size=8).hexdigest()
