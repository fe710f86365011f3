"""One server over HTTP: asked again when it fails, never when it refuses."""

import asyncio
import email.utils
import itertools
import random
import time
from typing import Any

import httpx2

from valley_jax import errors
from valley_jax.sampling import dialects

_CONNECT_SECONDS = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # Seconds, between two tries.
_LONGEST_RETRY_AFTER = 3600.0


class RefusedError(errors.UserError):
  """The server said no, and would say so again."""


def _message(response: httpx2.Response) -> str:
  """Returns the server's own words, out of the forms that they come in."""
  try:
    body = response.json()
  except ValueError:
    return response.text[:500]
  for name in ('error', 'detail', 'message'):
    if isinstance(body, dict) and name in body:
      body = body[name]
  return str(body)[:500]


def _retry_after(response: httpx2.Response) -> float:
  """Returns the seconds that the server asks to wait; 0 if it does not."""
  value = response.headers.get('retry-after', '')
  if value.isdecimal():
    seconds = float(value)
  else:
    try:
      date = email.utils.parsedate_to_datetime(value)
    except ValueError:
      return 0.0
    seconds = max(0.0, date.timestamp() - time.time())
  return min(seconds, _LONGEST_RETRY_AFTER)


def _refusal(response: httpx2.Response) -> RefusedError:
  remedies = {
      401: 'set VALLEY_API_KEY.',
      403: 'set VALLEY_API_KEY.',
      404: 'see config.sample.server, which ends in /v1, and sample.model.',
  }
  remedy = remedies.get(
      response.status_code, 'change that setting of config.sample, its dialect, or the server.'
  )
  return RefusedError(
      f'{response.request.url} refuses with HTTP {response.status_code}:'
      f' {_message(response)!r}; {remedy}'
  )


def _json(response: httpx2.Response) -> Any:
  try:
    return response.json()
  except ValueError as e:
    raise RefusedError(
        f'{response.request.url} answers what is not JSON:'
        f' {response.text[:200]!r}; see config.sample.server.'
    ) from e


class Connection:
  """Asks, with back-off, so many questions at a time; `async with`."""

  def __init__(
      self, url: str, *, concurrency: int, timeout_seconds: float, retries: int, api_key: str
  ):
    self._url, self._retries = url, retries
    self._timeout = timeout_seconds
    self._client = httpx2.AsyncClient(
        headers={'Authorization': f'Bearer {api_key}'} if api_key else {},
        timeout=httpx2.Timeout(timeout_seconds, connect=_CONNECT_SECONDS, pool=None),
        limits=httpx2.Limits(max_connections=concurrency),
        trust_env=False,  # The environment is read by entry points only.
    )

  async def __aenter__(self) -> 'Connection':
    return self

  async def __aexit__(self, *unused_exception) -> None:
    await self.close()

  async def close(self) -> None:
    await self._client.aclose()

  async def ask(
      self, path: str, body: dialects.Json | None = None, *, is_first: bool = False
  ) -> dialects.Json:
    """Returns the server's answer, after as many tries as it takes.

    Raises:
      RefusedError: the server does not take the request as it is.
      ServerError: it is away, broken or busy after all tries; with `is_first`
        one try has to find it.
    """
    url, verb = f'{self._url}{path}', 'GET' if body is None else 'POST'
    for attempt in itertools.count():
      wait = 0.0
      try:
        async with asyncio.timeout(self._timeout):
          response = await self._client.request(verb, url, json=body)
      except (httpx2.TransportError, TimeoutError) as e:
        trouble = f'{type(e).__name__} {e}'.strip()
        away = (httpx2.ConnectError, httpx2.ConnectTimeout)
        if is_first and isinstance(e, away):
          raise dialects.ServerError(
              f'No server answers at {self._url}: {trouble}; start it, and see'
              ' config.sample.server.'
          ) from e
      else:
        if response.is_success:
          return _json(response)
        if response.status_code != 429 and response.status_code < 500:
          raise _refusal(response)
        trouble = f'HTTP {response.status_code}: {_message(response)!r}'
        wait = _retry_after(response)
      if attempt == self._retries:
        raise dialects.ServerError(
            f'{url} failed {attempt + 1} times, last with {trouble}; see the'
            ' log of the server, sample.retries and sample.timeout_seconds.'
        )
      # Spread out, so that those that failed together do not return together.
      backoff = min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT)
      await asyncio.sleep(max(wait, backoff) * random.uniform(1.0, 1.5))
    raise AssertionError('never here')
