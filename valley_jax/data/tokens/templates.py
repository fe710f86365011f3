"""How a chat template renders a question and a response, as text.

The prompt is the template's own, up to where the student begins to write. What the student writes
is not: many templates are made for chat histories, and remove thinking (R1-distill), add it anew
(Qwen3) or strip white space (Llama 3). A training text is therefore prompt + response + end-of-turn
token, with the response unchanged, and the template renders it only to check that its frame and its
answer are the same.

If a prompt already opens `<think>`, the response continues it: its own `<think>` is not written
twice. docs/templates.md has a table of the families.
"""

from collections.abc import Sequence
import dataclasses
import re
from typing import Any

import jinja2
import transformers

from valley_jax import errors

Tokenizer = transformers.PreTrainedTokenizerFast

THINK_TAGS = ('<think>', '</think>')  # Written by the student; never control texts.

_OPENED_THINK = re.compile(r'<think>\s*\Z')
# For templates that show today's date (Llama 3.2). It must be the same every day, or a student
# would be sampled with other prompts than it was trained with. Llama 3.1's default.
_DATE = '26 Jul 2024'


@dataclasses.dataclass(frozen=True)
class RenderedTurn:
  """A prompt and what a student must write after it, as text.

  Attributes:
    prompt: The text up to where the student begins to write.
    response: The trace's response, without a `<think>` that the prompt has already opened.
    answer_start: Index in `response` of the first character after the last `</think>`: 0 if there
      is no thinking, and past the end token if the thinking never ends. `programs.split_thinking`
      splits completions at the same place.
    end: The end-of-turn token.
  """

  prompt: str
  response: str
  answer_start: int
  end: str

  @property
  def text(self) -> str:
    """The whole training text."""
    return self.prompt + self.response + self.end


def apply_chat_template(
    tokenizer: Tokenizer, messages: Sequence[dict[str, str]], **kwargs: Any
) -> str:
  """Returns the messages rendered by the chat template, with a fixed date.

  Raises:
    jinja2.TemplateError: the template is broken, or refuses the messages.
  """
  text = tokenizer.apply_chat_template(list(messages), tokenize=False, date_string=_DATE, **kwargs)
  assert isinstance(text, str)
  return text


def _build_messages(question: str, system: str | None) -> list[dict[str, str]]:
  # An empty system message differs from None: it keeps a template from adding its own.
  first = [] if system is None else [{'role': 'system', 'content': system}]
  return [*first, {'role': 'user', 'content': question}]


def render_prompt(tokenizer: Tokenizer, question: str, system: str | None = None) -> str:
  """Returns the text up to where the student begins to write.

  Raises:
    UserError: the chat template is broken, or takes no system message.
  """
  messages = _build_messages(question, system)
  try:
    text = apply_chat_template(tokenizer, messages, add_generation_prompt=True)
  except jinja2.TemplateError as e:
    raise errors.UserError(
        f'The chat template cannot render the prompt: {e}. Mend it, or, if it knows no system'
        ' message, take a prompt without `system`.'
    ) from e
  if system and system.strip() not in text:
    raise errors.UserError(
        f'The chat template leaves the system message {system[:60]!r} out; take a prompt without'
        ' `system`, or a template that has a place for it.'
    )
  return text


def find_opened_think(prompt: str) -> str:
  """Returns the `<think>` that ends a prompt, with the white space after it, or ''."""
  match = _OPENED_THINK.search(prompt)
  return match[0] if match else ''


def find_end_of_turn(tokenizer: Tokenizer) -> str:
  """Returns the control token with which the template ends a response.

  It may differ from the tokenizer's eos_token: for base models that one ends a document. Returns ''
  if the template ends responses with no control token, or does not render.
  """
  answer = 'An answer.'
  messages = [*_build_messages('Why?', None), {'role': 'assistant', 'content': answer}]
  try:
    _, is_rendered, rest = apply_chat_template(tokenizer, messages).rpartition(answer)
  except jinja2.TemplateError:
    return ''
  added = tokenizer.added_tokens_decoder.values()
  ends = [t.content for t in added if t.special]
  # The longest, since one control token may be a prefix of another.
  return max((e for e in ends if is_rendered and rest.startswith(e)), key=len, default='')


def list_control_texts(tokenizer: Tokenizer) -> list[str]:
  """Returns the texts that no question and no response may contain.

  These are the special tokens, and the tokens with which the template frames turns even where the
  tokenizer does not call them special (R1-distill's `<｜User｜>`).
  """
  try:
    frame = apply_chat_template(tokenizer, _build_messages('', None), add_generation_prompt=True)
  except jinja2.TemplateError:
    frame = ''
  added = tokenizer.added_tokens_decoder.values()
  controls = {t.content for t in added if t.special or t.content in frame}
  return sorted(controls.difference(THINK_TAGS))


def _find_answer_start(response: str) -> int:
  thought, end, answer = response.rpartition('</think>')
  is_endless = '<think>' in answer
  return len(response) + 1 if is_endless else len(thought) + len(end)


def _continue_think(opened: str, response: str) -> str:
  """Returns the response without the `<think>` that the prompt has already opened.

  Args:
    opened: The end of the prompt, as by `find_opened_think`.
    response: The trace's response.
  """
  if not opened:
    return response
  rest = response.lstrip()
  if rest.startswith('<think>'):
    space = opened.removeprefix('<think>')
    return rest.removeprefix('<think>').removeprefix(space)
  if '</think>' in response:
    return response
  raise errors.UserError(
      f'The chat template opens {opened!r} for the student, and the response {response[:60]!r}… has'
      ' no thinking; take responses that think, or a template that leaves <think> to the student.'
  )


def _keeps_answer(body: str, response: str) -> bool:
  """Whether a template's assistant turn is the response, thinking and outer white space aside."""
  if body in (response, response.strip()):
    return True
  answer = response.rpartition('</think>')[2]
  for kept in (answer.lstrip(), answer.strip()):
    thought = body.removesuffix(kept).strip()
    is_thought = thought.startswith('<think>') and thought.endswith('</think>')
    if body.endswith(kept) and (is_thought or not thought):
      return True
  return False


def render_turn(
    tokenizer: Tokenizer, question: str, response: str, system: str | None = None
) -> RenderedTurn:
  """Returns the prompt that the template makes of the question, with the unchanged response.

  Raises:
    UserError: the template changes the answer, puts something between it and the end token, opens a
      thinking that the response does not have, or refuses the response.
  """
  prompt = render_prompt(tokenizer, question, system)
  opened, end = find_opened_think(prompt), str(tokenizer.eos_token)
  messages = [*_build_messages(question, system), {'role': 'assistant', 'content': response}]
  try:
    full = apply_chat_template(tokenizer, messages)
  except jinja2.TemplateError as e:
    raise errors.UserError(f'The chat template refuses the response: {e}.') from e
  head = prompt.removesuffix(opened)
  body, has_end, _ = full.removeprefix(head).rpartition(end)
  if not (has_end and full.startswith(head) and _keeps_answer(body, response)):
    raise errors.UserError(
        f'The chat template does not keep prompt + response + {end!r} unchanged; it renders'
        f' …{full[-200:]!r}. Use a template that leaves the answer alone.'
    )
  rest = _continue_think(opened, response)
  # What was removed stood ahead of the answer, so the answer moves by as much.
  answer_start = max(0, _find_answer_start(response) - len(response) + len(rest))
  return RenderedTurn(prompt, rest, answer_start, end)
