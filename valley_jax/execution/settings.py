"""How to judge."""

import dataclasses

from valley_jax import errors
from valley_jax import records
from valley_jax.execution import languages

_MAX_CPU_SECONDS = 36_000  # What is waited for is a multiple, in C's int of ms.
_MAX_SIZE = 1 << 24  # MiB of memory, KiB of output.


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
    for name, value, most in (
        ('cpu_seconds', seconds, _MAX_CPU_SECONDS),
        ('memory_mib', problem.limits.memory_mib, _MAX_SIZE),
        ('output_kib', problem.limits.output_kib, _MAX_SIZE),
    ):
      if not 0 < value <= most:
        raise errors.UserError(
            f'Problem {problem.problem_id} comes to {name}={value}, which is'
            f' not above 0 and up to {most:,}; mend its `limits`, or'
            ' `cpu_seconds` and `multipliers` of the config.'
        )
    return records.replace(problem.limits, cpu_seconds=seconds)
