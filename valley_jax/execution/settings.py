"""The settings of the judge, and the limits that they give to a problem's tests."""

from collections.abc import Collection
import dataclasses
from typing import TYPE_CHECKING

from valley_jax import errors
from valley_jax import records
from valley_jax.execution import languages

if TYPE_CHECKING:  # Whoever uses the judge alone needs no ConfigDict.
  import ml_collections as mlc

_MAX_CPU_SECONDS = 36_000  # The wall limit, a multiple of it, must fit into C's int of ms.
_MAX_SIZE = 1 << 24  # MiB of memory, KiB of output.
_TIERS = ('', 'T0', 'T1', 'T2')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How to judge; equal settings on one kind of machine give equal verdicts.

  Attributes:
    cpu_seconds: The limit of problems that state none.
    multipliers: (language, factor) pairs; the CPU limit is multiplied by the factor.
    profile: The rules that decide.
    tier: 'T0', 'T1' or 'T2'; '' takes the strongest that this machine offers.
    waivers: Names of properties that need not hold (see `probe.py`).
    stop_at_failure: Whether the first test that fails is the last one run.
    num_workers: Programs judged at a time, at most one per core; 0: one per core.
    cache_dir: Directory of verdicts and binaries; '': nothing is cached.
  """

  cpu_seconds: float = 10.0
  multipliers: tuple[tuple[str, float], ...] = ()
  profile: records.Profile = records.Profile.STRICT
  tier: str = ''
  waivers: tuple[str, ...] = ()
  stop_at_failure: bool = True
  num_workers: int = 0
  cache_dir: str = ''

  @classmethod
  def from_config(cls, config: 'mlc.ConfigDict') -> 'Settings':
    """Returns the settings that a run's config asks for.

    Raises:
      UserError: a value is out of range or unknown.
    """
    if config.num_workers < 0:
      raise errors.UserError(
          f'num_workers={config.num_workers} is below 0; give the number of programs that are'
          ' judged at a time, or 0 for one per core.'
      )
    profiles = [profile.value for profile in records.Profile]
    return cls(
        cpu_seconds=_check_positive('cpu_seconds', config.cpu_seconds),
        multipliers=tuple(
            (name, _check_positive(f'multipliers.{name}', factor))
            for name, factor in sorted(config.multipliers.items())
        ),
        profile=records.Profile(_check_known('profile', config.profile, profiles)),
        tier=_check_known('tier', config.tier, _TIERS),
        waivers=tuple(config.waivers),
        stop_at_failure=not config.all_tests,
        num_workers=config.num_workers,
        cache_dir=config.cache,
    )

  def compute_limits(self, problem: records.Problem, language: str) -> records.Limits:
    """Returns the limits of a problem's tests, with the CPU limit filled in."""
    cpu_seconds = problem.limits.cpu_seconds or self.cpu_seconds
    # A config may use any name of a language.
    factors = {languages.parse_language_name(name): factor for name, factor in self.multipliers}
    cpu_seconds *= factors.get(language, 1.0)
    for name, value, maximum in (
        ('cpu_seconds', cpu_seconds, _MAX_CPU_SECONDS),
        ('memory_mib', problem.limits.memory_mib, _MAX_SIZE),
        ('output_kib', problem.limits.output_kib, _MAX_SIZE),
    ):
      if not 0 < value <= maximum:
        raise errors.UserError(
            f'Problem {problem.problem_id} has {name}={value}, which is not above 0 and up to'
            f' {maximum:,}; change its `limits`, or `cpu_seconds` and `multipliers` of the config.'
        )
    return records.replace(problem.limits, cpu_seconds=cpu_seconds)


def _check_positive(name: str, value: float) -> float:
  if not 0 < value < float('inf'):
    raise errors.UserError(f'{name}={value} is not above 0 and finite; change it in the config.')
  return float(value)


def _check_known(name: str, value: str, known: Collection[str]) -> str:
  if value not in known:
    raise errors.UserError(
        f'{name}={value!r} is not known; use one of {", ".join(map(repr, known))}.'
    )
  return value
