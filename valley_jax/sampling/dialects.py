"""What is said to a server, and what its answers mean; no network here.

Servers of `/v1/completions` agree on little more than the address. A dialect is
a function from a request to the JSON that asks for it:

    vllm          token ids, and vLLM's names for what OpenAI has none for
                  (tried with vLLM 0.32; not with SGLang, which has most of
                  these names, returns no ids, and does not end at
                  stop_token_ids with ignore_eos: right, but slow)
    transformers  `transformers serve`, which takes text: it is sent where its
                  tokenizer makes the very same ids of it, and else refused

Everything that a sample depends on is said, even where it says nothing (a
repetition penalty of 1): what is left out, servers take from the checkpoint's
generation_config.json. An answer is read as the engine reads its own tokens:
the end token, the strings and the loops are looked for here.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import hashlib
import json
import math
from typing import Any

from valley_jax import errors
from valley_jax import records
from valley_jax.sampling import methods
from valley_jax.sampling import request as request_lib
from valley_jax.sampling import stops as stops_lib

Json = dict[str, Any]


class ServerError(errors.UserError):
  """A server that is away, or says what cannot be a sample."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
  """How samples are to be drawn.

  Attributes:
    method: How tokens are drawn.
    seed: Of all samples.
    end_token: Ends a sample; not part of it.
    max_new_tokens: A sample this long is truncated.
    encode: From text to tokens, nothing added.
    decode: From tokens to text, control tokens included.
    encode_prompt: As the server does: with what a tokenizer adds by itself.
    stops: What else ends a sample.
  """

  method: methods.Method
  seed: int
  end_token: int
  max_new_tokens: int
  encode: Callable[[str], Sequence[int]]
  decode: Callable[[Sequence[int]], str]
  encode_prompt: Callable[[str], Sequence[int]]
  stops: stops_lib.Stops = dataclasses.field(default_factory=stops_lib.Stops)

  @property
  def sampling(self) -> methods.Sampling:
    """The numbers of the method; those of greedy decoding filter nothing."""
    if isinstance(self.method, methods.Greedy):
      return methods.Sampling()
    return self.method

  @property
  def temperature(self) -> float:
    """0 is greedy, to every server."""
    if isinstance(self.method, methods.Greedy):
      return 0.0
    return self.method.temperature

  @property
  def strings(self) -> list[str]:
    """The stop strings that a server can be told.

    Where strings count behind another one only, which none can be told, it
    goes on to the end, and the sample is cut here.
    """
    return [] if self.stops.after else list(self.stops.strings)


def seed_of(seed: int, request: request_lib.Request) -> int:
  """Returns a request's own seed: 31 bits, which every server takes.

  A hash of (seed, problem), plus the index: no two samples of a problem share
  one, which two hashes might.
  """
  text = f'{seed}:{request.problem_id}'.encode()
  digest = hashlib.blake2b(text, digest_size=8).digest()
  return (int.from_bytes(digest, 'little') + request.sample_index) % 2**31


def vllm(asked: Asked, request: request_lib.Request) -> Json:
  """Returns what vLLM is asked; without model and seed."""
  numbers = asked.sampling
  return {
      'prompt': list(request.prompt),
      'n': 1,
      'echo': False,
      'stream': False,
      'max_tokens': asked.max_new_tokens,
      'min_tokens': 0,
      'temperature': asked.temperature,
      'top_p': numbers.top_p,
      'top_k': numbers.top_k or -1,  # 0 is an error to some.
      'min_p': numbers.min_p,
      'repetition_penalty': 1.0,
      'presence_penalty': 0.0,
      'frequency_penalty': 0.0,
      # Our end token ends it, and none that the checkpoint names beside it.
      'ignore_eos': True,
      'stop_token_ids': [asked.end_token],
      'stop': asked.strings,
      'include_stop_str_in_output': True,
      # Only where no ids come back does the text matter; then all of it does.
      'skip_special_tokens': False,
      'spaces_between_special_tokens': False,
      'logprobs': 1,
      'return_token_ids': True,
      'return_tokens_as_token_ids': True,
  }


def transformers(asked: Asked, request: request_lib.Request) -> Json:
  """Returns what `transformers serve` is asked; without model and seed.

  Raises:
    ValueError: the text of the prompt would be other tokens there.
  """
  numbers, prompt = asked.sampling, list(request.prompt)
  text = asked.decode(prompt)
  if list(asked.encode_prompt(text)) != prompt:
    raise errors.UserError(
        f'The prompt of {request.problem_id!r} is {len(prompt)} tokens that the'
        f' tokenizer does not make of their text {text[:60]!r}…; this server'
        ' takes text only. Take one that takes token ids'
        " (config.sample.dialect='vllm')."
    )
  whole = {
      'do_sample': asked.temperature > 0,
      'max_new_tokens': asked.max_new_tokens,
      'eos_token_id': asked.end_token,
      'pad_token_id': asked.end_token,
      'repetition_penalty': 1.0,
  }
  if asked.temperature:
    whole |= {'temperature': asked.temperature, 'top_p': numbers.top_p}
    whole |= {'top_k': numbers.top_k, 'min_p': numbers.min_p}
  body: Json = {
      'prompt': text,
      'max_tokens': asked.max_new_tokens,
      # In place of the checkpoint's own, all of it.
      'generation_config': json.dumps(whole),
  }
  return body | ({'stop': asked.strings} if asked.strings else {})


# How config.sample.dialect names them. transformers seeds the whole process,
# and not the request: what a seed does depends on who else asks.
BY_NAME = {'vllm': vllm, 'transformers': transformers}
TAKES_SEEDS = {'vllm': True, 'transformers': False}


def only_choice(answer: Json) -> Json:
  """Returns the one choice of an answer; anything else is a ServerError."""
  choices = answer.get('choices') or []
  if len(choices) != 1:
    raise ServerError(
        f'The answer {str(answer)[:200]!r} has {len(choices)} choices, not one;'
        ' see config.sample.server and the log of the server.'
    )
  return choices[0]


def token_ids(choice: Json) -> list[int] | None:
  """Returns the tokens of an answer, if they are there as ids."""
  if choice.get('token_ids') is not None:
    return list(choice['token_ids'])
  tokens = (choice.get('logprobs') or {}).get('tokens') or []
  if tokens and all(str(t).startswith('token_id:') for t in tokens):
    return [int(t.removeprefix('token_id:')) for t in tokens]
  return None


def log_probs(choice: Json) -> list[float] | None:
  """Returns log p of each token of an answer, if they are there."""
  found = (choice.get('logprobs') or {}).get('token_logprobs')
  return None if not found or None in found else found


def _from_text(asked: Asked, choice: Json) -> list[int]:
  """Returns the tokens that our tokenizer makes of an answer's text."""
  text = choice['text']
  stop = choice.get('stop_reason') or choice.get('matched_stop')
  if isinstance(stop, str) and not text.endswith(stop):
    text += stop  # The server took it off; our samples keep it.
  tokens = list(asked.encode(text))
  if asked.decode(tokens) != text:
    raise ServerError(
        f'The tokenizer makes {asked.decode(tokens)[:60]!r}… of the answer'
        f' {text[:60]!r}…; take a server that returns token ids.'
    )
  return tokens


def _server_reason(asked: Asked, choice: Json, num_tokens: int | None) -> records.FinishReason:
  """Returns why the server says that it stopped.

  Raises:
    ServerError: not for a reason that a sample may end.
  """
  reason = choice.get('finish_reason')
  at = choice.get('stop_reason', choice.get('matched_stop'))
  limit = asked.max_new_tokens
  if reason == 'length' and num_tokens is not None and num_tokens != limit:
    raise ServerError(
        f'The server cut a sample at {num_tokens:,} tokens, not at'
        f' sample.max_new_tokens={limit:,}: its context is full. Start it with'
        ' a longer one (vLLM: --max-model-len), or lower the limit.'
    )
  if reason == 'stop' and isinstance(at, int) and at != asked.end_token:
    raise ServerError(
        f'The server ended a sample at token {at}, and the tokenizer says that'
        f' {asked.end_token} ends one; serve the student that the tokenizer is'
        ' of.'
    )
  if reason not in ('stop', 'length'):
    raise ServerError(
        f'The server ended a sample with finish_reason={reason!r}, which is'
        " neither 'stop' nor 'length'; see its log, and run again."
    )
  is_whole = reason == 'length'
  return records.FinishReason.LENGTH if is_whole else records.FinishReason.EOS


def to_sample(
    asked: Asked, request: request_lib.Request, answer: Json, *, has_ids: bool
) -> request_lib.Sample:
  """Returns the sample of an answer, cut where the engine would end it.

  Args:
    asked: How it was to be drawn.
    request: What was asked for.
    answer: The server's JSON.
    has_ids: The server returns token ids; else they are made of the text, and
      log-probabilities, which are then of other tokens, are left out: NaN.

  Raises:
    ServerError: the answer is not a sample of the request.
  """
  usage = answer.get('usage') or {}
  num_prompt = usage.get('prompt_tokens') or len(request.prompt)
  if num_prompt != len(request.prompt):
    raise ServerError(
        f'The server read {num_prompt} tokens in the prompt of'
        f' {request.problem_id!r}, which has {len(request.prompt)}; serve the'
        ' student that the tokenizer (config.shards) is of.'
    )
  choice = only_choice(answer)
  tokens = token_ids(choice) if has_ids else _from_text(asked, choice)
  if tokens is None:
    raise ServerError('The server has left token ids out of an answer.')
  size = len(tokens) if has_ids else usage.get('completion_tokens')
  reason = _server_reason(asked, choice, size)
  sample = request_lib.Sample(request)
  counted = sample.take(
      tokens,
      limit=len(tokens) + 1,  # The server has counted them.
      end_tokens=(asked.end_token,),
      stops=asked.stops,
  )
  each = log_probs(choice) if has_ids else None
  raw = math.fsum(each[:counted]) if each else math.nan
  # Servers tell those of the raw model; at a temperature they are others.
  is_raw = asked.temperature in (0.0, 1.0)
  return dataclasses.replace(
      sample,
      log_prob=raw,
      log_prob_tempered=raw if is_raw else math.nan,
      finish_reason=sample.finish_reason or reason,
  )
