"""execute: runs each program against its problem's tests; writes verdicts.

  python -m valley_jax.execute --config configs/valley.py --workdir DIR
  python -m valley_jax.execute --config configs/valley.py --workdir DIR \\
    --config.problems humaneval:HumanEval.jsonl.gz \\
    --config.submissions programs.jsonl

Reads   config.problems          FORMAT:PATH; formats: see data/formats/problems.py.
        config.submissions       JSONL of {problem_id, sample_index, language,
                                 source}; language: python (if left out),
                                 cpp17, cpp20 or c. If empty, the programs in
        DIR/completions.jsonl    what `sample` wrote.
Writes  DIR/judgements.jsonl     a verdict a program, in the programs' order.

By  config.profile               whose rules: strict or lcb_compat.
    config.cpu_seconds           limit of problems that state none; times
    config.multipliers           what a language is granted.
    config.all_tests             or stop at the first test that fails.
On  config.tier, config.waivers  the isolation that must hold; what of it need
                                 not. Both stand in every row.
    config.num_workers           programs at a time; 0 is one a core.
    config.ray                   'local' or an address: the cores of a cluster.
    config.cache                 a directory for verdicts and binaries.

Programs are hostile until proven otherwise: each runs in a sandbox that has
proven that it confines, and without one nothing is run. What this machine can
prove, and what to install: `python -m valley_jax.execution.probe`.

Verdicts: AC accepted, WA wrong answer, TLE CPU time, ILE idle too long, MLE
memory, OLE output, RE runtime error, CE no or no valid program, IE a failure
of the judge. Run it again after a crash or a kill: what is judged stays, the
rest is judged, and IE rows are tried once more, as is a program that has
changed, or whose tests or rules have. `score` refuses IE rows.

There may be millions of programs: they are read as they are judged, and a row
is in the file before the next one is waited for.
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
from valley_jax.data.formats import problems as problems_lib
from valley_jax.execution import attempt
from valley_jax.execution import judge
from valley_jax.runtime import entry
from valley_jax.runtime import locks
from valley_jax.runtime import metrics
from valley_jax.scoring import digests
from valley_jax.scoring import judgement_file


@dataclasses.dataclass(frozen=True)
class _Samples:
  """The samples, read anew by every loop over them: they may be many."""

  path: pathlib.Path
  record_type: type[records.Submission] | type[records.Completion]
  problems: dict[str, records.Problem]
  problems_spec: str
  digests: dict[str, str]  # By problem.
  rules_digest: str

  def __iter__(self) -> Iterator[judgement_file.Sample]:
    for row in jsonl.read_rows(self.path, self.record_type):
      submission = programs.make_submission(row)
      if row.problem_id not in self.problems:
        raise errors.UserError(
            f'Problem {row.problem_id!r} of sample {row.sample_index} is not'
            f' among the {len(self.problems):,} of {self.problems_spec}; set'
            ' `problems` of the config to the file that was sampled from.'
        )
      if submission is not None:
        attempt.check_pair(self.problems[row.problem_id], submission)
      yield judgement_file.Sample(
          row.problem_id,
          row.sample_index,
          digests.join(
              digests.of_program(submission), self.digests[row.problem_id], self.rules_digest
          ),
          submission,
      )


def _read_samples(
    config: mlc.ConfigDict, workdir: pathlib.Path, settings: judge.Settings
) -> _Samples:
  """Returns the submissions' samples, or those of the completions."""
  path = pathlib.Path(config.submissions or workdir / 'completions.jsonl')
  if not path.is_file():
    raise errors.UserError(
        f'There is no file {path}; run `python -m valley_jax.sample` with this'
        ' workdir first, or set `submissions` of the config to a JSONL file.'
    )
  problems = problems_lib.read_problems(config.problems)
  return _Samples(
      path,
      records.Submission if config.submissions else records.Completion,
      {p.problem_id: p for p in problems},
      config.problems,
      {p.problem_id: digests.of_problem(p) for p in problems},
      digests.of_rules(
          cpu_seconds=settings.cpu_seconds,
          multipliers=settings.multipliers,
          profile=settings.profile,
          stop_at_failure=settings.stop_at_failure,
      ),
  )


def _without_program(
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
      tier='',  # Nothing ran.
      profile=profile,
      message='no program in the completion',
  )


def _complete(
    standing: judgement_file.Standing,
    samples: _Samples,
    judge_all: judge.JudgeAll,
    profile: records.Profile,
) -> Iterator[records.Judgement]:
  """Yields the rows that the file lacks, in order, each once it is written."""

  def judged() -> Generator[records.Judgement]:
    # Two loops over the samples: this one is ahead, by what is being judged.
    # As a generator, it starts no sandbox before a first row is asked for.
    yield from judge_all(
        (samples.problems[sample.problem_id], sample.submission)
        for sample, row in standing.rest(samples)
        if row is None and sample.submission is not None
    )

  with contextlib.closing(judged()) as judgements, jsonl.Appender(standing.output) as file:
    for sample, row in standing.rest(samples):
      if row is None and sample.submission is None:
        problem = samples.problems[sample.problem_id]
        row = _without_program(sample, problem, profile)
      row = row or _answer(next(judgements, None), sample, samples.path)
      row = records.replace(row, digest=sample.digest)
      file.append(row)
      yield row
  standing.finish()


def _answer(
    judgement: records.Judgement | None, sample: judgement_file.Sample, path: pathlib.Path
) -> records.Judgement:
  """Returns the judgement if it is the sample's."""
  key = sample.problem_id, sample.sample_index
  if judgement is None or records.sample_key(judgement) != key:
    raise errors.UserError(
        f'Sample {key} was to be judged, and the answer is on'
        f' {judgement and records.sample_key(judgement)}: {path} has changed in the'
        ' meantime. Run execute again.'
    )
  return judgement


def execute(config: mlc.ConfigDict, workdir: str) -> None:
  """Judges what has no final verdict yet; see the module's docstring."""
  directory = pathlib.Path(workdir)
  with locks.lock_directory(directory, 'execute'):
    _execute(config, directory)


def _execute(config: mlc.ConfigDict, directory: pathlib.Path) -> None:
  path = directory / 'judgements.jsonl'
  settings = judge.Settings.from_config(config)
  judge_all = judge.choose_judge(settings, config.ray)
  samples = _read_samples(config, directory, settings)
  standing = judgement_file.survey(path, samples)
  counts = collections.Counter(standing.verdicts)
  failed: records.Judgement | None = None
  num_samples, num_kept = standing.num_samples, standing.num_kept
  if num_kept < num_samples or not path.exists():
    with metrics.progress(num_samples, 'program', 'execute', num_kept) as progress:
      for row in _complete(standing, samples, judge_all, settings.profile):
        counts[row.verdict] += 1
        if row.verdict is records.Verdict.INTERNAL_ERROR:
          failed = failed or row
        progress.update()
  _tell(path, counts, failed)


def _tell(
    path: pathlib.Path,
    counts: collections.Counter[records.Verdict],
    failed: records.Judgement | None,
) -> None:
  """Prints the histogram of verdicts."""
  words = [f'{v.value} {counts[v]:,}' for v in records.Verdict if counts[v]]
  print(f'{path}: {counts.total():,} programs: {"  ".join(words)}')
  if failed is not None:
    print(
        f'{counts[failed.verdict]:,} could not be judged (IE), such as'
        f' {records.sample_key(failed)}: {failed.message} Run execute again to retry'
        ' them; until then they cannot be scored.'
    )


if __name__ == '__main__':
  entry.run(execute)
