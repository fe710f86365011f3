"""Sampling by a server of OpenAI's `/v1/completions`, such as vLLM.

    python -m valley_jax.convert export RUN
    vllm serve RUN/hf --generation-config vllm
    python -m valley_jax.sample ... --config.sample.server=http://HOST:8000/v1

Tried with vLLM 0.32. One HTTP request is one sample: token ids in, token ids out, and a seed made
of (seed, problem, index). A sample therefore depends on the server, its version and its load, but
not on the order. `--generation-config vllm` keeps the server from applying the checkpoint's own
defaults.

What the server does is learnt from one request of one token before the first sample, and recorded
(`ServerFacts`); an answer that later differs is an error. `openai.AsyncOpenAI` repeats a request to
a server that is busy (429), broken (5xx) or unreachable; a refusal (4xx) ends the run with the
server's own words. No completion is ever made up.

What cannot be checked: vLLM ignores names that it does not know, and applies min-p before top-k and
top-p, the engine after them. A sample that vLLM cuts because prompt and max_new_tokens exceed
--max-model-len is an error here, not a truncated sample.
"""

import asyncio
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

from valley_jax import errors
from valley_jax.sampling import protocol as protocol_lib
from valley_jax.sampling import samples as samples_lib
from valley_jax.sampling import settings as settings_lib

if TYPE_CHECKING:  # Its import takes a second, which only runs with a server should pay.
  import openai

_CONNECT_SECONDS = 10.0
_KEY_REMEDY = 'set VALLEY_API_KEY.'
_ADDRESS_REMEDY = 'check config.sample.server, which ends in /v1, and config.sample.model.'
_REMEDIES = {401: _KEY_REMEDY, 403: _KEY_REMEDY, 404: _ADDRESS_REMEDY}  # By HTTP status.


class Server:
  """Draws samples on a server, in place of `engine.Engine`; it sends nothing until asked."""

  def __init__(
      self,
      server: settings_lib.ServerSettings,
      sampling: settings_lib.SampleSettings,
      tokenizer: Any,
      api_key: str = '',
  ):
    self._server, self._api_key = server, api_key
    self._protocol = protocol_lib.CompletionsProtocol(sampling, tokenizer)
    one_token = dataclasses.replace(sampling, max_new_tokens=1)
    self._probe = protocol_lib.CompletionsProtocol(one_token, tokenizer)
    self._facts: protocol_lib.ServerFacts | None = None

  def _open_client(self) -> 'openai.AsyncOpenAI':
    import openai

    server = self._server
    timeout = openai.Timeout(server.timeout_seconds, connect=_CONNECT_SECONDS, pool=None)
    # Proxies of the environment would be read below the entry point.
    http_client = openai.DefaultAsyncHttpxClient(timeout=timeout, trust_env=False)
    return openai.AsyncOpenAI(
        base_url=server.url.rstrip('/'),
        api_key=self._api_key or 'none',  # The client refuses an empty key.
        timeout=timeout,
        max_retries=server.retries,
        http_client=http_client,
    )

  def learn_facts(self, request: samples_lib.Request) -> protocol_lib.ServerFacts:
    """Returns what the server does, after asking it for one token.

    Raises:
      UserError: it refuses the request, or does not say which model it serves.
      ServerError: it is unreachable or broken.
    """
    if self._facts is None:
      with asyncio.Runner() as runner:
        self._facts = runner.run(self._learn_facts(request))
    return self._facts

  async def _learn_facts(self, request: samples_lib.Request) -> protocol_lib.ServerFacts:
    async with self._open_client() as client:
      facts = protocol_lib.ServerFacts(
          model=await self._find_model(client), seeded=self._server.seeded
      )
      try:
        answer = await self._complete(client, self._probe.build_body(facts, request))
      except errors.UserError as e:
        if (
            isinstance(e, protocol_lib.ServerError)
            or not facts.seeded
            or 'seed' not in str(e).lower()
        ):
          raise
        facts = dataclasses.replace(facts, seeded=False)
        answer = await self._complete(client, self._probe.build_body(facts, request))
    facts = self._probe.learn_answer(facts, answer)
    self._probe.parse_sample(facts, request, answer)
    return facts

  async def _find_model(self, client: 'openai.AsyncOpenAI') -> str:
    """Returns the model's name; without retries, so that a server that is down is soon reported."""
    import openai

    model = self._server.model
    try:
      names = [row.id async for row in client.with_options(max_retries=0).models.list()]
    except openai.APIStatusError as e:
      if not model:  # Not every server lists its models.
        raise self._translate_error(e) from e
      return model
    except openai.APIConnectionError as e:
      raise protocol_lib.ServerError(
          f'No server answers at {self._server.url}: {e.__cause__ or e}; start it, and check'
          ' config.sample.server.'
      ) from e
    if not model and len(names) != 1:
      raise errors.UserError(
          f'The server has {len(names)} models: {", ".join(names)}; name one of them with'
          ' config.sample.model.'
      )
    return model or names[0]

  async def _complete(
      self, client: 'openai.AsyncOpenAI', body: protocol_lib.Json
  ) -> protocol_lib.Json:
    import openai

    try:
      answer = await client.completions.create(**body)
    except openai.APIError as e:
      raise self._translate_error(e) from e
    if not isinstance(answer, openai.types.Completion):
      raise errors.UserError(
          f'{self._server.url} answers something other than JSON: {str(answer)[:200]!r}; check'
          ' config.sample.server.'
      )
    return answer.to_dict(warnings=False)

  def _translate_error(self, error: 'openai.APIError') -> errors.UserError:
    status = getattr(error, 'status_code', None)
    if status is not None and status < 500 and status not in (408, 409, 429):
      remedy = _REMEDIES.get(status, 'change that setting of config.sample, or the server.')
      text = f'{self._server.url} refuses with HTTP {status}: {error.message}; {remedy}'
      return errors.UserError(text)
    return protocol_lib.ServerError(
        f'{self._server.url} failed with sample.retries={self._server.retries}: {error.message}'
        f' {error.__cause__ or ""}; see the log of the server, sample.retries and'
        ' sample.timeout_seconds.'
    )

  async def _draw_sample(
      self,
      client: 'openai.AsyncOpenAI',
      facts: protocol_lib.ServerFacts,
      request: samples_lib.Request,
  ) -> samples_lib.Sample:
    answer = await self._complete(client, self._protocol.build_body(facts, request))
    return self._protocol.parse_sample(facts, request, answer)

  def draw_samples(self, requests: Sequence[samples_lib.Request]) -> Iterator[samples_lib.Sample]:
    """Yields samples as they finish; closing the iterator cancels the requests in flight.

    Raises:
      UserError: the server refuses a request.
      ServerError: a request failed after all retries; the message counts the samples before it.
    """
    if not requests:
      return
    facts = self.learn_facts(requests[0])
    waiting, live, num_done = iter(requests), set(), 0
    with asyncio.Runner() as runner:
      client, loop = self._open_client(), runner.get_loop()
      try:
        while True:
          # Only as many tasks as may be in flight, however many requests there are.
          for request in itertools.islice(waiting, self._server.concurrency - len(live)):
            live.add(loop.create_task(self._draw_sample(client, facts, request)))
          if not live:
            return
          done, live = runner.run(_wait_for_first(live))
          failed = [task for task in done if task.exception()]
          for task in done.difference(failed):
            num_done += 1
            yield task.result()
          for task in failed:
            raise _add_count(task.exception(), num_done, len(requests))
      finally:  # The runner cancels the tasks that are still live.
        runner.run(client.close())


async def _wait_for_first(live: set[asyncio.Task]) -> tuple[set, set]:
  return await asyncio.wait(live, return_when=asyncio.FIRST_COMPLETED)


def _add_count(error: BaseException | None, num_done: int, num_all: int) -> BaseException:
  """Returns the error with the number of samples that were done; bugs and Ctrl-C unchanged."""
  assert error is not None
  if not isinstance(error, errors.UserError):
    return error
  text = f'{error} {num_done:,} of {num_all:,} samples were done before.'
  return type(error)(text).with_traceback(error.__traceback__)
