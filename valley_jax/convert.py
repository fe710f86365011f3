"""Moves students to Hugging Face's form, and compares them with transformers.

    python -m valley_jax.convert export RUN python -m valley_jax.convert check RUN/hf

To begin a run with a Hugging Face checkpoint nothing needs converting: see --config.init=hf:DIR of
`python -m valley_jax.train --help`.

export  Reads   RUN/checkpoints  the student at the end of its training
                RUN/config.json  where its shards are, for their tokenizer
        Writes  RUN/hf/          *.safetensors and their index, config.json,
                                 tokenizer, chat template, generation_config (it stops at the token
                                 that ended the student's turns), export.json (what it is of).
                                 transformers and vLLM load it.
        The directory appears when it is whole. Run twice, the second run does nothing.

check   Reads   DIR, ours or downloaded
        Runs it here and by transformers, both in float32 on the CPU, and prints how far the
        next-token distributions are apart. Exit status 1 if by more than rounding explains. Wants
        torch: pip install 'valley_jax[parity]'. Needs 4 bytes a parameter of memory.

Both run on the CPU, whatever else the machine has.
"""

import sys

if __name__ == '__main__' and sys.argv[1:] in (['-h'], ['--help']):
  sys.exit(print(__doc__))  # Ahead of the imports below, which take seconds.

import argparse
import functools
import importlib.util
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from valley_jax import errors
from valley_jax import jsonl
from valley_jax.data.tokens import tokenization
from valley_jax.models import hf_config
from valley_jax.models import hf_weights
from valley_jax.models import initial
from valley_jax.models import parameters
from valley_jax.models import pretrained
from valley_jax.models import student as student_lib
from valley_jax.runtime import checkpoints
from valley_jax.runtime import partitioning
from valley_jax.runtime import storage

MIN_TOKENS = 512  # Fewer hide errors of RoPE.
MAX_MEAN_KL = 1e-5  # Nats a token.
MAX_KL = 1e-3
MIN_AGREEMENT = 0.99  # Share of equal most probable tokens; ties may fall either way.


def _load_tokenizer(
    run: pathlib.Path, identity: dict[str, Any]
) -> tuple[pathlib.Path, tokenization.Tokenizer]:
  """Returns the tokenizer that the student was trained with, and its place."""
  config = jsonl.read_json(run / 'config.json')
  directory = pathlib.Path(config['shards'] or run / 'shards') / 'tokenizer'
  tokenizer = tokenization.load_tokenizer(directory)
  hashes = {
      'tokenizer': tokenization.hash_tokenizer(tokenizer),
      'template': tokenization.hash_chat_template(tokenizer),
  }
  for name, now in hashes.items():
    if now != (then := identity[f'{name}_sha256']):
      raise errors.UserError(
          f'{directory}: {name} has the hash {now}, the student was trained with {then}; put back'
          ' the shards that it was trained on.'
      )
  return directory, tokenizer


def _write_configs(
    directory: pathlib.Path,
    student: student_lib.Student,
    tokenizer: tokenization.Tokenizer,
    dtype: str,
) -> None:
  end: Any = tokenizer.eos_token_id
  pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
  ids = {'eos_token_id': end, 'pad_token_id': pad}
  if tokenizer.bos_token_id is not None:
    ids['bos_token_id'] = tokenizer.bos_token_id
  config = hf_config.build_student_config(student)
  jsonl.write_json(directory / 'config.json', {**config, **ids, 'torch_dtype': dtype})
  jsonl.write_json(directory / 'generation_config.json', ids)


def export(
    run: str | os.PathLike,
    directory: str | os.PathLike = '',
    dtype: str = 'bfloat16',
    max_file_bytes: int = 5 * 10**9,
) -> None:
  """Writes a run's student as transformers has it; see the module's docstring.

  Args:
    run: The workdir of a finished run.
    directory: The directory to write; '' means <run>/hf.
    dtype: Dtype of the weights, bfloat16 or float32.
    max_file_bytes: Largest size of a file of weights.

  Raises:
    UserError: the run is not finished, its tokenizer has changed, or the directory holds something
      else.
  """
  run = pathlib.Path(run)
  directory = pathlib.Path(directory or run / 'hf')
  identity = checkpoints.read_finished_identity(run / 'checkpoints')
  settings = {'student': identity, 'dtype': dtype, 'max_file_bytes': max_file_bytes}
  if directory.exists():
    if not (directory / 'export.json').exists():
      raise errors.UserError(
          f'{directory} exists and was not written by export; name another directory with --to.'
      )
    storage.claim_directory(directory / 'export.json', settings)
    print(f'export: {directory} is complete.')
    return
  source, tokenizer = _load_tokenizer(run, identity)
  # Whole or not at all: written aside, then renamed.
  scratch = directory.with_name(f'.{directory.name}.tmp')
  shutil.rmtree(scratch, ignore_errors=True)
  shutil.copytree(source, scratch)
  cast = lambda _, tree: jax.tree.map(lambda x: x.update(dtype=dtype), tree)
  with jax.set_mesh(partitioning.make_mesh(devices=jax.devices()[:1])):
    student, params = initial.load_trained(run / 'checkpoints', cast)
    _write_configs(scratch, student, tokenizer, dtype)
    hf_weights.write_weights(scratch, student, params, dtype, max_file_bytes)
  jsonl.write_json(scratch / 'export.json', settings)
  os.replace(scratch, directory)
  print(f'export: {parameters.count_params(params):,} parameters in {directory}.')


def _choose_tokens(directory: str, text: str, num_tokens: int, vocab_size: int) -> np.ndarray:
  """Returns the tokens to compare on: of a text, or random ones."""
  if not text:
    return np.random.default_rng(0).integers(0, vocab_size, num_tokens)
  tokenizer = tokenization.load_tokenizer(directory)
  words = pathlib.Path(text).read_text()
  tokens = np.asarray(tokenizer(words)['input_ids'][:num_tokens])
  if len(tokens) < MIN_TOKENS:
    raise errors.UserError(
        f'{text} has {len(tokens)} tokens, fewer than {MIN_TOKENS}; take a longer text.'
    )
  return tokens


@functools.partial(jax.jit, static_argnums=0)
def _compute_logits(student: student_lib.Student, params: Any, tokens_BL: jax.Array) -> jax.Array:
  model = parameters.bind_transformer(student, params)
  positions_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape)
  hidden_BLD, _ = model(tokens_BL, positions_BL, jnp.ones_like(tokens_BL))
  return hidden_BLD @ model.output_head(hidden_BLD.dtype)


def compute_our_logits(directory: str | os.PathLike, tokens: np.ndarray) -> np.ndarray:
  """Returns logits [L, V] of a Hugging Face checkpoint, in float32."""
  student = pretrained.read_student(directory)
  with jax.set_mesh(partitioning.make_mesh(devices=jax.devices()[:1])):
    params = pretrained.load_params(directory, student)
    return np.asarray(_compute_logits(student, params, tokens[None].astype(np.int32)))[0]


def compute_their_logits(directory: str | os.PathLike, tokens: np.ndarray) -> np.ndarray:
  """Returns the same from transformers and torch."""
  import torch  # pyright: ignore[reportMissingImports]
  import transformers

  model = transformers.AutoModelForCausalLM.from_pretrained(
      directory, local_files_only=True, dtype=torch.float32
  )
  with torch.no_grad():
    return model.eval()(torch.from_numpy(tokens[None])).logits[0].numpy()


def measure_differences(theirs: np.ndarray, ours: np.ndarray) -> dict[str, float]:
  """Returns how far next-token distributions [L, V] are apart.

  KL(theirs || ours) in nats a token, its mean and its largest; in which part of the positions both
  find the same token most probable; and the largest difference of logits.
  """
  kl = []
  for p, q in zip(theirs, ours, strict=True):  # A few MB at a time.
    p, q = p.astype(np.float64), q.astype(np.float64)
    p, q = p - np.logaddexp.reduce(p), q - np.logaddexp.reduce(q)
    kl.append(float(np.sum(np.exp(p) * (p - q))))
  same = theirs.argmax(axis=-1) == ours.argmax(axis=-1)
  return {
      'tokens': len(kl),
      'kl_mean': float(np.mean(kl)),
      'kl_max': float(np.max(kl)),
      'agreement': float(np.mean(same)),
      'max_logit_difference': float(np.max(np.abs(theirs - ours))),
  }


def check(directory: str, text: str = '', num_tokens: int = 1024) -> bool:
  """Compares a directory with transformers; returns whether they agree."""
  if importlib.util.find_spec('torch') is None:
    raise errors.UserError(
        'check compares with torch, which is not installed: pip install' " 'valley_jax[parity]'"
    )
  if num_tokens < MIN_TOKENS:
    raise errors.UserError(f'--tokens={num_tokens}: want {MIN_TOKENS} or more.')
  vocab_size = pretrained.read_student(directory).vocab_size
  tokens = _choose_tokens(directory, text, num_tokens, vocab_size)
  ours = compute_our_logits(directory, tokens)
  differences = measure_differences(compute_their_logits(directory, tokens), ours)
  print(
      f'KL to transformers: mean {differences["kl_mean"]:.2e} (at most'
      f' {MAX_MEAN_KL:.0e}), largest {differences["kl_max"]:.2e} (at most'
      f' {MAX_KL:.0e}) nats a token, over {differences["tokens"]:,} tokens\n'
      f'Same most probable token: {differences["agreement"]:.2%} (at least'
      f' {MIN_AGREEMENT:.0%})\n'
      f'Largest difference of logits: {differences["max_logit_difference"]:.2e}'
  )
  # With <= and >=, so that NaN does not agree.
  agrees = (
      differences['kl_mean'] <= MAX_MEAN_KL
      and differences['kl_max'] <= MAX_KL
      and differences['agreement'] >= MIN_AGREEMENT
  )
  print(f'check: {directory} {"agrees" if agrees else "does NOT agree"}.')
  return agrees


def main(args: list[str] | None = None) -> int:
  """Parses the command line; returns the exit status."""
  parser = argparse.ArgumentParser(
      prog='python -m valley_jax.convert',
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest='command', required=True)
  one = commands.add_parser('export', help='write RUN/hf')
  one.add_argument('run', help='the workdir of a finished run')
  one.add_argument('--to', default='', help='where to; default RUN/hf')
  one.add_argument('--dtype', default='bfloat16', choices=['bfloat16', 'float32'])
  one.add_argument('--max-file-gb', type=float, default=5.0, help='of a file of weights')
  two = commands.add_parser('check', help='compare DIR with transformers')
  two.add_argument('directory', help='with config.json and *.safetensors')
  two.add_argument('--text', default='', help='a file; default: random tokens')
  two.add_argument('--tokens', type=int, default=1024, help='at least 512')
  a = parser.parse_args(args)
  jax.config.update('jax_platforms', 'cpu')
  try:
    if a.command == 'export':
      export(a.run, a.to, a.dtype, int(a.max_file_gb * 1e9))
      return 0
    return 0 if check(a.directory, a.text, a.tokens) else 1
  except ValueError as e:
    print(f'{a.command}: {e}', file=sys.stderr)
    return 2


if __name__ == '__main__':
  sys.exit(main())
