"""How to judge."""

import dataclasses

from valley_jax import records
from valley_jax.execution import languages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How to judge; equal settings on one kind of machine give equal verdicts.

  Attributes:
    cpu_seconds: The limit of problems that state none.
    multipliers: (language, factor) pairs by which a limit grows.
    profile: Whose rules.
    tier: 'T0', 'T1' or 'T2'; empty takes the strongest one that is there.
    waivers: Properties that need not be proven (see `probes.py`).
    stop_at_failure: Whether the first test that fails is the last one run.
    num_workers: How many are judged at a time, at most one a core; 0: so many.
    cache_dir: Where verdicts and binaries are kept; empty keeps none.
  """

  cpu_seconds: float = 10.0
  multipliers: tuple[tuple[str, float], ...] = ()
  profile: records.Profile = records.Profile.STRICT
  tier: str = ''
  waivers: tuple[str, ...] = ()
  stop_at_failure: bool = True
  num_workers: int = 0
  cache_dir: str = ''

  def limits(self, problem: records.Problem, language: str) -> records.Limits:
    """Returns the limits of a test, with the CPU limit filled in."""
    seconds = problem.limits.cpu_seconds or self.cpu_seconds
    factors = {languages.canonical(n): f for n, f in self.multipliers}
    seconds *= factors.get(language, 1.0)
    return records.replace(problem.limits, cpu_seconds=seconds)
