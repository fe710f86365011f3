"""Judges tiny programs; shared by the tests of the execution."""

from valley_jax import records
from valley_jax.execution import judge

CONTROL = 'print(sum(map(int, input().split())))'


def problem(*tests: tuple[str, str], **fields) -> records.Problem:
  """A problem with (input, expected) pairs; by default a sum."""
  cases = tests or (('1 2', '3'), ('20 22', '42'))
  return records.Problem(
      problem_id='p',
      statement='',
      tests=tuple(records.TestCase(input=i, expected=e) for i, e in cases),
      **fields,
  )


def function(expected: str, given: str = '[]', **fields) -> records.Problem:
  """A problem whose function `f` maps `given` to `expected`."""
  return problem(
      (given, expected), mode=records.Mode.FUNCTION, entry_point='f', **fields
  )


def asserting(code: str, **fields) -> records.Problem:
  """A problem whose function `f` is tested by `code`."""
  return problem(
      (code, ''), mode=records.Mode.ASSERT, entry_point='f', **fields
  )


def judge_pairs(*pairs, cpu_seconds: float = 1.0) -> list[records.Judgement]:
  """Judges (problem, source) pairs with one worker, in order."""
  with_submissions = (
      (p, records.Submission(problem_id='p', sample_index=i, source=source))
      for i, (p, source) in enumerate(pairs)
  )
  judgements = judge.judge_all(
      with_submissions, num_workers=1, cpu_seconds=cpu_seconds
  )
  return sorted(judgements, key=records.key)


def judge_one(p: records.Problem, source: str, cpu_seconds: float = 1.0):
  """Judges one program."""
  return judge_pairs((p, source), cpu_seconds=cpu_seconds)[0]


def verdict(p: records.Problem, source: str, cpu_seconds: float = 1.0) -> str:
  """Returns the abbreviation of a program's verdict."""
  return judge_one(p, source, cpu_seconds).verdict.value
