"""execute: runs each program against its problem's tests; writes verdicts.

  python -m valley_jax.execute --config configs/valley.py --workdir DIR
  python -m valley_jax.execute --config configs/valley.py --workdir DIR \\
    --config.problems humaneval:HumanEval.jsonl.gz \\
    --config.submissions programs.jsonl

Reads   config.problems          FORMAT:PATH; formats: see data/problem_formats/problems.py.
        config.submissions       JSONL of {problem_id, sample_index, language, source}; language:
                                 python (the default), cpp17, cpp20 or c. If empty, the programs in
        DIR/completions.jsonl    from `sample`.
Writes  DIR/judgements.jsonl     one verdict per program, in the programs' order.

Rules   config.profile           whose rules apply: strict or lcb_compat.
        config.cpu_seconds       CPU limit of problems that state none; multiplied by
        config.multipliers       a factor per language.
        config.all_tests         run all tests, or stop at the first that fails.
Judge   config.tier, config.waivers  the isolation that must hold, and which of its properties need
                                 not. Both are recorded in every row.
        config.num_workers       programs at a time; 0 is one per core.
        config.ray               'local' or an address: the cores of a Ray cluster.
        config.cache             a directory that keeps verdicts and binaries.

Programs are hostile until proven otherwise: each runs in a sandbox that has proven that it
confines, and without one nothing is run. `python -m valley_jax.execution.probe` shows what this
machine can prove, and what to install.

Verdicts: AC accepted, WA wrong answer, TLE CPU time, ILE idle too long, MLE memory, OLE output, RE
runtime error, CE no program or one that does not compile, IE a failure of the judge itself, BP a
problem whose own checker is broken: `score` leaves it out.

Run it again after a crash or a kill: existing verdicts are kept and the rest is judged. It also
judges IE rows again, and programs whose source, tests or rules have changed. `score` refuses IE
rows.

There may be millions of programs, so they are read while they are judged, and each row is in the
file before the next one is awaited.
"""

import collections
from collections.abc import Generator
from collections.abc import Iterator
import contextlib
import dataclasses
import pathlib

import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import programs
from valley_jax import records
from valley_jax.data.problem_formats import problems as problems_lib
from valley_jax.execution import judge
from valley_jax.execution import submission_run
from valley_jax.runtime import entry
from valley_jax.runtime import metrics
from valley_jax.runtime import storage
from valley_jax.scoring import completeness
from valley_jax.scoring import judgement_file


@dataclasses.dataclass(frozen=True)
class _SampleReader:
  """The samples; every iteration reads the file again, since they may not fit into memory."""

  path: pathlib.Path
  record_type: type[records.Submission] | type[records.Completion]
  problems: dict[str, records.Problem]
  problems_spec: str  # FORMAT:PATH, for messages.
  digester: completeness.Digester

  def __iter__(self) -> Iterator[judgement_file.Sample]:
    for row in jsonl.read_rows(self.path, self.record_type):
      if row.problem_id not in self.problems:
        raise errors.UserError(
            f'Problem {row.problem_id!r} of sample {row.sample_index} is not among the'
            f' {len(self.problems):,} of {self.problems_spec}; set `problems` of the config to the'
            ' file that was sampled from.'
        )
      submission = programs.make_submission(row)
      if submission is not None:
        submission_run.check_pair(self.problems[row.problem_id], submission)
      digest = self.digester.digest_judgement(row.problem_id, submission)
      yield judgement_file.Sample(row.problem_id, row.sample_index, digest, submission)


def _open_samples(
    config: mlc.ConfigDict, workdir: pathlib.Path, settings: judge.Settings
) -> _SampleReader:
  """Returns a reader of the submissions, or of the completions if there are none."""
  path = pathlib.Path(config.submissions or workdir / 'completions.jsonl')
  if not path.is_file():
    raise errors.UserError(
        f'There is no file {path}; run `python -m valley_jax.sample` with this workdir first, or'
        ' set `submissions` of the config to a JSONL file.'
    )
  problems = problems_lib.read_problems(config.problems)
  return _SampleReader(
      path,
      records.Submission if config.submissions else records.Completion,
      {p.problem_id: p for p in problems},
      config.problems,
      completeness.Digester.from_problems(problems, settings),
  )


def _judge_missing_program(
    sample: judgement_file.Sample, problem: records.Problem, profile: records.Profile
) -> records.Judgement:
  return records.Judgement(
      problem_id=sample.problem_id,
      sample_index=sample.sample_index,
      verdict=records.Verdict.COMPILE_ERROR,
      tests_passed=0,
      num_tests=len(problem.tests),
      first_failed=None,
      cpu_seconds=0.0,
      wall_seconds=0.0,
      memory_mib=0.0,
      tier='',  # Nothing was run.
      profile=profile,
      message='no program in the completion',
  )


def _complete_file(
    progress: judgement_file.Progress,
    samples: _SampleReader,
    judge_all: judge.JudgeAll,
    profile: records.Profile,
) -> Iterator[records.Judgement]:
  """Yields the rows that the file lacks, in order, each after it is written."""

  def judge_programs() -> Generator[records.Judgement]:
    # A second iteration over the samples: it is ahead of the one below by the programs that are
    # being judged. As a generator it starts no sandbox until a row is needed.
    yield from judge_all(
        (samples.problems[sample.problem_id], sample.submission)
        for sample, row in progress.remaining(samples)
        if row is None and sample.submission is not None
    )

  with contextlib.closing(judge_programs()) as judgements, jsonl.Appender(progress.output) as file:
    for sample, row in progress.remaining(samples):
      if row is None and sample.submission is None:
        problem = samples.problems[sample.problem_id]
        row = _judge_missing_program(sample, problem, profile)
      row = row or _check_answer(next(judgements, None), sample, samples.path)
      row = records.replace(row, digest=sample.digest)
      file.append(row)
      yield row
  progress.finish()


def _check_answer(
    judgement: records.Judgement | None, sample: judgement_file.Sample, path: pathlib.Path
) -> records.Judgement:
  """Returns the judgement if it is the sample's; both iterations must see the same samples."""
  key = sample.problem_id, sample.sample_index
  if judgement is None or records.sample_key(judgement) != key:
    raise errors.UserError(
        f'Expected a judgement of sample {key}, got one of'
        f' {judgement and records.sample_key(judgement)}: {path} has changed in the meantime. Run'
        ' execute again.'
    )
  return judgement


def execute(config: mlc.ConfigDict, workdir: str) -> None:
  """Judges all samples without a valid final verdict; see the module's docstring."""
  directory = pathlib.Path(workdir)
  with storage.lock_directory(directory, 'execute'):
    _judge_samples(config, directory)


def _judge_samples(config: mlc.ConfigDict, directory: pathlib.Path) -> None:
  path = directory / 'judgements.jsonl'
  settings = judge.Settings.from_config(config)
  judge_all = judge.choose_judge(settings, config.ray)
  samples = _open_samples(config, directory, settings)
  progress = judgement_file.survey_file(path, samples)
  counts = collections.Counter(progress.verdicts)
  failed: records.Judgement | None = None
  if progress.num_kept < progress.num_samples or not path.exists():
    with metrics.progress(progress.num_samples, 'program', 'execute', progress.num_kept) as bar:
      for row in _complete_file(progress, samples, judge_all, settings.profile):
        counts[row.verdict] += 1
        if row.verdict is records.Verdict.INTERNAL_ERROR:
          failed = failed or row
        bar.update()
  _print_verdicts(path, counts, failed)


def _print_verdicts(
    path: pathlib.Path,
    counts: collections.Counter[records.Verdict],
    failed: records.Judgement | None,
) -> None:
  histogram = [f'{v.value} {counts[v]:,}' for v in records.Verdict if counts[v]]
  print(f'{path}: {counts.total():,} programs: {"  ".join(histogram)}')
  if failed is not None:
    print(
        f'{counts[failed.verdict]:,} could not be judged (IE), such as'
        f' {records.sample_key(failed)}: {failed.message} Run execute again to retry them; until'
        ' then they cannot be scored.'
    )


if __name__ == '__main__':
  entry.run(execute)
