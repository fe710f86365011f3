"""Fine-tunes a student on shards.

    python -m valley_jax.train --config configs/valley.py:num_traces=1000 \\
        --workdir RUN --config.shards=DATA/shards

Reads   config.shards (default RUN/shards), config.init: random, or
        checkpoint:DIR, the checkpoints of another run
Writes  RUN/config.json         what ran
        RUN/metrics.jsonl       a row a step: see below
        RUN/tensorboard/        the same, to look at
        RUN/checkpoints/STEP/   state and data position

The student trains on the nested random subset of config.num_traces traces
(config.seed), packed into rows of config.data.max_len tokens, for
config.train.epochs epochs. num_traces=0 saves the initial student as it is.

Killed and started again, it goes on from the last checkpoint and ends, on the
same machine, with the same bits as an uninterrupted run. Finished, it does
nothing.

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
Steps with something beside them (compilation, a checkpoint) have no speed.
"""

import contextlib
import functools
import pathlib
from typing import Any

import grain
import jax
import jax.numpy as jnp
import ml_collections as mlc

from valley_jax import checkpoints
from valley_jax import entry
from valley_jax import metrics
from valley_jax import partitioning
from valley_jax import records
from valley_jax.data import pipeline
from valley_jax.data import shards as shards_lib
from valley_jax.data import subset
from valley_jax.models import params as params_lib
from valley_jax.models import student as student_lib
from valley_jax.training import losses
from valley_jax.training import optimizer
from valley_jax.training import step as step_lib
from valley_jax.watching import reporter as reporter_lib

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def shards_of(config: mlc.ConfigDict, workdir: str) -> shards_lib.Shards:
  """Opens config.shards, or the workdir's own."""
  return shards_lib.Shards(config.shards or f'{workdir}/shards')


def _init_params(config: mlc.ConfigDict, student: student_lib.Student) -> Any:
  kind, _, directory = config.init.partition(':')
  if kind == 'checkpoint':
    return checkpoints.load_params(directory, params_lib.abstract(student))
  if config.init != 'random':
    raise ValueError(
        f'config.init={config.init!r}: want checkpoint:DIR, a student to go on'
        ' from, or random, one without any training.'
    )
  return params_lib.init(student, jax.random.key(config.seed))


def _batches(config: mlc.ConfigDict, shards: shards_lib.Shards):
  """Returns the run's batches and the pack plan's fill."""
  rows = subset.nested(shards.ids, config.num_traces, config.seed)
  plan = pipeline.make_plan(shards, rows, config.data.max_len, config.data.pack)
  batches = pipeline.batches(
      shards,
      plan,
      batch_size=config.train.batch_size,
      accumulate=config.train.accumulate,
      num_epochs=config.train.epochs,
      seed=config.seed,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
  )
  return batches, plan.fill


def _identity(
    config: mlc.ConfigDict, shards: shards_lib.Shards
) -> dict[str, Any]:
  """Returns, by name, what a resumed run must share with its beginning."""
  identity = {}
  for name in ('num_traces', 'seed', 'student', 'init', 'vocab_multiple'):
    identity[f'config.{name}'] = config[name]
  for part in ('data', 'train'):
    for name, value in config[part].items():
      identity[f'config.{part}.{name}'] = value
  for name in ('checkpoint_every', 'keep'):  # These change no bit.
    del identity[f'config.train.{name}']
  identity['prompt'] = shards.manifest['prompt']
  for name in ('traces', 'template', 'tokenizer'):
    identity[f'{name}_sha256'] = shards.manifest[f'{name}_sha256']
  return identity


@functools.lru_cache(maxsize=4)
def _compiled(
    student: student_lib.Student,
    dtype: str,
    attention: str,
    remat: str,
    loss_chunk_len: int,
    adamw: tuple[tuple[str, float], ...],
):
  """Returns the optimiser and the step, one for all runs of a study."""
  tx = optimizer.adamw(**dict(adamw))
  loss_fn = functools.partial(
      losses.next_token,
      student=student,
      dtype=DTYPES[dtype],
      attention=attention,
      remat=remat,
      chunk_len=loss_chunk_len,
  )
  step = functools.partial(step_lib.train_step, loss_fn=loss_fn, tx=tx)
  return tx, jax.jit(step, donate_argnums=0)


def _optimisation(
    config: mlc.ConfigDict, student: student_lib.Student, num_steps: int
):
  """Returns the optimiser, the compiled step and the learning rates."""
  t = config.train
  adamw = tuple(
      (name, t[name]) for name in ('b1', 'b2', 'weight_decay', 'clip_norm')
  )
  tx, step = _compiled(
      student, t.dtype, config.attention, t.remat, t.loss_chunk_len, adamw
  )
  schedule = optimizer.schedule(
      t.learning_rate, num_steps, t.warmup_fraction, t.final_fraction
  )
  return tx, step, schedule


def train(config: mlc.ConfigDict, workdir: str) -> None:
  """Trains to the end of the data; see the module's docstring."""
  shards = shards_of(config, workdir)
  batches, fill = _batches(config, shards)
  num_steps = len(batches)
  directory = pathlib.Path(workdir)
  identity = _identity(config, shards)
  checkpoints.check_identity(directory / 'checkpoints', identity)
  if checkpoints.latest_step(directory / 'checkpoints') == num_steps:
    print(f'train: {workdir} is complete ({num_steps} steps).')
    return
  records.write_atomically(
      directory / 'config.json', config.to_json(indent=2) + '\n'
  )
  with jax.set_mesh(partitioning.make_mesh(**config.mesh)):
    student = student_lib.of(
        config.student, shards.manifest['vocab_size'], config.vocab_multiple
    )
    tx, train_step, schedule = _optimisation(config, student, num_steps)
    state = step_lib.init_state(_init_params(config, student), tx)
    print(
        f'train: {params_lib.count(state.params):,} parameters,'
        f' {config.num_traces:,} traces, {num_steps:,} steps, rows'
        f' {fill:.1%} full.'
    )
    report = functools.partial(
        _report, config, workdir, student, schedule, num_steps
    )
    _loop(
        config, workdir, identity, batches, state, train_step, schedule, report
    )


def _report(
    config, workdir, student, schedule, num_steps, first
) -> reporter_lib.Reporter:
  """Opens what is written of a run that goes on behind step `first`."""
  writer = metrics.Writer(workdir, first)
  writer.write_hparams(config.to_dict(), ('loss', 'loss_answer'))
  bar = metrics.progress(num_steps, 'step', 'train', initial=first)
  return reporter_lib.Reporter(writer, bar, schedule, student)


def _loop(
    config, workdir, identity, batches, state, train_step, schedule, report
) -> None:
  """The order of a run: restore; then batch, step, report, save."""
  num_steps = len(batches)
  # A few batches ahead, not Grain's 500: at 32k tokens each is 84 MB.
  ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
  batches = iter(batches.to_iter_dataset(ahead))
  with contextlib.ExitStack() as stack:
    saver = stack.enter_context(
        checkpoints.open_checkpointer(workdir, config.train.keep)
    )
    state = checkpoints.restore_latest(saver, state, batches)
    first = int(state.step)
    reporter = stack.enter_context(contextlib.closing(report(first)))
    pending = None
    for step in range(first, num_steps):
      batch = partitioning.put_batch(next(batches))
      state, values = train_step(state, batch, schedule(step))
      if pending:  # The device is busy with `step`; read the step before it.
        reporter.write(*pending)
      pending = step + 1, values
      is_last = step + 1 == num_steps
      if is_last or (step + 1) % config.train.checkpoint_every == 0:
        # What a checkpoint says is done must stand in metrics.jsonl.
        reporter.write(*pending)
        pending = None
        checkpoints.save(saver, step + 1, state, batches, identity, num_steps)
        reporter.pause()
    if num_steps == 0:  # The student as it is.
      checkpoints.save(saver, 0, state, batches, identity, num_steps)


if __name__ == '__main__':
  entry.run(train)
