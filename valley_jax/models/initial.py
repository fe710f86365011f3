"""The student that a run begins with.

    random           a preset, its vocabulary the tokenizer's, padded
    checkpoint:DIR   the student of another run's checkpoints
    hf:DIR           a Hugging Face checkpoint, as its config.json describes it

The last two say what the student is. A preset beside them must agree; '' takes what is there. Their
vocabulary is theirs too: rows added to it would take probability from the others.

What LoRA adds to a student lives as long as a run trains it: a run that begins with the student of
another, a sample and an export all take it merged.
"""

from collections.abc import Callable
import dataclasses
import os
from typing import Any

import jax

from valley_jax import errors
from valley_jax.models import declarations
from valley_jax.models import hf_config
from valley_jax.models import parameters
from valley_jax.models import pretrained
from valley_jax.models import student as student_lib
from valley_jax.runtime import checkpoints


def read_checkpoint_student(directory: str | os.PathLike) -> student_lib.Student:
  """Returns the student of a finished run's checkpoints.

  Raises:
    UserError: there is no finished run, or it does not say what its student is.
  """
  identity = checkpoints.read_finished_identity(directory)
  if 'student' not in identity:
    raise errors.UserError(
        f'{directory} does not say what its student is: it was written before checkpoints did.'
        ' Train it again.'
    )
  return hf_config.parse_student_config(identity['student'], str(directory))


def choose_student(
    init: str, preset: str, *, num_tokens: int, multiple: int, max_len: int
) -> student_lib.Student:
  """Returns the description of the student.

  Args:
    init: Source of its parameters; see above.
    preset: Its name, or '' where `init` says what it is.
    num_tokens: Size of the tokenizer's vocabulary.
    multiple: Vocabulary rows of a preset are padded to a multiple of this.
    max_len: Tokens of the longest example.

  Raises:
    UserError: the preset is another student than `init` has, or the student has no room for the
      tokens or for the length.
  """
  kind, _, directory = init.partition(':')
  if kind == 'hf':
    student = pretrained.read_student(directory)
  elif kind == 'checkpoint':
    student = read_checkpoint_student(directory)
  elif init == 'random':
    student = student_lib.build_preset(preset, num_tokens, multiple)
  else:
    raise errors.UserError(
        f'config.init={init!r}: want hf:DIR, a Hugging Face checkpoint, checkpoint:DIR, a student'
        ' to go on from, or random, one without any training.'
    )
  if preset:
    differences = student_lib.list_differences(student, student_lib.find_preset(preset))
    if differences:
      raise errors.UserError(
          f'config.init={init} is not config.student={preset}: it has {"; ".join(differences)}.'
          " Name its preset, or set config.student to '' to take it as it is."
      )
  if num_tokens > student.vocab_size:
    raise errors.UserError(
        f'The tokenizer of the shards has {num_tokens:,} tokens, and the student of'
        f' config.init={init} {student.vocab_size:,} rows of embedding; tokenise with its own'
        ' tokenizer (config.tokenizer).'
    )
  if max_len > student.max_positions:
    raise errors.UserError(
        f'config.data.max_len={max_len:,} is beyond the {student.max_positions:,} positions that'
        ' the student is made for; lower it, or take a student with RoPE scaling. If you mean it,'
        ' raise max_position_embeddings in its config.json.'
    )
  return student


def _keep_dtypes(declared: Any, tree: Any) -> Any:
  del declared
  return tree


def load_trained(
    directory: str | os.PathLike, cast: Callable[[Any, Any], Any] = _keep_dtypes
) -> tuple[student_lib.Student, Any]:
  """Returns the student of a finished run and its parameters, LoRA merged.

  Args:
    directory: A directory of checkpoints.
    cast: Function of declarations and abstract float32 parameters that returns these in the dtypes
      to load.

  Raises:
    UserError: no finished run is there.
  """
  student = read_checkpoint_student(directory)
  identity = checkpoints.read_finished_identity(directory)
  rank, alpha, matrices = (
      identity.get(f'config.train.lora_{name}', 0) for name in ('rank', 'alpha', 'matrices')
  )
  adapted = dataclasses.replace(student, lora=student_lib.choose_lora(rank, alpha, matrices))
  declared, like = parameters.describe_parameters(adapted), parameters.abstract_params(adapted)
  adapters, frozen = parameters.split_adapters(declared, like) if adapted.lora else ({}, like)
  like = parameters.join_adapters(adapters, cast(declared, frozen))
  return student, parameters.merge_adapters(
      adapted, checkpoints.load_latest_params(directory, like)
  )


def load_or_init_params(init: str, student: student_lib.Student, seed: int, dtype: Any) -> Any:
  """Returns the student's parameters, laid out over the current mesh.

  Args:
    init: Their source; see above.
    student: Sizes. The matrices that LoRA adds are always new.
    seed: Seed of what is random.
    dtype: Dtype of frozen matrices; all else is float32.
  """
  kind, _, directory = init.partition(':')
  key = jax.random.key(seed)
  plain = dataclasses.replace(student, lora=None)

  def cast(declared: Any, tree: Any) -> Any:
    return declarations.cast_matrices(declared, tree, dtype) if student.lora else tree

  declared = parameters.describe_parameters(plain)
  if kind == 'hf':
    like = cast(declared, parameters.abstract_params(plain))
    params = pretrained.load_params(directory, plain, like)
  elif kind == 'checkpoint':
    _, params = load_trained(directory, cast)
  else:
    params = parameters.init_params(plain, key)
  if student.lora is None:
    return params
  return parameters.join_adapters(parameters.init_adapters(student, key), cast(declared, params))
