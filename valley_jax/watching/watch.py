"""What a run reports while it trains, in the order of its loop."""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import dataclasses
import os
from typing import Any

import jax
import ml_collections as mlc
import numpy as np
import optax

from valley_jax import errors
from valley_jax import rollouts
from valley_jax.data.problem_formats import problems as problems_lib
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization
from valley_jax.execution import judge as judge_lib
from valley_jax.models import student as student_lib
from valley_jax.runtime import hosts
from valley_jax.runtime import metrics
from valley_jax.runtime import partitioning
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import samples as samples_lib
from valley_jax.sampling import settings as sample_settings
from valley_jax.watching import held_out as held_out_lib
from valley_jax.watching import reporter as reporter_lib
from valley_jax.watching import watched_samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchSettings:
  """What a run looks at while it trains, and how often.

  Attributes:
    held_out_every: Steps between two looks at the held-out traces; 0: there are none.
    row_len: Tokens of a row, as in training.
    pack: Packing of rows, as in training.
    max_rows: Rows of a micro-batch, as in training.
    prompts: Number of prompts that are sampled; 0: none.
    prompts_every: Steps between two looks at samples.
    num_samples: Samples of each prompt.
    problems: FORMAT:PATH of the problems that are asked; '': held-out traces are asked.
    prompt: Name of the words in which problems are put.
    sampling: Settings of sampling; None samples nothing.
    copy_params: Whether to decode with a copy of the parameters.
    judging: Settings of the judge; None judges nothing.
    ray_address: Ray cluster that judges; '': this machine.
    profile: START:STOP, the steps to profile; '': none.
    hparams: The run's config, for TensorBoard.
  """

  held_out_every: int
  row_len: int
  pack: str
  max_rows: int
  prompts: int
  prompts_every: int
  num_samples: int
  problems: str
  prompt: str
  sampling: sample_settings.SampleSettings | None
  copy_params: bool
  judging: judge_lib.Settings | None
  ray_address: str
  profile: str
  hparams: Mapping[str, Any]

  @classmethod
  def from_config(cls, config: mlc.ConfigDict) -> 'WatchSettings':
    """Returns the settings of a run's config.

    Raises:
      UserError: what is to be sampled or judged is missing or out of range.
    """
    w = config.watch
    _check_watch_config(w, config.problems)
    sampling = None
    if w.prompts:
      # One slot per sample, in one stage, and nothing that ends a sample early.
      sampling = dataclasses.replace(
          sample_settings.SampleSettings.from_config(config.sample, config.seed),
          num_slots=w.prompts * w.num_samples,
          max_new_tokens=w.max_new_tokens,
          stages=(),
          stop=(),
          stop_after='',
          loop_tokens=0,
      )
    return cls(
        held_out_every=w.held_out_every if w.held_out else 0,
        row_len=config.data.max_len,
        pack=config.data.pack,
        max_rows=config.train.batch_size // config.train.accumulate,
        prompts=w.prompts,
        prompts_every=w.prompts_every,
        num_samples=w.num_samples,
        problems=config.problems,
        prompt=config.prompt,
        sampling=sampling,
        copy_params=w.copy_params,
        judging=judge_lib.Settings.from_config(config) if w.judge else None,
        ray_address=config.ray,
        profile=w.profile,
        hparams=config.to_dict(),
    )


def _check_watch_config(watch: mlc.ConfigDict, problems: str) -> None:
  if watch.num_samples < 1:
    raise errors.UserError(
        f'watch.num_samples={watch.num_samples} is below 1; to sample nothing, set watch.prompts=0.'
    )
  if watch.judge and not (watch.prompts and problems):
    raise errors.UserError(
        f'watch.judge=True, but there is nothing to judge: watch.prompts={watch.prompts},'
        f' problems={problems!r}; name config.problems and how many of them are watched, or set'
        ' watch.judge=False.'
    )


@dataclasses.dataclass(kw_only=True)
class Watch:
  """For each step: `start_step`, `measure_student`, and one step later `report_step`.

  Nothing of it changes a bit of the student. A look is part of its step, so that a run that is
  killed and resumed writes it once, with the same values.
  """

  writer: metrics.Writer | None  # None in all processes but one.
  reporter: reporter_lib.StepReporter
  profile: reporter_lib.StepProfile
  num_steps: int
  held_out: held_out_lib.HeldOutLoss | None = None
  held_out_every: int = 0  # Steps; a look is also taken at the end.
  samples: watched_samples.WatchedSamples | None = None
  prompts_every: int = 0  # Steps; a look is also taken at the end.

  def start_step(self, step: int) -> contextlib.AbstractContextManager[Any]:
    """Returns the context that step number `step`, counted from 1, runs in."""
    return self.profile.start_step(step)

  def _is_due(self, step: int, every: int) -> bool:
    return step == self.num_steps or step % every == 0

  def measure_student(self, step: int, params: Any) -> dict[str, Any]:
    """Returns scalars of the student after a step, to be written with the step's own.

    Empty after most steps.
    """
    self.profile.end_step(step, params)
    scalars: dict[str, Any] = {}
    if self.held_out and self._is_due(step, self.held_out_every):
      scalars |= self.held_out.measure(params)
    if self.samples and self._is_due(step, self.prompts_every):
      rates, pages = self.samples.measure(params)
      scalars |= rates
      for name, page in pages.items():
        if self.writer:
          self.writer.write_text(step, name, page)
    if scalars:
      self.pause_timing()
    return scalars

  def report_step(self, step: int, values: Mapping[str, jax.Array | float]) -> None:
    """Waits for the step and writes what it measured."""
    self.reporter.write_step(step, values)

  def pause_timing(self) -> None:
    """Leaves the next step untimed, since something else than steps took time."""
    self.reporter.pause_timing()

  def close(self) -> None:
    self.profile.close()
    self.reporter.close()


def _build_held_out_loss(
    settings: WatchSettings, shards: shards_lib.Shards, traces: np.ndarray, loss_fn: Any
) -> held_out_lib.HeldOutLoss:
  batch = held_out_lib.load_held_out_batch(
      shards, traces, row_len=settings.row_len, pack=settings.pack, max_rows=settings.max_rows
  )
  part, num_parts = partitioning.find_batch_part()
  return held_out_lib.HeldOutLoss(batch, loss_fn, part, num_parts)


def _build_watched_samples(
    settings: WatchSettings,
    sampling: sample_settings.SampleSettings,
    shards: shards_lib.Shards,
    traces: np.ndarray,
    student: student_lib.Student,
) -> watched_samples.WatchedSamples:
  """Returns what samples the first problems, or else the first held-out traces."""
  tokenizer = tokenization.load_tokenizer(shards.directory / 'tokenizer')
  requests: list[samples_lib.Request] = []
  problems = []
  if settings.problems:
    problems = problems_lib.read_problems(settings.problems)[: settings.prompts]
    prompt = prompts.load_prompt(settings.prompt)
    requests = rollouts.write_requests(problems, tokenizer, prompt, settings.num_samples)
  elif len(traces):
    requests = watched_samples.write_trace_requests(
        shards, traces[: settings.prompts], settings.num_samples
    )
  if not requests:
    raise errors.UserError(
        f'watch.prompts={settings.prompts}, but there is nothing to ask: name config.problems, or'
        ' hold traces out (watch.held_out).'
    )
  sampling = dataclasses.replace(sampling, num_slots=len(requests))
  longest_prompt = max(len(request.prompt) for request in requests)

  def build_engine(params: Any) -> engine_lib.Engine:
    return engine_lib.build_engine(
        sampling,
        student,
        params,
        tokenizer,
        longest_prompt=longest_prompt,
        copy_params=settings.copy_params,
    )

  judge = None
  if settings.judging and hosts.is_first_process():
    judge_all = judge_lib.choose_judge(settings.judging, settings.ray_address)
    judge = watched_samples.WatchedJudge(problems, judge_all)
  return watched_samples.WatchedSamples(requests, tokenizer, build_engine, judge)


def build_watch(
    settings: WatchSettings,
    workdir: str | os.PathLike,
    shards: shards_lib.Shards,
    held_out: np.ndarray,
    student: student_lib.Student,
    loss_fn: Callable[..., Any],
    schedule: optax.Schedule,
    num_steps: int,
    num_done: int,
) -> Watch:
  """Returns the watch of a run that continues after `num_done` steps.

  Args:
    settings: The watch settings of the run.
    workdir: Directory of metrics, TensorBoard's files and the profile.
    shards: Shards that the run reads.
    held_out: Rows of the shards that are held out.
    student: Sizes of the student.
    loss_fn: The training loss, with `parts`.
    schedule: The learning rate by the number of steps done.
    num_steps: Steps of the whole run.
    num_done: Steps that are done.

  Raises:
    UserError: there is nothing to ask, or this machine cannot judge.
  """
  profile = reporter_lib.StepProfile(f'{workdir}/profile', settings.profile, num_steps)
  held_out_loss = samples = None
  if settings.held_out_every:
    held_out_loss = _build_held_out_loss(settings, shards, held_out, loss_fn)
  if settings.sampling:
    samples = _build_watched_samples(settings, settings.sampling, shards, held_out, student)
  writer = metrics.Writer(workdir, num_done) if hosts.is_first_process() else None
  if writer:
    shown = ['loss', 'loss_answer', *['held_out/loss'] * bool(held_out_loss)]
    writer.write_hparams(settings.hparams, shown)
  bar = metrics.progress(num_steps, 'step', 'train', initial=num_done)
  return Watch(
      writer=writer,
      reporter=reporter_lib.StepReporter(writer, bar, schedule, student),
      profile=profile,
      num_steps=num_steps,
      held_out=held_out_loss,
      held_out_every=settings.held_out_every,
      samples=samples,
      prompts_every=settings.prompts_every,
  )
