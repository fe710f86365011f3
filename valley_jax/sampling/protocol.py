"""What is sent to a server of `/v1/completions`, and what its answers mean; no network here.

Every parameter is sent, even one without effect (a repetition penalty of 1): servers take what is
left out from the checkpoint's generation_config.json. An answer is read as the engine reads its own
tokens: the end token, stop strings and loops are searched for here.
"""

import dataclasses
import hashlib
import math
from typing import Any

from valley_jax import errors
from valley_jax import records
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib
from valley_jax.sampling import settings as settings_lib

Json = dict[str, Any]


class ServerError(errors.UserError):
  """A server that is unreachable or broken, or whose answer is not a sample."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerFacts:
  """What a server does; recorded in sampling.json."""

  model: str  # Its name on the server.
  dialect: str = 'vllm'  # Whose names the parameters have.
  seeded: bool  # Whether requests carry seeds; else samples cannot be drawn again.
  tokens_from: str = ''  # `ids`, or `text` that is tokenised again, perhaps to other tokens.
  log_probs: bool = False  # Whether log-probabilities come.


def make_request_seed(seed: int, request: samples_lib.Request) -> int:
  """Returns a request's own seed: 31 bits, which every server takes.

  It is a hash of (seed, problem) plus the index, so no two samples of a problem share a seed, as
  two hashes might.
  """
  text = f'{seed}:{request.problem_id}'.encode()
  digest = hashlib.blake2b(text, digest_size=8).digest()
  return (int.from_bytes(digest, 'little') + request.sample_index) % 2**31


def _get_only_choice(answer: Json) -> Json:
  choices = answer.get('choices') or []
  if len(choices) != 1:
    raise ServerError(
        f'The answer {str(answer)[:200]!r} has {len(choices)} choices, not one; see'
        ' config.sample.server and the log of the server.'
    )
  return choices[0]


def _get_token_ids(choice: Json) -> list[int] | None:
  if choice.get('token_ids') is not None:
    return list(choice['token_ids'])
  tokens = (choice.get('logprobs') or {}).get('tokens') or []
  if tokens and all(str(t).startswith('token_id:') for t in tokens):
    return [int(t.removeprefix('token_id:')) for t in tokens]
  return None


def _get_log_probs(choice: Json) -> list[float] | None:
  log_probs = (choice.get('logprobs') or {}).get('token_logprobs')
  return None if not log_probs or None in log_probs else log_probs


class CompletionsProtocol:
  """Builds requests and parses answers; no network here."""

  def __init__(self, sampling: settings_lib.SampleSettings, tokenizer: Any):
    self._sampling, self._tokenizer = sampling, tokenizer
    self._stops = sampling.make_stops(tokenizer)
    method = sampling.method
    self._is_greedy = isinstance(method, methods.Greedy)
    # Greedy decoding filters nothing; its temperature is 0 to every server.
    self._numbers = methods.Sampling() if isinstance(method, methods.Greedy) else method

  def build_body(self, facts: ServerFacts, request: samples_lib.Request) -> Json:
    """Returns the arguments of `client.completions.create` for one sample."""
    s, numbers = self._sampling, self._numbers
    seed = {'seed': make_request_seed(s.seed, request)} if facts.seeded else {}
    return {
        'model': facts.model,
        'prompt': list(request.prompt),
        'n': 1,
        'echo': False,
        'stream': False,
        'max_tokens': s.max_new_tokens,
        'temperature': 0.0 if self._is_greedy else numbers.temperature,
        'top_p': numbers.top_p,
        'presence_penalty': 0.0,
        'frequency_penalty': 0.0,
        # Strings that count only after another one cannot be sent: the sample is cut here.
        'stop': [] if s.stop_after else list(s.stop),
        'logprobs': 1,
        **seed,
        'extra_body': {
            'min_tokens': 0,
            'top_k': numbers.top_k or -1,  # 0 is an error to some versions.
            'min_p': numbers.min_p,
            'repetition_penalty': 1.0,
            # Our end token ends a sample, and no other that the checkpoint names.
            'ignore_eos': True,
            'stop_token_ids': [self._tokenizer.eos_token_id],
            'include_stop_str_in_output': True,
            # Where no ids come back the text matters, and then all of it.
            'skip_special_tokens': False,
            'spaces_between_special_tokens': False,
            'return_token_ids': True,
            'return_tokens_as_token_ids': True,
        },
    }

  def learn_answer(self, facts: ServerFacts, answer: Json) -> ServerFacts:
    """Returns the facts with what an answer contains."""
    choice = _get_only_choice(answer)
    has_ids = _get_token_ids(choice) is not None
    has_log_probs = has_ids and _get_log_probs(choice) is not None
    tokens_from = 'ids' if has_ids else 'text'
    return dataclasses.replace(facts, tokens_from=tokens_from, log_probs=has_log_probs)

  def parse_sample(
      self, facts: ServerFacts, request: samples_lib.Request, answer: Json
  ) -> samples_lib.Sample:
    """Returns the sample of an answer, cut where the engine would end it.

    Where tokens are made from text, log-probabilities belong to other tokens and are NaN.

    Raises:
      ServerError: the answer is not a sample of the request.
    """
    usage = answer.get('usage') or {}
    num_prompt = usage.get('prompt_tokens') or len(request.prompt)
    if num_prompt != len(request.prompt):
      raise ServerError(
          f'The server read {num_prompt} tokens in the prompt of {request.problem_id!r}, which has'
          f' {len(request.prompt)}; serve the student that config.shards has the tokenizer of.'
      )
    choice, has_ids = _get_only_choice(answer), facts.tokens_from == 'ids'
    tokens = _get_token_ids(choice) if has_ids else self._encode_text(choice)
    if tokens is None:
      raise ServerError('The server has left token ids out of an answer.')
    num_tokens = len(tokens) if has_ids else usage.get('completion_tokens')
    reason = self._parse_finish_reason(choice, num_tokens)
    sample = samples_lib.Sample(request)
    num_counted = sample.append_tokens(
        tokens,
        limit=len(tokens) + 1,  # The server has counted them.
        end_tokens=(self._tokenizer.eos_token_id,),
        stops=self._stops,
    )
    log_probs = _get_log_probs(choice) if has_ids else None
    if facts.log_probs and sample.tokens and log_probs is None:
      raise ServerError('The server has left log-probabilities out of an answer.')
    sample.log_prob = math.fsum(log_probs[:num_counted]) if log_probs else math.nan
    # Servers return those of the raw model, which at a temperature are others.
    is_raw = self._is_greedy or self._numbers.temperature == 1.0
    sample.log_prob_tempered = sample.log_prob if is_raw else math.nan
    sample.finish_reason = sample.finish_reason or reason
    return sample

  def _encode_text(self, choice: Json) -> list[int]:
    text, stop = choice['text'], choice.get('stop_reason') or choice.get('matched_stop')
    if isinstance(stop, str) and not text.endswith(stop):
      text += stop  # The server took it off; our samples keep it.
    tokens = list(self._tokenizer(text, add_special_tokens=False)['input_ids'])
    if (decoded := str(self._tokenizer.decode(tokens))) != text:
      raise ServerError(
          f'The tokenizer makes {decoded[:60]!r}… of the answer {text[:60]!r}…; use a server that'
          ' returns token ids.'
      )
    return tokens

  def _parse_finish_reason(self, choice: Json, num_tokens: int | None) -> records.FinishReason:
    reason = choice.get('finish_reason')
    stop = choice.get('stop_reason', choice.get('matched_stop'))
    limit, end_token = self._sampling.max_new_tokens, self._tokenizer.eos_token_id
    if reason == 'length' and num_tokens is not None and num_tokens != limit:
      raise ServerError(
          f'The server cut a sample at {num_tokens:,} tokens, not at sample.max_new_tokens='
          f'{limit:,}: its context is full. Start it with a longer one (vLLM: --max-model-len), or'
          ' lower the limit.'
      )
    if reason == 'stop' and isinstance(stop, int) and stop != end_token:
      raise ServerError(
          f'The server ended a sample at token {stop}, but the end token of the tokenizer is'
          f' {end_token}; serve the student that the tokenizer belongs to.'
      )
    if reason not in ('stop', 'length'):
      raise ServerError(
          f"The server ended a sample with finish_reason={reason!r}, which is neither 'stop' nor"
          " 'length'; see its log, and run again."
      )
    return records.FinishReason.LENGTH if reason == 'length' else records.FinishReason.EOS
