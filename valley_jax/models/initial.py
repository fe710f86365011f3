"""The student that a run begins with.

    random           a preset, its vocabulary the tokenizer's, padded
    checkpoint:DIR   the student of another run's checkpoints
    hf:DIR           a Hugging Face checkpoint, as its config.json says

The last two say themselves what the student is. A preset beside them must
agree; '' takes what is there. Their vocabulary is theirs too: rows added to it
would take probability from the others.

What LoRA adds to a student lives as long as a run trains it: whoever begins
with the student of a run, samples from it or exports it has one without.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any

import jax

from valley_jax import errors
from valley_jax.models import hf_config
from valley_jax.models import lora
from valley_jax.models import params as params_lib
from valley_jax.models import pretrained
from valley_jax.models import student as student_lib
from valley_jax.runtime import checkpoints


def of_checkpoint(directory: str | os.PathLike) -> student_lib.Student:
  """Returns the student of a finished run's checkpoints.

  Raises:
    ValueError: there is none, or it does not say what its student is.
  """
  identity = checkpoints.finished_identity(directory)
  if 'student' not in identity:
    raise errors.UserError(
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
    raise errors.UserError(
        f'config.init={init!r}: want hf:DIR, a Hugging Face checkpoint,'
        ' checkpoint:DIR, a student to go on from, or random, one without any'
        ' training.'
    )
  if preset:
    named = student_lib.preset(preset)
    if differences := student_lib.differences(found, named):
      raise errors.UserError(
          f'config.init={init} is not config.student={preset}: it has'
          f' {"; ".join(differences)}. Name its preset, or set config.student'
          " to '' to take it as it is."
      )
  if num_tokens > found.vocab_size:
    raise errors.UserError(
        f'The tokenizer of the shards has {num_tokens:,} tokens, and the'
        f' student of config.init={init} {found.vocab_size:,} rows of'
        ' embedding; tokenise with its own tokenizer (config.tokenizer).'
    )
  if max_len > found.max_positions:
    raise errors.UserError(
        f'config.data.max_len={max_len:,} is beyond the'
        f' {found.max_positions:,} positions that the student is made for;'
        ' lower it, or take a student with RoPE scaling. If you mean it, raise'
        ' max_position_embeddings in its config.json.'
    )
  return found


def trained(
    directory: str | os.PathLike, cast: Callable[[Any], Any] = lambda x: x
) -> tuple[student_lib.Student, Any]:
  """Returns the student of a finished run and its parameters, LoRA merged.

  Args:
    directory: Of checkpoints.
    cast: From descriptions of the parameters, float32, to those of which they
      shall be.

  Raises:
    ValueError: no finished run there.
  """
  student = of_checkpoint(directory)
  identity = checkpoints.finished_identity(directory)
  chosen = lora.of({name.removeprefix('config.train.'): x for name, x in identity.items()})
  like = params_lib.abstract(dataclasses.replace(student, lora=chosen))
  added, rest = lora.split(like) if chosen else ({}, like)
  like = lora.join(added, cast(rest))
  return student, lora.merge(chosen, checkpoints.load_params(directory, like))


def params(init: str, student: student_lib.Student, seed: int, dtype: Any) -> Any:
  """Returns its parameters, laid out over the current mesh.

  Args:
    init: Where they come from; see above.
    student: What they are of. What LoRA adds is new.
    seed: Of what is random.
    dtype: Of frozen matrices; all else is float32.
  """
  kind, _, directory = init.partition(':')
  key = jax.random.key(seed)
  plain = dataclasses.replace(student, lora=None)
  cast = functools.partial(lora.cast_matrices, dtype=dtype)
  cast = cast if student.lora else lambda x: x
  if kind == 'hf':
    like = cast(params_lib.abstract(plain))
    found = pretrained.load_params(directory, like)
  elif kind == 'checkpoint':
    _, found = trained(directory, cast)
  else:
    found = params_lib.init(plain, key)
  if student.lora is None:
    return found
  added = params_lib.init_added(student, key)
  return lora.join(added, cast(found))
