"""Vectors of texts, by an embedding model from a local directory.

The model is a decoder of those in `models`, as Qwen3-Embedding is: config.json, *.safetensors and
the tokenizer's files. A text's vector is the hidden state of its last token, or the mean of all, as
1_Pooling/config.json of sentence-transformers says; without that file the mean. A student that
was exported serves too, though it was not trained for this. Encoders (BERT and its kin, whose
attention looks ahead) are not computed here, and are refused.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers

from valley_jax import errors
from valley_jax.models import parameters
from valley_jax.models import pretrained
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning

_ROWS = 8  # Texts at a time.
_SHORTEST = 64  # Tokens; lengths are powers of two, to compile few programs.


def _read_pooling(directory: pathlib.Path) -> str:
  """Returns 'lasttoken' or 'mean'."""
  path = directory / '1_Pooling' / 'config.json'
  if not path.exists():
    return 'mean'
  settings = json.loads(path.read_text())
  flags = {
      name.removeprefix('pooling_mode_').removesuffix('_tokens')
      for name, value in settings.items()
      if name.startswith('pooling_mode_') and value is True
  }
  modes = flags or {settings.get('pooling_mode')}
  if len(modes) != 1 or not modes <= {'lasttoken', 'mean'}:
    raise errors.UserError(
        f'{path} asks for {sorted(map(str, modes))}; only lasttoken or mean can be computed. Take'
        ' another embedding model.'
    )
  return modes.pop()


@functools.partial(jax.jit, static_argnames=('student', 'pooling', 'dtype'))
def _compute_vectors(
    student: student_lib.Student,
    params: Any,
    tokens_BL: jax.Array,
    lengths_B: jax.Array,
    *,
    pooling: str,
    dtype: str,
) -> jax.Array:
  places_1L = jnp.arange(tokens_BL.shape[1])[None]
  is_text_BL = places_1L < lengths_B[:, None]
  positions_BL = jnp.broadcast_to(places_1L, tokens_BL.shape)
  segments_BL = is_text_BL.astype(jnp.int32)
  model = parameters.bind_transformer(student, params)
  hidden_BLD, _ = model(tokens_BL, positions_BL, segments_BL, dtype=dtype)
  is_last_BL = places_1L == lengths_B[:, None] - 1
  chosen_BL = is_last_BL if pooling == 'lasttoken' else is_text_BL
  hidden_BLD = hidden_BLD.astype(jnp.float32)
  sums_BD = jnp.where(chosen_BL[:, :, None], hidden_BLD, 0).sum(1)
  return sums_BD / jnp.maximum(chosen_BL.sum(1), 1)[:, None]


def load_embedder(
    directory: str | os.PathLike, max_len: int = 2048
) -> Callable[[Sequence[str]], np.ndarray]:
  """Returns what turns texts into vectors, (B texts) -> (B, D) float32.

  On the first device: bfloat16, or float32 on a CPU.

  Args:
    directory: Directory of the model.
    max_len: Tokens that are read of a text.

  Raises:
    UserError: a model that cannot be computed here, or no model at all.
  """
  directory = pathlib.Path(directory)
  student, pooling = pretrained.read_student(directory), _read_pooling(directory)
  if not pretrained.has_separate_head(directory):  # It is not needed.
    student = dataclasses.replace(student, tied_head=True)
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
  max_len = min(max_len, student.max_positions)
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  with jax.set_mesh(mesh):
    params = pretrained.load_params(directory, student)
  is_cpu = jax.default_backend() == 'cpu'

  def embed_rows(texts: Sequence[str]) -> np.ndarray:
    encoded = tokenizer(list(texts), truncation=True, max_length=max_len)
    lengths_B = np.array([len(x) for x in encoded['input_ids']], np.int32)
    longest = max(_SHORTEST, int(lengths_B.max()))
    width = 1 << (longest - 1).bit_length()
    num_rows = 1 if len(texts) == 1 else _ROWS
    tokens_BL = np.zeros((num_rows, width), np.int32)
    for row, x in zip(tokens_BL, encoded['input_ids']):
      row[: len(x)] = x
    lengths_B = np.pad(lengths_B, (0, num_rows - len(texts)))
    with jax.set_mesh(mesh):
      vectors_BD = _compute_vectors(
          student,
          params,
          tokens_BL,
          lengths_B,
          pooling=pooling,
          dtype='float32' if is_cpu else 'bfloat16',
      )
    return np.asarray(vectors_BD)[: len(texts)]

  def embed_texts(texts: Sequence[str]) -> np.ndarray:
    starts = range(0, len(texts), _ROWS)
    return np.concatenate([embed_rows(texts[i : i + _ROWS]) for i in starts])

  return embed_texts
