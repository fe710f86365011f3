"""execute: runs each program against its problem's tests; writes verdicts.

  python -m valley_jax.execute --config configs/valley.py --workdir DIR
  python -m valley_jax.execute --config configs/valley.py --workdir DIR \\
    --config.problems humaneval:HumanEval.jsonl.gz \\
    --config.submissions programs.jsonl

Reads   config.problems          FORMAT:PATH; formats: jsonl, humaneval.
        config.submissions       JSONL of {problem_id, sample_index, source};
                                 if empty, the programs in
        DIR/completions.jsonl    what `sample` wrote.
        config.cpu_seconds       limit of problems that state none.
        config.num_workers       programs at a time; 0 is one a core.
Writes  DIR/judgements.jsonl     a verdict a program, in the problems' order.

Programs are hostile until proven otherwise: each runs in a bubblewrap sandbox
(`apt-get install bubblewrap`), and without a working one nothing is run.

Verdicts: AC accepted, WA wrong answer, TLE CPU time, ILE idle too long, MLE
memory, OLE output, RE runtime error, CE no or no valid program, IE a failure
of the judge. Run it again after a crash or a kill: what is judged stays, the
rest is judged, and IE rows are tried once more, as is a program that has
changed, or whose tests or limits have. `score` refuses IE rows.
"""

import collections
from collections.abc import Iterator
import hashlib
import pathlib

import ml_collections as mlc

from valley_jax import entry
from valley_jax import metrics
from valley_jax import records
from valley_jax.data import problems as problems_lib
from valley_jax.execution import judge
from valley_jax.scoring import programs

_Key = tuple[str, int]


def _read_submissions(
    config: mlc.ConfigDict, workdir: pathlib.Path
) -> Iterator[tuple[_Key, records.Submission | None]]:
  """Yields each sample's key and program; None: it has no program."""
  if config.submissions:
    for row in records.read_rows(config.submissions, records.Submission):
      yield records.key(row), row
    return
  path = workdir / 'completions.jsonl'
  if not path.exists():
    raise ValueError(
        f'There is no {path}; run `python -m valley_jax.sample` with this'
        ' workdir first, or set `submissions` of the config to a JSONL file.'
    )
  for completion in records.read_rows(path, records.Completion):
    source = programs.extract(completion.text)
    submission = source is not None and records.Submission(
        problem_id=completion.problem_id,
        sample_index=completion.sample_index,
        source=source,
    )
    yield records.key(completion), submission or None


def _digest(
    config: mlc.ConfigDict,
    problem: records.Problem,
    submission: records.Submission | None,
) -> str:
  """Returns a hash of all that a verdict depends on."""
  judged = (submission and submission.source, problem, config.cpu_seconds)
  return hashlib.blake2b(records.to_json(judged), digest_size=16).hexdigest()


def _in_order(
    config: mlc.ConfigDict,
    workdir: pathlib.Path,
    problems: dict[str, records.Problem],
) -> dict[_Key, records.Submission | None]:
  """Returns the programs by key, in the order of the judgements' file."""
  found: dict[_Key, records.Submission | None] = {}
  for key, submission in _read_submissions(config, workdir):
    if key[0] not in problems:
      raise ValueError(
          f'Problem {key[0]!r} of sample {key[1]} is not among the'
          f' {len(problems):,} of {config.problems}; set `problems` of the'
          ' config to the file that was sampled from.'
      )
    if key in found:
      raise ValueError(
          f'Sample {key} occurs twice; give each program of a problem a'
          ' `sample_index` of its own.'
      )
    found[key] = submission
  places = {problem_id: i for i, problem_id in enumerate(problems)}
  return dict(sorted(found.items(), key=lambda x: (places[x[0][0]], x[0][1])))


def _read_judgements(
    path: pathlib.Path, expected: dict[_Key, records.Submission | None]
) -> dict[_Key, records.Judgement]:
  """Returns the rows that an earlier run has left, the last one of each key."""
  records.repair_torn_tail(path)
  if not path.exists():
    return {}
  rows = records.read_rows(path, records.Judgement)
  judgements = {records.key(row): row for row in rows}
  if strange := judgements.keys() - expected.keys():
    raise ValueError(
        f'{path} judges {len(strange):,} samples that are not to be judged,'
        f' such as {min(strange)}; use another workdir, or remove the file.'
    )
  return judgements


def _without_program(problem: records.Problem, key: _Key) -> records.Judgement:
  return records.Judgement(
      problem_id=problem.problem_id,
      sample_index=key[1],
      verdict=records.Verdict.COMPILE_ERROR,
      tests_passed=0,
      num_tests=len(problem.tests),
      first_failed=None,
      cpu_seconds=0.0,
      wall_seconds=0.0,
      memory_mib=0.0,
      tier='',  # Nothing ran.
      message='no program in the completion',
  )


def _judge_rest(
    config: mlc.ConfigDict,
    path: pathlib.Path,
    problems: dict[str, records.Problem],
    rest: dict[_Key, records.Submission | None],
    digests: dict[_Key, str],
    num_done: int,
) -> Iterator[records.Judgement]:
  """Judges, stores what is final as soon as it is known, and yields it."""
  if not rest:
    return
  for key, submission in rest.items():
    if submission is None:
      judgement = _without_program(problems[key[0]], key)
      yield records.replace(judgement, digest=digests[key])
  pairs = ((problems[s.problem_id], s) for s in rest.values() if s is not None)
  total = num_done + len(rest)
  with (
      records.Appender(path) as rows,
      metrics.progress(total, 'program', 'execute', num_done) as progress,
  ):
    progress.update(sum(s is None for s in rest.values()))
    for judgement in judge.judge_all(
        pairs,
        num_workers=config.num_workers,
        cpu_seconds=config.cpu_seconds,
    ):
      digest = digests[records.key(judgement)]
      judgement = records.replace(judgement, digest=digest)
      if judgement.verdict is not records.Verdict.INTERNAL_ERROR:
        rows.append(judgement)
      progress.update()
      yield judgement


def execute(config: mlc.ConfigDict, workdir: str) -> None:
  """Judges what has no final verdict yet; see the module's docstring."""
  directory = pathlib.Path(workdir)
  path = directory / 'judgements.jsonl'
  problems = {
      problem.problem_id: problem
      for problem in problems_lib.read_problems(config.problems)
  }
  programs_by_key = _in_order(config, directory, problems)
  judgements = _read_judgements(path, programs_by_key)
  digests = {
      key: _digest(config, problems[key[0]], submission)
      for key, submission in programs_by_key.items()
  }
  # A verdict on another program, other tests or another limit is none.
  rest = {
      key: submission
      for key, submission in programs_by_key.items()
      if key not in judgements
      or judgements[key].digest != digests[key]
      or judgements[key].verdict is records.Verdict.INTERNAL_ERROR
  }
  num_done = len(programs_by_key) - len(rest)
  for judgement in _judge_rest(config, path, problems, rest, digests, num_done):
    judgements[records.key(judgement)] = judgement
  # A killed run and an unbroken one end with the same file.
  ordered = [judgements[key] for key in programs_by_key]
  data = b''.join(records.to_json(row) + b'\n' for row in ordered)
  if not path.exists() or path.read_bytes() != data:
    records.write_atomically(path, data)
  _tell(ordered, path)


def _tell(judgements: list[records.Judgement], path: pathlib.Path) -> None:
  """Prints the histogram of verdicts."""
  counts = collections.Counter(row.verdict for row in judgements)
  words = [f'{v.value} {counts[v]:,}' for v in records.Verdict if counts[v]]
  print(f'{path}: {len(judgements):,} programs: {"  ".join(words)}')
  if num_failed := counts[records.Verdict.INTERNAL_ERROR]:
    row = next(
        r for r in judgements if r.verdict is records.Verdict.INTERNAL_ERROR
    )
    print(
        f'{num_failed:,} could not be judged (IE), such as'
        f' {records.key(row)}: {row.message} Run execute again to retry them;'
        ' until then they cannot be scored.'
    )


if __name__ == '__main__':
  entry.run(execute)
