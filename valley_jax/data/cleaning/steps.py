"""The steps that a trace goes through before it is kept; see `decisions.py`.

In this order: is its id new; has it texts, and do the filters keep it; is its question one of an
evaluation; does it, or its question, repeat an earlier one; and is it easy or hard, in the words
that all sources share.
"""

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
  """What any process can compute of a trace alone; most of the work of all steps."""

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


def build_steps(
    filters: filters_lib.Settings,
    duplicates: duplicates_lib.Settings,
    contamination: contamination_lib.Contamination | None,
) -> tuple[decisions.Look, list[decisions.Step]]:
  """Returns the look at a trace and the steps that it goes through."""
  sketcher = duplicates_lib.build_response_sketcher(duplicates)
  look = functools.partial(look_at_trace, filters_lib.build_filters(filters), sketcher)
  steps = [functools.partial(_refuse_repeated_id, set()), _refuse_unfit]
  # Before duplicates: traces that repeat a contaminated one are contaminated, too.
  if contamination:
    steps.append(functools.partial(_refuse_contaminated, contamination))
  if not duplicates.is_off:
    earlier = duplicates_lib.Duplicates(duplicates)
    steps.append(functools.partial(_refuse_or_merge_duplicate, earlier))
  return look, [*steps, _set_difficulty]


def _refuse_repeated_id(
    known_ids: set[str], trace: records.Trace, unused_look: Look
) -> records.Trace | decisions.Refusal:
  if trace.trace_id in known_ids:
    return decisions.Refusal('duplicate_trace_id')
  known_ids.add(trace.trace_id)
  return trace


def _refuse_unfit(trace: records.Trace, look: Look) -> records.Trace | decisions.Refusal:
  return look.refusal or trace


def _refuse_contaminated(
    contamination: contamination_lib.Contamination, trace: records.Trace, unused_look: Look
) -> records.Trace | decisions.Refusal:
  match = contamination.find_problem(trace.question)
  if match is None:
    return trace
  about = {
      'problem_id': match.problem_id,
      'method': match.method.value,
      'score': round(match.score, 4),
      'question_text': match.question_text,
      'problem_text': match.problem_text,
  }
  return decisions.Refusal(CONTAMINATED, json.dumps(about))


def _refuse_or_merge_duplicate(
    earlier: duplicates_lib.Duplicates, trace: records.Trace, look: Look
) -> records.Trace | decisions.Refusal:
  duplicate = earlier.check_trace(trace, look.sketch)
  if duplicate is None:
    return trace
  if duplicate.is_refused:
    reason = duplicate.kind.value.replace(' ', '_')
    detail = f'{duplicate.trace_id} ({duplicate.similarity:.2f})'
    return decisions.Refusal(reason, detail)
  return records.replace(trace, problem_id=duplicate.problem_id)


def _set_difficulty(trace: records.Trace, unused_look: Look) -> records.Trace:
  """Sets easy or hard, if there is a rule for the source."""
  difficulty = labels.classify_difficulty(trace) or trace.difficulty
  return records.replace(trace, difficulty=difficulty)


def write_contaminated(directory: pathlib.Path) -> None:
  """Writes contaminated.jsonl: each match with both texts, and its traces."""
  trace_ids: dict[str, list[str]] = {}
  for row in decisions.read_decisions(directory):
    if row.reason == CONTAMINATED:
      trace_ids.setdefault(row.detail, []).append(row.trace_id)
  rows = [{**json.loads(detail), 'trace_ids': ids} for detail, ids in trace_ids.items()]
  jsonl.write_rows(directory / 'contaminated.jsonl', rows)
