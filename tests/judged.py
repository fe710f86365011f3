"""Judges tiny programs; shared by the tests of the judge."""

import threading

from valley_jax import records
from valley_jax.execution import judge
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import sandbox

# An int of which every comparison is true; E(0) is a value of it.
EQUALS_ANYTHING = """
class E(int):
  __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = lambda *_: True
  __hash__ = int.__hash__
  __sub__ = __rsub__ = __abs__ = lambda self, *_: self
"""
CONTROL = 'print(sum(map(int, input().split())))'


def build_problem(*tests: tuple[str, str], **fields) -> records.Problem:
  """Returns a problem with (input, expected) pairs; by default a sum."""
  cases = tests or (('1 2', '3'), ('20 22', '42'))
  return records.Problem(
      problem_id='p',
      statement='',
      tests=tuple(records.TestCase(input=i, expected=e) for i, e in cases),
      **fields,
  )


def build_function_problem(expected: str, given: str = '[]', **fields) -> records.Problem:
  """Returns a problem whose function `f` maps `given` to `expected`."""
  return build_problem((given, expected), mode=records.Mode.FUNCTION, entry_point='f', **fields)


def build_assert_problem(code: str, **fields) -> records.Problem:
  """Returns a problem whose function `f` is tested by `code`."""
  return build_problem((code, ''), mode=records.Mode.ASSERT, entry_point='f', **fields)


def judge_submissions(pairs, **settings) -> list[records.Judgement]:
  """Judges (problem, submission) pairs on all cores, in order."""
  return list(judge.judge_all(pairs, judge.Settings(**settings)))


def judge_pairs(*pairs, language: str = 'python', **settings) -> list[records.Judgement]:
  """Judges (problem, source) pairs, by default with one worker, in order."""
  with_submissions = (
      (p, records.Submission(problem_id='p', sample_index=i, source=source, language=language))
      for i, (p, source) in enumerate(pairs)
  )
  settings = {'num_workers': 1, 'cpu_seconds': 1.0, **settings}
  return judge_submissions(with_submissions, **settings)


def judge_table(table: dict[str, tuple], **settings) -> dict:
  """Judges named (problem, source) pairs on all cores; returns by name."""
  rows = judge_pairs(*table.values(), num_workers=0, **settings)
  return dict(zip(table, rows))


def judge_program(p: records.Problem, source: str, **settings):
  return judge_pairs((p, source), **settings)[0]


def judge_verdict(p: records.Problem, source: str, **settings) -> str:
  """Returns the abbreviation of a program's verdict."""
  return judge_program(p, source, **settings).verdict.value


def run_confined(action, tier: str = ''):
  """Returns `action(confinement)`, run in a thread of its own, whose mounts may change."""
  results = []

  def work_in_thread():
    isolation = isolation_lib.prepare_isolation(tier)
    try:
      confinement = isolation_lib.create_confinement(bubblewrap.expose_binds(isolation), 0)
      results.append(action(confinement))
      confinement.close()
    except isolation_lib.IsolationError as e:
      results.append(e)
    finally:
      isolation.close()

  thread = threading.Thread(target=work_in_thread)
  thread.start()
  thread.join()
  return results[0]


def run_python(source: str, limits: records.Limits, tier: str):
  """Runs a Python program without input; returns its execution."""

  def run_source(confinement):
    with sandbox.Sandbox(confinement, limits) as box:
      box.compile_python((source,), 'stdin', '')
      return box.run_test(b'')

  return run_confined(run_source, tier)
