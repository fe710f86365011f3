"""From a run's config to what watches it."""

from collections.abc import Callable
from collections.abc import Sequence
import os
from typing import Any

import ml_collections as mlc
import numpy as np
import optax

from valley_jax import errors
from valley_jax import records
from valley_jax.data.formats import problems
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization
from valley_jax.execution import judge
from valley_jax.models import student as student_lib
from valley_jax.runtime import hosts
from valley_jax.runtime import metrics
from valley_jax.runtime import partitioning
from valley_jax.sampling import begin as begin_sampling
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import request as request_lib
from valley_jax.watching import held_out as held_out_lib
from valley_jax.watching import judged as judged_lib
from valley_jax.watching import profile as profile_lib
from valley_jax.watching import reporter as reporter_lib
from valley_jax.watching import samples as samples_lib
from valley_jax.watching import watch as watch_lib


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
  part, num_parts = partitioning.find_batch_part()
  return held_out_lib.HeldOut(rows, loss_fn, part, num_parts)


def _check(config: mlc.ConfigDict) -> None:
  """Raises a ValueError for what cannot be sampled or judged together."""
  w = config.watch
  if w.num_samples < 1:
    raise errors.UserError(
        f'watch.num_samples={w.num_samples} is below 1; to have nothing'
        ' sampled, say watch.prompts=0.'
    )
  if w.judge and not (w.prompts and config.problems):
    raise errors.UserError(
        f'watch.judge=True, but there is nothing to judge: watch.prompts='
        f'{w.prompts}, problems={config.problems!r}; name config.problems and'
        ' how many of them are watched, or say watch.judge=False.'
    )


def _judged(config: mlc.ConfigDict, asked: Sequence[records.Problem]) -> judged_lib.Judged | None:
  """Returns what judges as `execute` does, in the process that writes."""
  if not config.watch.judge:
    return None
  settings = judge.Settings.from_config(config)
  if not hosts.is_first_process():
    return None
  judge_all = judge.choose_judge(settings, config.ray)
  return judged_lib.Judged(asked, judge_all)


def _samples(
    config: mlc.ConfigDict, shards: shards_lib.Shards, traces, student
) -> samples_lib.Samples:
  """Returns what answers the first problems, or else held-out traces."""
  w = config.watch
  tokenizer = tokenization.load_tokenizer(shards.directory / 'tokenizer')
  requests, asked = [], []
  if config.problems:
    asked = problems.read_problems(config.problems)[: w.prompts]
    requests = samples_lib.of_problems(asked, tokenizer, prompts.load_prompt(config.prompt))
  elif len(traces):
    requests = samples_lib.of_traces(shards, traces[: w.prompts])
  if not requests:
    raise errors.UserError(
        f'watch.prompts={w.prompts}, but there is nothing to ask: name'
        ' config.problems, or hold traces out (watch.held_out).'
    )
  requests = samples_lib.repeat(requests, w.num_samples)
  engine = _engine(config, student, tokenizer, requests)
  judged = _judged(config, asked)
  return samples_lib.Samples(requests, tokenizer, engine, judged)


def _engine(
    config: mlc.ConfigDict,
    student: student_lib.Student,
    tokenizer: tokenization.Tokenizer,
    requests: Sequence[request_lib.Request],
) -> Callable[[Any], engine_lib.Engine]:
  """Returns what makes an engine of the parameters of the moment."""
  config = config.copy_and_resolve_references().unlock()
  config.sample.update(
      num_slots=len(requests),
      max_new_tokens=config.watch.max_new_tokens,
      stages=(),
      stop=(),
      stop_after='',
      loop_tokens=0,
  )
  longest = max(len(request.prompt) for request in requests)

  def engine(params):
    return begin_sampling.engine(
        config, student, params, tokenizer, longest_prompt=longest, copy=config.watch.copy_params
    )

  return engine


def begin(
    config: mlc.ConfigDict,
    workdir: str | os.PathLike,
    shards: shards_lib.Shards,
    traces: np.ndarray,
    student: student_lib.Student,
    loss_fn: Callable[..., Any],
    schedule: optax.Schedule,
    num_steps: int,
    first: int,
) -> watch_lib.Watch:
  """Begins to watch a run that goes on behind step `first`.

  Args:
    config: Of the run; `watch` says what to look at.
    workdir: Where metrics, TensorBoard's files and the profile go.
    shards: That the run reads.
    traces: Of them those that are held out.
    student: Sizes.
    loss_fn: Of the recipe.
    schedule: Learning rates.
    num_steps: Of the whole run.
    first: Steps that are done.

  Raises:
    ValueError: there is nothing to ask, too little to hold out, or no judge
      where one is asked for.
  """
  w = config.watch
  _check(config)
  profile = profile_lib.Profile(f'{workdir}/profile', w.profile, num_steps)
  held_out = _held_out(config, shards, traces, loss_fn) if w.held_out else None
  samples = None
  if w.prompts:
    samples = _samples(config, shards, traces, student)
  writer = metrics.Writer(workdir, first) if hosts.is_first_process() else None
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
