"""Sampling and scoring alone: a student that is already trained.

    python -m valley_jax.sample --config configs/evaluate.py --workdir EVAL \\
        --config.checkpoint=RUN/checkpoints --config.shards=DATA/shards \\
        --config.problems=humaneval:HumanEval.jsonl.gz
    python -m valley_jax.execute --config configs/evaluate.py --workdir EVAL \\
        --config.problems=humaneval:HumanEval.jsonl.gz
    python -m valley_jax.score --config configs/evaluate.py --workdir EVAL \\
        --config.problems=humaneval:HumanEval.jsonl.gz
    python -m valley_jax.report --config configs/evaluate.py --workdir EVAL

    configs/evaluate.py:num_samples=16      more samples a problem
    configs/evaluate.py:student=qwen3_8b    another student
    configs/evaluate.py:mini                the student of the embedded world

Programs that were written elsewhere need no student: `execute` and `score`
with --config.submissions=PROGRAMS.jsonl, rows {problem_id, sample_index,
source}.

What is the same as in training stands in valley.py and comes from there: the
prompt, the decoding, the limits.
"""

import ml_collections as mlc

from valley_jax.runtime import config_arg

_FIELDS = (
    'student',
    'problems',
    'submissions',
    'checkpoint',
    'shards',
    'prompt',
    'vocab_multiple',
    'mesh',
    'sample',
    'cpu_seconds',
    'multipliers',
    'profile',
    'all_tests',
    'tier',
    'waivers',
    'num_workers',
    'ray',
    'cache',
    'ks',
    'num_bootstrap',
)


def get_config(arg: str | None = None) -> mlc.ConfigDict:
  """One evaluation of one student."""
  a = config_arg.parse(
      arg,
      mini=False,
      student='qwen2_5_7b',
      num_traces=0,  # What the student was trained on, for the report.
      seed=0,
      num_samples=0,  # 0: as many as in valley.py.
  )
  valley = config_arg.read_beside(__file__, 'valley.py', f'mini={a.mini},student={a.student}')
  c = mlc.ConfigDict({name: valley[name] for name in _FIELDS})
  c.name = f'evaluate-{c.student}'
  c.num_traces = a.num_traces
  c.seed = a.seed
  c.command = ''
  c.sample.num_samples = a.num_samples or c.sample.num_samples
  return c.lock()
