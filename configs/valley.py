"""The data-scaling curve of *The Valley of Code Reasoning* (2510.06101).

    configs/valley.py            one point of the curve, the paper's recipe:
                                 full fine-tuning, 32,768 tokens, batch 128,
                                 5 epochs, AdamW, lr 8e-5, warmup .10
    configs/valley.py:mini       the same flow on the embedded world, 2 cores
    configs/valley.py:subset=correct_6k
                                 one of the paper's other sets, or a matched
                                 one; _get_subsets below names them all
    configs/valley.py:num_traces=1000,fixed_steps=true
                                 1,000 traces for as many steps as 30,000 take

The paper's RQ2; RQ3 is the same with ('hard_4k','easy_4k'), and arms that are
matched on what the paper let vary are ('correct_matched','incorrect_matched'):

    python -m valley_jax.study --config configs/valley.py:seeds=3 \\
        --workdir RQ2 --config.study.sizes="(0,)" \\
        --config.study.subsets="('correct_6k','incorrect_6k')" \\
        --config.traces=… --config.problems=… \\
        --config.tokenizer=hf:STUDENT_DIR --config.init=hf:STUDENT_DIR

Its second stage continues from the student of 30,000 traces: another workdir, and
--config.init=checkpoint:STUDY/runs/n30000_s0/checkpoints.

This file sets what the study decides. All other fields and their explanations are in
valley_jax/runtime/config_groups.py.

What the paper leaves open is chosen here: cosine decay to 10 %, AdamW betas
(.9, .95) without weight decay, best-fit packing, loss on the response only,
pass@1 from one greedy sample in the mini world and from 4 at temperature .6,
top-p .95 otherwise (OpenCodeReasoning's decoding, as is the prompt).
"""

import ml_collections as mlc

from valley_jax.runtime import config_groups
from valley_jax.runtime import entry


def get_config(arg: str | None = None) -> mlc.ConfigDict:
  """One point of the data-scaling curve, and the study around it."""
  a = entry.parse_config_argument(
      arg,
      mini=False,
      student='qwen2_5_7b',
      num_traces=-1,  # -1: the whole subset; without a subset, 30,000.
      subset='',
      fixed_steps=False,
      seed=0,
      seeds=1,
  )
  c = mlc.ConfigDict()
  c.name = 'valley'
  c.student = a.student  # A preset; '': as init's checkpoint says.
  c.num_traces = a.num_traces  # 0: the student as it is, untrained.
  if not a.subset and a.num_traces < 0:
    c.num_traces = 30_000
  c.seed = a.seed
  c.subset = a.subset  # A name in `subsets`; '': num_traces at random, nested.
  # Or subsets of your own: also mixtures, and {'phases': …} that change their weights.
  c.subsets = _get_subsets()
  c.command = ''  # The command line; the entry point fills it in.
  c.update(config_groups.get_path_fields())
  c.prompt = 'ocr'  # Or livecodebench, plain, file:PATH; data/tokens/prompts.py.
  c.vocab_multiple = 128  # Vocabulary rows are padded to a multiple of this.
  c.data = config_groups.get_data_group()
  c.data.max_len = 32_768
  c.filters = config_groups.get_filters_group()
  c.duplicates = config_groups.get_duplicates_group()
  c.contamination = config_groups.get_contamination_group()
  c.mesh = config_groups.get_mesh_group()
  c.attention = 'auto'  # Which implementation; models/attention.py names them.
  c.train = config_groups.get_train_group()
  c.train.update(
      batch_size=128,  # Packed rows.
      epochs=5,
      learning_rate=8e-5,
      schedule='cosine',
      warmup_fraction=0.10,
      final_fraction=0.10,
      b2=0.95,
      weight_decay=0.0,
  )
  c.watch = config_groups.get_watch_group()
  c.sample = config_groups.get_sample_group()
  c.sample.update(num_samples=4, max_new_tokens=32_768, temperature=0.6, top_p=0.95)
  c.update(config_groups.get_judge_fields())
  c.study = dict(
      world='',  # 'mini': make the embedded world first, as `mini` below says.
      sizes=(0, 1_000, 10_000, 30_000),
      subsets=(),  # Names in `subsets`, each with each seed, next to the sizes.
      seeds=tuple(range(a.seed, a.seed + a.seeds)),
      mini=config_groups.get_mini_world_group(),
  )
  if a.fixed_steps:
    c.train.steps_of = 30_000
  if a.mini:
    _shrink_to_mini(c)
  return c.lock()


def _get_subsets() -> dict[str, tuple[dict, ...]]:
  """The paper's sets, as valley_jax/data/subsets/selections.py reads them.

  Its sets by correctness and by difficulty are of TACO. They differ in more than their names say:
  correct traces are easier and shorter. The matched sets do not, and both arms have one size.
  """
  taco = {'where': 'source', 'equals': 'taco'}
  alike = ('difficulty', 'num_supervised')
  sets = {
      'random_1k': ({'random': 1_000},),
      'random_10k': ({'random': 10_000},),
      'random_30k': ({'random': 30_000},),
  }
  for field, take, other, name, size, on in (
      ('is_correct', True, False, 'correct', 6_000, alike),
      ('is_correct', False, True, 'incorrect', 6_000, alike),
      ('difficulty', 'hard', 'easy', 'hard', 4_000, ('is_correct',)),
      ('difficulty', 'easy', 'hard', 'easy', 4_000, ('is_correct',)),
  ):
    match = {'match': field, 'take': take, 'other': other, 'on': on}
    sets[f'{name}_{size // 1000}k'] = (taco, {'where': field, 'equals': take}, {'random': size})
    sets[f'{name}_matched'] = (taco, {**match, 'most': size})
  return sets


def _shrink_to_mini(c: mlc.ConfigDict) -> None:
  """Shrinks the study to the embedded world and two cores."""
  config_groups.use_mini_student(c)
  c.name = 'valley-mini'
  c.init = 'random'  # The base student; it is trained first.
  c.filters.update(think=False, code_in_answer=False, parses=False)
  c.data.max_len = 192
  # The world's problems are of few kinds, so many of them are near duplicates.
  c.duplicates.update(questions='keep', traces='keep')
  c.train.update(
      batch_size=4,
      epochs=2,
      learning_rate=2e-3,
      dtype='float32',  # bfloat16 is slower than float32 on CPUs.
      remat='none',
      loss_chunk_len=192,
      checkpoint_every=500,
  )
  c.watch.update(held_out=0, prompts=0)
  c.study.world = 'mini'
  c.study.sizes = (0, 16, 64, 256, 1024, 4096)
  c.subsets = {
      f'{name}_1k': ({'where': 'difficulty', 'equals': name}, {'random': 1_000})
      for name in ('hard', 'easy')
  }
  if c.train.steps_of:
    c.train.steps_of = 4096
