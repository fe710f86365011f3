"""Says which traces are right, by executing the traces' own programs.

    python -m valley_jax.label --config configs/valley.py --workdir DIR \\
        --config.traces=ocr2:python.jsonl --config.questions=QUESTIONS \\
        --config.problems=taco:TACO/train --config.all_tests=True
    python -m valley_jax.execute …            # The same flags, and
        --config.submissions=DIR/submissions.jsonl
    python -m valley_jax.label …              # The same command as at first.
    python -m valley_jax.shard … --config.traces=jsonl:DIR/traces.jsonl

Reads   config.traces, config.questions  as `shard` does
        config.problems          FORMAT:PATH; valley_jax/data/problem_formats/problems.py
        DIR/judgements.jsonl     the output of `execute`, once it exists
Writes  DIR/submissions.jsonl    the program of each trace whose problem is among these, numbered by
                                 problem
        DIR/asked.jsonl          for each trace: trace_id, and problem_id and sample_index of its
                                 submission, or the reason why it has none
        DIR/quarantine.jsonl     rows that could not be read, with reasons
    and with the judgements
        DIR/traces.jsonl         all traces, with is_correct and pass_rate, and with the problem_id
                                 of their problem
        DIR/labels.json          how many are right, wrong and unknown, and why

A trace is right if its program passes all tests, and wrong if it does not or if its answer has no
program. It is unknown if its problem is not there, or if the judge failed (IE: run execute again).
The source's own label is not used. The pass rate is known for all programs only with
config.all_tests.

A trace's problem is the one with its `problem_id`, or else the one with the same statement. Every
run writes the same files again; judgements of other programs, tests or rules are refused.
"""

import collections
from collections.abc import Iterator
import pathlib
from typing import Any

import ml_collections as mlc

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.problem_formats import problems as problems_lib
from valley_jax.data.sources import rows
from valley_jax.data.sources import traces as traces_lib
from valley_jax.data.subsets import labels
from valley_jax.execution import settings as judge_settings
from valley_jax.runtime import entry
from valley_jax.runtime import metrics
from valley_jax.scoring import completeness
from valley_jax.scoring import judgement_file

_NAMES = {True: 'right', False: 'wrong', None: 'unknown'}


class _TracePrograms:
  """The programs of the config's traces, read anew by each pass."""

  def __init__(self, config: mlc.ConfigDict):
    problems = problems_lib.read_problems(config.problems)
    settings = judge_settings.Settings.from_config(config)
    self._traces, self._questions = config.traces, config.questions
    self._problems = labels.ProblemIndex(problems)
    self._digester = completeness.Digester.from_problems(problems, settings)

  def read_all(self, quarantine: rows.Quarantine) -> Iterator[labels.TraceProgram]:
    """Yields the programs in the order of the traces, with a progress bar."""
    traces = traces_lib.read_traces(self._traces, self._questions, quarantine)
    num_rows = traces_lib.estimate_num_rows(self._traces)
    with metrics.progress(num_rows, 'trace', 'label') as bar:
      for program in labels.extract_programs(traces, self._problems):
        yield program
        bar.update()

  def is_judgement_of(self, submission: records.Submission, judgement: records.Judgement) -> bool:
    """Whether a judgement is of this program, by these tests and rules."""
    expected = self._digester.digest_judgement(submission.problem_id, submission)
    is_same_sample = records.sample_key(submission) == records.sample_key(judgement)
    return is_same_sample and judgement.digest == expected


def _write_submissions(programs: _TracePrograms, directory: pathlib.Path) -> None:
  """Writes the programs for `execute`, and which trace each of them belongs to."""
  reasons: collections.Counter[str] = collections.Counter()
  with (
      jsonl.open_atomically(directory / 'submissions.jsonl') as submissions,
      jsonl.open_atomically(directory / 'asked.jsonl') as asked,
      jsonl.open_atomically(directory / 'quarantine.jsonl') as file,
  ):
    quarantine = rows.QuarantineFile(file)
    for trace, submission, reason in programs.read_all(quarantine):
      row: dict[str, Any] = {'trace_id': trace.trace_id}
      if submission is None:
        row['reason'] = reason
      else:
        submissions.write(records.to_json(submission) + b'\n')
        row['problem_id'] = submission.problem_id
        row['sample_index'] = submission.sample_index
      asked.write(records.to_json(row) + b'\n')
      reasons[reason] += 1
  num_programs = reasons.pop('', 0)
  print(
      f'label: {num_programs:,} programs in {directory}/submissions.jsonl;'
      f' {sum(reasons.values()):,} traces have none {dict(reasons)}, quarantined'
      f' {quarantine.num_rows:,} (quarantine.jsonl).'
  )


def _write_traces(programs: _TracePrograms, directory: pathlib.Path, all_tests: bool) -> None:
  """Writes the traces with the labels that follow from the judgements."""
  counts: collections.Counter[str] = collections.Counter()
  verdicts: collections.Counter[str] = collections.Counter()

  def read_judgements() -> Iterator[records.Judgement]:
    for row in jsonl.read_rows(directory / 'judgements.jsonl', records.Judgement):
      verdicts[row.verdict.value] += 1
      yield row

  with jsonl.open_atomically(directory / 'traces.jsonl') as file:
    # The first pass has written the bad rows already.
    no_quarantine = collections.deque(maxlen=0)
    for trace in labels.join_judgements(
        programs.read_all(no_quarantine),
        read_judgements(),
        all_tests=all_tests,
        is_judgement_of=programs.is_judgement_of,
    ):
      counts[_NAMES[trace.is_correct]] += 1
      file.write(records.to_json(trace) + b'\n')
  by_label = {name: counts[name] for name in _NAMES.values()}
  jsonl.write_json(
      directory / 'labels.json', {**by_label, 'all_tests': all_tests, 'verdicts': dict(verdicts)}
  )
  print(f'label: {by_label} in {directory}/traces.jsonl.')
  if num_failed := verdicts[records.Verdict.INTERNAL_ERROR.value]:
    print(
        f'label: {num_failed:,} programs could not be judged (IE); run execute again to retry them,'
        ' then label.'
    )


def label(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes programs, and labels once they are judged; see the module's docstring."""
  directory = pathlib.Path(workdir)
  judgements = directory / 'judgements.jsonl'
  directory.mkdir(parents=True, exist_ok=True)
  programs = _TracePrograms(config)
  _write_submissions(programs, directory)
  judgement_file.check_finished(judgements)
  if judgements.exists():
    _write_traces(programs, directory, config.all_tests)
  else:
    print(
        'label: judge them with `python -m valley_jax.execute'
        f' --config.submissions={directory}/submissions.jsonl`, then run label again.'
    )


if __name__ == '__main__':
  entry.run(label)
