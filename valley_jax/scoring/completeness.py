"""What must be there before a score may be.

A sample that is missing, judged twice, judged on another program than today's,
or that our own machinery failed on is not a wrong answer: averaging over what
happens to be there gives a number that looks like a score. So these are errors,
each with its remedy.
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TypeVar

from valley_jax import errors
from valley_jax import records
from valley_jax.scoring import digests

T = TypeVar('T')
Key = tuple[str, int]  # (problem_id, sample_index)


def by_key(
    pairs: Iterable[tuple[Key, T]], source: str, remedy: str = 'remove one of the two rows'
) -> dict[Key, T]:
  """Returns the (key, value) pairs as a dict, in which no key may come twice.

  Args:
    pairs: An iterator will do: the values of a large file, made row by row.
    source: The file, for the message.
    remedy: For the message too.
  """
  found = {}
  for key, value in pairs:
    if key in found:
      raise errors.UserError(f'{source} holds {_name(key)} twice; {remedy}.')
    found[key] = value
  return found


def check(
    problem_ids: Sequence[str],
    judgements: Mapping[Key, records.Judgement],
    written: Collection[Key],
    num_samples: int | None,
) -> int:
  """Returns n, the samples a problem, or says why no score can be given.

  Args:
    problem_ids: The problems that are scored.
    judgements: By key.
    written: The keys of the completions, or of the submissions.
    num_samples: The n that was asked for; None to take it from the judgements.

  Raises:
    ValueError: an IE, a sample without judgement, a judgement without
      completion, an unknown problem, or a problem without all of its samples
      0..n-1.
  """
  if len(set(problem_ids)) < len(problem_ids) or not problem_ids:
    raise errors.UserError(
        f'config.problems gives {len(problem_ids):,} problems with'
        f' {len(set(problem_ids)):,} names; every problem needs its own, and a'
        ' score needs at least one.'
    )
  _refuse_internal_errors(judgements)
  _refuse(
      written - judgements.keys(),
      'completions or submissions have no judgement',
      'run `execute` to the end',
  )
  _refuse(
      judgements.keys() - written,
      'judgements have no submission and no completion',
      'delete judgements.jsonl, which belongs to other samples, and run' ' `execute` again',
  )
  n = num_samples or 1 + max((index for _, index in judgements), default=0)
  wanted = {(name, index) for name in problem_ids for index in range(n)}
  _refuse(
      wanted - judgements.keys(),
      f'of {len(wanted):,} samples ({n} a problem) are missing',
      'run `sample` and `execute` to the end, or mend sample.num_samples',
  )
  _refuse(
      judgements.keys() - wanted,
      f'judgements are not of the {len(problem_ids):,} problems with samples' f' 0..{n - 1}',
      'mend config.problems or sample.num_samples',
  )
  return n


def check_digests(
    judgements: Mapping[Key, records.Judgement],
    programs: Mapping[Key, str],
    problems: Mapping[str, str],
) -> None:
  """Raises if a judgement is of another program, other tests or other rules.

  Args:
    judgements: By key.
    programs: Today's hashes of programs, for every key.
    problems: Today's hashes of problems by id, for every problem.

  Raises:
    ValueError: `execute` has not been run since something changed, or not to
      its end.
  """
  judged = {key: digests.split(row.digest) for key, row in judgements.items()}
  remedy = 'run `execute` again, which judges these anew'
  _refuse(
      {key for key, parts in judged.items() if parts[0] != programs[key]},
      'judgements are of programs that have changed since',
      remedy,
  )
  _refuse(
      {key for key, parts in judged.items() if parts[1] != problems[key[0]]},
      'judgements are of problems that have changed since',
      remedy,
  )
  first = next(iter(judged.values()))[2]
  _refuse(
      {key for key, parts in judged.items() if parts[2] != first},
      'judgements were made by other rules (limits, multipliers, profile,'
      ' all_tests) than the first one',
      remedy,
  )


def _refuse_internal_errors(judgements: Mapping) -> None:
  failed = {
      key: row for key, row in judgements.items() if row.verdict is records.Verdict.INTERNAL_ERROR
  }
  message = next((row.message for row in failed.values()), '')
  _refuse(
      failed.keys(),
      f'judgements are IE, our own failure and no score ({message[:200]})',
      'run `execute` again, which retries them',
  )


def _refuse(keys: Collection[Key], trouble: str, remedy: str) -> None:
  if keys:
    some = ', '.join(_name(key) for key in sorted(keys)[:3])
    more = ', …' if len(keys) > 3 else ''
    raise errors.UserError(f'{len(keys):,} {trouble}: {some}{more}; {remedy}.')


def _name(key: Key) -> str:
  return f'{key[0]}[{key[1]}]'
