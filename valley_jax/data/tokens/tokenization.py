"""Tokenizers, prompts, and how a rendered trace becomes token ids and loss weights.

`shard` gets the same tokens faster through `encoding.py`, which is checked against `encode_turns`.

The conversation is tokenised once, as one text (`templates` renders it), and prompt and response
are told apart by where the tokens begin: templates without `{% generation %}` marks make assistant
masks that are silently all zero. A sampled student, though, is given the tokens of the prompt
alone, and must be trained on the same: where the text as a whole has other tokens, because a merge
spans the boundary, prompt and response are tokenised apart.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib
import shutil

import numpy as np
import tokenizers
import transformers

from valley_jax import errors
from valley_jax import records
from valley_jax.data.tokens import templates

Tokenizer = templates.Tokenizer

# One token where a turn begins and one where the student's ends.
CHAT_TEMPLATE = (
    '{% for message in messages %}'
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    '{% endfor %}'
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_SPECIAL = ('<|pad|>', '<|user|>', '<|assistant|>', '<|end|>')

# What makes an example teach something else, and the remedy.
FAULTS = {
    'no_weights': 'no token has a weight; take responses that are not empty',
    'holes': 'the weights are not one unbroken piece at the end; run shard again',
    'no_end': 'it does not end with a supervised end-of-turn token, so the student would never end;'
    ' take a chat template that ends turns with one special token',
    'end_within': 'the end-of-turn token occurs within the response; reword it, or leave the trace'
    ' out',
    'pad_within': 'the pad token occurs in the text; name another pad_token, one that the text does'
    ' not have, or none',
    'bos_twice': 'the text begins twice; take a chat template without bos_token or text without it',
    'changed_text': 'its tokens decode to another text than the response; the tokenizer normalises,'
    ' or knows too few characters: leave the trace out, or take another tokenizer',
}


@dataclasses.dataclass(frozen=True)
class Example:
  """One tokenised trace: `tokens` int32 and `weights` uint8, of equal length."""

  tokens: np.ndarray
  weights: np.ndarray  # 1 where the student is to learn, 0 on the prompt.
  answer_start: int  # Supervised tokens before this one are thinking.

  @property
  def num_prompt_tokens(self) -> int:
    """Number of tokens before the first supervised one."""
    return int(np.argmax(self.weights))


def train_bpe(
    directory: str | os.PathLike,
    traces: Iterable[records.Trace],
    vocab_size: int,
    phrases: Iterable[str] = (),
    chat_template: str = CHAT_TEMPLATE,
) -> None:
  """Trains a byte-level BPE on traces and writes it as an HF directory.

  `<think>` and `</think>` stay ordinary text, as they are to the students of *The Valley of Code
  Reasoning*. Deterministic: same traces, same files.

  Args:
    directory: The directory to write; left alone if it exists.
    traces: Their questions and responses are the training text.
    vocab_size: Largest number of tokens, not counting `phrases`.
    phrases: Fixed texts that become one token each, whatever BPE would do.
    chat_template: Jinja, as for `transformers`.
  """
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.decoder = tokenizers.decoders.ByteLevel()
  texts = (text for t in traces for text in (t.question, t.response))
  trainer = tokenizers.trainers.BpeTrainer(
      vocab_size=vocab_size,
      special_tokens=list(_SPECIAL),
      initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
  )
  model.train_from_iterator(texts, trainer)
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=model, eos_token='<|end|>', pad_token='<|pad|>'
  )
  tokenizer.add_tokens([transformers.AddedToken(p, normalized=False) for p in phrases])
  tokenizer.chat_template = chat_template
  directory = pathlib.Path(directory)
  # Written under another name, then renamed, so that the directory is complete or absent.
  scratch = directory.with_name(f'{directory.name}.tmp')
  shutil.rmtree(scratch, ignore_errors=True)
  tokenizer.save_pretrained(scratch)
  if not directory.exists():
    os.replace(scratch, directory)


def load_tokenizer(directory: str | os.PathLike, chat_template: str = '') -> Tokenizer:
  """Loads a tokenizer with its chat template from a local HF directory.

  Its eos_token becomes the one that ends a turn in the chat template, whatever the directory says:
  base models name the token that ends a document, and a student that is trained to end by one token
  would be sampled until another.

  Whether it has a pad token, and which, does not matter: rows are filled up outside of every
  segment, with weight 0.

  Args:
    directory: A directory with a tokenizer.json.
    chat_template: Jinja that replaces the tokenizer's own; '' keeps that.

  Raises:
    UserError: there is no such directory, no chat template or no end token, or the template shows
      the current date.
  """
  if not pathlib.Path(directory).is_dir():
    raise errors.UserError(
        f'Tokenizer directory {directory} does not exist; give a local directory with'
        ' tokenizer.json as hf:DIR.'
    )
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
  if not isinstance(tokenizer, Tokenizer):
    raise errors.UserError(
        f'Tokenizer {directory} is a {type(tokenizer).__name__}, which keeps no character offsets;'
        ' convert it to a tokenizer.json.'
    )
  if chat_template:
    tokenizer.chat_template = chat_template
  _check_tokenizer(tokenizer, directory)
  end = templates.find_end_of_turn(tokenizer)
  if end and end != tokenizer.eos_token:
    tokenizer.eos_token = end
  # Directories may have been saved with padding or truncation switched on.
  tokenizer.backend_tokenizer.no_padding()
  tokenizer.backend_tokenizer.no_truncation()
  return tokenizer


def _check_tokenizer(tokenizer: Tokenizer, directory: str | os.PathLike) -> None:
  template = str(tokenizer.chat_template or '')
  if not template:
    raise errors.UserError(
        f'Tokenizer {directory} has no chat template; take the instruct variant, or name one by'
        ' config.chat_template=file:PATH.'
    )
  if 'strftime_now' in template and 'date_string' not in template:
    raise errors.UserError(
        f'The chat template of {directory} shows the current date (strftime_now): a student would'
        ' be sampled with other prompts than it was trained with. Name a copy that shows a fixed'
        ' date by config.chat_template=file:PATH.'
    )
  if tokenizer.eos_token is None:
    raise errors.UserError(
        f'Tokenizer {directory} names no eos_token; name its end-of-turn token, or no completion'
        ' would ever end.'
    )


def hash_chat_template(tokenizer: Tokenizer) -> str:
  """Returns the SHA-256 of the chat template."""
  return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def hash_tokenizer(tokenizer: Tokenizer) -> str:
  """Returns the SHA-256 of the vocabulary, merges and normalisation."""
  return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def _find_token_start(encoding: tokenizers.Encoding, token: int) -> int:
  """Returns the character that a token begins with.

  Some tokenizers (Llama's) trim a token's spaces off its offsets: then it begins where the one
  before it ends.
  """
  spans = [encoding.token_to_chars(t) for t in range(max(0, token - 1), token)]
  own = encoding.token_to_chars(token)
  assert own is not None  # Only tokens from outside the text have none.
  return min([own[0], *(span[1] for span in spans if span)])


def _find_first_token(encoding: tokenizers.Encoding, position: int) -> int:
  """Returns the first token that begins at a character or after it."""
  size = len(encoding)
  last = encoding.token_to_chars(size - 1) if size else None
  # A character whose spaces were trimmed off has no token: the next character that has one.
  characters = range(position, last[1] if last else 0)
  candidates = (encoding.char_to_token(i) for i in characters)
  token = next((t for t in candidates if t is not None), size)
  while token < size and _find_token_start(encoding, token) < position:
    token += 1
  while token and _find_token_start(encoding, token - 1) >= position:
    token -= 1
  return token


def encode_turns(tokenizer: Tokenizer, turns: Sequence[templates.RenderedTurn]) -> list[Example]:
  """Tokenises rendered turns in one batch, by character offsets.

  A token is supervised if it begins at the first character of the response or after it, as the
  end-of-turn token does. Likewise a token belongs to the answer if it begins after `</think>`.

  Raises:
    UserError: the tokenizer splits its own end token.
  """
  backend = tokenizer.backend_tokenizer
  prompts = list(dict.fromkeys(turn.prompt for turn in turns))
  alone = backend.encode_batch_fast(prompts, add_special_tokens=False)
  prompt_ids = {p: e.ids for p, e in zip(prompts, alone, strict=True)}
  texts = [turn.text for turn in turns]
  examples = []
  for turn, whole in zip(turns, backend.encode_batch(texts, add_special_tokens=False), strict=True):
    ids, prompt = whole.ids, prompt_ids[turn.prompt]
    start = _find_first_token(whole, len(turn.prompt))
    answer_start = _find_first_token(whole, len(turn.prompt) + turn.answer_start)
    if ids[:start] != prompt:  # A merge spans the boundary.
      rest = backend.encode(turn.response + turn.end, add_special_tokens=False)
      ids, start = prompt + rest.ids, len(prompt)
      answer_start = start + _find_first_token(rest, turn.answer_start)
    tokens = np.asarray(ids, np.int32)
    weights = (np.arange(len(ids)) >= start).astype(np.uint8)
    if tokens[-1] != tokenizer.eos_token_id:
      raise errors.UserError(
          f'The last token is {tokens[-1]}, not the end-of-turn token {tokenizer.eos_token_id}; the'
          ' tokenizer splits its own end token.'
      )
    examples.append(Example(tokens, weights, answer_start))
  return examples


def find_fault(
    tokenizer: Tokenizer, example: Example, turn: templates.RenderedTurn, *, decodes: bool = True
) -> str:
  """Returns which of `FAULTS` an example has, or ''.

  Args:
    tokenizer: The tokenizer that made the example.
    example: A whole example, prompt and response.
    turn: The text that it was made of.
    decodes: Whether to compare the text by decoding, which takes a tenth of the time of encoding.
      Otherwise it is only checked that the tokenizer does not normalise the response.
  """
  tokens, n = example.tokens, example.num_prompt_tokens
  end, pad, bos = (getattr(tokenizer, f'{name}_token_id') for name in ('eos', 'pad', 'bos'))
  if not example.weights.any():
    return 'no_weights'
  if not example.weights[n:].all():
    return 'holes' if example.weights[-1] else 'no_end'
  if tokens[-1] != end:
    return 'no_end'
  if (tokens[n:-1] == end).any():
    return 'end_within'
  # A pad token that is the end token too may stand in the prompt, after other turns.
  if pad not in (None, end) and (tokens == pad).any():
    return 'pad_within'
  if bos not in (None, end) and np.count_nonzero(tokens == bos) > 1:
    return 'bos_twice'
  if decodes:
    is_same = tokenizer.decode(tokens[n:]) == turn.response + turn.end
  else:
    normalizer = tokenizer.backend_tokenizer.normalizer
    is_same = not normalizer or normalizer.normalize_str(turn.response) == turn.response
  return '' if is_same else 'changed_text'


def check_example(
    tokenizer: Tokenizer, example: Example, turn: templates.RenderedTurn, *, decodes: bool = True
) -> None:
  """Raises a `UserError` if an example has a fault; arguments as of `find_fault`."""
  if name := find_fault(tokenizer, example, turn, decodes=decodes):
    raise errors.UserError(
        f'An example has the fault {name}: {FAULTS[name]}. Its response begins'
        f' {turn.response[:60]!r}.'
    )


def encode_prompt(tokenizer: Tokenizer, question: str, system: str | None = None) -> list[int]:
  """Returns the token ids that a student continues.

  Raises:
    UserError: the question or the system message contains the text of a control token.
  """
  for control in templates.list_control_texts(tokenizer):
    if control in question or control in (system or ''):
      raise errors.UserError(
          f'The question {question[:60]!r}… or the system message contains {control!r}, which the'
          ' tokenizer reads as a control token; reword it or leave it out.'
      )
  text = templates.render_prompt(tokenizer, question, system)
  return tokenizer(text, add_special_tokens=False)['input_ids']
