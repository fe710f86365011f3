"""Data-efficient distillation, DED (2508.09883).

    configs/distill.py                      one corpus, the paper's recipe: full
                                            fine-tuning of R1-Distill-Qwen-32B,
                                            16,384 tokens, batch 48, 10 epochs,
                                            AdamW, lr 1e-5
    configs/distill.py:student=qwen2_5_7b   another student
    configs/distill.py:mini                 the same flow on two cores

    python -m valley_jax.train --config configs/distill.py --workdir RUN \\
        --config.shards=CORPUS/shards --config.init=hf:STUDENT_DIR

All that is not said here stands in valley.py and comes from there. What the
paper leaves open is chosen as follows: warmup over 10 % of the steps and a
cosine to 10 %, as in the sister study, so that the two can be compared; loss on
the response only; packing by best fit. A corpus has about a thousand traces, a
packed batch holds more of them than a padded one: 10 epochs of 925 traces of
8k tokens are about a hundred steps.
"""

import ml_collections as mlc

from valley_jax import config_arg


def get_config(arg: str | None = None) -> mlc.ConfigDict:
  """One corpus of the paper's table, and one student."""
  a = config_arg.parse(
      arg,
      mini=False,
      student='r1_qwen_32b',
      num_traces=925,  # Right, Hard and Diverse: the paper's best for code.
      seed=0,
  )
  c = config_arg.read_beside(
      __file__,
      'valley.py',
      f'mini={a.mini},student={a.student},num_traces={a.num_traces}'
      f',seed={a.seed}',
  ).unlock()
  c.name = 'distill-mini' if a.mini else 'distill'
  if not a.mini:
    c.data.max_len = 16_384
    c.train.update(batch_size=48, epochs=10, learning_rate=1e-5)
    # LiveCodeBench, February to May 2025: the mean of 16 runs.
    c.sample.num_samples = 16
  return c.lock()
