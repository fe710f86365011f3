"""Decides about each trace: kept, kept with other labels, or refused; see `decisions.py`."""

from collections.abc import Sequence
import functools
import json
import pathlib
from typing import NamedTuple

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.cleaning import contamination as contamination_lib
from valley_jax.data.cleaning import decisions
from valley_jax.data.cleaning import duplicates as duplicates_lib
from valley_jax.data.cleaning import filters as filters_lib
from valley_jax.data.cleaning import minhash
from valley_jax.data.subsets import labels

CONTAMINATED = 'contaminated'


class Look(NamedTuple):
  """What any process can compute of a trace alone; most of the work of a decision."""

  refusal: decisions.Refusal | None = None
  sketch: minhash.Sketch | None = None  # Of the response; None if the trace is refused.


def look_at_trace(
    filters: Sequence[filters_lib.Filter], sketcher: minhash.Sketcher | None, trace: records.Trace
) -> Look:
  """Applies the filters, then sketches the response of a trace that they keep."""
  for name in ('question', 'response'):
    if not getattr(trace, name).strip():
      return Look(decisions.Refusal(f'empty_{name}'))
  if reason := filters_lib.find_refusal(trace, filters):
    return Look(decisions.Refusal(reason))
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

  def decide_trace(self, trace: records.Trace, look: Look) -> records.Trace | decisions.Refusal:
    """Returns the trace, perhaps with other labels, or the first refusal."""
    # Before the filters: of one id, only the first trace is looked at, even if it is refused.
    if trace.trace_id in self._known_ids:
      return decisions.Refusal('duplicate_trace_id')
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
        return decisions.Refusal(reason, detail)
      trace = records.replace(trace, problem_id=repeated.problem_id)
    # Last: easy or hard, in the words that all sources share, where there is a rule for a source.
    difficulty = labels.classify_difficulty(trace) or trace.difficulty
    return records.replace(trace, difficulty=difficulty)


def _refuse_contaminated(match: contamination_lib.Match) -> decisions.Refusal:
  about = {
      'problem_id': match.problem_id,
      'method': match.method.value,
      'score': round(match.score, 4),
      'question_text': match.question_text,
      'problem_text': match.problem_text,
  }
  return decisions.Refusal(CONTAMINATED, json.dumps(about))


def write_contaminated(directory: pathlib.Path) -> None:
  """Writes contaminated.jsonl: each match with both texts, and its traces."""
  trace_ids: dict[str, list[str]] = {}
  for row in decisions.read_decisions(directory):
    if row.reason == CONTAMINATED:
      trace_ids.setdefault(row.detail, []).append(row.trace_id)
  rows = [{**json.loads(detail), 'trace_ids': ids} for detail, ids in trace_ids.items()]
  jsonl.write_rows(directory / 'contaminated.jsonl', rows)
