"""From a trace's text to token ids and loss weights.

The conversation is tokenised once, as one text (`templates` makes it), and what
is prompt and what is response is read from where the tokens begin: templates
without `{% generation %}` marks make assistant masks that are silently all
zero. But what a student is asked when it is sampled are the tokens of the
prompt alone, and those it is trained behind are the same: where the text as a
whole has others, since a merge spans the boundary, the two are tokenised apart.
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

# What makes an example teach something else, and what to do about it.
FAULTS = {
    'no_weights': 'no token has a weight; take responses that are not empty',
    'holes': 'weights are not those of one piece at the end; run shard again',
    'no_end': 'it does not end with a supervised end-of-turn token, so that the'
    ' student would never end; take a chat template that ends turns with one'
    ' special token',
    'end_within': 'the end-of-turn token occurs within the response; reword it,'
    ' or leave the trace out',
    'pad_within': 'the pad token occurs as one of the text; name another'
    ' pad_token, which the text has not, or none',
    'bos_twice': 'the text begins twice; take a chat template without bos_token'
    ' or text without it',
    'changed_text': 'its tokens decode to another text than the response; the'
    ' tokenizer normalises, or knows too few characters: leave the trace out,'
    ' or take another tokenizer',
}


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
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
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
      tokenizer_object=model, eos_token='<|end|>', pad_token='<|pad|>'
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

  Its eos_token is the one that ends a turn in the chat template, whatever the
  directory says: base models name that of a document there, and a student that
  is trained to end by one would be sampled until another.

  Whether it has a pad token, and which, does not matter: rows are filled up
  outside of every segment, with weight 0.

  Args:
    directory: With tokenizer.json.
    chat_template: Jinja, in place of the tokenizer's own.

  Raises:
    ValueError: no such directory, no chat template, one that shows the day it
      is, or no end token.
  """
  if not pathlib.Path(directory).is_dir():
    raise errors.UserError(
        f'Tokenizer directory {directory} does not exist; give a local'
        ' directory with tokenizer.json as hf:DIR.'
    )
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
  if not isinstance(tokenizer, Tokenizer):
    raise errors.UserError(
        f'Tokenizer {directory} is a {type(tokenizer).__name__}, which keeps no'
        ' character offsets; convert it to a tokenizer.json.'
    )
  if chat_template:
    tokenizer.chat_template = chat_template
  if not tokenizer.chat_template:
    raise errors.UserError(
        f'Tokenizer {directory} has no chat template; take the instruct'
        ' variant, or name one by config.chat_template=file:PATH.'
    )
  template = str(tokenizer.chat_template)
  if 'strftime_now' in template and 'date_string' not in template:
    raise errors.UserError(
        f'The chat template of {directory} shows the day it is (strftime_now):'
        ' a student would be asked in other words than it was trained with.'
        ' Name a copy that shows a fixed one by config.chat_template=file:PATH.'
    )
  if tokenizer.eos_token is None:
    raise errors.UserError(
        f'Tokenizer {directory} names no eos_token; name its end-of-turn'
        ' token, or no completion would ever end.'
    )
  end = templates.end_of_turn(tokenizer)
  if end and end != tokenizer.eos_token:
    tokenizer.eos_token = end
  # Whole texts, whatever the last user of the directory has left there.
  tokenizer.backend_tokenizer.no_padding()
  tokenizer.backend_tokenizer.no_truncation()
  return tokenizer


def template_hash(tokenizer: Tokenizer) -> str:
  """Returns the SHA-256 of the chat template."""
  return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def tokenizer_hash(tokenizer: Tokenizer) -> str:
  """Returns the SHA-256 of the vocabulary, merges and normalisation."""
  return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def _begin(encoding: tokenizers.Encoding, token: int) -> int:
  """Returns the character that a token begins with.

  Some tokenizers (Llama's) trim a token's spaces off its offsets: then it
  begins where the one before it ends.
  """
  spans = [encoding.token_to_chars(t) for t in range(max(0, token - 1), token)]
  own = encoding.token_to_chars(token)
  assert own is not None  # Only tokens from outside the text have none.
  return min([own[0], *(span[1] for span in spans if span)])


def _first_token(encoding: tokenizers.Encoding, position: int) -> int:
  """Returns the first token that begins at or behind a character."""
  size = len(encoding)
  last = encoding.token_to_chars(size - 1) if size else None
  # A character whose spaces were trimmed off has no token.
  characters = range(position, last[1] if last else 0)
  at = (encoding.char_to_token(i) for i in characters)
  token = next((t for t in at if t is not None), size)
  while token < size and _begin(encoding, token) < position:
    token += 1
  while token and _begin(encoding, token - 1) >= position:
    token -= 1
  return token


def encode_turns(tokenizer: Tokenizer, turns: Sequence[templates.Turn]) -> list[Example]:
  """Tokenises rendered turns in one batch.

  A token is supervised if it begins at or behind the first character of the
  response; so the end-of-turn token is. Likewise a token is of the answer if
  it begins behind `</think>`.
  """
  backend = tokenizer.backend_tokenizer
  prompts = list(dict.fromkeys(turn.prompt for turn in turns))
  alone = backend.encode_batch_fast(prompts, add_special_tokens=False)
  asked = {p: e.ids for p, e in zip(prompts, alone, strict=True)}
  texts = [turn.text for turn in turns]
  examples = []
  for turn, whole in zip(turns, backend.encode_batch(texts, add_special_tokens=False), strict=True):
    ids, prompt = whole.ids, asked[turn.prompt]
    start = _first_token(whole, len(turn.prompt))
    answer = _first_token(whole, len(turn.prompt) + turn.answer)
    if ids[:start] != prompt:
      rest = backend.encode(turn.response + turn.end, add_special_tokens=False)
      ids, start = prompt + rest.ids, len(prompt)
      answer = start + _first_token(rest, turn.answer)
    tokens = np.asarray(ids, np.int32)
    weights = (np.arange(len(ids)) >= start).astype(np.uint8)
    if tokens[-1] != tokenizer.eos_token_id:
      raise errors.UserError(
          f'The last token is {tokens[-1]}, not the end-of-turn token'
          f' {tokenizer.eos_token_id}; the tokenizer splits its own end token.'
      )
    examples.append(Example(tokens, weights, answer))
  return examples


def encode(
    tokenizer: Tokenizer, turns: Sequence[tuple[str, str]], system: str | None = None
) -> list[Example]:
  """Tokenises (question, response) turns in one batch, each behind `system`.

  Raises:
    ValueError: the chat template does not leave a turn alone.
  """
  rendered = [templates.turn(tokenizer, *turn, system) for turn in turns]
  return encode_turns(tokenizer, rendered)


def fault(
    tokenizer: Tokenizer,
    example: Example,
    turn: templates.Turn | None = None,
    *,
    decodes: bool = True,
) -> str:
  """Returns which of `FAULTS` an example has, or ''.

  Args:
    tokenizer: That it was made with.
    example: All of it, prompt and response.
    turn: The text that it was made of; None does not compare them.
    decodes: Compare by decoding, which takes a tenth of the time of encoding;
      or only ask whether the tokenizer normalises the response.
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
  # Where it is the end token too, templates put it behind other turns.
  if pad not in (None, end) and (tokens == pad).any():
    return 'pad_within'
  if bos not in (None, end) and np.count_nonzero(tokens == bos) > 1:
    return 'bos_twice'
  if turn and not _comes_back(tokenizer, tokens[n:], turn, decodes):
    return 'changed_text'
  return ''


def _comes_back(
    tokenizer: Tokenizer, tokens: np.ndarray, turn: templates.Turn, decodes: bool
) -> bool:
  """Whether tokens are the turn's response and end, to the byte."""
  if decodes:
    return tokenizer.decode(tokens) == turn.response + turn.end
  normalizer = tokenizer.backend_tokenizer.normalizer
  return not normalizer or (normalizer.normalize_str(turn.response) == turn.response)


def check(
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    turns: Sequence[templates.Turn],
    num_decoded: int | None = None,
) -> None:
  """Refuses examples that would teach something else than their turns.

  Args:
    tokenizer: That they were made with.
    examples: One a turn.
    turns: As they were given to `encode_turns`.
    num_decoded: So many are compared by decoding; None: all.

  Raises:
    ValueError: one of `FAULTS`, of the first that has one.
  """
  for i, (example, turn) in enumerate(zip(examples, turns, strict=True)):
    decodes = num_decoded is None or i < num_decoded
    if name := fault(tokenizer, example, turn, decodes=decodes):
      raise errors.UserError(
          f'Example {i} has the fault {name}: {FAULTS[name]}. Its response'
          f' begins {turn.response[:60]!r}.'
      )


def encode_prompt(tokenizer: Tokenizer, question: str, system: str | None = None) -> list[int]:
  """Returns the token ids that a student continues.

  Raises:
    ValueError: the question or the system message contains the text of a
      control token.
  """
  for special in templates.control_texts(tokenizer):
    if special in question or special in (system or ''):
      raise errors.UserError(
          f'The question {question[:60]!r}… or the system message contains'
          f' {special!r}, which the tokenizer reads as a control token; reword'
          ' it or leave it out.'
      )
  text = templates.render_prompt(tokenizer, question, system)
  return tokenizer(text, add_special_tokens=False)['input_ids']
