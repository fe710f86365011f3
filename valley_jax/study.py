"""A whole study: every size or subset with every seed, then the report.

    python -m valley_jax.study --config configs/valley.py:mini --workdir STUDY
    python -m valley_jax.study --config configs/valley.py --workdir RQ2 \\
        --config.study.sizes="(0,)" \\
        --config.study.subsets="('correct_6k','incorrect_6k')" …

For each of config.study.sizes and config.study.subsets, and for each of
config.study.seeds: train, sample, execute, score. Sizes are nested random
subsets of one set of shards, and size 0 is the student before training; a
subset is one of config.subsets, of the same shards. What cannot be had of them
is refused before anything is trained on it.

Reads   STUDY/curated/              what `curate` wrote, for subsets that name
                                    it: run `shard` and `curate` there first
Writes  STUDY/shards/               the tokenised traces, once
        STUDY/runs/n01024_s0/       a run: checkpoints, completions,
                                    judgements, scores.json, metrics
        STUDY/runs/correct_6k_s0/   the same, of a subset
        STUDY/report.html, …        see `python -m valley_jax.report --help`
        STUDY/seconds.json          time spent by verb

With config.study.world='mini' the embedded world is made first, and a base
student is trained on its problems without thinking:

        STUDY/world/, STUDY/base/   problems, traces, tokenizer; the base
        STUDY/teachers/             both teachers' first programs, judged, and
                                    all traces with labels, as `label` says

Killed and started again, it goes on where it was; finished verbs do nothing.
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


class _Clock:
  """Runs verbs, says which, and adds up their seconds over all calls."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._seconds = jsonl.read_json(path) if path.exists() else {}

  def run(self, verb: Callable[..., Any], config: mlc.ConfigDict, where) -> None:
    """Calls the verb and records its time."""
    print(f'study: {verb.__name__} {where}', flush=True)
    start = time.perf_counter()
    verb(config, str(where))
    spent = self._seconds.get(verb.__name__, 0.0) + time.perf_counter() - start
    self._seconds[verb.__name__] = round(spent, 2)
    jsonl.write_json(self._path, self._seconds)


def _with(config: mlc.ConfigDict, **fields: Any) -> mlc.ConfigDict:
  """Returns a locked copy with some fields changed; `a__b` means a.b."""
  flat = {name.replace('__', '.'): value for name, value in fields.items()}
  changed = config.copy_and_resolve_references()
  changed.update_from_flattened_dict(flat)
  return changed.lock()


def _judge_teacher(config: mlc.ConfigDict, root: pathlib.Path, teacher: str, clock: _Clock) -> None:
  """Labels a teacher's first traces by executing their programs."""
  directory = root / 'teachers' / teacher
  name = 'careless' if teacher == 'careless' else 'train'
  point = _with(
      config,
      traces=f'jsonl:{root}/world/{name}_traces.jsonl',
      problems=f'jsonl:{root}/world/train_problems.jsonl',
      submissions=str(directory / 'submissions.jsonl'),
  )
  clock.run(label.label, point, directory)  # Their programs,
  clock.run(execute.execute, point, directory)
  clock.run(label.label, point, directory)  # and what came of them.
  if jsonl.read_json(directory / 'labels.json')['verdicts'].get('IE'):
    raise errors.UserError(
        f'Some programs in {directory} could not be judged (IE), and a failure'
        ' of the judge is no label; run the study again to retry them.'
    )


def _make_world(config: mlc.ConfigDict, root: pathlib.Path, clock: _Clock) -> mlc.ConfigDict:
  """Writes the embedded world, trains the base student on it.

  Returns:
    The config, pointing to the world's files and to the base student.
  """
  w = config.study.mini
  place = root / 'world'
  world.write_world(
      place,
      num_base=w.num_base,
      num_train=w.num_train,
      num_eval=w.num_problems,
      num_careless=w.num_judged,
      seed=w.seed,
  )
  paths = {name: place / f'{name}_traces.jsonl' for name in ('base', 'train')}
  if not (place / 'tokenizer').exists():
    traces = [row for path in paths.values() for row in jsonl.read_rows(path, records.Trace)]
    tokenization.train_bpe(place / 'tokenizer', traces, w.vocab_size, world.PHRASES)
  for teacher in ('careful', 'careless'):
    _judge_teacher(config, root, teacher, clock)
  config = _with(
      config,
      traces=f'jsonl:{paths["train"]}',
      problems=f'jsonl:{place}/problems.jsonl',
      tokenizer=f'hf:{place}/tokenizer',
  )
  base = _with(
      config,
      traces=f'jsonl:{paths["base"]}',
      num_traces=w.num_base,
      seed=w.seed,
      train__epochs=w.epochs,
      train__learning_rate=w.learning_rate,
      train__steps_of=0,
      train__lora_rank=0,  # It begins with nothing: all has to learn.
  )
  clock.run(shard.shard, base, root / 'base')
  clock.run(train.train, base, root / 'base')
  return _with(config, init=f'checkpoint:{root}/base/checkpoints')


def _command(command: str, **grid: tuple) -> str:
  """Returns the command of one run: the study's, with another grid.

  The study's own grid is taken out, for flags that are tuples add up.
  """
  flags = {f'--config.study.{name}': value for name, value in grid.items()}
  words, kept = iter(shlex.split(command)), []
  for word in words:
    name, equals, _ = word.partition('=')
    if name not in flags:
      kept.append(word)
    elif not equals:
      next(words, None)
  kept += [f'{name}={value}' for name, value in flags.items()]
  return shlex.join(kept)


def _points(
    config: mlc.ConfigDict, root: pathlib.Path
) -> Iterator[tuple[mlc.ConfigDict, pathlib.Path]]:
  """Returns the config and the directory of every run, the base's first."""
  chosen: list[tuple[str, int, str]] = [
      ('', size, f'n{size:05d}') for size in sorted(config.study.sizes)
  ]
  chosen += [(name, corpus.ALL, name) for name in config.study.subsets]
  for subset, size, name in chosen:
    # The student before training is the same for every seed.
    for seed in config.study.seeds if size else config.study.seeds[:1]:
      command = _command(
          config.command,
          sizes=() if subset else (size,),
          subsets=(subset,) if subset else (),
          seeds=(seed,),
      )
      point = _with(
          config,
          num_traces=size,
          subset=subset,
          seed=seed,
          shards=str(root / 'shards'),
          curated=config.curated or str(root / 'curated'),
          command=command,
      )
      yield point, root / 'runs' / f'{name}_s{seed}'


def _check_names(config: mlc.ConfigDict) -> None:
  """Refuses subsets that the config does not have."""
  if config.subset:
    raise errors.UserError(
        f'config.subset={config.subset!r} is of one run; a study takes'
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
  _check_names(config)
  root = pathlib.Path(workdir).absolute()
  clock = _Clock(root / 'seconds.json')
  if config.study.world == 'mini':
    config = _make_world(config, root, clock)
  clock.run(shard.shard, config, root)
  points = list(_points(config, root))
  shards = train.shards_of(config, str(root))
  for point, run in points:  # So that none is found wanting days later.
    train.corpus_of(point, shards, str(run))
  for point, run in points:
    for verb in (train.train, sample.sample, execute.execute, score.score):
      clock.run(verb, point, run)
  clock.run(report.report, config, root)


if __name__ == '__main__':
  entry.run(study)
