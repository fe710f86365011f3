"""What clients may ask, as JSON, and what is refused.

The names are OpenAI's, and vLLM's for what OpenAI has none for. A field that is
not here is an error, and so is a value that would have to be passed over: a
student that is asked for a repetition penalty shall not answer without one.
"""

import re
from typing import Any, Literal

import msgspec

from valley_jax.sampling import methods


class RefusedError(Exception):
  """A request that is not answered as it is."""

  def __init__(
      self,
      message: str,
      param: str | None = None,
      *,
      status: int = 400,
      code: str | None = None,
  ):
    """Says why.

    Args:
      message: Names the value, the limit and the remedy.
      param: The field that it is about.
      status: Of HTTP.
      code: OpenAI's word for it, if there is one.
    """
    super().__init__(message)
    self.param, self.status, self.code = param, status, code


class _Struct(msgspec.Struct, forbid_unknown_fields=True):
  """Base of all that comes in."""


class StreamOptions(_Struct, kw_only=True):
  """How to stream."""

  include_usage: bool = False


class Asked(_Struct, kw_only=True):
  """What both kinds of requests say; None: as the server's config has it."""

  model: str | None = None
  n: int = 1
  stream: bool = False
  stream_options: StreamOptions | None = None
  temperature: float | None = None
  top_p: float | None = None
  top_k: int | None = None  # 0 or -1: all.
  min_p: float | None = None
  seed: int | None = None  # None: another one each time.
  max_tokens: int | None = None
  stop: str | list[str] | None = None
  stop_token_ids: list[int] | None = None  # Beside the student's end token,
  ignore_eos: bool = False  # or in its place.
  include_stop_str_in_output: bool = False
  skip_special_tokens: bool = True
  return_token_ids: bool = False
  return_tokens_as_token_ids: bool = False  # Among log-probabilities.
  # Without effect here: for slow tokenizers, and OpenAI's own users.
  spaces_between_special_tokens: bool = True
  user: str | None = None
  # Of these only the value that changes nothing is taken.
  min_tokens: int | None = None
  repetition_penalty: float | None = None
  presence_penalty: float | None = None
  frequency_penalty: float | None = None
  logit_bias: dict[str, float] | None = None

  @property
  def strings(self) -> tuple[str, ...]:
    """The stop strings."""
    return (
        (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
    )


class Completion(Asked, kw_only=True):
  """A body of /v1/completions."""

  prompt: str | list[int | str | list[int]]
  logprobs: int | None = None  # Of the drawn token, whether 0 or 1.
  echo: bool = False
  best_of: int | None = None
  suffix: str | None = None


class Part(_Struct, kw_only=True):
  """A part of a message's content."""

  type: Literal['text']
  text: str


class Message(_Struct, kw_only=True):
  """A turn."""

  role: Literal['system', 'user', 'assistant']
  content: str | list[Part]

  @property
  def text(self) -> str:
    """Its whole content."""
    if isinstance(self.content, str):
      return self.content
    return ''.join(part.text for part in self.content)


class Chat(Asked, kw_only=True):
  """A body of /v1/chat/completions."""

  messages: list[Message]
  max_completion_tokens: int | None = None  # The new name of max_tokens.
  logprobs: bool = False
  top_logprobs: int | None = None


_NEUTRAL = {
    'min_tokens': 0,
    'repetition_penalty': 1.0,
    'presence_penalty': 0.0,
    'frequency_penalty': 0.0,
    'logit_bias': {},
    'echo': False,
    'best_of': 1,
    'suffix': '',
    'top_logprobs': 0,
}
_LIMITS = {
    'n': (1, 128),
    'temperature': (0.0, 10.0),
    'top_p': (0.0, 1.0),
    'top_k': (-1, 2**31 - 1),
    'min_p': (0.0, 1.0),
    'max_tokens': (1, 2**31 - 1),
    'max_completion_tokens': (1, 2**31 - 1),
}
_LEAST_TEMPERATURE = 0.001  # Below, softmax overflows sooner or later.
_MAX_STRINGS = 16


def read(kind: type[Any], body: bytes) -> Any:
  """Returns a request of a kind, `Completion` or `Chat`.

  Raises:
    RefusedError: it is none; the message names the field.
  """
  try:
    asked = msgspec.json.decode(body, type=kind)
  except msgspec.ValidationError as e:
    text = str(e)
    found = re.search(r'field `(\w+)`|at `\$\.(\w+)', text)
    param = next(filter(None, found.groups()), None) if found else None
    known = ', '.join(kind.__struct_fields__)
    raise RefusedError(f'{text}; the fields are {known}.', param) from e
  except msgspec.DecodeError as e:
    raise RefusedError(f'The body is not JSON: {e}; send JSON.') from e
  _check(asked)
  return asked


def _check(asked: Any) -> None:
  for name, neutral in _NEUTRAL.items():
    value = getattr(asked, name, None)
    if value is not None and value != neutral:
      raise RefusedError(
          f'{name}={value!r}: this server has {neutral!r} only; leave it out.',
          name,
      )
  for name, (least, most) in _LIMITS.items():
    value = getattr(asked, name, None)
    if value is not None and not least <= value <= most:
      raise RefusedError(
          f'{name}={value}: want {least} to {most:,}, or leave it out.', name
      )
  if asked.temperature and asked.temperature < _LEAST_TEMPERATURE:
    raise RefusedError(
        f'temperature={asked.temperature}: want {_LEAST_TEMPERATURE} or more,'
        ' or 0, which is greedy.',
        'temperature',
    )
  if asked.top_p == 0:
    raise RefusedError(
        'top_p=0.0: want more than 0; temperature=0 is greedy.', 'top_p'
    )
  if not all(asked.strings) or len(asked.strings) > _MAX_STRINGS:
    raise RefusedError(
        f'stop={list(asked.strings)}: want {_MAX_STRINGS} strings at most, none'
        ' of them empty.',
        'stop',
    )
  if asked.logprobs not in (None, 0, 1):
    raise RefusedError(
        f'logprobs={asked.logprobs}: only that of the drawn token is known;'
        ' want 0 or 1.',
        'logprobs',
    )


def method(asked: Asked, default: methods.Method) -> methods.Method:
  """Returns how a request is drawn; what it leaves out is as in the default."""
  is_greedy = isinstance(default, methods.Greedy)
  numbers = methods.Sampling() if is_greedy else default
  assert isinstance(numbers, methods.Sampling)
  chosen = lambda value, other: other if value is None else value
  return methods.of(
      chosen(asked.temperature, 0.0 if is_greedy else numbers.temperature),
      chosen(asked.top_p, numbers.top_p),
      max(0, chosen(asked.top_k, numbers.top_k)),
      chosen(asked.min_p, numbers.min_p),
  )
