"""What is said to clients: whole answers and chunks of them, as JSON."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import secrets
import time
from typing import Any

from valley_jax import records
from valley_jax.serving import loop as loop_lib
from valley_jax.serving import text as text_lib
from valley_jax.serving import wire

Json = dict[str, Any]


@dataclasses.dataclass(kw_only=True)
class Piece:
  """What an update adds to a choice, or all of them together."""

  text: str = ''
  tokens: list[int] = dataclasses.field(default_factory=list)
  log_probs: list[float] = dataclasses.field(default_factory=list)
  finish_reason: str | None = None  # OpenAI's words.
  stop_reason: str | int | None = None  # What has ended it, as vLLM tells.

  def __add__(self, other: 'Piece') -> 'Piece':
    return Piece(
        text=self.text + other.text,
        tokens=self.tokens + other.tokens,
        log_probs=self.log_probs + other.log_probs,
        finish_reason=other.finish_reason,
        stop_reason=other.stop_reason,
    )


@dataclasses.dataclass(kw_only=True)
class Choice:
  """One sample of a request, on its way to the client.

  Attributes:
    job: Of the loop.
    text: Of its tokens.
    keeps_stop: Whether an end token, too, is text.
    own_end: The student's end token, which is no stop reason.
    num_tokens: That it has drawn.
  """

  job: loop_lib.Job
  text: text_lib.Text
  keeps_stop: bool
  own_end: int
  num_tokens: int = 0

  def take(self, update: loop_lib.Update) -> Piece:
    """Returns what an update means."""
    tokens, reason = update.tokens, update.reason
    self.num_tokens += len(tokens)
    is_ended = reason is records.FinishReason.EOS
    shown = tokens[:-1] if is_ended and not self.keeps_stop else tokens
    piece = self.text.add(shown)
    if reason is not None:
      piece += self.text.end()
    elif self.text.stop is not None:  # Special tokens hid it from the loop.
      self.job.is_cancelled, reason = True, records.FinishReason.STOP
    finish, stop = None, self.text.stop
    if reason is not None:
      is_whole = reason is records.FinishReason.LENGTH and stop is None
      finish = 'length' if is_whole else 'stop'
    if stop is None and is_ended and tokens[-1] != self.own_end:
      stop = tokens[-1]
    return Piece(
        text=piece,
        tokens=tokens,
        log_probs=update.log_probs,
        finish_reason=finish,
        stop_reason=stop if finish else None,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
  """How the answer to a request looks.

  Attributes:
    asked: The request.
    model: Its name.
    decode: From tokens to text.
    name: Of this answer.
    created: Seconds since 1970.
  """

  asked: wire.Completion | wire.Chat
  model: str
  decode: Callable[[Sequence[int]], str]
  name: str = dataclasses.field(
      default_factory=lambda: f'cmpl-{secrets.token_hex(12)}'
  )
  created: int = dataclasses.field(default_factory=lambda: int(time.time()))

  @property
  def is_chat(self) -> bool:
    """Whether it is about messages."""
    return isinstance(self.asked, wire.Chat)

  def _around(self, choices: list[Json], is_chunk: bool) -> Json:
    kind = 'text_completion'
    if self.is_chat:
      kind = 'chat.completion.chunk' if is_chunk else 'chat.completion'
    return {
        'id': self.name,
        'object': kind,
        'created': self.created,
        'model': self.model,
        'choices': choices,
    }

  def _word(self, token: int) -> str:
    is_number = self.asked.return_tokens_as_token_ids
    return f'token_id:{token}' if is_number else self.decode([token])

  def _log_probs(self, piece: Piece) -> Json | None:
    if self.asked.logprobs is None or self.asked.logprobs is False:
      return None
    words = [self._word(token) for token in piece.tokens]
    if not self.is_chat:
      return {
          'tokens': words,
          'token_logprobs': piece.log_probs,
          'top_logprobs': None,
          'text_offset': None,
      }
    both = zip(words, piece.log_probs, strict=True)
    return {
        'content': [
            {'token': w, 'logprob': p, 'bytes': None, 'top_logprobs': []}
            for w, p in both
        ]
    }

  def _choice(self, index: int, piece: Piece, content: Json) -> Json:
    choice = {
        'index': index,
        **content,
        'logprobs': self._log_probs(piece),
        'finish_reason': piece.finish_reason,
        'stop_reason': piece.stop_reason,
    }
    if self.asked.return_token_ids:
      choice['token_ids'] = piece.tokens
    return choice

  def whole(self, pieces: Sequence[Piece], usage: Json) -> Json:
    """Returns an answer with all choices."""
    choices = []
    for index, piece in enumerate(pieces):
      message = {'role': 'assistant', 'content': piece.text}
      content = {'message': message} if self.is_chat else {'text': piece.text}
      choices.append(self._choice(index, piece, content))
    return {**self._around(choices, is_chunk=False), 'usage': usage}

  def chunk(self, index: int, piece: Piece, is_first: bool) -> Json:
    """Returns what there is new of a choice."""
    delta: Json = {'role': 'assistant'} if is_first else {}
    delta['content'] = piece.text
    content: Json = {'delta': delta} if self.is_chat else {'text': piece.text}
    return self._around([self._choice(index, piece, content)], is_chunk=True)

  def last_chunk(self, usage: Json) -> Json:
    """Returns the chunk without choices that tells what was used."""
    return {**self._around([], is_chunk=True), 'usage': usage}


def usage(num_prompt: int, num_drawn: int) -> Json:
  """Returns the numbers of tokens, prompts counted once."""
  return {
      'prompt_tokens': num_prompt,
      'completion_tokens': num_drawn,
      'total_tokens': num_prompt + num_drawn,
  }


def error(e: wire.RefusedError) -> Json:
  """Returns what is wrong, in OpenAI's form."""
  kinds = {429: 'rate_limit_error', 404: 'not_found_error'}
  default = 'server_error' if e.status >= 500 else 'invalid_request_error'
  return {
      'error': {
          'message': str(e),
          'type': kinds.get(e.status, default),
          'param': e.param,
          'code': e.code,
      }
  }
