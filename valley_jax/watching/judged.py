"""How many problems the student of the moment solves, as the judge says.

One process judges, while the others wait for it in the next step. A pool of
sandboxes is there for the time of a look: between two of them nothing runs
that a killed run could leave behind.
"""

import collections
from collections.abc import Mapping
from collections.abc import Sequence

import tqdm

from valley_jax import errors
from valley_jax import records
from valley_jax.execution import judge
from valley_jax.execution import submission_run
from valley_jax.execution.confinement import isolation
from valley_jax.scoring import estimators

_V = records.Verdict
_PROOF = (
    records.Problem(
        problem_id='proof', statement='', tests=(records.TestCase(input='', expected='1'),)
    ),
    records.Submission(problem_id='proof', sample_index=0, source='print(1)'),
)


class Judged:
  """Judges the watched problems' programs again and again."""

  def __init__(self, problems: Sequence[records.Problem], judge_all: judge.JudgeAll):
    """Judges a program that is right: what is missing shows now.

    Args:
      problems: That are asked.
      judge_all: As `execute` judges.

    Raises:
      ValueError: nothing can be judged here, or not a program of a problem.
    """
    self._problems = {p.problem_id: p for p in problems}
    self._judge_all = judge_all
    for p in problems:
      empty = records.Submission(problem_id=p.problem_id, sample_index=0, source='')
      submission_run.check_pair(p, empty)
    remedy = (
        ' `python -m valley_jax.execution.probe` shows what this machine can'
        ' prove; or train with watch.judge=False.'
    )
    try:
      (row,) = judge_all([_PROOF])
    except isolation.IsolationError as e:
      raise errors.UserError(f'watch.judge=True, but: {e}{remedy}') from e
    if row.verdict is not _V.ACCEPTED:
      raise errors.UserError(
          'watch.judge=True, but the judge finds `print(1)`, which is right,'
          f' {row.verdict.value}: {row.message}{remedy}'
      )

  def __call__(self, sources: Mapping[tuple[str, int], str | None]) -> dict[str, float]:
    """Returns pass@1 and how many programs got which verdict.

    What the judge itself failed at is counted (`judge_errors`), and is no
    sample of its problem; a problem without samples is none. Without problems
    there is no pass@1.

    Args:
      sources: Programs by problem id and sample index; None where the
        completion holds none.
    """
    rows = self._judge(sources)
    num_samples = collections.Counter(problem_id for problem_id, _ in sources)
    num_samples -= collections.Counter(
        r.problem_id for r in rows if r.verdict is _V.INTERNAL_ERROR
    )  # Drops what is 0.
    solved = collections.Counter(r.problem_id for r in rows if r.verdict is _V.ACCEPTED)
    verdicts = collections.Counter(r.verdict for r in rows)
    verdicts[_V.COMPILE_ERROR] += len(sources) - len(rows)
    num_errors = verdicts[_V.INTERNAL_ERROR]
    found = {f'samples/verdict_{v.value}': float(verdicts[v]) for v in _V}
    del found['samples/verdict_IE']
    found['samples/judge_errors'] = float(num_errors)
    if num_samples:
      each = estimators.estimate_each_problem(
          [*num_samples.values()],
          [solved[problem_id] for problem_id in num_samples],
          1,
          allow_unequal=bool(num_errors),
      )
      found['samples/pass@1'] = estimators.average_problems(each)
    return found

  def _judge(self, sources: Mapping[tuple[str, int], str | None]) -> list[records.Judgement]:
    """Judges the programs; says which one the judge failed at first."""
    pairs = [
        (
            self._problems[problem_id],
            records.Submission(problem_id=problem_id, sample_index=index, source=source),
        )
        for (problem_id, index), source in sources.items()
        if source is not None
    ]
    rows = list(self._judge_all(pairs)) if pairs else []
    failed = [r for r in rows if r.verdict is _V.INTERNAL_ERROR]
    if failed:
      tqdm.tqdm.write(
          f'train: {len(failed):,} of {len(rows):,} programs could not be'
          f' judged (IE), such as {records.sample_key(failed[0])}:'
          f' {failed[0].message} pass@1 is without them.'
      )
    return rows
