"""The routes: OpenAI's addresses around a loop on the device."""

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import functools
from typing import Any, TypeVar

import msgspec
from starlette import applications
from starlette import exceptions
from starlette import requests
from starlette import responses
from starlette import routing

from valley_jax.serving import answers
from valley_jax.serving import loop as loop_lib
from valley_jax.serving import served as served_lib
from valley_jax.serving import wire

_MAX_BODY_BYTES = 16 * 2**20
_RETRY_AFTER_SECONDS = 1

Updates = asyncio.Queue[tuple[int, loop_lib.Update]]
_T = TypeVar('_T')


class _Json(responses.Response):
  media_type = 'application/json'

  def render(self, content: Any) -> bytes:
    return msgspec.json.encode(content)


class _Stream(responses.StreamingResponse):
  """Server-sent events; however they end, nothing goes on behind them."""

  media_type = 'text/event-stream'

  def __init__(
      self, content: AsyncIterator[bytes], made: Sequence[answers.Choice]
  ):
    super().__init__(content, headers={'Cache-Control': 'no-cache'})
    self._made = made

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    try:
      await super().__call__(scope, receive, send)
    finally:
      _cancel(self._made)


def _cancel(made: Sequence[answers.Choice]) -> None:
  """Frees the slots of those that are not done; to others it means nothing."""
  for choice in made:
    choice.job.is_cancelled = True


async def _pieces(
    updates: Updates, made: Sequence[answers.Choice]
) -> AsyncIterator[tuple[int, answers.Piece]]:
  """Yields what comes of which choice, until all have come to their end.

  Raises:
    RefusedError: the device has failed.
  """
  live = set(range(len(made)))
  while live:
    index, update = await updates.get()
    if update.error:
      raise wire.RefusedError(
          f'The sample was not drawn: {update.error}', status=500
      )
    if index in live:
      piece = made[index].take(update)
      if piece.finish_reason:
        live.remove(index)
      yield index, piece


def _usage(
    prompts: Sequence[Sequence[int]], made: Sequence[answers.Choice]
) -> answers.Json:
  drawn = sum(choice.num_tokens for choice in made)
  return answers.usage(sum(map(len, prompts)), drawn)


async def _whole(
    form: answers.Form,
    prompts: Sequence[Sequence[int]],
    made: Sequence[answers.Choice],
    updates: Updates,
) -> responses.Response:
  pieces = [answers.Piece() for _ in made]
  async for index, piece in _pieces(updates, made):
    pieces[index] += piece
  return _Json(form.whole(pieces, _usage(prompts, made)))


def _event(data: bytes) -> bytes:
  return b'data: ' + data + b'\n\n'


async def _events(
    form: answers.Form,
    prompts: Sequence[Sequence[int]],
    made: Sequence[answers.Choice],
    updates: Updates,
) -> AsyncIterator[bytes]:
  begun = set()
  try:
    async for index, piece in _pieces(updates, made):
      chunk = form.chunk(index, piece, is_first=index not in begun)
      begun.add(index)
      yield _event(msgspec.json.encode(chunk))
  except wire.RefusedError as e:  # The status has been sent.
    yield _event(msgspec.json.encode(answers.error(e)))
    return
  options = form.asked.stream_options
  if options and options.include_usage:
    chunk = form.last_chunk(_usage(prompts, made))
    yield _event(msgspec.json.encode(chunk))
  yield _event(b'[DONE]')


async def _while_there(
    request: requests.Request, answer: Awaitable[_T]
) -> _T | None:
  """Returns the answer, or None if the client goes away before."""

  async def leave() -> None:
    while (await request.receive())['type'] != 'http.disconnect':
      pass

  answering = asyncio.ensure_future(answer)
  leaving = asyncio.ensure_future(leave())
  try:
    await asyncio.wait(
        {answering, leaving}, return_when=asyncio.FIRST_COMPLETED
    )
    return answering.result() if answering.done() else None
  finally:
    for task in (answering, leaving):
      task.cancel()
    await asyncio.gather(answering, leaving, return_exceptions=True)


class _Routes:
  """What is answered at which address."""

  def __init__(self, served: served_lib.Served, loop: loop_lib.Loop):
    self._served, self._loop = served, loop

  async def health(self, unused_request: requests.Request) -> _Json:
    is_alive = self._loop.is_alive
    state = {'status': 'ok' if is_alive else 'ended', **self._loop.counts()}
    return _Json(state, 200 if is_alive else 503)

  async def models(self, unused_request: requests.Request) -> _Json:
    model = {
        'id': self._served.name,
        'object': 'model',
        'created': 0,
        'owned_by': 'valley_jax',
        'max_model_len': self._served.context,
    }
    return _Json({'object': 'list', 'data': [model]})

  async def answer(
      self, kind: type[Any], request: requests.Request
  ) -> responses.Response:
    """Answers a request for samples, whole or in a stream."""
    asked = wire.read(kind, await request.body())
    served = self._served
    if asked.model not in (None, served.name):
      raise wire.RefusedError(
          f'model={asked.model!r}: this server has {served.name!r} only.',
          'model',
          status=404,
          code='model_not_found',
      )
    prompts = served_lib.prompts(served, asked)
    updates: Updates = asyncio.Queue()
    to_here = asyncio.get_running_loop().call_soon_threadsafe
    publish = lambda index, update: to_here(updates.put_nowait, (index, update))
    made = served_lib.choices(served, asked, prompts, publish)
    decode = functools.partial(served.decode, skip_special_tokens=False)
    form = answers.Form(asked=asked, model=served.name, decode=decode)
    self._loop.submit([choice.job for choice in made])
    if asked.stream:
      return _Stream(_events(form, prompts, made, updates), made)
    try:
      answer = _whole(form, prompts, made, updates)
      found = await _while_there(request, answer)
    finally:
      _cancel(made)
    return found or responses.Response(status_code=499)  # Nobody reads it.


def _refuse(unused_request: requests.Request, e: Exception) -> _Json:
  assert isinstance(e, wire.RefusedError)
  return _Json(answers.error(e), e.status)


def _busy(unused_request: requests.Request, e: Exception) -> _Json:
  refusal = wire.RefusedError(str(e), status=429, code='busy')
  headers = {'Retry-After': str(_RETRY_AFTER_SECONDS)}
  return _Json(answers.error(refusal), 429, headers)


def _ended(unused_request: requests.Request, e: Exception) -> _Json:
  return _Json(answers.error(wire.RefusedError(str(e), status=503)), 503)


def _http(request: requests.Request, e: Exception) -> _Json:
  assert isinstance(e, exceptions.HTTPException)
  text = f'{request.method} {request.url.path}: {e.detail}.'
  refusal = wire.RefusedError(text, status=e.status_code)
  return _Json(answers.error(refusal), e.status_code, e.headers)


def make(
    served: served_lib.Served,
    loop: loop_lib.Loop,
    is_up: Callable[[], None] = lambda: None,
) -> applications.Starlette:
  """Returns the application; it starts the loop, and ends it.

  Args:
    served: The student.
    loop: Not started yet.
    is_up: Called when it runs.
  """
  routes = _Routes(served, loop)

  @contextlib.asynccontextmanager
  async def lifespan(unused_app: Any) -> AsyncIterator[None]:
    loop.start()
    try:
      is_up()
      yield
    finally:
      await asyncio.to_thread(loop.close)

  async def complete(request: requests.Request) -> responses.Response:
    return await routes.answer(wire.Completion, request)

  async def chat(request: requests.Request) -> responses.Response:
    return await routes.answer(wire.Chat, request)

  post = functools.partial(
      routing.Route, methods=['POST'], max_body_size=_MAX_BODY_BYTES
  )
  return applications.Starlette(
      routes=[
          routing.Route('/health', routes.health),
          routing.Route('/v1/models', routes.models),
          post('/v1/completions', complete),
          post('/v1/chat/completions', chat),
      ],
      exception_handlers={
          wire.RefusedError: _refuse,
          loop_lib.BusyError: _busy,
          loop_lib.EndedError: _ended,
          exceptions.HTTPException: _http,
      },
      lifespan=lifespan,
  )
