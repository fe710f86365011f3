"""The manifest: all that is known of shards, but for the traces themselves."""

from collections.abc import Sequence
import hashlib
import pathlib
from typing import Any

import numpy as np

from valley_jax import jsonl
from valley_jax.data.cleaning import decisions
from valley_jax.data.shards import shards
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization


def histogram(lengths: np.ndarray) -> dict[str, int]:
  """Counts lengths up to each power of two, and over the one before.

  Example:
    >>> histogram(np.array([3, 4, 5]))
    {'4': 2, '8': 1}
  """
  if not len(lengths):
    return {}
  powers = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
  counts = np.bincount(powers)
  first = int(powers.min())
  return {str(2**i): int(counts[i]) for i in range(first, len(counts))}


def make(
    directory: pathlib.Path,
    sources: Sequence[str],
    settings: dict[str, Any],
    tokenizer: tokenization.Tokenizer,
    prompt: prompts.Prompt,
) -> dict[str, Any]:
  """Returns the manifest of shards whose blocks are all there.

  Args:
    directory: Of the shards.
    sources: FORMAT:PATH each.
    settings: What the shards depend on; it begins with these.
    tokenizer: That of the shards.
    prompt: How questions were put.
  """
  counts = decisions.count_decisions(directory, sources)
  dropped, examples = dict(counts.num_refused), dict(counts.refused)
  num_blocks = 0
  for sidecar in shards.sidecars(directory):
    num_blocks += 1
    for reason, ids in sidecar['dropped'].items():
      dropped[reason] = dropped.get(reason, 0) + len(ids)
      shown = examples.get(reason, []) + ids
      examples[reason] = shown[: decisions.MAX_EXAMPLES]
  table = shards.table(directory)
  template_sha256 = tokenization.hash_chat_template(tokenizer)
  return {
      **settings,
      'sources': [
          {'source': source, 'sha256': sha256, 'read': counts.read[source]}
          for source, sha256 in zip(sources, settings['traces_sha256'], strict=True)
      ],
      'num_read': sum(counts.read.values()),
      'quarantined': _num_lines(directory / 'quarantine.jsonl'),
      'dropped': dict(sorted(dropped.items())),
      'examples': dict(sorted(examples.items())),
      'num_traces': len(table),
      'num_tokens': int(table.num_tokens.sum()),
      'num_supervised_tokens': int(table.num_supervised.sum()),
      'longest': int(table.num_tokens.max(initial=0)),
      'lengths': histogram(table.num_tokens),
      'ids_sha256': _hash(table.ids),
      'prompt_sha256': prompts.hash_prompt(prompt, template_sha256),
      'template_sha256': template_sha256,
      'tokenizer_sha256': tokenization.hash_tokenizer(tokenizer),
      'vocab_size': len(tokenizer),
      'versions': jsonl.read_json(directory / 'versions.json'),
      'files': [f'{i:05d}.array_record' for i in range(num_blocks)],
  }


def _num_lines(path: pathlib.Path) -> int:
  with open(path, 'rb') as f:
    return sum(1 for _ in f)


def _hash(ids: Sequence[str]) -> str:
  """Returns the SHA-256 of ids in order, a line each."""
  digest = hashlib.sha256()
  for trace_id in ids:
    digest.update(f'{trace_id}\n'.encode())
  return digest.hexdigest()
