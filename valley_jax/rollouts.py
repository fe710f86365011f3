"""One path from a student's parameters and problems to completions, programs and verdicts.

    requests = write_requests(problems, tokenizer, prompt, num_samples=4)
    engine = build_engine(params)
    rollouts = draw_rollouts(engine, requests, tokenizer)
    rollouts = judge_rollouts(rollouts, problems, judge_all)

Drawing takes all devices of the current mesh, and so all processes that share it; judging takes
none, so that one process does it for all.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses

from valley_jax import programs
from valley_jax import records
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization
from valley_jax.execution import judge as judge_lib
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import samples as samples_lib

_TAIL_TOKENS = 16  # The end of a prompt, which holds the `<think>` of a template that opens it.


@dataclasses.dataclass(frozen=True)
class Rollout:
  """One sample, its program, and what the judge says of it.

  Attributes:
    sample: The tokens drawn, with their log-probability and the reason for the end.
    text: The completion, without the `<think>` that the prompt may have opened.
    source: The program of the completion; None where it holds none.
    judgement: The judge's row; None where there is no program, or nothing has been judged.
  """

  sample: samples_lib.Sample
  text: str
  source: str | None
  judgement: records.Judgement | None = None

  @property
  def verdict(self) -> records.Verdict:
    """The judge's verdict; a compile error where there is no program.

    Raises:
      ValueError: there is a program that has not been judged.
    """
    if self.source is None:
      return records.Verdict.COMPILE_ERROR
    if self.judgement is None:
      raise ValueError(f'The program of {self.sample.request.key} has not been judged.')
    return self.judgement.verdict


def write_requests(
    problems: Iterable[records.Problem],
    tokenizer: tokenization.Tokenizer,
    prompt: prompts.Prompt,
    num_samples: int,
) -> list[samples_lib.Request]:
  """Returns `num_samples` requests per problem, in the problems' order."""
  requests = []
  for problem in problems:
    text = prompts.render_problem(prompt, problem)
    tokens = tuple(tokenization.encode_prompt(tokenizer, text, prompt.system))
    requests += [
        samples_lib.Request(problem.problem_id, index, tokens) for index in range(num_samples)
    ]
  return requests


def read_opened_thinking(tokenizer: tokenization.Tokenizer, request: samples_lib.Request) -> str:
  """Returns the `<think>` that a request's prompt ends with, '' if it ends otherwise."""
  return templates.find_opened_think(str(tokenizer.decode(list(request.prompt[-_TAIL_TOKENS:]))))


def draw_rollouts(
    engine: engine_lib.Engine,
    requests: Sequence[samples_lib.Request],
    tokenizer: tokenization.Tokenizer,
) -> list[Rollout]:
  """Draws a completion per request; returns the rollouts in the requests' order, not judged."""
  drawn = {s.request.key: s for s in engine.draw_samples(requests) if s.finish_reason}
  rollouts = []
  for request in requests:
    sample = drawn[request.key]
    text = str(tokenizer.decode(sample.tokens))
    source = programs.extract_program(read_opened_thinking(tokenizer, request) + text)
    rollouts.append(Rollout(sample, text, source))
  return rollouts


def judge_rollouts(
    rollouts: Sequence[Rollout], problems: Iterable[records.Problem], judge_all: judge_lib.JudgeAll
) -> list[Rollout]:
  """Returns the rollouts, those with a program with their judgements.

  A judgement may be IE where the judge itself failed: that is no property of the sample.

  Args:
    rollouts: Drawn from `problems`.
    problems: The problems with their tests.
    judge_all: Function from (problem, submission) pairs to judgements, as `execute` judges.

  Raises:
    KeyError: `judge_all` left a program without a judgement.
  """
  by_id = {problem.problem_id: problem for problem in problems}
  pairs = []
  for rollout in rollouts:
    if rollout.source is not None:
      problem_id, index = rollout.sample.request.key
      submission = records.Submission(
          problem_id=problem_id, sample_index=index, source=rollout.source
      )
      pairs.append((by_id[problem_id], submission))
  # Without pairs no pool of sandboxes is started.
  judgements = {records.sample_key(row): row for row in judge_all(pairs)} if pairs else {}
  return [
      rollout
      if rollout.source is None
      else dataclasses.replace(rollout, judgement=judgements[rollout.sample.request.key])
      for rollout in rollouts
  ]
