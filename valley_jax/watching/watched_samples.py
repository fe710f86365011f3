"""What the student writes while it learns: samples of the same prompts, again and again.

A wrong template or end token shows here first, long before an evaluation: the student does not
stop, or does not close its thinking. A judge, where there is one, says which programs are right.
"""

import collections
from collections.abc import Callable
from collections.abc import Sequence
import statistics
from typing import Any

import numpy as np
import tqdm

from valley_jax import errors
from valley_jax import records
from valley_jax import rollouts as rollouts_lib
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.tokens import tokenization
from valley_jax.execution import judge as judge_lib
from valley_jax.execution import submission_run
from valley_jax.execution.confinement import isolation
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import samples as samples_lib
from valley_jax.scoring import estimators

_FENCE = '~' * 12  # Longer than any that a student writes.
_PROOF_PROBLEM = records.Problem(
    problem_id='proof', statement='', tests=(records.TestCase(input='', expected='1'),)
)
_PROOF_PROGRAM = records.Submission(problem_id='proof', sample_index=0, source='print(1)')


def write_trace_requests(
    shards: shards_lib.Shards, traces: Sequence[int] | np.ndarray, num_samples: int
) -> list[samples_lib.Request]:
  """Returns `num_samples` requests per trace, with the prompt that precedes its response."""
  examples = shards.read_examples(traces)
  return [
      samples_lib.Request(
          shards.ids[i], index, tuple(example.tokens[: example.num_prompt_tokens].tolist())
      )
      for i, example in zip(traces, examples, strict=True)
      for index in range(num_samples)
  ]


class WatchedJudge:
  """Judges the watched problems' programs again and again, in one process.

  The other processes wait for it in the next step. A pool of sandboxes exists only during a call:
  between two calls nothing runs that a killed run could leave behind.
  """

  def __init__(self, problems: Sequence[records.Problem], judge_all: judge_lib.JudgeAll):
    """Judges a program that is right, so that a machine that cannot judge is reported now.

    Args:
      problems: The problems that are asked.
      judge_all: Judges pairs of problem and submission, as `execute` does.

    Raises:
      UserError: this machine cannot judge, or a problem cannot be judged.
    """
    self._problems, self._judge_all = list(problems), judge_all
    for p in problems:
      empty = records.Submission(problem_id=p.problem_id, sample_index=0, source='')
      submission_run.check_pair(p, empty)
    remedy = (
        ' `python -m valley_jax.execution.probe` shows what this machine can prove; or train with'
        ' watch.judge=False.'
    )
    try:
      (row,) = judge_all([(_PROOF_PROBLEM, _PROOF_PROGRAM)])
    except isolation.IsolationError as e:
      raise errors.UserError(f'watch.judge=True, but: {e}{remedy}') from e
    if row.verdict is not records.Verdict.ACCEPTED:
      raise errors.UserError(
          'watch.judge=True, but the judge finds `print(1)`, which is right,'
          f' {row.verdict.value}: {row.message}{remedy}'
      )

  def measure(self, rollouts: Sequence[rollouts_lib.Rollout]) -> dict[str, float]:
    """Returns pass@1 and how many programs got which verdict.

    What the judge itself failed at is counted (`judge_errors`) and is left out of pass@1; so is a
    problem without any other sample. Without problems there is no pass@1.
    """
    rollouts = rollouts_lib.judge_rollouts(rollouts, self._problems, self._judge_all)
    failed = [r for r in rollouts if not r.verdict.concerns_program]
    _report_judge_errors(rollouts, failed)
    verdicts = collections.Counter(r.verdict for r in rollouts)
    scalars = {
        f'samples/verdict_{v.value}': float(verdicts[v])
        for v in records.Verdict
        if v.concerns_program
    }
    scalars['samples/judge_errors'] = float(len(failed))
    num_samples, num_accepted = collections.Counter(), collections.Counter()
    for rollout in rollouts:
      problem_id = rollout.sample.request.problem_id
      num_samples[problem_id] += rollout.verdict.concerns_program
      num_accepted[problem_id] += rollout.verdict is records.Verdict.ACCEPTED
    num_samples += collections.Counter()  # Drops problems without a sample.
    if num_samples:
      per_problem = estimators.estimate_each_problem(
          [*num_samples.values()],
          [num_accepted[problem_id] for problem_id in num_samples],
          1,
          allow_unequal=bool(failed),
      )
      scalars['samples/pass@1'] = estimators.average_problems(per_problem)
    return scalars


def _report_judge_errors(
    rollouts: Sequence[rollouts_lib.Rollout], failed: Sequence[rollouts_lib.Rollout]
) -> None:
  """Prints the first program that the judge failed at, if there is one."""
  if failed:
    num_judged = sum(r.judgement is not None for r in rollouts)
    first = failed[0]
    assert first.judgement is not None
    tqdm.tqdm.write(
        f'train: {len(failed):,} of {num_judged:,} programs could not be judged, such as'
        f' {first.sample.request.key}: {first.judgement.message} pass@1 is without them.'
    )


class WatchedSamples:
  """Samples the same prompts with the student of the moment."""

  def __init__(
      self,
      requests: Sequence[samples_lib.Request],
      tokenizer: tokenization.Tokenizer,
      build_engine: Callable[[Any], engine_lib.Engine],
      judge: WatchedJudge | None = None,
  ):
    """Stores what all looks share.

    Args:
      requests: The samples to be drawn at each look.
      tokenizer: The student's tokenizer.
      build_engine: Function from parameters to an engine, which is dropped after a
        look, with its memory.
      judge: Judge of the programs; None in all processes but one, or where nothing is judged.
    """
    self._requests, self._tokenizer = list(requests), tokenizer
    self._build_engine, self._judge = build_engine, judge

  def measure(self, params: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Returns rates over the samples, and a page of Markdown per prompt, by name.

    `samples/stop_rate` is the share that ends by itself, `truncated_rate` the share that is as long
    as allowed, `think_closed_rate` the share with a `</think>`, `program_rate` the share with a
    program, `mean_tokens` the mean length.
    """
    engine = self._build_engine(params)
    rollouts = rollouts_lib.draw_rollouts(engine, self._requests, self._tokenizer)
    reasons = [r.sample.finish_reason for r in rollouts]
    rates = {
        'stop_rate': [reason is records.FinishReason.EOS for reason in reasons],
        'truncated_rate': [reason is records.FinishReason.LENGTH for reason in reasons],
        'think_closed_rate': ['</think>' in r.text for r in rollouts],
        'program_rate': [r.source is not None for r in rollouts],
        'mean_tokens': [len(r.sample.tokens) for r in rollouts],
    }
    scalars = {f'samples/{name}': statistics.fmean(values) for name, values in rates.items()}
    if self._judge:
      scalars |= self._judge.measure(rollouts)
    return scalars, {
        f'samples/{r.sample.request.problem_id}': self._format_page(r)
        for r in rollouts
        if r.sample.request.sample_index == 0
    }

  def _format_page(self, rollout: rollouts_lib.Rollout) -> str:
    prompt = str(self._tokenizer.decode(list(rollout.sample.request.prompt)))
    return '\n'.join([_FENCE, prompt, _FENCE, '', _FENCE, rollout.text, _FENCE])
