"""A whole study: every size or subset with every seed, then the report.

    python -m valley_jax.study --config configs/valley.py:mini --workdir STUDY
    python -m valley_jax.study --config configs/valley.py --workdir RQ2 \\
        --config.study.sizes="(0,)" \\
        --config.study.subsets="('correct_6k','incorrect_6k')" …

For each of config.study.sizes and config.study.subsets, and for each of config.study.seeds: train,
sample, execute, score. Sizes are nested random subsets of one set of shards, and size 0 is the
student before training; a subset is one of config.subsets, of the same shards. A subset that the
shards cannot supply is refused before anything is trained.

Reads   STUDY/curated/              files written by `curate`, for subsets that name it: run `shard`
                                    and `curate` there first
Writes  STUDY/shards/               the tokenised traces, once
        STUDY/runs/n01024_s0/       a run: checkpoints, completions, judgements, scores.json,
                                    metrics
        STUDY/runs/correct_6k_s0/   the same, of a subset
        STUDY/report.html, …        see `python -m valley_jax.report --help`
        STUDY/seconds.json          time spent by verb

With config.study.world='mini' the embedded world is made first, and a base student is trained on
its problems without thinking:

        STUDY/world/, STUDY/base/   problems, traces, tokenizer; the base student
        STUDY/teachers/             both teachers' first programs, judged, and all traces with the
                                    labels of `label`

Killed and started again, a study continues where it was; finished verbs do nothing.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Callable
from collections.abc import Iterator
import pathlib
import shlex
import time
from typing import Any

import ml_collections as mlc

from valley_jax import errors
from valley_jax import execute
from valley_jax import jsonl
from valley_jax import label
from valley_jax import records
from valley_jax import report
from valley_jax import sample
from valley_jax import score
from valley_jax import shard
from valley_jax import train
from valley_jax.data.subsets import corpus
from valley_jax.data.tokens import tokenization
from valley_jax.mini import world


class VerbClock:
  """Runs verbs, prints which, and adds up their seconds over all calls of a study."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._seconds = jsonl.read_json(path) if path.exists() else {}

  def run_verb(
      self, verb: Callable[..., Any], config: mlc.ConfigDict, workdir: pathlib.Path
  ) -> None:
    """Calls the verb and records its time."""
    print(f'study: {verb.__name__} {workdir}', flush=True)
    start = time.perf_counter()
    verb(config, str(workdir))
    spent = self._seconds.get(verb.__name__, 0.0) + time.perf_counter() - start
    self._seconds[verb.__name__] = round(spent, 2)
    jsonl.write_json(self._path, self._seconds)


def _change_config(config: mlc.ConfigDict, **fields: Any) -> mlc.ConfigDict:
  """Returns a locked copy with some fields changed; `a__b` means a.b."""
  flat = {name.replace('__', '.'): value for name, value in fields.items()}
  changed = config.copy_and_resolve_references()
  changed.update_from_flattened_dict(flat)
  return changed.lock()


def judge_teacher(
    config: mlc.ConfigDict, root: pathlib.Path, teacher: str, clock: VerbClock
) -> None:
  """Labels a teacher's first traces by executing their programs."""
  directory = root / 'teachers' / teacher
  name = 'careless' if teacher == 'careless' else 'train'
  teacher_config = _change_config(
      config,
      traces=f'jsonl:{root}/world/{name}_traces.jsonl',
      problems=f'jsonl:{root}/world/train_problems.jsonl',
      submissions=str(directory / 'submissions.jsonl'),
  )
  # `label` extracts the programs; once they are judged, it turns the verdicts into labels.
  for verb in (label.label, execute.execute, label.label):
    clock.run_verb(verb, teacher_config, directory)
  if jsonl.read_json(directory / 'labels.json')['verdicts'].get('IE'):
    raise errors.UserError(
        f'Some programs in {directory} could not be judged (IE), and a failure of the judge is no'
        ' label; run the study again to retry them.'
    )


def make_world(config: mlc.ConfigDict, root: pathlib.Path, clock: VerbClock) -> mlc.ConfigDict:
  """Writes the embedded world and trains the base student on it.

  Returns:
    The config, with paths of the world's files and of the base student.
  """
  settings = config.study.mini
  directory = root / 'world'
  world.write_world(
      directory,
      num_base=settings.num_base,
      num_train=settings.num_train,
      num_eval=settings.num_problems,
      num_careless=settings.num_judged,
      seed=settings.seed,
  )
  paths = {name: directory / f'{name}_traces.jsonl' for name in ('base', 'train')}
  if not (directory / 'tokenizer').exists():
    traces = [row for path in paths.values() for row in jsonl.read_rows(path, records.Trace)]
    tokenization.train_bpe(directory / 'tokenizer', traces, settings.vocab_size, world.PHRASES)
  for teacher in ('careful', 'careless'):
    judge_teacher(config, root, teacher, clock)
  config = _change_config(
      config,
      traces=f'jsonl:{paths["train"]}',
      problems=f'jsonl:{directory}/problems.jsonl',
      tokenizer=f'hf:{directory}/tokenizer',
  )
  base_config = _change_config(
      config,
      traces=f'jsonl:{paths["base"]}',
      num_traces=settings.num_base,
      seed=settings.seed,
      train__epochs=settings.epochs,
      train__learning_rate=settings.learning_rate,
      train__steps_of=0,
      train__lora_rank=0,  # It starts untrained, so all its parameters must learn.
  )
  for verb in (shard.shard, train.train):
    clock.run_verb(verb, base_config, root / 'base')
  return _change_config(config, init=f'checkpoint:{root}/base/checkpoints')


def _write_run_command(command: str, **grid: tuple) -> str:
  """Returns the command of one run: the study's command with another grid.

  The study's own grid is removed, because repeated flags of tuples add up.
  """
  flags = {f'--config.study.{name}': value for name, value in grid.items()}
  words, kept = iter(shlex.split(command)), []
  for word in words:
    name, equals, _ = word.partition('=')
    if name not in flags:
      kept.append(word)
    elif not equals:
      next(words, None)  # Its value is a word of its own.
  kept += [f'{name}={value}' for name, value in flags.items()]
  return shlex.join(kept)


def plan_runs(
    config: mlc.ConfigDict, root: pathlib.Path
) -> Iterator[tuple[mlc.ConfigDict, pathlib.Path]]:
  """Yields the config and the directory of every run, the base student's first."""
  # Subset, traces of a random subset, and name of the directory.
  groups: list[tuple[str, int, str]] = [
      ('', size, f'n{size:05d}') for size in sorted(config.study.sizes)
  ]
  groups += [(name, corpus.ALL, name) for name in config.study.subsets]
  for subset, size, name in groups:
    # The student before training is the same for every seed.
    for seed in config.study.seeds if size else config.study.seeds[:1]:
      command = _write_run_command(
          config.command,
          sizes=() if subset else (size,),
          subsets=(subset,) if subset else (),
          seeds=(seed,),
      )
      run_config = _change_config(
          config,
          num_traces=size,
          subset=subset,
          seed=seed,
          shards=str(root / 'shards'),
          curated=config.curated or str(root / 'curated'),
          command=command,
      )
      yield run_config, root / 'runs' / f'{name}_s{seed}'


def _check_subset_names(config: mlc.ConfigDict) -> None:
  if config.subset:
    raise errors.UserError(
        f'config.subset={config.subset!r} is for a single run; a study takes'
        f' config.study.subsets=({config.subset!r},).'
    )
  unknown = set(config.study.subsets) - set(config.subsets)
  if unknown:
    raise errors.UserError(
        f'config.study.subsets names {[*sorted(unknown)]}; config.subsets has'
        f' {[*sorted(config.subsets)]}.'
    )


def study(config: mlc.ConfigDict, workdir: str) -> None:
  """Runs the grid; see the module's docstring."""
  _check_subset_names(config)
  root = pathlib.Path(workdir).absolute()
  clock = VerbClock(root / 'seconds.json')
  if config.study.world == 'mini':
    config = make_world(config, root, clock)
  clock.run_verb(shard.shard, config, root)
  runs = list(plan_runs(config, root))
  # Every subset is drawn before the first run, so that none turns out too small days later.
  shards = train.open_shards(config, str(root))
  for run_config, directory in runs:
    train.choose_corpus(run_config, shards, str(directory))
  for run_config, directory in runs:
    for verb in (train.train, sample.sample, execute.execute, score.score):
      clock.run_verb(verb, run_config, directory)
  clock.run_verb(report.report, config, root)


if __name__ == '__main__':
  entry.run(study)
