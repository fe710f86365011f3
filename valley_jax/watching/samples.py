"""What the student writes while it learns: to the same prompts, again.

A wrong template or end token shows here first, long before an evaluation: the
student does not stop, or does not close its thinking. A judge, where there is
one, says what its programs are worth.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import statistics
from typing import Any

from valley_jax import programs
from valley_jax import records
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import request as request_lib

_FENCE = '~' * 12  # Longer than any that a student writes.
_TAIL = 16  # Tokens of a prompt, among which an opened `<think>` stands.

Judge = Callable[[Mapping[tuple[str, int], str | None]], dict[str, float]]


def of_problems(
    chosen: Sequence[records.Problem], tokenizer: tokenization.Tokenizer, prompt: prompts.Prompt
) -> list[request_lib.Request]:
  """Returns a request a problem, in the words that `sample` will use."""
  texts = [prompts.render_problem(prompt, problem) for problem in chosen]
  return [
      request_lib.Request(
          problem.problem_id, 0, tuple(tokenization.encode_prompt(tokenizer, text, prompt.system))
      )
      for problem, text in zip(chosen, texts, strict=True)
  ]


def of_traces(shards: shards_lib.Shards, traces: Sequence[int]) -> list[request_lib.Request]:
  """Returns a request a trace: the prompt that stands before its response."""
  examples = shards.read_examples(traces)
  return [
      request_lib.Request(
          shards.ids[i], 0, tuple(example.tokens[: example.num_prompt_tokens].tolist())
      )
      for i, example in zip(traces, examples, strict=True)
  ]


def repeat(requests: Sequence[request_lib.Request], num_samples: int) -> list[request_lib.Request]:
  """Returns requests for so many samples of each prompt."""
  return [
      dataclasses.replace(request, sample_index=index)
      for request in requests
      for index in range(num_samples)
  ]


def _key(request: request_lib.Request) -> tuple[str, int]:
  return request.problem_id, request.sample_index


class Samples:
  """Answers the same prompts with the student of the moment."""

  def __init__(
      self,
      requests: Sequence[request_lib.Request],
      tokenizer: tokenization.Tokenizer,
      engine: Callable[[Any], engine_lib.Engine],
      judged: Judge | None = None,
  ):
    """Keeps what stays the same.

    Args:
      requests: The prompts.
      tokenizer: Of the student.
      engine: From parameters, an engine; it is dropped after a look, and its
        memory with it.
      judged: From programs, or None, by problem id and sample index, what
        becomes of them; in all processes but one there is none.
    """
    self._requests, self._tokenizer = list(requests), tokenizer
    self._engine, self._judged = engine, judged

  def __call__(self, params: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Returns rates over the samples, and a page of Markdown a prompt, by name.

    `samples/stop_rate` is the share that ends by itself, `truncated_rate` that
    which is as long as allowed, `think_closed_rate` the share with a
    `</think>`, `program_rate` with a program, `mean_tokens` the mean length.
    """
    samples = [*self._engine(params).run(self._requests)]
    texts = {_key(s.request): str(self._tokenizer.decode(s.tokens)) for s in samples}
    begun = {_key(r): self._begun(r) for r in self._requests}
    sources = {key: programs.extract_program(begun[key] + texts[key]) for key in begun}
    reasons = [s.finish_reason for s in samples]
    rates = {
        'stop_rate': [r is records.FinishReason.EOS for r in reasons],
        'truncated_rate': [r is records.FinishReason.LENGTH for r in reasons],
        'think_closed_rate': ['</think>' in text for text in texts.values()],
        'program_rate': [source is not None for source in sources.values()],
        'mean_tokens': [len(s.tokens) for s in samples],
    }
    scalars = {f'samples/{k}': statistics.fmean(x) for k, x in rates.items()}
    if self._judged:
      scalars |= self._judged(sources)
    return scalars, {
        f'samples/{request.problem_id}': self._page(request, texts[_key(request)])
        for request in self._requests
        if request.sample_index == 0
    }

  def _begun(self, request: request_lib.Request) -> str:
    """Returns the `<think>` that the prompt ends with, if it opens it."""
    tail = self._tokenizer.decode(list(request.prompt[-_TAIL:]))
    return templates.find_opened_think(str(tail))

  def _page(self, request: request_lib.Request, text: str) -> str:
    prompt = str(self._tokenizer.decode(list(request.prompt)))
    return '\n'.join([_FENCE, prompt, _FENCE, '', _FENCE, text, _FENCE])
