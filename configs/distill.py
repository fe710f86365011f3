"""Data-efficient distillation, DED (2508.09883).

    configs/distill.py:subset=diverse       one corpus, the paper's recipe: full
                                            fine-tuning of R1-Distill-Qwen-32B,
                                            16,384 tokens, batch 48, 10 epochs,
                                            AdamW, lr 1e-5
    configs/distill.py:student=qwen2_5_7b   another student
    configs/distill.py:mini                 the same flow on two cores

The whole table, with each of V's fields as it is for you:

    V="--config configs/distill.py:seeds=3 --workdir STUDY
       --config.traces=… --config.problems=…
       --config.tokenizer=hf:STUDENT_DIR --config.init=hf:STUDENT_DIR"
    python -m valley_jax.shard $V
    python -m valley_jax.curate $V \\
        --config.curate.judgements=STUDENT/judgements.jsonl
    python -m valley_jax.study $V

The shards hold several traces a question of both teachers, R1 and QwQ, with the
label `is_correct`. The paper's corpora of its table for code, and two controls:

    r1, qwq    one trace a question of that teacher, as it comes
    right      of QwQ, one right trace a question that has any, of at most 16k
               tokens
    hard       of these, the questions that the student seldom solves
    diverse    of each hard question the traces that are farthest apart
    mixed      as many of math as of code, both curated like this
    random     control: of each hard question as many traces at random
    nearest    control: as many that are closest together

All that is not said here stands in valley.py and comes from there. What the
paper leaves open is chosen as follows: 4 traces a question; hard is a pass rate
of at most a half; distances of tokens, from the medoid; warmup over 10 % of the
steps and a cosine to 10 %, as in the sister study, so that the two can be
compared; loss on the response only; packing by best fit. A corpus has about a
thousand traces, a packed batch holds more of them than a padded one: 10 epochs
of 925 traces of 8k tokens are about a hundred steps.
"""

import ml_collections as mlc

from valley_jax.runtime import config_arg

_CODE = ('taco', 'apps', 'code_contests', 'open-r1/codeforces')  # Sources.

# The paper's table for code, from above, and the two controls.
_TABLE = ('r1', 'qwq', 'right', 'hard', 'diverse', 'random', 'nearest')


def get_config(arg: str | None = None) -> mlc.ConfigDict:
  """One corpus of the paper's table, and one student."""
  a = config_arg.parse(
      arg,
      mini=False,
      student='r1_qwen_32b',
      num_traces=-1,  # All that the subset has; without one, 925.
      subset='',
      traces_per_question=4,
      r1='DeepSeek-R1',  # As the traces name their teachers.
      qwq='QwQ-32B',
      seed=0,
      seeds=1,
  )
  c = config_arg.read_beside(
      __file__,
      'valley.py',
      f'mini={a.mini},student={a.student},num_traces={a.num_traces}'
      f',seed={a.seed},seeds={a.seeds}',
  ).unlock()
  c.name = 'distill-mini' if a.mini else 'distill'
  c.num_traces = a.num_traces
  if not a.subset and a.num_traces < 0:
    c.num_traces = 925
  c.subset = a.subset
  c.subsets = _subsets(a.r1, a.qwq, a.traces_per_question)
  c.curate = dict(
      pool='pool',  # The subset to choose from.
      judgements='',  # Of the student before training, on these questions.
      max_pass_rate=0.5,  # A question that it solves more often is too easy.
      unjudged='refuse',  # Questions without a judgement; or drop them.
      traces_per_question=a.traces_per_question,
      unit='tokens',  # Whose edits are counted; or characters.
      start='medoid',  # A question's first trace; or longest.
  )
  if not a.mini:
    c.data.max_len = 16_384
    c.train.update(batch_size=48, epochs=10, learning_rate=1e-5)
    # LiveCodeBench, February to May 2025: the mean of 16 runs.
    c.sample.num_samples = 16
    c.study.sizes = (0,)
    c.study.subsets = _TABLE
  return c.lock()


def _subsets(r1: str, qwq: str, traces_per_question: int) -> dict[str, tuple[dict, ...]]:
  """The corpora, as valley_jax/data/subsets/selections.py reads them."""
  one = {'per_question': 1}
  hard = {'ids': 'hard.json'}
  farthest = {'ids': 'farthest.json'}
  of_qwq = {'where': 'teacher', 'equals': qwq}
  pool = (
      of_qwq,
      {'where': 'num_supervised', 'most': 16_384},
      {'where': 'is_correct', 'equals': True},
  )
  return {
      'pool': pool,  # Of which `curate` makes the files that are named below.
      'r1': ({'where': 'teacher', 'equals': r1}, one),
      'qwq': (of_qwq, one),
      'right': (*pool, one),
      'hard': (hard, one),
      'diverse': (farthest,),
      'random': (hard, {'per_question': traces_per_question}),
      'nearest': ({'ids': 'nearest.json'},),
      'diverse_code': (farthest, {'where': 'source', 'among': _CODE}),
      'diverse_math': (farthest, {'where': 'source', 'none_of': _CODE}),
      'mixed': ({'mixture': {'diverse_code': 1.0, 'diverse_math': 1.0}, 'size': 800},),
  }
