"""Refuses a score while anything that it needs is missing.

A sample that is missing, judged twice, judged on another program than today's, or that our own
judge failed on is not a wrong answer: an average over what happens to be present would look like a
score. Each of these is therefore an error that names its remedy.

What a verdict depends on is hashed: every row of judgements.jsonl has the digest

    <program>-<problem>-<rules>

`execute` judges a row anew if one of the three hashes differs from today's. `score`, which knows
programs and problems but not the settings of `execute`, refuses a row whose first two hashes are
outdated, and rows that differ in the third.
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any, TypeVar

from valley_jax import errors
from valley_jax import records
from valley_jax.execution import settings as settings_lib

T = TypeVar('T')
Key = tuple[str, int]  # (problem_id, sample_index)


def collect_unique(
    pairs: Iterable[tuple[Key, T]], source: str, remedy: str = 'remove one of the two rows'
) -> dict[Key, T]:
  """Returns the (key, value) pairs as a dict.

  Args:
    pairs: May be an iterator that computes the values of a large file row by row.
    source: The file, for the message.
    remedy: Advice at the end of the message.

  Raises:
    UserError: a key occurs twice.
  """
  values = {}
  for key, value in pairs:
    if key in values:
      raise errors.UserError(f'{source} holds {_format_key(key)} twice; {remedy}.')
    values[key] = value
  return values


def check_samples(
    problem_ids: Sequence[str],
    judgements: Mapping[Key, records.Judgement],
    written: Collection[Key],
    num_samples: int | None,
) -> int:
  """Checks that every problem has all of its samples; returns n, their number per problem.

  Args:
    problem_ids: The problems that are scored.
    judgements: Judgements by key.
    written: The keys of the completions, or of the submissions.
    num_samples: The n that the config asks for; None takes it from the judgements.

  Raises:
    UserError: an IE, a sample without judgement, a judgement without completion, an unknown
      problem, or a problem without all of its samples 0..n-1.
  """
  if len(set(problem_ids)) < len(problem_ids) or not problem_ids:
    raise errors.UserError(
        f'config.problems gives {len(problem_ids):,} problems with {len(set(problem_ids)):,} names;'
        ' every problem needs its own, and a score needs at least one.'
    )
  _refuse_internal_errors(judgements)
  _refuse_keys(
      written - judgements.keys(),
      'completions or submissions have no judgement',
      'run `execute` to the end',
  )
  _refuse_keys(
      judgements.keys() - written,
      'judgements have no submission and no completion',
      'delete judgements.jsonl, which belongs to other samples, and run `execute` again',
  )
  n = num_samples or 1 + max((index for _, index in judgements), default=0)
  wanted = {(problem_id, index) for problem_id in problem_ids for index in range(n)}
  _refuse_keys(
      wanted - judgements.keys(),
      f'of {len(wanted):,} samples ({n} a problem) are missing',
      'run `sample` and `execute` to the end, or correct sample.num_samples',
  )
  _refuse_keys(
      judgements.keys() - wanted,
      f'judgements are not of the {len(problem_ids):,} problems with samples 0..{n - 1}',
      'correct config.problems or sample.num_samples',
  )
  return n


def find_broken_problems(judgements: Mapping[Key, records.Judgement]) -> dict[str, str]:
  """Returns the problems whose own checker or interactor is broken, with the reason."""
  return {
      problem_id: row.message
      for (problem_id, _), row in judgements.items()
      if row.verdict is records.Verdict.BROKEN_PROBLEM
  }


def check_digests(
    judgements: Mapping[Key, records.Judgement],
    program_digests: Mapping[Key, str],
    problem_digests: Mapping[str, str],
) -> None:
  """Checks that all judgements are of today's programs and tests, and by the same rules.

  Args:
    judgements: Judgements by key.
    program_digests: Today's hashes of programs, for every key.
    problem_digests: Today's hashes of problems by id, for every problem.

  Raises:
    UserError: `execute` has not been run to its end since something changed.
  """
  judged = {key: split_digest(row.digest) for key, row in judgements.items()}
  remedy = 'run `execute` again, which judges these anew'
  _refuse_keys(
      {key for key, (program, _, _) in judged.items() if program != program_digests[key]},
      'judgements are of programs that have changed since',
      remedy,
  )
  _refuse_keys(
      {key for key, (_, problem, _) in judged.items() if problem != problem_digests[key[0]]},
      'judgements are of problems that have changed since',
      remedy,
  )
  first_rules = next(iter(judged.values()))[2]
  _refuse_keys(
      {key for key, (_, _, rules) in judged.items() if rules != first_rules},
      'judgements were made by other rules (limits, multipliers, profile, all_tests) than the first'
      ' one',
      remedy,
  )


def _refuse_internal_errors(judgements: Mapping[Key, records.Judgement]) -> None:
  failed = {
      key: row for key, row in judgements.items() if row.verdict is records.Verdict.INTERNAL_ERROR
  }
  message = next((row.message for row in failed.values()), '')
  _refuse_keys(
      failed.keys(),
      f'judgements are IE, a failure of the judge and not a score ({message[:200]})',
      'run `execute` again, which retries them',
  )


def _refuse_keys(keys: Collection[Key], trouble: str, remedy: str) -> None:
  if keys:
    examples = ', '.join(_format_key(key) for key in sorted(keys)[:3])
    more = ', …' if len(keys) > 3 else ''
    raise errors.UserError(f'{len(keys):,} {trouble}: {examples}{more}; {remedy}.')


def _format_key(key: Key) -> str:
  return f'{key[0]}[{key[1]}]'


# Fields of a problem that no verdict depends on. A field that is added later counts until it is
# named here.
_DESCRIPTIVE_FIELDS = ('statement', 'stub', 'difficulty', 'source', 'platform', 'date', 'release')


def digest_program(submission: records.Submission | None) -> str:
  """Returns the hash of a program; None stands for a completion without one."""
  return _hash_value(submission and (submission.language, submission.source))


def digest_problem(problem: records.Problem) -> str:
  """Returns the hash of a problem without its descriptive fields."""
  return _hash_value(records.replace(problem, **dict.fromkeys(_DESCRIPTIVE_FIELDS, '')))


def digest_rules(settings: settings_lib.Settings) -> str:
  """Returns the hash of the settings that a verdict depends on."""
  factors = sorted((name, float(factor)) for name, factor in settings.multipliers)
  return _hash_value(
      (float(settings.cpu_seconds), factors, settings.profile, settings.stop_at_failure)
  )


@dataclasses.dataclass(frozen=True)
class Digester:
  """Computes digests of judgements by fixed problems and rules."""

  problem_digests: dict[str, str]  # Keys are problem ids.
  rules_digest: str

  @classmethod
  def from_problems(
      cls, problems: Iterable[records.Problem], settings: settings_lib.Settings
  ) -> 'Digester':
    """Hashes the problems and the settings once, for all submissions."""
    return cls({p.problem_id: digest_problem(p) for p in problems}, digest_rules(settings))

  def digest_judgement(self, problem_id: str, submission: records.Submission | None) -> str:
    """Returns the digest that a judgement of this submission must hold."""
    return f'{digest_program(submission)}-{self.problem_digests[problem_id]}-{self.rules_digest}'


def split_digest(digest: str) -> tuple[str, str, str]:
  """Returns (program, problem, rules), or empty strings if the digest has another form."""
  parts = digest.split('-')
  return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ('', '', '')


def _hash_value(value: Any) -> str:
  return hashlib.blake2b(records.to_json(value), digest_size=8).hexdigest()
