"""From a run's config to what judges its programs."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
import functools

import ml_collections as mlc

from valley_jax import errors
from valley_jax import records
from valley_jax.execution import judge

JudgeAll = Callable[[Iterable[judge.Pair]], Iterator[records.Judgement]]


def settings(config: mlc.ConfigDict) -> judge.Settings:
  """Returns what the config says about judging, checked."""
  if config.num_workers < 0:
    raise errors.UserError(
        f'num_workers={config.num_workers} is below 0; give the number of'
        ' programs at a time, or 0 for one a core.'
    )
  profiles = [profile.value for profile in records.Profile]
  return judge.Settings(
      cpu_seconds=_positive('cpu_seconds', config.cpu_seconds),
      multipliers=tuple(
          (name, _positive(f'multipliers.{name}', factor))
          for name, factor in sorted(config.multipliers.items())
      ),
      profile=records.Profile(_one_of('profile', config.profile, profiles)),
      tier=_one_of('tier', config.tier, ('', 'T0', 'T1', 'T2')),
      waivers=tuple(config.waivers),
      stop_at_failure=not config.all_tests,
      num_workers=config.num_workers,
      cache_dir=config.cache,
  )


def _positive(name: str, value: float) -> float:
  if not 0 < value < float('inf'):
    raise errors.UserError(f'{name}={value} is not above 0 and finite; mend it.')
  return float(value)


def _one_of(name: str, value: str, known: Collection[str]) -> str:
  if value not in known:
    raise errors.UserError(
        f'{name}={value!r} is not known; take one of' f' {", ".join(map(repr, known))}.'
    )
  return value


def judge_all(address: str, settings: judge.Settings) -> JudgeAll:
  """Returns the pool that judges: this machine's, or Ray's at an address."""
  if not address:
    return functools.partial(judge.judge_all, settings=settings)
  from valley_jax.execution import remote  # Only where Ray is asked for.

  return functools.partial(remote.judge_all, settings=settings, address=address)
