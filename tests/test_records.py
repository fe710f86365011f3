"""Every record survives its file; a problem that cannot be judged is a bad row."""

import pathlib

import hypothesis
from hypothesis import strategies as st
import pytest

from valley_jax import jsonl
from valley_jax import records

# Any text that JSON can carry: all of Unicode but lone surrogates.
texts = st.text(st.characters(exclude_categories=['Cs']), max_size=20)
names = texts.filter(bool)
counts = st.integers(0, 2**53)
reals = st.floats(allow_nan=False, allow_infinity=False)

limits = st.builds(
    records.Limits, cpu_seconds=st.none() | st.floats(0, 1e6), memory_mib=counts, output_kib=counts
)
test_cases = st.builds(records.TestCase, input=texts, expected=texts, is_sample=st.booleans())
programs = st.builds(
    records.Program,
    language=texts,
    files=st.dictionaries(names, texts, max_size=3),
    protocol=st.sampled_from(records.Protocol),
)
problems = st.builds(
    records.Problem,
    problem_id=names,
    statement=texts,
    tests=st.lists(test_cases, min_size=1, max_size=3).map(tuple),
    mode=st.sampled_from(records.Mode),
    entry_point=names,
    starter_code=texts,
    stub=texts,
    checker=texts,
    flags=st.lists(texts, max_size=3).map(tuple),
    program=programs,
    limits=limits,
    difficulty=texts,
    source=texts,
    platform=texts,
    date=texts,
    release=texts,
)
traces = st.builds(
    records.Trace,
    trace_id=texts,
    problem_id=texts,
    question=texts,
    response=texts,
    teacher=texts,
    is_correct=st.none() | st.booleans(),
)
completions = st.builds(
    records.Completion,
    problem_id=names,
    sample_index=counts,
    text=texts,
    finish_reason=st.sampled_from(records.FinishReason),
    num_prompt_tokens=counts,
    tokens=st.lists(counts, max_size=5).map(tuple),
    log_prob=reals,
    prompt_sha256=texts,
)
partials = st.builds(
    records.PartialCompletion,
    problem_id=names,
    sample_index=counts,
    tokens=st.lists(counts, max_size=5).map(tuple),
    log_prob=reals,
    log_prob_tempered=reals,
)
submissions = st.builds(
    records.Submission, problem_id=names, sample_index=counts, source=texts, language=texts
)
judgements = st.builds(
    records.Judgement,
    problem_id=names,
    sample_index=counts,
    verdict=st.sampled_from(records.Verdict),
    tests_passed=counts,
    num_tests=counts,
    first_failed=st.none() | counts,
    cpu_seconds=reals,
    wall_seconds=reals,
    memory_mib=reals,
    tier=texts,
    waivers=st.lists(texts, max_size=3).map(tuple),
    profile=st.sampled_from(records.Profile),
    calibration=reals,
    difference=texts,
    message=texts,
    digest=texts,
)
every_record = st.one_of(
    limits, test_cases, programs, problems, traces, completions, partials, submissions, judgements
)

SUBMISSION = records.Submission(problem_id='p', sample_index=0, source='1')


def test_the_round_trip_below_leaves_no_record_out():
  drawn = 'Limits TestCase Program Problem Trace Completion PartialCompletion Submission Judgement'
  declared = {record.__name__ for record in records.Record.__subclasses__()}
  elsewhere = {
      record.__name__
      for record in records.Record.__subclasses__()
      if record.__module__ != records.__name__
  }
  assert declared - elsewhere == set(drawn.split())


@pytest.fixture(scope='module')
def scratch(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('records')


@hypothesis.given(record=every_record)
def test_a_record_is_read_back_as_it_was_written(scratch, record):
  path = scratch / 'rows.jsonl'
  jsonl.write_rows(path, [record, record])
  assert list(jsonl.read_rows(path, type(record))) == [record, record]


@hypothesis.given(record=every_record)
def test_a_record_is_one_line_whatever_its_texts_hold(record):
  assert b'\n' not in records.to_json(record)


def test_a_record_cannot_be_changed():
  with pytest.raises(AttributeError):
    SUBMISSION.source = '2'  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ('change', 'names'),
    [
        ({'problem_id': ''}, 'problem_id'),
        ({'tests': []}, 'tests'),
        ({'mode': 'function'}, 'entry_point'),
        ({'mode': 'interactive'}, 'program'),
        ({'checker': 'program'}, 'program'),
    ],
)
def test_a_problem_that_could_not_be_judged_is_a_bad_row(tmp_path, change, names):
  row = {'problem_id': 'p', 'statement': 's', 'tests': [{'input': '1'}]}
  path = tmp_path / 'problems.jsonl'
  jsonl.write_rows(path, [row])
  assert len(list(jsonl.read_rows(path, records.Problem))) == 1
  jsonl.write_rows(path, [row | change])
  with pytest.raises(records.BadRowError, match=f'line 1.*{names}'):
    list(jsonl.read_rows(path, records.Problem))
