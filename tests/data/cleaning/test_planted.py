"""What is planted in 2,000 rows is found, and little else."""

import collections
import functools

import pytest

from tests import planted
from valley_jax.data.cleaning import contamination
from valley_jax.data.cleaning import duplicates
from valley_jax.data.sources import traces
from valley_jax.runtime import config_groups


@functools.cache
def _plant_rows() -> planted.Planted:
  return planted.plant(seed=0)


@pytest.fixture(scope='module')
def read(tmp_path_factory):
  """Traces and quarantine of the planted rows, read as `shard` reads them."""
  path = tmp_path_factory.mktemp('planted') / 'traces.jsonl'
  path.write_bytes(b'\n'.join(_plant_rows().lines) + b'\n')
  quarantine = []
  return list(traces.read_traces(f'jsonl:{path}', '', quarantine)), quarantine


@pytest.fixture(scope='module')
def matches(read):
  """Trace id -> what `Duplicates` says, and what `Contamination` says."""
  index = duplicates.Duplicates(
      duplicates.Settings.from_config(config_groups.get_duplicates_group())
  )
  settings = contamination.Settings.from_config(config_groups.get_contamination_group())
  problems = contamination.Contamination(_plant_rows().problems, settings)
  return (
      {trace.trace_id: index.check_trace(trace) for trace in read[0]},
      {trace.trace_id: problems.find_problem(trace.question) for trace in read[0]},
  )


def _print_recall(name: str, expected: set, got: set) -> None:
  """Prints recall and precision, with the ids that spoil them."""
  hits = expected & got
  print(
      f'{name}: {len(expected)} planted, {len(hits)} found, {len(got - hits)}'
      f' false; missed {sorted(expected - got)}, false {sorted(got - hits)}'
  )


def test_there_are_2000_rows_of_which_every_malformed_one_is_quarantined(read):
  rows, quarantine = read
  bad = {row['line'] for row in quarantine}
  _print_recall('malformed', _plant_rows().malformed, bad)
  assert len(_plant_rows().lines) == len(rows) + len(quarantine) == 2000
  assert len(_plant_rows().malformed) == 30 and bad == _plant_rows().malformed
  assert all(row['reason'] for row in quarantine)


def test_every_repeated_trace_is_refused_for_the_one_that_it_repeats(matches):
  refused = {
      name: duplicate.trace_id
      for name, duplicate in matches[0].items()
      if duplicate and duplicate.is_refused
  }
  _print_recall('traces', set(_plant_rows().repeated), set(refused))
  assert len(_plant_rows().repeated) == 24
  assert refused == _plant_rows().repeated


def test_only_what_is_not_changed_or_respaced_is_called_exact(matches):
  for name in _plant_rows().repeated:
    kind = matches[0][name].kind
    exact = duplicates.Kind.EXACT_TRACE
    assert (kind is exact) == (not name.endswith('edited')), name


def test_every_question_under_another_name_gets_its_first_name(matches):
  merged = {
      name: duplicate.problem_id
      for name, duplicate in matches[0].items()
      if duplicate and not duplicate.is_refused
  }
  expected = {
      f'question-{problem.split("-")[1]}': of
      for problem, of in _plant_rows().same_question.items()
      if not problem.startswith('other-problem')
  }
  _print_recall('questions', set(expected), set(merged))
  assert len(expected) == 16 and merged == expected


def test_every_contaminated_question_is_found_with_its_problem(matches):
  got = {name: match for name, match in matches[1].items() if match}
  by_edit = collections.Counter(
      (edit, got[name].method.value if name in got else 'missed')
      for name, (_, edit) in _plant_rows().contaminated.items()
  )
  _print_recall('contaminated', set(_plant_rows().contaminated), set(got))
  print(dict(by_edit))
  assert len(_plant_rows().contaminated) == 25
  assert {name: match.problem_id for name, match in got.items()} == {
      name: problem for name, (problem, _) in _plant_rows().contaminated.items()
  }
