"""Data-efficient distillation, DED (2508.09883).

    configs/distill.py:subset=diverse       one corpus, the paper's recipe: full
                                            fine-tuning of R1-Distill-Qwen-32B,
                                            16,384 tokens, batch 48, 10 epochs,
                                            AdamW, lr 1e-5
    configs/distill.py:student=qwen2_5_7b   another student
    configs/distill.py:mini                 the same flow on two cores

The whole table; fill in the fields of V:

    V="--config configs/distill.py:seeds=3 --workdir STUDY
       --config.traces=… --config.problems=…
       --config.tokenizer=hf:STUDENT_DIR --config.init=hf:STUDENT_DIR"
    python -m valley_jax.shard $V
    python -m valley_jax.curate $V \\
        --config.curate.judgements=STUDENT/judgements.jsonl
    python -m valley_jax.study $V

The shards hold several traces a question of both teachers, R1 and QwQ, with the
label `is_correct`. The paper's corpora of its table for code, and two controls:

    r1, qwq    one trace a question of that teacher, the first
    right      one correct trace of QwQ a question, of at most 16k tokens
    hard       of these, the questions that the student seldom solves
    diverse    for each hard question the traces that are farthest apart
    mixed      as many traces of math as of code, both curated like this
    random     control: for each hard question as many traces at random
    nearest    control: as many traces, those closest together

All other fields come from valley.py. What the paper leaves open is chosen as
follows: 4 traces a question; hard is a pass rate of at most a half; edit distance
in tokens, from the medoid; warmup over 10 % of the steps and cosine decay to 10 %,
as in valley.py, so that the two studies can be compared; loss on the response only;
best-fit packing. A corpus has about a thousand traces, and a packed batch holds
more of them than a padded one: 10 epochs of 925 traces of 8k tokens are about a
hundred steps.
"""

import ml_collections as mlc

from valley_jax.runtime import entry

_CODE = ('taco', 'apps', 'code_contests', 'open-r1/codeforces')  # Sources.

# The paper's table for code, from above, and the two controls.
_TABLE = ('r1', 'qwq', 'right', 'hard', 'diverse', 'random', 'nearest')


def get_config(arg: str | None = None) -> mlc.ConfigDict:
  """One corpus of the paper's table, and one student."""
  a = entry.parse_config_argument(
      arg,
      mini=False,
      student='r1_qwen_32b',
      num_traces=-1,  # -1: the whole subset; without a subset, 925.
      subset='',
      traces_per_question=4,
      r1='DeepSeek-R1',  # The teachers' names in the traces.
      qwq='QwQ-32B',
      seed=0,
      seeds=1,
  )
  arg = f'mini={a.mini},student={a.student},num_traces={a.num_traces},seed={a.seed},seeds={a.seeds}'
  c = entry.read_sibling_config(__file__, 'valley.py', arg).unlock()
  c.name = 'distill-mini' if a.mini else 'distill'
  c.num_traces = a.num_traces
  if not a.subset and a.num_traces < 0:
    c.num_traces = 925
  c.subset = a.subset
  c.subsets = _get_subsets(a.r1, a.qwq, a.traces_per_question)
  c.curate = dict(
      pool='pool',  # The subset to choose from.
      judgements='',  # A file: the student's before training, on these questions.
      max_pass_rate=0.5,  # A question that it solves more often is too easy.
      unjudged='refuse',  # What to do with questions without a judgement; or drop.
      traces_per_question=a.traces_per_question,
      unit='tokens',  # Unit of the edit distance; or characters.
      start='medoid',  # The first trace that is chosen of a question; or longest.
  )
  if not a.mini:
    c.data.max_len = 16_384
    c.train.update(batch_size=48, epochs=10, learning_rate=1e-5)
    # LiveCodeBench, February to May 2025: the mean of 16 runs.
    c.sample.num_samples = 16
    c.study.sizes = (0,)
    c.study.subsets = _TABLE
  return c.lock()


def _get_subsets(r1: str, qwq: str, traces_per_question: int) -> dict[str, tuple[dict, ...]]:
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
      'pool': pool,  # `curate` chooses from it what the files below name.
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
