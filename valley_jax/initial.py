"""The student that a run begins with.

    random           a preset, its vocabulary the tokenizer's, padded
    checkpoint:DIR   the student of another run's checkpoints
    hf:DIR           a Hugging Face checkpoint, as its config.json says

The last two say themselves what the student is. A preset beside them must
agree; '' takes what is there. Their vocabulary is theirs too: rows added to it
would take probability from the others.
"""

import os
from typing import Any

import jax

from valley_jax import checkpoints
from valley_jax.models import hf_config
from valley_jax.models import params as params_lib
from valley_jax.models import pretrained
from valley_jax.models import student as student_lib


def of_checkpoint(directory: str | os.PathLike) -> student_lib.Student:
  """Returns the student of a finished run's checkpoints.

  Raises:
    ValueError: there is none, or it does not say what its student is.
  """
  identity = checkpoints.finished_identity(directory)
  if 'student' not in identity:
    raise ValueError(
        f'{directory} does not say what its student is: it was written before'
        ' checkpoints did. Train it again.'
    )
  return hf_config.to_student(identity['student'], str(directory))


def student(
    init: str, preset: str, *, num_tokens: int, multiple: int, max_len: int
) -> student_lib.Student:
  """Returns the description of the student.

  Args:
    init: Where its parameters come from; see above.
    preset: Its name, or '' where `init` says what it is.
    num_tokens: Of the tokenizer.
    multiple: Of this the rows of a preset's embedding are.
    max_len: Tokens of the longest example.

  Raises:
    ValueError: the preset is another student than `init` has, or the student
      has no room for the tokens or for the length.
  """
  kind, _, directory = init.partition(':')
  if kind == 'hf':
    found = pretrained.read_student(directory)
  elif kind == 'checkpoint':
    found = of_checkpoint(directory)
  elif init == 'random':
    found = student_lib.of(preset, num_tokens, multiple)
  else:
    raise ValueError(
        f'config.init={init!r}: want hf:DIR, a Hugging Face checkpoint,'
        ' checkpoint:DIR, a student to go on from, or random, one without any'
        ' training.'
    )
  if preset:
    named = student_lib.preset(preset)
    if differences := student_lib.differences(found, named):
      raise ValueError(
          f'config.init={init} is not config.student={preset}: it has'
          f' {"; ".join(differences)}. Name its preset, or set config.student'
          " to '' to take it as it is."
      )
  if num_tokens > found.vocab_size:
    raise ValueError(
        f'The tokenizer of the shards has {num_tokens:,} tokens, and the'
        f' student of config.init={init} {found.vocab_size:,} rows of'
        ' embedding; tokenise with its own tokenizer (config.tokenizer).'
    )
  if max_len > found.max_positions:
    raise ValueError(
        f'config.data.max_len={max_len:,} is beyond the'
        f' {found.max_positions:,} positions that the student is made for;'
        ' lower it, or take a student with RoPE scaling. If you mean it, raise'
        ' max_position_embeddings in its config.json.'
    )
  return found


def params(init: str, student: student_lib.Student, seed: int) -> Any:
  """Returns its parameters, laid out over the current mesh."""
  kind, _, directory = init.partition(':')
  if kind == 'hf':
    return pretrained.load_params(directory, params_lib.abstract(student))
  if kind == 'checkpoint':
    return checkpoints.load_params(directory, params_lib.abstract(student))
  return params_lib.init(student, jax.random.key(seed))
