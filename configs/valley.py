"""The data-scaling curve of *The Valley of Code Reasoning* (2510.06101).

    configs/valley.py            one point of the curve, the paper's recipe:
                                 full fine-tuning, 32,768 tokens, batch 128,
                                 5 epochs, AdamW, lr 8e-5, warmup .10
    configs/valley.py:mini       the same flow on the embedded world, 2 cores
    configs/valley.py:subset=correct_6k
                                 one of the paper's other sets, or a matched
                                 one; below they are all named
    configs/valley.py:num_traces=1000,fixed_steps=true
                                 1,000 traces for as many steps as 30,000 take

The paper's RQ2, and in the same way RQ3 with ('hard_4k','easy_4k'); and what
the difference is worth where the arms are matched, ('correct_matched', …):

    python -m valley_jax.study --config configs/valley.py:seeds=3 \\
        --workdir RQ2 --config.study.sizes="(0,)" \\
        --config.study.subsets="('correct_6k','incorrect_6k')" \\
        --config.traces=… --config.problems=… \\
        --config.tokenizer=hf:STUDENT_DIR --config.init=hf:STUDENT_DIR

Its second stage goes on from 30,000 traces: another workdir, and
--config.init=checkpoint:STUDY/runs/n30000_s0/checkpoints.

What the paper leaves open is chosen here: cosine decay to 10 %, AdamW betas
(.9, .95) without weight decay, best-fit packing, loss on the response only,
pass@1 from one greedy sample in the mini world and from 4 at temperature .6,
top-p .95 otherwise (OpenCodeReasoning's decoding, as is the prompt).
"""

import ml_collections as mlc

from valley_jax.runtime import config_arg


def get_config(arg: str | None = None) -> mlc.ConfigDict:
  """One point of the data-scaling curve, and the study around it."""
  a = config_arg.parse(
      arg,
      mini=False,
      student='qwen2_5_7b',
      num_traces=-1,  # All that the subset has; without a subset, 30,000.
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
  c.subset = a.subset  # A name of these; '': num_traces at random, nested.
  # Or of your own: also mixtures, and {'phases': …} that change their weights.
  c.subsets = _subsets()
  c.command = ''  # What was typed; the entry point fills it in.

  # Where things are. FORMAT:PATH; an empty directory means the workdir's own.
  c.traces = ''  # FORMAT:PATH, or [FORMAT:PATH,...]; data/sources/traces.py.
  c.questions = ''  # Local copies, for OCR rows whose question is "-".
  c.problems = ''  # FORMAT:PATH, such as humaneval:PATH or jsonl:PATH.
  c.tokenizer = ''  # hf:DIR, or bpe:SIZE to train one on the traces.
  c.chat_template = ''  # file:PATH of Jinja; '': the tokenizer's own.
  c.shards = ''  # Default <workdir>/shards.
  c.init = ''  # hf:DIR to begin with, checkpoint:DIR to go on from, random.
  c.curated = ''  # Manifests of `ids`. Default <workdir>/curated.
  c.checkpoint = ''  # What to sample from. Default <workdir>/checkpoints.
  c.submissions = ''  # Programs to judge instead of completions.
  c.teacher = ''  # Whose traces `teach` writes; '': the served model's name.

  c.prompt = 'ocr'  # Or livecodebench, plain, file:PATH; data/tokens/prompts.py.
  c.vocab_multiple = 128  # Rows of the embedding are padded up to this.
  c.data = dict(
      max_len=32_768,  # Tokens of a row; longer traces are dropped.
      min_len=0,  # Tokens; shorter traces are dropped.
      pack='best_fit',  # Or none: data/batching.py.
      traces_per_shard=2048,
      num_workers=0,  # Processes that filter and tokenise; 0: this one.
  )
  # Traces that are fit to learn from: OpenCodeReasoning's filters. 0, False
  # and () are off; valley_jax/data/cleaning/filters.py says what each refuses.
  c.filters = dict(
      think=True,  # Exactly one <think>…</think>, ahead of the answer.
      code_in_answer=True,  # The answer has a program, as scoring takes it.
      no_code_in_think=False,  # The thought has no code fence.
      parses=True,  # The program parses.
      characters=(),  # (least, most) of the response; tokens: data.
      loop_characters=0,  # So many are one phrase over and over; such as 2000.
      languages=(),  # Of programs: python, c, cpp17, cpp20.
      judgement=(),  # Of the program: right, wrong, unknown.
      pass_rate=(),  # (least, most) share of tests passed.
      licenses=(),  # Only these, such as cc-by-4.0.
      sources=(),  # Only questions of these sets, such as taco.
      not_splits=(),  # No questions of these; 13 % of OCR-2 are of test splits.
  )
  c.duplicates = dict(  # The first one stays; data/cleaning/duplicates.py.
      questions='merge',  # Of two problem ids: under the first; or drop, keep.
      traces='near',  # Refused; or exact, keep.
      question_similarity=0.8,  # Jaccard's, of runs of words; an estimate.
      trace_similarity=0.8,
      question_words=3,  # Of a run.
      trace_words=5,
      question_min_words=10,  # Shorter ones are compared whole,
      trace_min_words=50,  # and shorter traces within their question.
      num_hashes=128,  # Of a text, a byte each; more: better estimates.
      bands=16,  # Some 20 bytes each; more: fewer are missed.
      seed=1,  # Of the hashes.
  )
  c.contamination = dict(  # Questions that are problems of an evaluation.
      problems=(),  # FORMAT:PATH of each evaluation; (): none is looked for.
      n=13,  # Words of a run.
      threshold=0.5,  # Share of the runs, of the text that has fewer; 0: off.
      min_words=8,  # A shorter problem must be all that the question says.
      aligned=0.8,  # Share of words in order, with other variables; 0: off.
      aligned_min_words=16,  # Without the phrases of many problems.
      model='',  # A directory; '': no embedding is looked at.
      cosine=0.7,  # As OpenCodeReasoning.
  )
  c.mesh = dict(
      data=1,  # Copies of the parameters.
      fsdp=-1,  # Parts of parameters and of batches; -1: all other devices.
      tp=1,  # Parts of heads and MLP columns.
      cp=1,  # Parts of a row's positions.
      slices=1,  # That a slow network joins; data is a multiple.
  )
  c.attention = 'auto'  # Who computes it; models/attention.py names them.
  c.train = dict(
      batch_size=128,  # Packed rows.
      accumulate=1,
      epochs=5,
      steps_of=0,  # Traces: so many steps as they would make; 0: as it comes.
      learning_rate=8e-5,
      schedule='cosine',  # or linear, constant, wsd
      warmup_fraction=0.10,
      final_fraction=0.10,  # Last learning rate, as a share of the peak.
      decay_fraction=0.10,  # wsd: share of the steps, at the end.
      optimizer='adamw',  # or adafactor, muon
      b1=0.9,
      b2=0.95,
      muon_beta=0.95,  # Of matrices; b1 and b2 are of the rest.
      adafactor_decay=0.8,  # Second moment: 1 - step^-.8; it has no b2.
      weight_decay=0.0,
      clip_norm=1.0,
      mu_dtype='float32',  # Moments between steps; bfloat16 takes half.
      nu_dtype='float32',
      param_dtype='float32',  # or bfloat16, rounded by chance.
      lora_rank=0,  # 0: all parameters learn; else of A and B, which alone do.
      lora_alpha=32.0,  # A B counts alpha / rank times.
      lora_matrices=('q', 'k', 'v', 'out', 'gate', 'up', 'down'),
      dtype='bfloat16',  # Compute.
      remat='full',  # Or none, attention, qkv, offload: models/remat.py.
      loss_chunk_len=1024,
      z_loss=0.0,  # e.g. 1e-4 (PaLM); reported losses are without it.
      checkpoint_every=100,  # Steps.
      keep=1,  # So many of the latest checkpoints stay,
      keep_every=0,  # and those of steps that this divides; 0: none.
  )
  c.watch = dict(  # What a run tells; none of it changes the student,
      held_out=64,  # but a named subset does without these traces; 0: none.
      held_out_every=100,  # Steps; and at the end.
      prompts=16,  # Asked anew as training goes on; 0: none.
      prompts_every=100,
      num_samples=1,  # Of each.
      max_new_tokens=8192,
      judge=False,  # Judge the programs of problems, as `execute` does.
      copy_params=True,  # To sample fast; False: slower, in little memory.
      profile='',  # START:STOP, steps to trace into <workdir>/profile.
  )
  c.sample = dict(
      num_samples=4,
      max_new_tokens=32_768,
      temperature=0.6,  # 0: greedy
      top_p=0.95,  # Of what top_k leaves; 1: all.
      top_k=0,  # The likeliest so many; 0: all.
      min_p=0.0,  # At least this times the likeliest; 0: all.
      stop=(),  # Strings that end a sample, and are kept, such as '\n```\n';
      stop_after='',  # if they come behind this one, such as '</think>'.
      loop_tokens=0,  # Ends a sample whose last so many are a loop; 0: never.
      dtype='bfloat16',
      tp=1,  # Parts of the heads; the other devices share the slots.
      stages=(8192, 16_384),  # Slots' positions, ahead of the longest's.
      num_slots=0,  # Of the first stage; 0: as many as fit the memory.
      chunk_len=64,  # Steps on the device between two looks of the host.
      prefill_tokens=8192,  # Of one call, padding included.
      resume='exact',  # From the last stage; or fast: from the last flush.
      flush_seconds=60.0,  # Between two flushes of what is in the slots.
      # A server's address, as http://HOST:8000/v1, that samples instead; the
      # rest is of it. sampling/remote.py tells what it does.
      server='',
      model='',  # Its name there; '': the only one.
      dialect='vllm',  # Token ids go in; or transformers: text.
      seeded=True,  # Send each request a seed, if the server takes them.
      concurrency=64,  # Requests on their way at a time.
      timeout_seconds=3600.0,  # Of a whole sample.
      retries=8,  # Of one request, before the run ends.
  )
  # Judging.
  c.cpu_seconds = 10.0  # For problems that state no limit.
  c.multipliers = dict(python=1.0, cpp17=1.0, cpp20=1.0)  # Of a CPU limit.
  c.profile = 'strict'  # or lcb_compat, LiveCodeBench's grader.
  c.all_tests = False  # False: stop at the first test that fails.
  c.tier = ''  # The isolation that must hold: T0, T1, T2; '': the strongest.
  c.waivers = ()  # Names of what of it need not be proven; stands in scores.
  c.num_workers = 0  # 0: one a core.
  c.ray = ''  # 'local' or a cluster's address: judge by Ray.
  c.cache = ''  # A directory for verdicts and binaries; '': none is kept.
  # Scoring.
  c.ks = (1,)
  c.num_bootstrap = 10_000

  c.study = dict(
      world='',  # 'mini': make the embedded world first, as `mini` says.
      sizes=(0, 1_000, 10_000, 30_000),
      subsets=(),  # Of config.subsets, each with each seed, beside the sizes.
      seeds=tuple(range(a.seed, a.seed + a.seeds)),
      mini=dict(
          num_base=12_000,  # Problems of the base student's own training.
          num_train=4_096,  # Traces; the sizes are subsets of them.
          num_problems=256,  # Of the evaluation.
          num_judged=256,  # Programs of each teacher to label by execution.
          vocab_size=640,
          epochs=1,  # Of the base student.
          learning_rate=3e-3,
          seed=0,
      ),
  )
  if a.fixed_steps:
    c.train.steps_of = 30_000
  if a.mini:
    _mini(c)
  return c.lock()


def _subsets() -> dict[str, tuple[dict, ...]]:
  """The paper's sets, as valley_jax/data/subsets/selections.py reads them.

  Its sets by correctness are of TACO, and so are labels of difficulty. Those
  sets differ in more than they are named for: correct traces are easier and
  shorter. The matched ones do not, and both arms are of one size.
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


def _mini(c: mlc.ConfigDict) -> None:
  """Shrinks the study to the embedded world and two cores."""
  c.name = 'valley-mini'
  c.student = 'mini'
  c.prompt = 'plain'
  c.init = 'random'  # The base student; it is trained first.
  c.filters.update(think=False, code_in_answer=False, parses=False)
  c.data.max_len = 192
  # Its problems are of few kinds, and so are near one another.
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
  c.sample.update(
      num_samples=1,
      max_new_tokens=160,
      temperature=0.0,
      top_p=1.0,
      dtype='float32',
      num_slots=64,
      chunk_len=8,
      prefill_tokens=1024,
  )
  c.watch.update(held_out=0, prompts=0)
  c.cpu_seconds = 2.0
  c.study.world = 'mini'
  c.study.sizes = (0, 16, 64, 256, 1024, 4096)
  c.subsets = {
      f'{name}_1k': ({'where': 'difficulty', 'equals': name}, {'random': 1_000})
      for name in ('hard', 'easy')
  }
  if c.train.steps_of:
    c.train.steps_of = 4096
