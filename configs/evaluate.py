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

Prompt, decoding and limits are those of configs/valley.py.
"""

import ml_collections as mlc

from valley_jax.runtime import config_groups
from valley_jax.runtime import entry


def get_config(arg: str | None = None) -> mlc.ConfigDict:
  """One evaluation of one student."""
  a = entry.parse_config_argument(
      arg,
      mini=False,
      student='qwen2_5_7b',
      num_traces=0,  # What the student was trained on, for the report.
      seed=0,
      num_samples=0,  # 0: as many as in valley.py.
  )
  c = mlc.ConfigDict()
  c.student = a.student
  c.num_traces = a.num_traces
  c.seed = a.seed
  c.command = ''  # The command line; the entry point fills it in.
  paths = config_groups.get_path_fields()
  c.update({name: paths[name] for name in ('problems', 'submissions', 'checkpoint', 'shards')})
  c.prompt = 'ocr'
  c.vocab_multiple = 128
  c.mesh = config_groups.get_mesh_group()
  c.sample = config_groups.get_sample_group()
  c.update(config_groups.get_judge_fields())
  if a.mini:
    config_groups.use_mini_student(c)
  c.name = f'evaluate-{c.student}'
  if a.num_samples:
    c.sample.num_samples = a.num_samples
  return c.lock()
