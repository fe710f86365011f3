"""Which traces are kept, and why the others are not: `shard`'s first pass.

Every trace goes through the same steps, in order. A step returns the trace, unchanged or with other
labels, or a `Refusal`; the first refusal ends it. Steps may remember what they have seen (the first
of two equal traces is kept), so the sources are always read from their beginning, in order, and
decided about in one process. What is slow is a pure function of one trace alone, the `look`, which
a pool of processes computes ahead of the steps.

Each decision is a row of decisions.jsonl, not in memory; the second pass reads the sources again
alongside it. The file appears complete or not at all: a killed pass starts again and decides the
same.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import itertools
import pathlib
from typing import Any

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.data import workers
from valley_jax.data.sources import rows as rows_lib

MAX_EXAMPLES = 5  # Trace ids that are kept of each reason.
_BATCH = 16  # Traces that a worker looks at at a time; some 50 ms.
# The labels that a step may change.
_LABELS = (
    'difficulty',
    'is_correct',
    'language',
    'license',
    'method',
    'pass_rate',
    'problem_id',
    'source',
    'split',
    'teacher',
)


@dataclasses.dataclass(frozen=True)
class Refusal:
  """Why a trace is not kept.

  Attributes:
    reason: One of few, to be counted: think, near_trace.
    detail: What a person needs to judge it: the id of the other trace.
  """

  reason: str
  detail: str = ''


# A pure function of a trace; it can be pickled, and so can its result.
Look = Callable[[records.Trace], Any]
# Takes a trace and the result of the look at it, as it was read.
Step = Callable[[records.Trace, Any], records.Trace | Refusal]
# Takes a source, and the quarantine of its bad rows.
Read = Callable[[str, rows_lib.Quarantine], Iterator[records.Trace]]


class Decision(records.Record, omit_defaults=True):
  """What was decided about one trace: a line of decisions.jsonl."""

  trace_id: str
  source: str
  number: int  # Index among the readable traces of this source.
  reason: str = ''  # '': the trace is kept.
  detail: str = ''
  labels: dict[str, Any] = {}  # Those that a step has changed.


@dataclasses.dataclass
class Counts:
  """How many traces each source had, and what became of them."""

  read: dict[str, int]  # By source.
  refused: dict[str, list[str]]  # By reason: the first ids.
  num_refused: dict[str, int]
  num_kept: int = 0


def write_decisions(
    directory: pathlib.Path,
    sources: Sequence[str],
    read: Read,
    steps: Sequence[Step],
    look: Look = lambda trace: None,
    report: Callable[[int], object] = lambda number: None,
    num_workers: int = 0,
) -> None:
  """Decides about every trace; does nothing if decisions.jsonl exists.

  Args:
    directory: Where quarantine.jsonl and decisions.jsonl go.
    sources: In the order in which they are read.
    read: Yields the traces of a source.
    steps: What each trace goes through.
    look: Is computed ahead of the steps.
    report: Is called with 1 for each row that was read, good or bad.
    num_workers: Processes that look; 0: this one does.

  Raises:
    RuntimeError: a look failed.
    UserError: a worker died, or a step changed more than labels.
  """
  if (directory / 'decisions.jsonl').exists():
    return
  with (
      jsonl.open_atomically(directory / 'decisions.jsonl') as rows,
      jsonl.open_atomically(directory / 'quarantine.jsonl') as quarantine,
  ):
    bad = rows_lib.QuarantineFile(quarantine, report)
    numbered = (
        (source, number, trace)
        for source in sources
        for number, trace in enumerate(read(source, bad))
    )
    batches = workers.make_batches(numbered, _BATCH)
    look_at_batch = functools.partial(_look_at_batch, look)
    looked_at = workers.map_in_order(look_at_batch, batches, num_workers, _BATCH)
    with contextlib.closing(looked_at):
      for batch, looks in looked_at:
        for (source, number, trace), seen in zip(batch, looks, strict=True):
          outcome = _apply_steps(trace, seen, steps)
          decision = _record_decision(trace, outcome, source, number)
          rows.write(records.to_json(decision) + b'\n')
          report(1)


def _look_at_batch(look: Look, batch: Sequence[tuple[str, int, records.Trace]]) -> list[Any]:
  results = []
  for _, _, trace in batch:
    try:
      results.append(look(trace))
    except Exception as e:
      # Of this type, since not every error can be pickled on its way out of a process.
      cause = f'{type(e).__name__}: {e}'
      raise RuntimeError(f'Trace {trace.trace_id} broke a look: {cause}') from e
  return results


def _apply_steps(trace: records.Trace, seen: Any, steps: Sequence[Step]) -> records.Trace | Refusal:
  """Returns the trace as the last step leaves it, or the first refusal."""
  for step in steps:
    outcome = step(trace, seen)
    if isinstance(outcome, Refusal):
      return outcome
    trace = outcome
  return trace


def _record_decision(
    trace: records.Trace, outcome: records.Trace | Refusal, source: str, number: int
) -> Decision:
  about = {'trace_id': trace.trace_id, 'source': source, 'number': number}
  if isinstance(outcome, Refusal):
    return Decision(**about, reason=outcome.reason, detail=outcome.detail)
  if outcome is trace:
    return Decision(**about)
  labels = {
      name: getattr(outcome, name)
      for name in _LABELS
      if getattr(outcome, name) != getattr(trace, name)
  }
  if records.replace(trace, **labels) != outcome:
    raise errors.UserError(
        f'A step changed more of trace {trace.trace_id} than its labels'
        f' ({", ".join(_LABELS)}); texts and trace ids stay as they were read.'
    )
  return Decision(**about, labels=labels)


def read_decisions(directory: pathlib.Path) -> Iterator[Decision]:
  """Yields the decisions, in the order of the sources."""
  return jsonl.read_rows(directory / 'decisions.jsonl', Decision)


def read_kept_traces(directory: pathlib.Path, read: Read) -> Iterator[records.Trace]:
  """Yields the traces that were kept, with their labels, from the sources.

  Raises:
    UserError: the sources hold other traces than those that were decided about.
  """
  rows = read_decisions(directory)
  for source, of_source in itertools.groupby(rows, lambda row: row.source):
    # Bad rows were written down the first time.
    bad: collections.deque[Any] = collections.deque(maxlen=0)
    for row, trace in itertools.zip_longest(of_source, read(source, bad)):
      ids = [x.trace_id if x else None for x in (row, trace)]
      if ids[0] != ids[1]:
        raise errors.UserError(
            f'{source} changed while it was read: trace {ids[1]} stands where {ids[0]} was.'
            f' Delete {directory} and run shard again.'
        )
      if not row.reason:
        yield records.replace(trace, **row.labels) if row.labels else trace


def count_decisions(directory: pathlib.Path, sources: Sequence[str]) -> Counts:
  """Counts the decisions by source and by reason."""
  counts = Counts(dict.fromkeys(sources, 0), {}, {})
  for row in read_decisions(directory):
    counts.read[row.source] += 1
    if not row.reason:
      counts.num_kept += 1
      continue
    examples = counts.refused.setdefault(row.reason, [])
    if len(examples) < MAX_EXAMPLES:
      examples.append(row.trace_id)
    counts.num_refused[row.reason] = counts.num_refused.get(row.reason, 0) + 1
  return counts
