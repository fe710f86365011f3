"""The steps that a trace goes through before it is kept; see `decisions.py`.

In this order: its filters; is its question one of an evaluation; was it, or its
question, there before; and is it easy or hard, in the words of all sources.
"""

import functools
import json
import pathlib

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.cleaning import contamination as contamination_lib
from valley_jax.data.cleaning import decisions
from valley_jax.data.cleaning import duplicates as duplicates_lib
from valley_jax.data.cleaning import filters as filters_lib
from valley_jax.data.cleaning import minhash
from valley_jax.data.subsets import labels

CONTAMINATED = 'contaminated'


def filtered(filters: tuple[filters_lib.Filter, ...]) -> decisions.Step:
  """Returns a step that refuses by the first filter's name."""
  return decisions.pure(functools.partial(_filter, filters))


def _filter(
    filters: tuple[filters_lib.Filter, ...], trace: records.Trace
) -> records.Trace | decisions.Refusal:
  reason = filters_lib.refusal(trace, filters)
  return decisions.Refusal(reason) if reason else trace


def decontaminated(contamination: contamination_lib.Contamination) -> decisions.Step:
  """Returns a step that refuses questions of an evaluation.

  Before duplicates are looked for: what repeats a trace that is refused here is
  refused here, too.
  """

  def step(trace: records.Trace) -> records.Trace | decisions.Refusal:
    match = contamination.check(trace.question)
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

  return step


def first_of_duplicates(duplicates: duplicates_lib.Duplicates) -> decisions.Step:
  """Returns a step that keeps the first, or shares its problem id."""

  def step(
      trace: records.Trace, sketch: minhash.Sketch | None
  ) -> records.Trace | decisions.Refusal:
    found = duplicates.check(trace, sketch)
    if found is None:
      return trace
    if found.is_refused:
      reason = found.kind.value.replace(' ', '_')
      return decisions.Refusal(reason, f'{found.of} ({found.similarity:.2f})')
    return records.replace(trace, problem_id=found.problem_id)

  return decisions.LookingStep(duplicates.look, step)


def with_difficulty(trace: records.Trace) -> records.Trace:
  """A step: easy or hard, where there is a rule for the source."""
  difficulty = labels.difficulty(trace) or trace.difficulty
  return records.replace(trace, difficulty=difficulty)


def write_contaminated(directory: pathlib.Path) -> None:
  """Writes contaminated.jsonl: each match with both texts, and its traces."""
  found: dict[str, list[str]] = {}
  for row in decisions.read_rows(directory):
    if row.reason == CONTAMINATED:
      found.setdefault(row.detail, []).append(row.trace_id)
  rows = [{**json.loads(d), 'trace_ids': ids} for d, ids in found.items()]
  jsonl.write_rows(directory / 'contaminated.jsonl', rows)
