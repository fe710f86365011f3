"""Sampling by a server of OpenAI's `/v1/completions`: vLLM and its like.

    python -m valley_jax.convert export RUN
    vllm serve RUN/hf --generation-config vllm
    python -m valley_jax.sample ... --config.sample.server=http://HOST:8000/v1

`--generation-config vllm` keeps the server from the checkpoint's own sampling
defaults; everything is said with each request besides. One HTTP request is one
sample: token ids in, token ids out, and a seed of (seed, problem, index). So a
sample depends on the server, its version and its load, but not on the order.

What a server does is learnt by one question of one token before the first
sample, and recorded with the samples (`Facts`): its model; whether it takes
seeds (vLLM on TPUs does not); whether tokens come as ids or have to be made of
text; whether log-probabilities come. An answer that does otherwise later is an
error.

A server that is busy (429), breaks (5xx) or goes away is asked again, later and
later, as its Retry-After says; one that refuses (4xx) ends the run with its own
words. No completion is ever made up.

What a server cannot be asked is whether it heeds a parameter: vLLM answers a
name that it does not know as if it were not there, transformers refuses. The
order of filters is the server's too: vLLM has min-p ahead of top-k and top-p,
the engine behind them. vLLM cuts a sample whose prompt and max_new_tokens are
more than --max-model-len; that is an error here, not a truncated sample.
"""

import asyncio
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import itertools
import math

from valley_jax import errors
from valley_jax.sampling import connection as connection_lib
from valley_jax.sampling import dialects
from valley_jax.sampling import request as request_lib

ServerError = dialects.ServerError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
  """What a server does with what it is asked.

  Attributes:
    model: Its name there.
    dialect: Of `dialects.BY_NAME`.
    seeded: Each request is sent a seed of its own, which the server does not
      refuse; else samples cannot be drawn again.
    tokens_from: `ids` of the server, or `text`, which was tokenised again: its
      tokens may be others than the model drew.
    log_probs: Whether they come.
  """

  model: str
  dialect: str
  seeded: bool
  tokens_from: str
  log_probs: bool


class Server:
  """Has samples drawn elsewhere, by the protocol of `engine.Engine`."""

  def __init__(
      self,
      url: str,
      asked: dialects.Asked,
      *,
      model: str = '',
      dialect: str = 'vllm',
      seeded: bool = True,
      concurrency: int = 64,
      timeout_seconds: float = 3600.0,
      retries: int = 8,
      api_key: str = '',
  ):
    """Asks nothing yet.

    Args:
      url: Where /completions is; http://HOST:8000/v1.
      asked: How samples are to be drawn.
      model: Its name there; '' takes the only one.
      dialect: What the server understands; one of `dialects.BY_NAME`.
      seeded: Whether to send seeds, where the server takes them.
      concurrency: Requests on their way at a time.
      timeout_seconds: A whole sample may take so long.
      retries: A request is repeated so many times before the run ends.
      api_key: Sent as a bearer token; '' sends none.

    Raises:
      ValueError: a number, the address or the dialect is none.
    """
    if dialect not in dialects.BY_NAME:
      raise errors.UserError(
          f'sample.dialect={dialect!r}: want one of' f' {", ".join(dialects.BY_NAME)}.'
      )
    if not url.startswith(('http://', 'https://')):
      raise errors.UserError(f'sample.server={url!r}: want an address like http://HOST:8000/v1.')
    if concurrency < 1 or retries < 0 or timeout_seconds <= 0:
      raise errors.UserError(
          f'sample.concurrency={concurrency}, retries={retries},'
          f' timeout_seconds={timeout_seconds}: want 1 or more, 0 or more, more'
          ' than 0.'
      )
    self._asked, self._model = asked, model
    self._dialect, self._concurrency = dialect, concurrency
    self._seeded = seeded and dialects.TAKES_SEEDS[dialect]
    self._connect = functools.partial(
        connection_lib.Connection,
        url.rstrip('/'),
        concurrency=concurrency,
        timeout_seconds=timeout_seconds,
        retries=retries,
        api_key=api_key,
    )
    self._facts: Facts | None = None

  def _body(
      self, facts: Facts, request: request_lib.Request, asked: dialects.Asked
  ) -> dialects.Json:
    body: dialects.Json = {'model': facts.model}
    body |= dialects.BY_NAME[facts.dialect](asked, request)
    if facts.seeded:
      body['seed'] = dialects.seed_of(asked.seed, request)
    return body

  async def _learn(self, request: request_lib.Request) -> Facts:
    asked = dataclasses.replace(self._asked, max_new_tokens=1)
    async with self._connect() as connection:
      facts = Facts(
          model=self._model or await _only_model(connection),
          dialect=self._dialect,
          seeded=self._seeded,
          tokens_from='',
          log_probs=False,
      )
      ask = lambda facts: connection.ask(
          '/completions', self._body(facts, request, asked), is_first=True
      )
      try:
        answer = await ask(facts)
      except connection_lib.RefusedError as e:
        if not facts.seeded or 'seed' not in str(e).lower():
          raise
        facts = dataclasses.replace(facts, seeded=False)
        answer = await ask(facts)
    choice = dialects.only_choice(answer)
    has_ids = dialects.token_ids(choice) is not None
    dialects.to_sample(asked, request, answer, has_ids=has_ids)
    has_log_probs = has_ids and dialects.log_probs(choice) is not None
    return dataclasses.replace(
        facts, tokens_from='ids' if has_ids else 'text', log_probs=has_log_probs
    )

  def learn(self, request: request_lib.Request) -> Facts:
    """Returns what the server does, after asking it for one token.

    Raises:
      ValueError: it refuses the request, or does not say which model.
      ServerError: it is not there, or broken.
    """
    if self._facts is None:
      with asyncio.Runner() as runner:
        self._facts = runner.run(self._learn(request))
    return self._facts

  async def _sample(
      self, connection: connection_lib.Connection, facts: Facts, request: request_lib.Request
  ) -> request_lib.Sample:
    body = self._body(facts, request, self._asked)
    answer = await connection.ask('/completions', body)
    has_ids = facts.tokens_from == 'ids'
    sample = dialects.to_sample(self._asked, request, answer, has_ids=has_ids)
    if facts.log_probs and sample.tokens and math.isnan(sample.log_prob):
      raise ServerError('The server has left log-probabilities out.')
    return sample

  def run(self, requests: Sequence[request_lib.Request]) -> Iterator[request_lib.Sample]:
    """Yields samples as they finish.

    Requests in flight are cancelled when nobody iterates any more.

    Raises:
      ValueError: the server refuses a request.
      ServerError: it failed one request after all retries; those before are
        counted in the message.
    """
    if not requests:
      return
    facts = self.learn(requests[0])
    waiting, live, num_done = iter(requests), set(), 0
    with asyncio.Runner() as runner:
      connection, loop = self._connect(), runner.get_loop()
      try:
        while True:
          # As many tasks as may be on their way, however many requests.
          room = self._concurrency - len(live)
          for request in itertools.islice(waiting, room):
            sample = self._sample(connection, facts, request)
            live.add(loop.create_task(sample))
          if not live:
            return
          done, live = runner.run(_first(live))
          failed = [task for task in done if task.exception()]
          for task in done.difference(failed):
            num_done += 1
            yield task.result()
          for task in failed:
            raise _with_count(task.exception(), num_done, len(requests))
      finally:  # What is live yet, the runner cancels.
        runner.run(connection.close())


async def _only_model(connection: connection_lib.Connection) -> str:
  """Returns the name of the one model that a server has."""
  answer = await connection.ask('/models', is_first=True)
  names = [str(row['id']) for row in answer['data']]
  if len(names) != 1:
    raise errors.UserError(
        f'The server has {len(names)} models: {", ".join(names)}; name one of'
        ' them with config.sample.model.'
    )
  return names[0]


async def _first(live: set[asyncio.Task]) -> tuple[set, set]:
  return await asyncio.wait(live, return_when=asyncio.FIRST_COMPLETED)


def _with_count(error: BaseException | None, num_done: int, num_asked: int) -> BaseException:
  """Returns the error, and what has become of the others."""
  if not isinstance(error, (ServerError, ValueError)):
    assert error is not None
    return error  # A bug, or Ctrl-C: as it is.
  kind = ServerError if isinstance(error, ServerError) else ValueError
  text = f'{error} {num_done:,} of {num_asked:,} samples were done before.'
  return kind(text).with_traceback(error.__traceback__)
