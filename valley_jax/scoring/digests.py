"""What a verdict depends on, as three short hashes:

    <program>-<problem>-<rules>

Every row of judgements.jsonl holds this digest. `execute` judges a row anew if one of the three
hashes differs from today's. `score`, which knows programs and problems but not the settings of
`execute`, refuses a row whose first two hashes are outdated, and rows that differ in the third.
"""

from collections.abc import Iterable
import dataclasses
import hashlib
from typing import Any

from valley_jax import records
from valley_jax.execution import settings as settings_lib

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

  problem_digests: dict[str, str]  # By problem id.
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
