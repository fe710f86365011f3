"""What a chat template makes of a question and a response, as text.

The prompt is the template's own, up to where the student begins to write. What
the student writes is not: many templates are made for histories, from which
they take thinking out (R1-distill), put it in anew (Qwen3) or strip white space
(Llama 3). So a training text is prompt + response + end-of-turn token, with the
response as it is, and the template is asked to render it only to see that it
has the same frame and the same answer.

A prompt that already opens `<think>` is gone on with: the response's own
`<think>` is not written twice. docs/templates.md has a table of the families.
"""

from collections.abc import Sequence
import dataclasses
import re
from typing import Any

import jinja2
import transformers

from valley_jax import errors

Tokenizer = transformers.PreTrainedTokenizerFast

THINK_TAGS = ('<think>', '</think>')  # The student's to write, never control.

_OPENED = re.compile(r'<think>\s*\Z')
# For templates that show today's date (Llama 3.2): the same every day, or a
# student would be asked in other words than it was trained with. Llama 3.1's.
_DATE = '26 Jul 2024'


@dataclasses.dataclass(frozen=True)
class Turn:
  """A prompt and what a student shall write behind it, as text.

  Attributes:
    prompt: Up to where the student begins to write.
    response: What is behind it: all of the trace's response, but for a
      `<think>` that the prompt has opened.
    answer: Where in `response` the answer begins, as `scoring` has it: behind
      the last `</think>`; at 0 if there is no thinking, and nowhere, not even
      at the end token, if the thinking never ends.
    end: The end-of-turn token.
  """

  prompt: str
  response: str
  answer: int
  end: str

  @property
  def text(self) -> str:
    """All of it."""
    return self.prompt + self.response + self.end


def apply(tokenizer: Tokenizer, messages: Sequence[dict[str, str]], **kwargs: Any) -> str:
  """Returns the messages as the template has them, on whatever day.

  Raises:
    jinja2.TemplateError: the template is broken, or refuses the messages.
  """
  text = tokenizer.apply_chat_template(list(messages), tokenize=False, date_string=_DATE, **kwargs)
  assert isinstance(text, str)
  return text


def _messages(question: str, system: str | None) -> list[dict[str, str]]:
  """The turns ahead of the student's; '' is a system message, None is none."""
  first = [] if system is None else [{'role': 'system', 'content': system}]
  return [*first, {'role': 'user', 'content': question}]


def render_prompt(tokenizer: Tokenizer, question: str, system: str | None = None) -> str:
  """Returns the text up to where the student begins to write.

  Raises:
    ValueError: the chat template is broken, or takes no system message.
  """
  try:
    text = apply(tokenizer, _messages(question, system), add_generation_prompt=True)
  except jinja2.TemplateError as e:
    raise errors.UserError(
        f'The chat template cannot render the prompt: {e}. Mend it, or, if it'
        ' knows no system message, take a prompt without `system`.'
    ) from e
  if system and system.strip() not in text:
    raise errors.UserError(
        f'The chat template leaves the system message {system[:60]!r} out;'
        ' take a prompt without `system`, or a template that has a place for'
        ' it.'
    )
  return text


def opened(prompt: str) -> str:
  """Returns the `<think>` with which a prompt ends, white space and all."""
  found = _OPENED.search(prompt)
  return found[0] if found else ''


def end_of_turn(tokenizer: Tokenizer) -> str:
  """Returns the control token with which the template ends a response.

  It may be another than the tokenizer's eos_token: base models have that of a
  document there. '' if the template ends it with none, or does not render.
  """
  answer = 'An answer.'
  messages = [*_messages('Why?', None), {'role': 'assistant', 'content': answer}]
  try:
    _, found, behind = apply(tokenizer, messages).rpartition(answer)
  except jinja2.TemplateError:
    return ''
  added = tokenizer.added_tokens_decoder.values()
  ends = [t.content for t in added if t.special]
  begins = [end for end in ends if found and behind.startswith(end)]
  return max(begins, key=len, default='')


def control_texts(tokenizer: Tokenizer) -> list[str]:
  """Returns what no question and no response may contain.

  Special tokens, and what a template frames its turns with even where the
  tokenizer does not call it special (R1-distill's `<｜User｜>`).
  """
  try:
    frame = apply(tokenizer, _messages('', None), add_generation_prompt=True)
  except jinja2.TemplateError:
    frame = ''
  added = tokenizer.added_tokens_decoder.values()
  found = {t.content for t in added if t.special or t.content in frame}
  return sorted(found.difference(THINK_TAGS))


def _answer(response: str) -> int:
  """Returns where the answer begins; see `Turn`."""
  thought, end, answer = response.rpartition('</think>')
  is_endless = '<think>' in answer
  return len(response) + 1 if is_endless else len(thought) + len(end)


def _behind(begun: str, response: str) -> str:
  """Returns what is left of a response behind a prompt that ends in `begun`."""
  if not begun:
    return response
  rest = response.lstrip()
  if rest.startswith('<think>'):
    space = begun.removeprefix('<think>')
    return rest.removeprefix('<think>').removeprefix(space)
  if '</think>' in response:
    return response
  raise errors.UserError(
      f'The chat template opens {begun!r} for the student, and the response'
      f' {response[:60]!r}… has no thinking; take responses that think, or a'
      ' template that leaves <think> to the student.'
  )


def _is_kept(body: str, response: str) -> bool:
  """Whether a template's assistant turn is the response, thinking aside."""
  if body in (response, response.strip()):
    return True
  answer = response.rpartition('</think>')[2]
  for kept in (answer.lstrip(), answer.strip()):
    thought = body.removesuffix(kept).strip()
    is_thought = thought.startswith('<think>') and thought.endswith('</think>')
    if body.endswith(kept) and (is_thought or not thought):
      return True
  return False


def turn(tokenizer: Tokenizer, question: str, response: str, system: str | None = None) -> Turn:
  """Returns the question as the template asks it, with the response as it is.

  Raises:
    ValueError: the template changes the answer, puts something between it and
      the end token, opens a thinking that the response does not have, or
      refuses it.
  """
  prompt = render_prompt(tokenizer, question, system)
  begun, end = opened(prompt), str(tokenizer.eos_token)
  written = {'role': 'assistant', 'content': response}
  try:
    full = apply(tokenizer, [*_messages(question, system), written])
  except jinja2.TemplateError as e:
    raise errors.UserError(f'The chat template refuses the response: {e}.') from e
  head = prompt.removesuffix(begun)
  body, found, _ = full.removeprefix(head).rpartition(end)
  if not (found and full.startswith(head) and _is_kept(body, response)):
    raise errors.UserError(
        f'The chat template does not keep prompt + response + {end!r} as they'
        f' are; it renders …{full[-200:]!r}. Use a template that leaves the'
        ' answer alone.'
    )
  behind = _behind(begun, response)
  answer = max(0, _answer(response) - len(response) + len(behind))
  return Turn(prompt, behind, answer, end)
