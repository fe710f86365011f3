"""The data-scaling curve of *The Valley of Code Reasoning* (2510.06101).

    configs/valley.py            one point of the curve, the paper's recipe
    configs/valley.py:mini       the same flow on the embedded world, 2 cores
"""

import ml_collections as mlc

from valley_jax import config_arg


def get_config(arg: str | None = None) -> mlc.ConfigDict:
  """One point of the data-scaling curve."""
  a = config_arg.parse(arg, mini=False, num_traces=30_000, seed=0, seeds=1)
  c = mlc.ConfigDict()
  c.name = 'valley-mini' if a.mini else 'valley'
  c.num_traces = a.num_traces  # 0: the student as it is, no training.
  c.seed = a.seed

  # Where things are. FORMAT:PATH; an empty directory means the workdir's own.
  c.traces = ''  # jsonl:PATH or ocr2:PATH
  c.problems = ''  # jsonl:PATH or humaneval:PATH
  c.tokenizer = ''  # hf:DIR, or bpe:SIZE to train one on the traces.
  c.shards = ''  # Default <workdir>/shards.
  c.init = 'random'  # or checkpoint:DIR
  c.submissions = ''  # Programs to judge instead of completions.

  # Judging (execute).
  c.cpu_seconds = 10.0  # For problems that state no limit.
  c.num_workers = 0  # 0: one a core.

  # Scoring.
  c.ks = (1,)
  c.num_bootstrap = 10_000
  return c.lock()
