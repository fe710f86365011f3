"""label: says which traces are right, by executing the traces' own programs.

    python -m valley_jax.label --config configs/valley.py --workdir DIR \\
        --config.traces=ocr2:python.jsonl --config.questions=QUESTIONS \\
        --config.problems=taco:TACO/train --config.all_tests=True
    python -m valley_jax.execute …            # The same, and
        --config.submissions=DIR/submissions.jsonl
    python -m valley_jax.label …              # The same as at first.
    python -m valley_jax.shard … --config.traces=jsonl:DIR/traces.jsonl

Reads   config.traces, config.questions  as `shard` does
        config.problems          FORMAT:PATH; formats: see data/formats/problems.py.
        DIR/judgements.jsonl     what `execute` wrote, once it has
Writes  DIR/submissions.jsonl    the program of each trace whose problem is
                                 among these, numbered by problem
        DIR/asked.jsonl          for each trace: trace_id, the problem_id and
                                 sample_index of its submission, or the reason
                                 why it has none
        DIR/quarantine.jsonl     rows that could not be read, with reasons
    and with the judgements
        DIR/traces.jsonl         all traces, with is_correct and pass_rate, and
                                 with the problem_id of their problem
        DIR/labels.json          how many are right, wrong, unknown, and why

A trace is right if its program passes all tests, and wrong if it does not or if
its answer has no program. It is unknown if its problem is not there, or if the
judge failed (IE: run execute again). What the source says of it is not taken
over. The pass rate is known of all programs only with config.all_tests.

A trace's problem is that of its `problem_id`, or else the one with the same
statement. Run it as often as you like: it writes the same again; judgements of
other programs, tests or rules are refused.
"""

import collections
from collections.abc import Iterator
import pathlib
from typing import Any

import ml_collections as mlc

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.formats import problems as problems_lib
from valley_jax.data.sources import rows
from valley_jax.data.sources import traces
from valley_jax.data.subsets import labels
from valley_jax.execution import settings as judge_settings
from valley_jax.runtime import entry
from valley_jax.runtime import metrics
from valley_jax.scoring import digests
from valley_jax.scoring import judgement_file

_NAMES = {True: 'right', False: 'wrong', None: 'unknown'}


class _Sources:
  """The traces with what is asked about them."""

  def __init__(self, config: mlc.ConfigDict):
    problems = problems_lib.read_problems(config.problems)
    settings = judge_settings.Settings.from_config(config)
    self._config = config
    self._problems = labels.ProblemIndex(problems)
    self._digester = digests.Digester.from_problems(problems, settings)

  def read(self, quarantine: rows.Quarantine) -> Iterator[labels.TraceProgram]:
    """Yields them anew, with a bar that tells how many a second."""
    config = self._config
    found = traces.read_traces(config.traces, config.questions, quarantine)
    num_rows = traces.estimate_num_rows(config.traces)
    with metrics.progress(num_rows, 'trace', 'label') as bar:
      for asked in labels.extract_programs(found, self._problems):
        yield asked
        bar.update()

  def stands(self, submission: records.Submission, judgement: records.Judgement) -> bool:
    """Says if a judgement is of this program, by these tests and rules."""
    wanted = self._digester.digest_judgement(submission.problem_id, submission)
    same_sample = records.sample_key(submission) == records.sample_key(judgement)
    return same_sample and judgement.digest == wanted


def _write_submissions(sources: _Sources, directory: pathlib.Path) -> None:
  """Writes what `execute` is to judge, and which trace each program is of."""
  reasons: collections.Counter[str] = collections.Counter()
  with (
      jsonl.open_atomically(directory / 'submissions.jsonl') as submissions,
      jsonl.open_atomically(directory / 'asked.jsonl') as asked,
      jsonl.open_atomically(directory / 'quarantine.jsonl') as file,
  ):
    bad = rows.QuarantineFile(file)
    for trace, submission, reason in sources.read(bad):
      row: dict[str, Any] = {'trace_id': trace.trace_id}
      if submission is None:
        row['reason'] = reason
      else:
        submissions.write(records.to_json(submission) + b'\n')
        row['problem_id'] = submission.problem_id
        row['sample_index'] = submission.sample_index
      asked.write(records.to_json(row) + b'\n')
      reasons[reason] += 1
  print(
      f'label: {reasons.pop("", 0):,} programs in'
      f' {directory}/submissions.jsonl, of {sum(reasons.values()):,} traces'
      f' none {dict(reasons)}, quarantined {bad.num_rows:,}'
      ' (quarantine.jsonl).'
  )


def _write_traces(sources: _Sources, directory: pathlib.Path, all_tests: bool) -> None:
  """Writes the traces with what `execute` says of them."""
  counts: collections.Counter[str] = collections.Counter()
  verdicts: collections.Counter[str] = collections.Counter()

  def judgements() -> Iterator[records.Judgement]:
    path = directory / 'judgements.jsonl'
    for row in jsonl.read_rows(path, records.Judgement):
      verdicts[row.verdict.value] += 1
      yield row

  with jsonl.open_atomically(directory / 'traces.jsonl') as traces_file:
    # Bad rows are written down already.
    asked = sources.read(collections.deque(maxlen=0))
    for trace in labels.join_judgements(
        asked, judgements(), all_tests=all_tests, is_judgement_of=sources.stands
    ):
      counts[_NAMES[trace.is_correct]] += 1
      traces_file.write(records.to_json(trace) + b'\n')
  found = {name: counts[name] for name in _NAMES.values()}
  jsonl.write_json(
      directory / 'labels.json', {**found, 'all_tests': all_tests, 'verdicts': dict(verdicts)}
  )
  failed = verdicts[records.Verdict.INTERNAL_ERROR.value]
  print(
      f'label: {found} in {directory}/traces.jsonl.'
      + f' {failed:,} programs could not be judged (IE); run execute again to'
      ' retry them, then label.' * bool(failed)
  )


def label(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes programs, and labels once they are judged; see the docstring."""
  directory = pathlib.Path(workdir)
  judged = directory / 'judgements.jsonl'
  directory.mkdir(parents=True, exist_ok=True)
  sources = _Sources(config)
  _write_submissions(sources, directory)
  judgement_file.check_finished(judged)
  if judged.exists():
    _write_traces(sources, directory, config.all_tests)
  else:
    print(
        'label: judge them with `python -m valley_jax.execute`'
        f' --config.submissions={directory}/submissions.jsonl, then run label'
        ' again.'
    )


if __name__ == '__main__':
  entry.run(label)
