"""Tables of traces, as shards have them, made by hand."""

from typing import Any

import numpy as np

from valley_jax.data.shards import shards


def table(*rows: dict[str, Any]) -> shards.TraceTable:
  """A table of these rows; what a row does not say is unknown or 100 tokens."""
  named = [
      {
          'ids': f't{i}',
          'problem_ids': f'p{i}',
          'num_tokens': 100,
          'num_supervised': row.get('num_tokens', 100) - 10,
          'difficulty': '',
          'is_correct': None,
          'pass_rate': None,
          'language': '',
          'source': '',
          'teacher': '',
          **row,
      }
      for i, row in enumerate(rows)
  ]
  columns = {name: [row[name] for row in named] for name in named[0]}
  for name in ('num_tokens', 'num_supervised'):
    columns[name] = np.asarray(columns[name], np.int64)
  return shards.TraceTable(**columns)


def drawn(number: int, seed: int = 0, **fixed: Any) -> shards.TraceTable:
  """A table of four traces a question: hard is longer, and oftener wrong."""
  rng = np.random.default_rng(seed)
  rows = []
  for i in range(number):
    is_hard = bool(rng.random() < 0.5)
    is_correct = bool(rng.random() < (0.4 if is_hard else 0.8))
    rows.append(
        {
            'problem_ids': f'p{i // 4}',
            'num_tokens': int(rng.lognormal(7 + is_hard, 0.5)),
            'difficulty': 'hard' if is_hard else 'easy',
            'is_correct': is_correct,
            'pass_rate': float(is_correct),
            'language': 'python',
            'source': ('taco', 'taco', 'math')[i % 3],
            'teacher': 'QwQ-32B' if i % 2 else 'DeepSeek-R1',
            **fixed,
        }
    )
  return table(*rows)
