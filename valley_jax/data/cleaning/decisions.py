"""Which traces are kept, and why the others are not: `shard`'s first pass.

Every trace goes through the same steps, in order. A step returns the trace, as
it was or with other labels, or a `Refusal`; the first refusal is the last word.
Steps may remember what they have seen (the first of two equal traces is kept),
so the sources are always read from their beginning, in order, and decided about
in one process. What costs most is a function of one trace alone, a `look`:
several processes may look ahead, which changes no decision.

What is decided stands in decisions.jsonl, a row a trace, and not in memory; the
second pass reads the sources again beside it. The file appears whole or not at
all: a killed pass begins anew and decides the same.
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
import pathlib
from typing import Any

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.cleaning import workers
from valley_jax.data.sources import rows as rows_lib

MAX_EXAMPLES = 5  # Ids that stand beside a count of refusals.
_BATCH = 16  # Traces that a worker looks at at a time; some 50 ms.
# What a step may change.
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
    reason: One of few, to be counted: repetition, near_duplicate.
    detail: What a person needs to judge it: the id of the other trace.
  """

  reason: str
  detail: str = ''


Step = Callable[[records.Trace], records.Trace | Refusal]
Look = Callable[[records.Trace], Any]
# Of one source, and where its bad rows go.
Read = Callable[[str, rows_lib.Quarantine], Iterator[records.Trace]]


@dataclasses.dataclass(frozen=True)
class LookingStep:
  """A step whose dear part may be done before, by another process.

  Attributes:
    look: Finds what `step` needs to know of a trace, as it was read: a refusal,
      behind which nobody looks further, or anything else but None. Pure; to be
      pickled, as is what it finds.
    step: Of a trace and what was found; None: nobody has looked.
  """

  look: Look
  step: Callable[[records.Trace, Any], records.Trace | Refusal]

  def __call__(self, trace: records.Trace) -> records.Trace | Refusal:
    return self.step(trace, None)


class Row(records.Record, omit_defaults=True):
  """What was decided about one trace: a line of decisions.jsonl."""

  trace_id: str
  source: str
  number: int  # Of the readable traces of this source, from 0.
  reason: str = ''  # '': it is kept.
  detail: str = ''
  labels: dict[str, Any] = {}  # Those that a step has changed.


@dataclasses.dataclass
class Counts:
  """How many traces a source had, and what became of them."""

  read: dict[str, int]  # By source.
  refused: dict[str, list[str]]  # By reason: the first ids.
  num_refused: dict[str, int]
  num_kept: int = 0


def repeated_ids() -> Step:
  """Returns a step that keeps the first of the traces of one id."""
  seen: set[str] = set()

  def step(trace: records.Trace) -> records.Trace | Refusal:
    if trace.trace_id in seen:
      return Refusal('duplicate_trace_id')
    seen.add(trace.trace_id)
    return trace

  return step


def empty_texts(trace: records.Trace) -> records.Trace | Refusal:
  """A step: refuses a trace without a question or without a response."""
  for name in ('question', 'response'):
    if not getattr(trace, name).strip():
      return Refusal(f'empty_{name}')
  return trace


def pure(step: Step) -> LookingStep:
  """Returns as a look a step that can only refuse, and can be pickled."""

  def decided(trace: records.Trace, seen: Any) -> records.Trace | Refusal:
    return step(trace) if seen is None else seen or trace

  return LookingStep(functools.partial(_refusal, step), decided)


def _refusal(step: Step, trace: records.Trace) -> Refusal | bool:
  found = step(trace)
  return found if isinstance(found, Refusal) else False


def decide(
    trace: records.Trace, steps: Sequence[Step], seen: Iterable[Any] = ()
) -> records.Trace | Refusal:
  """Returns the trace as the last step leaves it, or the first refusal.

  `seen` is what the looks of the steps have found, as far as somebody looked.
  """
  seen = iter(seen)
  for step in steps:
    if isinstance(step, LookingStep):
      found = step.step(trace, next(seen, None))
    else:
      found = step(trace)
    if isinstance(found, Refusal):
      return found
    trace = found
  return trace


def _row(trace: records.Trace, found: records.Trace | Refusal, source: str, n: int) -> Row:
  about = {'trace_id': trace.trace_id, 'source': source, 'number': n}
  if isinstance(found, Refusal):
    return Row(**about, reason=found.reason, detail=found.detail)
  if found is trace:
    return Row(**about)
  labels = {
      name: getattr(found, name) for name in _LABELS if getattr(found, name) != getattr(trace, name)
  }
  if records.replace(trace, **labels) != found:
    raise errors.UserError(
        f'A step changed more of trace {trace.trace_id} than its labels'
        f' ({", ".join(_LABELS)}); texts and trace ids stay as they were read.'
    )
  return Row(**about, labels=labels)


def write(
    directory: pathlib.Path,
    sources: Sequence[str],
    read: Read,
    steps: Sequence[Step],
    done: Callable[[int], object] = lambda number: None,
    num_workers: int = 0,
) -> None:
  """Decides about every trace; does nothing where that was done.

  Args:
    directory: Where quarantine.jsonl and decisions.jsonl go.
    sources: In the order in which they are read.
    read: Yields the traces of one of them; bad rows go to a quarantine.
    steps: What each trace goes through.
    done: Is called with the number of rows that were read, good or bad.
    num_workers: Processes that look ahead; 0: each step looks by itself.

  Raises:
    RuntimeError: a worker died, or a look failed in it.
  """
  if (directory / 'decisions.jsonl').exists():
    return
  with (
      jsonl.open_atomically(directory / 'decisions.jsonl') as rows,
      jsonl.open_atomically(directory / 'quarantine.jsonl') as quarantine,
  ):
    bad = rows_lib.QuarantineFile(quarantine, done)
    numbered = (
        (source, number, trace)
        for source in sources
        for number, trace in enumerate(read(source, bad))
    )
    looked_at = _look_ahead(numbered, steps, num_workers)
    with contextlib.closing(looked_at):
      for (source, number, trace), seen in looked_at:
        row = _row(trace, decide(trace, steps, seen), source, number)
        rows.write(records.to_json(row) + b'\n')
        done(1)


_Numbered = tuple[str, int, records.Trace]  # Source, and number in it.


def _look_ahead(
    traces: Iterable[_Numbered], steps: Sequence[Step], num_workers: int
) -> Generator[tuple[_Numbered, Sequence[Any]], None, None]:
  """Yields each trace and what workers saw of it; without them, nothing."""
  if not num_workers:
    yield from ((trace, ()) for trace in traces)
    return
  looks = [step.look for step in steps if isinstance(step, LookingStep)]
  make, batches = functools.partial(_looker, looks), workers.batches
  found = workers.each(make, batches(traces, _BATCH), num_workers, _BATCH)
  with contextlib.closing(found):
    for batch, seen in found:
      yield from zip(batch, seen, strict=True)


def _looker(looks: Sequence[Look]) -> Callable[[list[_Numbered]], list[Any]]:
  """Returns what looks at a batch of traces."""
  return lambda batch: [_seen(looks, trace) for _, _, trace in batch]


def _seen(looks: Sequence[Look], trace: records.Trace) -> list[Any]:
  """Returns what each look finds, up to the first refusal."""
  seen = []
  try:
    for look in looks:
      seen.append(look(trace))
      if isinstance(seen[-1], Refusal):
        break
  except Exception as e:
    # Of this type, since not every error survives the way between processes.
    what = f'{type(e).__name__}: {e}'
    raise RuntimeError(f'Trace {trace.trace_id} broke a look: {what}') from e
  return seen


def read_rows(directory: pathlib.Path) -> Iterator[Row]:
  """Yields the decisions, in the order of the sources."""
  return jsonl.read_rows(directory / 'decisions.jsonl', Row)


def kept(directory: pathlib.Path, read: Read) -> Iterator[records.Trace]:
  """Yields the traces that were kept, with their labels, from the sources.

  Raises:
    ValueError: the sources hold other traces than those decided about.
  """
  rows = read_rows(directory)
  for source, of_source in itertools.groupby(rows, lambda row: row.source):
    # They were written down the first time.
    bad: collections.deque[Any] = collections.deque(maxlen=0)
    for row, trace in itertools.zip_longest(of_source, read(source, bad)):
      ids = [x.trace_id if x else None for x in (row, trace)]
      if ids[0] != ids[1]:
        raise errors.UserError(
            f'{source} changed while it was read: trace {ids[1]} stands where'
            f' {ids[0]} was. Delete {directory} and run shard again.'
        )
      if not row.reason:
        yield records.replace(trace, **row.labels) if row.labels else trace


def count(directory: pathlib.Path, sources: Sequence[str]) -> Counts:
  """Counts what was decided."""
  counts = Counts(dict.fromkeys(sources, 0), {}, {})
  for row in read_rows(directory):
    counts.read[row.source] += 1
    if not row.reason:
      counts.num_kept += 1
      continue
    examples = counts.refused.setdefault(row.reason, [])
    if len(examples) < MAX_EXAMPLES:
      examples.append(row.trace_id)
    of_reason = counts.num_refused.get(row.reason, 0)
    counts.num_refused[row.reason] = of_reason + 1
  return counts
