"""From a request to jobs: the prompt's tokens, and all that ends a sample."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import itertools
import secrets
from typing import Any

import jinja2

from valley_jax.data import templates
from valley_jax.data import tokenization
from valley_jax.sampling import methods
from valley_jax.sampling import stops as stops_lib
from valley_jax.serving import answers
from valley_jax.serving import loop as loop_lib
from valley_jax.serving import text as text_lib
from valley_jax.serving import wire


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
  """What is served.

  Attributes:
    name: By which clients ask for it.
    tokenizer: Of the student, with its chat template.
    vocab_size: Tokens that it knows.
    method: How it is drawn from where a request does not say.
    max_new_tokens: Likewise, as far as there is room.
    context: Tokens of the longest prompt and its sample: a slot's positions.
    max_choices: Samples of one request.
  """

  name: str
  tokenizer: tokenization.Tokenizer
  vocab_size: int
  method: methods.Method
  max_new_tokens: int
  context: int
  max_choices: int

  @property
  def end_token(self) -> int:
    """The student's own."""
    end_token = self.tokenizer.eos_token_id
    assert isinstance(end_token, int)
    return end_token

  def decode(self, tokens: Sequence[int], skip_special_tokens: bool) -> str:
    """Returns a text."""
    text = self.tokenizer.decode(
        list(tokens), skip_special_tokens=skip_special_tokens
    )
    return str(text)


def prompts(
    served: Served, asked: wire.Completion | wire.Chat
) -> list[list[int]]:
  """Returns the tokens of each prompt of a request.

  A prompt's text is taken as it is, control tokens read as such; a message's
  must not contain any, as nowhere else in this package.

  Raises:
    RefusedError: it is none, or it cannot be rendered.
  """
  encode: Any = functools.partial(served.tokenizer, add_special_tokens=False)
  if isinstance(asked, wire.Chat):
    return [encode(_render(served.tokenizer, asked.messages))['input_ids']]
  prompt = asked.prompt
  if isinstance(prompt, str):
    prompt = [prompt]
  if all(isinstance(x, str) for x in prompt):
    return [encode(text)['input_ids'] for text in prompt]
  if all(isinstance(x, int) for x in prompt):
    prompt = [prompt]
  rows: list[Any] = [x for x in prompt if isinstance(x, list)]
  if len(rows) != len(prompt):
    raise wire.RefusedError(
        'prompt: want a text, a list of texts, a list of token ids or a list of'
        ' such lists; this is a mixture.',
        'prompt',
    )
  for token in itertools.chain(*rows):
    if not 0 <= token < served.vocab_size:
      raise wire.RefusedError(
          f'prompt: token id {token}; want 0 to {served.vocab_size - 1:,}.',
          'prompt',
      )
  return rows


def _render(
    tokenizer: tokenization.Tokenizer, messages: list[wire.Message]
) -> str:
  """Returns messages as the chat template has them."""
  refuse = functools.partial(wire.RefusedError, param='messages')
  special = templates.control_texts(tokenizer)
  for i, message in enumerate(messages):
    for word in special:
      if word in message.text:
        raise refuse(
            f'messages[{i}] contains {word!r}, which the tokenizer reads as a'
            ' control token; reword it.'
        )
  if not messages:
    raise refuse('messages=[]: want one or more.')
  turns = [{'role': m.role, 'content': m.text} for m in messages]
  try:
    text = templates.apply(tokenizer, turns, add_generation_prompt=True)
  except jinja2.TemplateError as e:
    raise refuse(
        f'The chat template cannot render the messages: {e}; it may know no'
        ' system message, or want turns to alternate.'
    ) from e
  # Thoughts of former answers some templates leave out on purpose.
  for i, message in enumerate(messages):
    if message.role != 'assistant' and message.text.strip() not in text:
      raise refuse(
          f'The chat template leaves messages[{i}] out, of role'
          f' {message.role!r}; leave it out, too.'
      )
  return text


def _num_new(
    served: Served, asked: wire.Completion | wire.Chat, prompt: list[int]
) -> int:
  """Returns how long a sample may be."""
  limit, name = asked.max_tokens, 'max_tokens'
  if isinstance(asked, wire.Chat) and asked.max_completion_tokens is not None:
    limit, name = asked.max_completion_tokens, 'max_completion_tokens'
  room = served.context - len(prompt)
  if not prompt:
    raise wire.RefusedError('The prompt has no tokens; want 1 or more.')
  if room < (1 if limit is None else limit):
    said = '' if limit is None else f' and {name}={limit:,}'
    param = 'messages' if isinstance(asked, wire.Chat) else 'prompt'
    raise wire.RefusedError(
        f'The prompt of {len(prompt):,} tokens{said} are more than the context'
        f' of {served.context:,} tokens; shorten the prompt'
        f'{"" if limit is None else f", lower {name}"}, or start the server'
        ' with a larger serve.longest_prompt or sample.max_new_tokens.',
        param if limit is None or len(prompt) >= served.context else name,
        code='context_length_exceeded',
    )
  return min(room, served.max_new_tokens) if limit is None else limit


def choices(
    served: Served,
    asked: wire.Completion | wire.Chat,
    found: list[list[int]],
    publish: Callable[[int, loop_lib.Update], object],
) -> list[answers.Choice]:
  """Returns the samples of a request: n of each prompt, in their order.

  Args:
    served: By which student.
    asked: How.
    found: The prompts.
    publish: Called with a choice's index and its updates, from the device's
      thread.

  Raises:
    RefusedError: a value does not fit this student, or one another.
  """
  if not 0 < len(found) * asked.n <= served.max_choices:
    raise wire.RefusedError(
        f'n={asked.n} of {len(found)} prompts: want 1 to'
        f' {served.max_choices:,} samples at a time; send several requests.',
        'n',
    )
  ends = set(asked.stop_token_ids or ())
  ends |= set() if asked.ignore_eos else {served.end_token}
  decode = functools.partial(
      served.decode, skip_special_tokens=asked.skip_special_tokens
  )
  stops = stops_lib.Stops(decode=decode, strings=asked.strings)
  method = wire.method(asked, served.method)
  seed = secrets.randbits(63) if asked.seed is None else asked.seed
  keeps_stop = asked.include_stop_str_in_output
  made = []
  for prompt in found:
    num_new = _num_new(served, asked, prompt)
    for index in range(asked.n):
      job = loop_lib.Job(
          loop_lib.named(seed, index, prompt),
          method=method,
          max_new_tokens=num_new,
          end_tokens=frozenset(ends),
          stops=stops,
          publish=functools.partial(publish, len(made)),
      )
      made.append(
          answers.Choice(
              job=job,
              text=text_lib.Text(decode, asked.strings, keeps_stop),
              keeps_stop=keeps_stop,
              own_end=served.end_token,
          )
      )
  return made
