"""Fine-tunes a student on shards.

    python -m valley_jax.train --config configs/valley.py:num_traces=1000 \\
        --workdir RUN --config.shards=DATA/shards

Reads   config.shards (default RUN/shards), config.init: hf:DIR, a Hugging
        Face checkpoint; checkpoint:DIR, the checkpoints of another run; or random. The first two
        say what the student is: config.student is its preset, or '' to take it as it is
        config.curated (default RUN/curated): manifests that a subset names
Writes  RUN/config.json         what ran
        RUN/subset.json         the traces it trains on: how they were chosen,
                                counts by length and label, ids and their hash
        RUN/metrics.jsonl       a row a step: see below
        RUN/tensorboard/        the same, to look at, with config and samples
        RUN/profile/            a trace of the steps config.watch.profile
        RUN/checkpoints/STEP/   state and data position

The student trains on the nested random subset of config.num_traces traces (config.seed), packed
into rows of config.data.max_len tokens, for config.train.epochs epochs. num_traces=0 saves the
initial student as it is. config.subset names one of config.subsets instead
(data/subsets/selections.py describes the form): num_traces=-1 takes all of it, another
number its first. One that has phases is gone through phase by phase, each for config.train.epochs.
With config.train.steps_of=30000 it makes as many steps as those epochs over 30,000 traces would, in
as many epochs as that takes.

Killed and started again, it goes on from the last checkpoint and ends, on the same machine, with
the same bits as an uninterrupted run. Finished, it does nothing.

What to look at, in `tensorboard --logdir RUN` or metrics.jsonl:
    loss                    nats a supervised token; it falls, or the learning
                            rate is wrong
    loss_think, loss_answer the same of thinking, and of what follows </think>
    grad_norm               before clipping; spikes come before divergence
    fill                    share of row positions that hold a token
    step_seconds, supervised_tokens_per_second, tokens_per_second_per_chip
    mfu                     model FLOPs over the chips' peak, where it is known;
                            padding does not count (training/flops.py)
    num_slow_steps          took twice the median of the steps before
    hbm_peak_gib            where the device counts it
A step during which something else runs (compilation, a checkpoint) has no speed.
    held_out/loss…          every config.watch.held_out_every steps, of traces
                            that are never trained on; loss_le_4096: of those of 2,049 to 4,096
                            tokens
    samples/stop_rate, samples/think_closed_rate, samples/truncated_rate, samples/program_rate,
    samples/mean_tokens
                            every config.watch.prompts_every steps, of config.watch.num_samples
                            answers to each of a few fixed prompts; the first two stay near 0 when
                            the template is wrong. The texts are in TensorBoard
    samples/pass@1, samples/verdict_AC, …
                            of the same answers, with config.watch.judge: their programs are judged
                            as `execute` judges, between two steps, by the first process; one that
                            cannot confine programs says so before the first step. judge_errors are
                            no part of pass@1
The answers are sampled on the training's devices, with a copy of the parameters that is laid out
for it; with config.watch.copy_params=False they are read where they are, layer by layer, which
takes longer and the memory of a layer or two.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

import contextlib
import dataclasses
import functools
import os
from typing import Any

import grain
import jax
import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax.data import batching
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.subsets import corpus as corpus_lib
from valley_jax.data.subsets import drawing
from valley_jax.models import hf_config
from valley_jax.models import initial
from valley_jax.models import parameters
from valley_jax.models import student as student_lib
from valley_jax.runtime import checkpoints
from valley_jax.runtime import hosts
from valley_jax.runtime import partitioning
from valley_jax.runtime import storage
from valley_jax.training import program as program_lib
from valley_jax.watching import watch as watch_lib


def open_shards(config: mlc.ConfigDict, workdir: str) -> shards_lib.Shards:
  """Opens config.shards, or the workdir's own."""
  return shards_lib.Shards(config.shards or f'{workdir}/shards')


def choose_corpus(
    config: mlc.ConfigDict, shards: shards_lib.Shards, workdir: str
) -> corpus_lib.Corpus:
  """Returns the traces to train on and those held out."""
  return corpus_lib.choose_corpus(
      shards.read_table(),
      config.subsets.to_dict(),
      config.subset,
      num_traces=config.num_traces,
      num_held_out=config.watch.held_out,
      seed=config.seed,
      directory=config.curated or f'{workdir}/curated',
  )


def _count_epochs_and_steps(
    config: mlc.ConfigDict, shards: shards_lib.Shards, num_rows: int
) -> tuple[int, int | None]:
  """Returns the number of epochs, and the steps after which the last one is cut off, if any."""
  t = config.train
  if not t.steps_of or not num_rows:
    return t.epochs, None
  if not 0 < t.steps_of <= len(shards):
    raise errors.UserError(
        f'train.steps_of={t.steps_of:,}, but the shards hold {len(shards):,} traces; name at most'
        ' that many, or 0 for the steps of its own traces.'
    )
  rows = drawing.draw_nested(shards.ids, t.steps_of, config.seed)
  plan = batching.plan_epoch(shards, rows, config.data.max_len, config.data.pack)
  num_steps = -(-len(plan.rows) * t.epochs // t.batch_size)
  return -(-num_steps * t.batch_size // num_rows), num_steps


def plan_batches(config: mlc.ConfigDict, shards: shards_lib.Shards, corpus: corpus_lib.Corpus):
  """Returns the run's batches and the pack plan's fill."""
  if corpus.phases and config.train.steps_of:
    raise errors.UserError(
        f'train.steps_of={config.train.steps_of:,} would cut off the last of the'
        f' {len(corpus.phases)} phases of {config.subset!r}; say 0.'
    )
  part, num_parts = partitioning.find_batch_part()
  plan = batching.plan_epoch(
      shards, corpus.rows, config.data.max_len, config.data.pack, corpus.phases
  )
  num_epochs, num_steps = _count_epochs_and_steps(config, shards, len(plan.rows))
  batches = batching.make_batches(
      shards,
      plan,
      batch_size=config.train.batch_size,
      accumulate=config.train.accumulate,
      num_epochs=num_epochs,
      seed=config.seed,
      part=part,
      num_parts=num_parts,
  )
  if num_steps is not None:
    batches = batches.slice(slice(num_steps))
  return batches, plan.fill


def describe_identity(
    config: mlc.ConfigDict,
    shards: shards_lib.Shards,
    corpus: corpus_lib.Corpus,
    student: student_lib.Student,
) -> dict[str, Any]:
  """Returns, by name, what a resumed run must share with its beginning."""
  identity: dict[str, Any] = {'student': hf_config.build_student_config(student)}
  identity['subset_sha256'] = corpus.manifest['ids_sha256']
  if corpus.phases:
    identity['phases'] = list(corpus.phases)
  names = ('num_traces', 'subset', 'seed', 'student', 'init', 'attention')
  for name in (*names, 'vocab_multiple'):
    identity[f'config.{name}'] = config[name]
  for part in ('data', 'train'):
    for name, value in config[part].items():
      is_tuple = isinstance(value, tuple)  # JSON has lists.
      identity[f'config.{part}.{name}'] = list(value) if is_tuple else value
  for name in ('checkpoint_every', 'keep', 'keep_every'):  # Change no bit.
    del identity[f'config.train.{name}']
  del identity['config.data.num_workers']  # Nor does this, of `shard`.
  identity['prompt'] = shards.manifest['prompt']
  for name in ('prompt', 'traces', 'template', 'tokenizer'):
    identity[f'{name}_sha256'] = shards.manifest[f'{name}_sha256']
  return identity


def train(config: mlc.ConfigDict, workdir: str) -> None:
  """Trains to the end of the data; see the module's docstring."""
  shards = open_shards(config, workdir)
  corpus = choose_corpus(config, shards, workdir)
  student = initial.choose_student(
      config.init,
      config.student,
      num_tokens=shards.manifest['vocab_size'],
      multiple=config.vocab_multiple,
      max_len=config.data.max_len,
  )
  settings = program_lib.TrainSettings.from_config(config.train, config.attention)
  student = dataclasses.replace(student, lora=settings.lora)
  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.set_mesh(partitioning.make_mesh(**config.mesh)))
    notice = stack.enter_context(hosts.PreemptionNotice())
    batches, fill = plan_batches(config, shards, corpus)
    num_steps = len(batches)
    directory = f'{workdir}/checkpoints'
    identity = describe_identity(config, shards, corpus, student)
    checkpoints.check_identity(directory, identity)
    if checkpoints.find_latest_step(directory) == num_steps:
      print(f'train: {workdir} is complete ({num_steps} steps).')
      return
    watch_settings = watch_lib.WatchSettings.from_config(config)
    is_first = hosts.is_first_process()
    files = stack.enter_context(storage.RunFiles(workdir, is_first))
    if is_first:
      jsonl.write_atomically(files.directory / 'config.json', config.to_json(indent=2) + '\n')
      jsonl.write_json(files.directory / 'subset.json', corpus.manifest)
    program = program_lib.choose_program(settings, student)
    schedule = settings.build_schedule(num_steps)
    state = program.init_state(
        initial.load_or_init_params(config.init, student, config.seed, settings.dtype)
    )
    declarations = parameters.describe_parameters(student)
    learning, _ = parameters.split_adapters(declarations, state.params)
    print(
        f'train: {parameters.count_params(learning):,} of {parameters.count_params(state.params):,}'
        f' parameters, {len(corpus.rows):,} traces, {num_steps:,} steps, rows {fill:.1%} full.'
    )
    build_watch = functools.partial(
        watch_lib.build_watch,
        watch_settings,
        files.directory,
        shards,
        corpus.held_out,
        student,
        program.loss_fn,
        schedule,
        num_steps,
    )
    save = functools.partial(_upload_and_save, files, identity=identity, num_steps=num_steps)
    done = _run_steps(
        config, workdir, batches, state, program.step, schedule, build_watch, save, notice
    )
  if done < num_steps:
    hosts.exit_for_restart(workdir, done, num_steps)


def _upload_and_save(files, *args, **kwargs) -> None:
  """Uploads logs, then saves, so that a checkpoint never precedes its metrics."""
  files.upload()
  checkpoints.save_checkpoint(*args, **kwargs)


def _run_steps(
    config, workdir, batches, state, train_step, schedule, build_watch, save, notice
) -> int:
  """The order of a run: restore; then batch, step, look, report, save.

  Returns:
    Steps done: all of them, or up to a notice of preemption.
  """
  num_steps = len(batches)
  # A few batches ahead, not Grain's 500: at 32k tokens each is 84 MB.
  ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
  batches = iter(batches.to_iter_dataset(ahead))
  with contextlib.ExitStack() as stack:
    saver = stack.enter_context(
        checkpoints.open_checkpointer(workdir, config.train.keep, config.train.keep_every)
    )
    state = checkpoints.restore_latest(saver, state, batches)
    first = int(state.step)
    watch = stack.enter_context(contextlib.closing(build_watch(first)))
    pending = None
    for step in range(first, num_steps):
      batch = partitioning.put_batch(next(batches))
      with watch.start_step(step + 1):
        state, values = train_step(state, batch, schedule(step))
      if pending:  # The device is busy with `step`; read the step before it.
        watch.report_step(*pending)
      pending = step + 1, {**values, **watch.measure_student(step + 1, state.params)}
      is_last = step + 1 == num_steps
      is_due = (step + 1) % config.train.checkpoint_every == 0
      is_preempted = notice.must_stop(step + 1)
      if is_last or is_due or is_preempted:
        # The steps of a checkpoint must be in metrics.jsonl.
        watch.report_step(*pending)
        pending = None
        save(saver, step + 1, state, batches)
        watch.pause_timing()
      if is_preempted:
        return step + 1
    if num_steps == 0:  # The student as it is.
      save(saver, 0, state, batches)
  return num_steps


def main(config: mlc.ConfigDict, workdir: str) -> None:
  """Trains, together with the run's other processes if there are any."""
  hosts.join_processes(os.environ)
  train(config, workdir)


if __name__ == '__main__':
  entry.run(main)
