"""What the student writes while it learns: to the same prompts, again.

A wrong template or end token shows here first, long before an evaluation: the
student does not stop, or does not close its thinking.
"""

from collections.abc import Callable
from collections.abc import Sequence
import statistics
from typing import Any

from valley_jax import records
from valley_jax.data import prompts
from valley_jax.data import shards as shards_lib
from valley_jax.data import tokenization
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import request as request_lib

_FENCE = '~' * 12  # Longer than any that a student writes.


def of_problems(
    chosen: Sequence[records.Problem],
    tokenizer: tokenization.Tokenizer,
    prompt: prompts.Prompt,
) -> list[request_lib.Request]:
  """Returns a request a problem, in the words that `sample` will use."""
  texts = [prompts.words(prompt, problem) for problem in chosen]
  return [
      request_lib.Request(
          problem.problem_id,
          0,
          tuple(tokenization.encode_prompt(tokenizer, text, prompt.system)),
      )
      for problem, text in zip(chosen, texts, strict=True)
  ]


def of_traces(
    shards: shards_lib.Shards, traces: Sequence[int]
) -> list[request_lib.Request]:
  """Returns a request a trace: the prompt that stands before its response."""
  examples = shards.read(traces)
  return [
      request_lib.Request(
          shards.ids[i],
          0,
          tuple(example.tokens[: example.num_prompt_tokens].tolist()),
      )
      for i, example in zip(traces, examples, strict=True)
  ]


class Samples:
  """Answers the same prompts with the student of the moment."""

  def __init__(
      self,
      requests: Sequence[request_lib.Request],
      tokenizer: tokenization.Tokenizer,
      engine: Callable[[Any], engine_lib.Engine],
  ):
    """Keeps what stays the same.

    Args:
      requests: The prompts.
      tokenizer: Of the student.
      engine: From parameters, an engine; it is dropped after a look, and its
        memory with it.
    """
    self._requests, self._tokenizer = list(requests), tokenizer
    self._engine = engine

  def __call__(self, params: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Returns rates over the samples, and the samples as Markdown by name.

    `samples/stop_rate` is the share that ends by itself, `think_closed_rate`
    the share with a `</think>`, `mean_tokens` the mean length.
    """
    samples = [*self._engine(params).run(self._requests)]
    texts = {
        s.request.problem_id: str(self._tokenizer.decode(s.tokens))
        for s in samples
    }
    is_stop = [s.finish_reason is records.FinishReason.EOS for s in samples]
    scalars = {
        'samples/stop_rate': statistics.fmean(is_stop),
        'samples/think_closed_rate': statistics.fmean(
            '</think>' in text for text in texts.values()
        ),
        'samples/mean_tokens': statistics.fmean(len(s.tokens) for s in samples),
    }
    return scalars, {
        f'samples/{request.problem_id}': self._page(
            request, texts[request.problem_id]
        )
        for request in self._requests
    }

  def _page(self, request: request_lib.Request, text: str) -> str:
    prompt = str(self._tokenizer.decode(list(request.prompt)))
    return '\n'.join([_FENCE, prompt, _FENCE, '', _FENCE, text, _FENCE])
