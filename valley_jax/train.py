"""Fine-tunes a student on shards.

    python -m valley_jax.train --config configs/valley.py:num_traces=1000 \\
        --workdir RUN --config.shards=DATA/shards

Reads   config.shards (default RUN/shards), config.init: random, or
        checkpoint:DIR, the checkpoints of another run
Writes  RUN/config.json         what ran
        RUN/metrics.jsonl       a row a step: see below
        RUN/tensorboard/        the same, to look at, with config and samples
        RUN/profile/            a trace of the steps config.watch.profile
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
    held_out/loss…          every config.watch.held_out_every steps, of traces
                            that are never trained on; loss_le_4096: of those
                            of 2,049 to 4,096 tokens
    samples/stop_rate, samples/think_closed_rate, samples/mean_tokens
                            every config.watch.prompts_every steps, of answers
                            to fixed prompts; both rates stay near 0 when the
                            template is wrong. The texts are in TensorBoard
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
from valley_jax.data import problems
from valley_jax.data import shards as shards_lib
from valley_jax.data import subset
from valley_jax.data import tokenization
from valley_jax.models import params as params_lib
from valley_jax.models import student as student_lib
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import methods
from valley_jax.training import losses
from valley_jax.training import optimizer
from valley_jax.training import step as step_lib
from valley_jax.watching import held_out as held_out_lib
from valley_jax.watching import profile as profile_lib
from valley_jax.watching import reporter as reporter_lib
from valley_jax.watching import samples as samples_lib
from valley_jax.watching import watch as watch_lib

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
  """Returns optimiser, step and loss function, one for all of a study."""
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
  return tx, jax.jit(step, donate_argnums=0), loss_fn


def _optimisation(
    config: mlc.ConfigDict, student: student_lib.Student, num_steps: int
):
  """Returns optimiser, compiled step, learning rates and loss function."""
  t = config.train
  adamw = tuple(
      (name, t[name]) for name in ('b1', 'b2', 'weight_decay', 'clip_norm')
  )
  tx, step, loss_fn = _compiled(
      student, t.dtype, config.attention, t.remat, t.loss_chunk_len, adamw
  )
  schedule = optimizer.schedule(
      t.learning_rate, num_steps, t.warmup_fraction, t.final_fraction
  )
  return tx, step, schedule, loss_fn


def train(config: mlc.ConfigDict, workdir: str) -> None:
  """Trains to the end of the data; see the module's docstring."""
  shards = shards_of(config, workdir)
  held_out = subset.held_out(
      shards.ids, config.watch.held_out, config.num_traces, config.seed
  )
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
    tx, train_step, schedule, loss_fn = _optimisation(
        config, student, num_steps
    )
    state = step_lib.init_state(_init_params(config, student), tx)
    print(
        f'train: {params_lib.count(state.params):,} parameters,'
        f' {config.num_traces:,} traces, {num_steps:,} steps, rows'
        f' {fill:.1%} full.'
    )
    begin_watch = functools.partial(
        _watch, config, workdir, shards, held_out, student, loss_fn, schedule,
        num_steps,
    )  # fmt: skip
    _loop(
        config, workdir, identity, batches, state, train_step, schedule,
        begin_watch,
    )  # fmt: skip


def _held_out(
    config: mlc.ConfigDict, shards: shards_lib.Shards, traces, loss_fn
) -> held_out_lib.HeldOut:
  rows = held_out_lib.load(
      shards,
      traces,
      row_len=config.data.max_len,
      pack=config.data.pack,
      max_rows=config.train.batch_size // config.train.accumulate,
  )
  part, num_parts = jax.process_index(), jax.process_count()
  return held_out_lib.HeldOut(rows, loss_fn, part, num_parts)


def _samples(
    config: mlc.ConfigDict, shards: shards_lib.Shards, traces, student
) -> samples_lib.Samples:
  """Returns what answers the first problems, or else held-out traces."""
  n, s = config.watch.prompts, config.sample
  if jax.process_count() > 1:
    raise ValueError(
        f'watch.prompts={n}, but the sampler runs in one process and this run'
        f' has {jax.process_count()}; set --config.watch.prompts=0.'
    )
  tokenizer = tokenization.load(shards.directory / 'tokenizer')
  if config.problems:
    requests = samples_lib.of_problems(
        problems.read_problems(config.problems)[:n],
        tokenizer,
        config.prompt,
        config.function_prompt,
    )
  elif len(traces):
    requests = samples_lib.of_traces(shards, traces[:n])
  else:
    raise ValueError(
        f'watch.prompts={n}, but there is nothing to ask: name'
        ' config.problems, or hold traces out (watch.held_out).'
    )
  devices = partitioning.num_batch_devices()
  num_slots = -(-len(requests) // devices) * devices
  end_token: Any = tokenizer.eos_token_id
  engine = functools.partial(
      engine_lib.Engine,
      student,
      method=methods.of(s.temperature, s.top_p),
      seed=config.seed,
      end_token=end_token,
      max_new_tokens=config.watch.max_new_tokens,
      cache_len=engine_lib.cache_len(requests, config.watch.max_new_tokens),
      num_slots=num_slots,
      chunk_len=s.chunk_len,
      prefill_rows=num_slots,
      dtype=s.dtype,
  )
  return samples_lib.Samples(requests, tokenizer, engine)


def _watch(
    config,
    workdir,
    shards,
    traces,
    student,
    loss_fn,
    schedule,
    num_steps,
    first,
) -> watch_lib.Watch:
  """Begins to watch a run that goes on behind step `first`."""
  w = config.watch
  profile = profile_lib.Profile(f'{workdir}/profile', w.profile, num_steps)
  held_out = _held_out(config, shards, traces, loss_fn) if w.held_out else None
  samples = _samples(config, shards, traces, student) if w.prompts else None
  writer = metrics.Writer(workdir, first) if not jax.process_index() else None
  if writer:
    shown = ['loss', 'loss_answer', *['held_out/loss'] * bool(held_out)]
    writer.write_hparams(config.to_dict(), shown)
  bar = metrics.progress(num_steps, 'step', 'train', initial=first)
  return watch_lib.Watch(
      writer=writer,
      reporter=reporter_lib.Reporter(writer, bar, schedule, student),
      profile=profile,
      num_steps=num_steps,
      held_out=held_out,
      held_out_every=w.held_out_every,
      samples=samples,
      prompts_every=w.prompts_every,
  )


def _loop(
    config, workdir, identity, batches, state, train_step, schedule, begin_watch
) -> None:
  """The order of a run: restore; then batch, step, look, report, save."""
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
    watch = stack.enter_context(contextlib.closing(begin_watch(first)))
    pending = None
    for step in range(first, num_steps):
      batch = partitioning.put_batch(next(batches))
      with watch.begin(step + 1):
        state, values = train_step(state, batch, schedule(step))
      if pending:  # The device is busy with `step`; read the step before it.
        watch.report(*pending)
      pending = step + 1, {**values, **watch.look(step + 1, state.params)}
      is_last = step + 1 == num_steps
      if is_last or (step + 1) % config.train.checkpoint_every == 0:
        # What a checkpoint says is done must stand in metrics.jsonl.
        watch.report(*pending)
        pending = None
        checkpoints.save(saver, step + 1, state, batches, identity, num_steps)
        watch.pause()
    if num_steps == 0:  # The student as it is.
      checkpoints.save(saver, 0, state, batches, identity, num_steps)


if __name__ == '__main__':
  entry.run(train)
