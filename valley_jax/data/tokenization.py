"""From a trace's text to token ids and loss weights.

The conversation is rendered once, as text, by the tokenizer's own chat
template, and tokenised once, in one piece: tokenising prompt and response
apart breaks merges at their boundary, and templates without `{% generation %}`
marks make assistant masks that are silently all zero. What is prompt and what
is response is read from the character offsets of the tokens.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib
import shutil

import jinja2
import numpy as np
import tokenizers
import transformers

from valley_jax import records

# One token where a turn begins and one where the student's ends.
CHAT_TEMPLATE = (
    '{% for message in messages %}'
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    '{% endfor %}'
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_SPECIAL = ('<|pad|>', '<|user|>', '<|assistant|>', '<|end|>')

Tokenizer = transformers.PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class Example:
  """One tokenised trace: `tokens` int32, `weights` uint8 of equal length."""

  tokens: np.ndarray
  weights: np.ndarray  # 1 where the student is to learn, 0 on the prompt.
  answer_start: int  # Supervised tokens before this one are thinking.

  @property
  def num_prompt_tokens(self) -> int:
    """The tokens before the first supervised one."""
    return int(np.argmax(self.weights))


def train_bpe(
    directory: str | os.PathLike,
    traces: Iterable[records.Trace],
    vocab_size: int,
    phrases: Iterable[str] = (),
    chat_template: str = CHAT_TEMPLATE,
) -> None:
  """Trains a byte-level BPE on traces and writes it as an HF directory.

  `<think>` and `</think>` stay ordinary text, as they are to the students of
  *The Valley of Code Reasoning*. Deterministic: same traces, same files.

  Args:
    directory: Where to; left alone if it exists.
    traces: Their questions and responses are the training text.
    vocab_size: At most this many tokens, before `phrases`.
    phrases: Fixed texts that become one token each, whatever BPE would do.
    chat_template: Jinja, as `transformers` has it.
  """
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False
  )
  model.decoder = tokenizers.decoders.ByteLevel()
  texts = (text for t in traces for text in (t.question, t.response))
  model.train_from_iterator(
      texts,
      tokenizers.trainers.BpeTrainer(
          vocab_size=vocab_size,
          special_tokens=list(_SPECIAL),
          initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
          show_progress=False,
      ),
  )
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=model,
      eos_token='<|end|>',
      pad_token='<|pad|>',
  )
  whole = [transformers.AddedToken(p, normalized=False) for p in phrases]
  tokenizer.add_tokens(whole)
  tokenizer.chat_template = chat_template
  directory = pathlib.Path(directory)
  # Whole or not at all: written aside, then renamed.
  scratch = directory.with_name(f'{directory.name}.tmp')
  shutil.rmtree(scratch, ignore_errors=True)
  tokenizer.save_pretrained(scratch)
  if not directory.exists():
    os.replace(scratch, directory)


def load(directory: str | os.PathLike, chat_template: str = '') -> Tokenizer:
  """Loads a tokenizer with its chat template from a local HF directory.

  Whether it has a pad token, and which, does not matter: rows are filled up
  outside of every segment, with weight 0.

  Args:
    directory: With tokenizer.json.
    chat_template: Jinja, in place of the tokenizer's own.

  Raises:
    ValueError: no such directory, no chat template, or no end token.
  """
  if not pathlib.Path(directory).is_dir():
    raise ValueError(
        f'Tokenizer directory {directory} does not exist; give a local'
        ' directory with tokenizer.json as hf:DIR.'
    )
  tokenizer = transformers.AutoTokenizer.from_pretrained(
      directory, local_files_only=True
  )
  if not isinstance(tokenizer, Tokenizer):
    raise ValueError(
        f'Tokenizer {directory} is a {type(tokenizer).__name__}, which keeps no'
        ' character offsets; convert it to a tokenizer.json.'
    )
  if chat_template:
    tokenizer.chat_template = chat_template
  if not tokenizer.chat_template:
    raise ValueError(
        f'Tokenizer {directory} has no chat template; take the instruct'
        ' variant, or name one by config.chat_template=file:PATH.'
    )
  if tokenizer.eos_token is None:
    raise ValueError(
        f'Tokenizer {directory} names no eos_token; name its end-of-turn'
        ' token, or no completion would ever end.'
    )
  return tokenizer


def special_texts(tokenizer: Tokenizer) -> list[str]:
  """Returns what the tokenizer reads as a control token wherever it stands."""
  added = tokenizer.added_tokens_decoder.values()
  return sorted(token.content for token in added if token.special)


def template_hash(tokenizer: Tokenizer) -> str:
  """Returns the SHA-256 of the chat template."""
  return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def tokenizer_hash(tokenizer: Tokenizer) -> str:
  """Returns the SHA-256 of the vocabulary, merges and normalisation."""
  return hashlib.sha256(
      tokenizer.backend_tokenizer.to_str().encode()
  ).hexdigest()


def _messages(question: str, system: str | None) -> list[dict[str, str]]:
  """The turns ahead of the student's; '' is a system message, None is none."""
  first = [] if system is None else [{'role': 'system', 'content': system}]
  return [*first, {'role': 'user', 'content': question}]


def render_prompt(
    tokenizer: Tokenizer, question: str, system: str | None = None
) -> str:
  """Returns the text up to where the student begins to write.

  Raises:
    ValueError: the chat template is broken, or takes no system message.
  """
  try:
    text = tokenizer.apply_chat_template(
        _messages(question, system), tokenize=False, add_generation_prompt=True
    )
  except jinja2.TemplateError as e:
    raise ValueError(
        f'The chat template cannot render the prompt: {e}. Mend it, or, if it'
        ' knows no system message, take a prompt without `system`.'
    ) from e
  assert isinstance(text, str)
  if system and system.strip() not in text:
    raise ValueError(
        f'The chat template leaves the system message {system[:60]!r} out;'
        ' take a prompt without `system`, or a template that has a place for'
        ' it.'
    )
  return text


def render(
    tokenizer: Tokenizer,
    question: str,
    response: str,
    system: str | None = None,
) -> str:
  """Returns prompt + response + end-of-turn token, as the template has it.

  Raises:
    ValueError: the template changes the prompt or the response (some strip
      think text), or puts something between the response and the end token.
  """
  text = render_prompt(tokenizer, question, system) + response
  answer = {'role': 'assistant', 'content': response}
  messages = [*_messages(question, system), answer]
  full = str(tokenizer.apply_chat_template(messages, tokenize=False))
  text += str(tokenizer.eos_token)
  if not full.startswith(text):
    raise ValueError(
        'The chat template does not keep prompt + response + '
        f'{tokenizer.eos_token!r} as they are; it renders …{full[-200:]!r}.'
        ' Use a template that leaves the response alone, and responses without'
        ' white space at their ends.'
    )
  return text


def is_kept(
    tokenizer: Tokenizer,
    question: str,
    response: str,
    system: str | None = None,
) -> bool:
  """Whether the chat template leaves this question and response alone."""
  try:
    render(tokenizer, question, response, system)
  except ValueError:
    return False
  return True


def _answer_offset(response: str) -> int:
  """Returns where the answer begins, as `scoring` has it.

  Behind the last `</think>`; at 0 if there is no thinking, and nowhere, not
  even at the end token, if the thinking never ends.
  """
  thought, end, answer = response.rpartition('</think>')
  is_endless = '<think>' in answer
  return len(response) + 1 if is_endless else len(thought) + len(end)


def encode(
    tokenizer: Tokenizer,
    turns: Sequence[tuple[str, str]],
    system: str | None = None,
) -> list[Example]:
  """Tokenises (question, response) turns in one batch, each behind `system`.

  A token is supervised if it begins at or behind the first character of the
  response; so the end-of-turn token is, and a token that straddles the
  boundary is not (the sampler hands it to the student whole). Likewise a token
  is of the answer if it begins behind `</think>`.
  """
  texts = [render(tokenizer, *turn, system) for turn in turns]
  if not texts:
    return []
  batch = tokenizer(
      texts, add_special_tokens=False, return_offsets_mapping=True
  )
  examples = []
  for (question, response), ids, offsets in zip(
      turns, batch['input_ids'], batch['offset_mapping'], strict=True
  ):
    boundary = len(render_prompt(tokenizer, question, system))
    starts, ends = np.asarray(offsets, np.int64).T
    # Some tokenizers (Llama's) trim a token's spaces off its offsets: then it
    # begins where the one before it ended.
    starts[1:] = np.minimum(starts[1:], np.maximum.accumulate(ends)[:-1])
    example = Example(
        np.asarray(ids, np.int32),
        (starts >= boundary).astype(np.uint8),
        int(np.sum(starts < boundary + _answer_offset(response))),
    )
    if example.tokens[-1] != tokenizer.eos_token_id:
      raise ValueError(
          f'The last token is {example.tokens[-1]}, not the end-of-turn token'
          f' {tokenizer.eos_token_id}; the tokenizer splits its own end token.'
      )
    examples.append(example)
  return examples


def encode_prompt(
    tokenizer: Tokenizer, question: str, system: str | None = None
) -> list[int]:
  """Returns the token ids that a student continues.

  Raises:
    ValueError: the question or the system message contains the text of a
      control token.
  """
  for special in special_texts(tokenizer):
    if special in question or special in (system or ''):
      raise ValueError(
          f'The question {question[:60]!r}… or the system message contains'
          f' {special!r}, which the tokenizer reads as a control token; reword'
          ' it or leave it out.'
      )
  text = render_prompt(tokenizer, question, system)
  return tokenizer(text, add_special_tokens=False)['input_ids']
