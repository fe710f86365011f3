"""Which traces are kept, and why the others are not: `shard`'s first pass.

A decision is the trace, unchanged or with other labels, or a `Refusal`. It may depend on the traces
before (the first of two equal traces is kept), so the sources are always read from their beginning,
in order, and decided about in one process. The slow part is a pure function of one trace alone, the
`look`, which a pool of processes computes ahead.

Each decision is a row of decisions.jsonl, not in memory; the second pass reads the sources again
alongside it. The file appears complete or not at all: a killed pass starts again and decides the
same.
"""

import collections
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
from typing import Any, NamedTuple

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.data import workers
from valley_jax.data.cleaning import contamination as contamination_lib
from valley_jax.data.cleaning import duplicates as duplicates_lib
from valley_jax.data.cleaning import filters as filters_lib
from valley_jax.data.cleaning import minhash
from valley_jax.data.sources import rows as rows_lib
from valley_jax.data.subsets import labels

MAX_EXAMPLES = 5  # Trace ids that are kept of each reason.
_BATCH = 16  # Traces that a worker looks at at a time; some 50 ms.
# The others are labels: a decision may change them, and records them if it does.
_FIXED_FIELDS = ('trace_id', 'question', 'response', 'prompt_sha256')
_LABELS = sorted(set(records.Trace.__struct_fields__) - set(_FIXED_FIELDS))


@dataclasses.dataclass(frozen=True)
class Refusal:
  """Why a trace is not kept.

  Attributes:
    reason: One of few, to be counted: think, near_trace.
    detail: Evidence for a person to judge it by: the id of the other trace.
  """

  reason: str
  detail: str = ''


# A pure function of a trace; it can be pickled, and so can its result.
LookFunction = Callable[[records.Trace], Any]
# Takes a trace and the result of the look at it.
Decide = Callable[[records.Trace, Any], records.Trace | Refusal]
# Takes a source, and the quarantine of its bad rows.
Read = Callable[[str, rows_lib.Quarantine], Iterator[records.Trace]]


class Decision(records.Record, omit_defaults=True):
  """What was decided about one trace: a line of decisions.jsonl."""

  trace_id: str
  source: str
  number: int  # Index among the readable traces of this source.
  reason: str = ''  # '': the trace is kept.
  detail: str = ''
  labels: dict[str, Any] = {}  # Those that were changed.


@dataclasses.dataclass
class Counts:
  """How many traces each source had, and what became of them."""

  read: dict[str, int]  # Rows of each source.
  refused: dict[str, list[str]]  # The first ids for each reason.
  num_refused: dict[str, int]
  num_kept: int = 0


def write_decisions(
    directory: pathlib.Path,
    sources: Sequence[str],
    read: Read,
    decide: Decide,
    look: LookFunction = lambda trace: None,
    report: Callable[[int], object] = lambda number: None,
    num_workers: int = 0,
) -> None:
  """Decides about every trace; does nothing if decisions.jsonl exists.

  Args:
    directory: Directory of quarantine.jsonl and decisions.jsonl.
    sources: Sources in the order in which they are read.
    read: Yields the traces of a source.
    decide: Function from a trace and its look to the decision; called in the order of the traces.
    look: Function of one trace alone, computed ahead; `decide` gets its result.
    report: Function that is called with 1 for each row that was read, good or bad.
    num_workers: Number of processes that compute looks; 0 for this one.

  Raises:
    RuntimeError: a look failed.
    UserError: a worker died, or `decide` changed more than labels.
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
    with contextlib.closing(_look_ahead(numbered, look, num_workers)) as looked_at:
      for (source, number, trace), seen in looked_at:
        decision = _record_decision(trace, decide(trace, seen), source, number)
        rows.write(records.to_json(decision) + b'\n')
        report(1)


_Numbered = tuple[str, int, records.Trace]  # Source, and index in it.


def _look_ahead(
    traces: Iterable[_Numbered], look: LookFunction, num_workers: int
) -> Generator[tuple[_Numbered, Any], None, None]:
  look_at_batch = functools.partial(_look_at_batch, look)
  batches = workers.make_batches(traces, _BATCH)
  results = workers.map_in_order(look_at_batch, batches, num_workers, _BATCH)
  # Closed with this generator, so that an error in a decision ends the workers, too.
  with contextlib.closing(results):
    for batch, looks in results:
      yield from zip(batch, looks, strict=True)


def _look_at_batch(look: LookFunction, batch: Sequence[_Numbered]) -> list[Any]:
  results = []
  for _, _, trace in batch:
    try:
      results.append(look(trace))
    except Exception as e:
      # Always a RuntimeError, since not every error can be pickled to leave a process.
      cause = f'{type(e).__name__}: {e}'
      raise RuntimeError(f'Trace {trace.trace_id} broke a look: {cause}') from e
  return results


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
  # decisions.jsonl holds labels only: another change would be lost in the second pass.
  if records.replace(trace, **labels) != outcome:
    raise errors.UserError(
        f'More of trace {trace.trace_id} was changed than its labels'
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
    # To the longer of the two, so that a trace too many is noticed as well.
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


CONTAMINATED = 'contaminated'


class Look(NamedTuple):
  """What any process can compute of a trace alone; most of the work of a decision."""

  refusal: Refusal | None = None
  sketch: minhash.Sketch | None = None  # Sketch of the response; None if the trace is refused.


def look_at_trace(
    filters: Sequence[filters_lib.Filter], sketcher: minhash.Sketcher | None, trace: records.Trace
) -> Look:
  """Applies the filters, then sketches the response of a trace that they keep."""
  for name in ('question', 'response'):
    if not getattr(trace, name).strip():
      return Look(Refusal(f'empty_{name}'))
  if reason := filters_lib.find_refusal(trace, filters):
    return Look(Refusal(reason))
  return Look(sketch=sketcher(trace.response) if sketcher else None)


class Cleaner:
  """Decides about traces in the order of the sources; remembers those that it kept.

  Attributes:
    look: The pure part of a decision, a function of a trace; can be pickled.
  """

  def __init__(
      self,
      filters: filters_lib.Settings,
      duplicates: duplicates_lib.Settings,
      contamination: contamination_lib.Contamination | None,
  ):
    sketcher = duplicates_lib.build_response_sketcher(duplicates)
    self.look = functools.partial(look_at_trace, filters_lib.build_filters(filters), sketcher)
    self._known_ids: set[str] = set()
    self._contamination = contamination
    self._duplicates = None if duplicates.is_off else duplicates_lib.Duplicates(duplicates)

  def decide_trace(self, trace: records.Trace, look: Look) -> records.Trace | Refusal:
    """Returns the trace, perhaps with other labels, or the first refusal."""
    # Before the filters: of one id, only the first trace is looked at, even if it is refused.
    if trace.trace_id in self._known_ids:
      return Refusal('duplicate_trace_id')
    self._known_ids.add(trace.trace_id)
    if look.refusal:
      return look.refusal
    # Before the duplicates, which remember traces: one that is refused must not refuse others.
    if self._contamination and (match := self._contamination.find_problem(trace.question)):
      return _refuse_contaminated(match)
    if self._duplicates and (repeated := self._duplicates.check_trace(trace, look.sketch)):
      if repeated.is_refused:
        reason = repeated.kind.value.replace(' ', '_')
        detail = f'{repeated.trace_id} ({repeated.similarity:.2f})'
        return Refusal(reason, detail)
      trace = records.replace(trace, problem_id=repeated.problem_id)
    # Last: easy or hard, in the words that all sources share, where there is a rule for a source.
    difficulty = labels.classify_difficulty(trace) or trace.difficulty
    return records.replace(trace, difficulty=difficulty)


def _refuse_contaminated(match: contamination_lib.Match) -> Refusal:
  about = {
      'problem_id': match.problem_id,
      'method': match.method.value,
      'score': round(match.score, 4),
      'question_text': match.question_text,
      'problem_text': match.problem_text,
  }
  return Refusal(CONTAMINATED, json.dumps(about))


def write_contaminated(directory: pathlib.Path) -> None:
  """Writes contaminated.jsonl: each match with both texts, and its traces."""
  trace_ids: dict[str, list[str]] = {}
  for row in read_decisions(directory):
    if row.reason == CONTAMINATED:
      trace_ids.setdefault(row.detail, []).append(row.trace_id)
  rows = [{**json.loads(detail), 'trace_ids': ids} for detail, ids in trace_ids.items()]
  jsonl.write_rows(directory / 'contaminated.jsonl', rows)
