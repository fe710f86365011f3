"""Records survive their files; bad rows are named; a crash loses nothing."""

import gzip
import pathlib
import subprocess
import sys
import time

import hypothesis
from hypothesis import strategies as st
import msgspec
import pytest

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
    records.Partial,
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


def submission(sample_index: int) -> records.Submission:
  return msgspec.structs.replace(SUBMISSION, sample_index=sample_index)


def test_the_round_trip_below_leaves_no_record_out():
  drawn = 'Limits TestCase Program Problem Trace Completion Partial Submission' ' Judgement'
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
  records.write_rows(path, [record, record])
  assert list(records.read_rows(path, type(record))) == [record, record]


@hypothesis.given(record=every_record)
def test_a_record_is_one_line_whatever_its_texts_hold(record):
  assert b'\n' not in records.to_json(record)


def test_gzip_and_blank_lines_are_read(tmp_path):
  path = tmp_path / 'rows.jsonl.gz'
  line = records.to_json(SUBMISSION)
  path.write_bytes(gzip.compress(b'\n' + line + b'\n  \r\n' + line))
  rows = list(records.read_rows(path, records.Submission))
  assert rows == [SUBMISSION] * 2


def test_a_record_cannot_be_changed():
  with pytest.raises(AttributeError):
    SUBMISSION.source = '2'  # pyright: ignore[reportAttributeAccessIssue]


BAD_ROWS = {
    'a missing field': (b'{"problem_id":"p","sample_index":0}', '`source`'),
    'a wrong type': (b'{"problem_id":"p","sample_index":"0","source":""}', r'\$\.sample_index'),
    'an unknown field': (b'{"problem_id":"p","sample_index":0,"source":"","score":1}', '`score`'),
    'no JSON': (b'{"problem_id": p}', 'malformed'),
    'half a line': (b'{"problem_id":"p","samp', 'malformed'),
    'no UTF-8': (b'{"problem_id":"\xff","sample_index":0,"source":""}', 'UTF-8|utf-8'),
    'no object': (b'[1, 2]', 'object'),
}
bad_rows = pytest.mark.parametrize(('row', 'reason'), BAD_ROWS.values(), ids=BAD_ROWS.keys())


def _write_bad(path: pathlib.Path, row: bytes) -> None:
  good = records.to_json(SUBMISSION)
  path.write_bytes(b'\n'.join([good, row, good]) + b'\n')


@bad_rows
def test_a_bad_row_raises_with_file_line_field_and_remedy(tmp_path, row, reason):
  path = tmp_path / 'rows.jsonl'
  _write_bad(path, row)
  rows = records.read_rows(path, records.Submission)
  assert next(rows) == SUBMISSION
  said = rf'rows\.jsonl, line 2: not a valid Submission: .*({reason}).*remove'
  with pytest.raises(records.BadRowError, match=said):
    next(rows)


@bad_rows
def test_a_bad_row_goes_to_the_quarantine_and_reading_goes_on(tmp_path, row, reason):
  del reason
  path = tmp_path / 'rows.jsonl'
  _write_bad(path, row)
  quarantine = []
  rows = list(records.read_rows(path, records.Submission, quarantine))
  assert rows == [SUBMISSION] * 2
  [bad] = quarantine
  assert (bad['file'], bad['line']) == (str(path), 2)
  assert bad['reason']
  assert bad['row'].rstrip('\n') == row.decode('utf-8', 'replace')


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
  records.write_rows(path, [row])
  assert len(list(records.read_rows(path, records.Problem))) == 1
  records.write_rows(path, [row | change])
  with pytest.raises(records.BadRowError, match=f'line 1.*{names}'):
    list(records.read_rows(path, records.Problem))


# --- Appending. ---------------------------------------------------------------


@hypothesis.given(rows=st.lists(submissions, max_size=4), cut=st.integers(0, 10_000))
def test_whatever_the_cut_complete_rows_stay_and_torn_ones_go(scratch, rows, cut):
  path = scratch / 'torn.jsonl'
  records.write_rows(path, rows)
  whole = path.read_bytes()
  kept = whole[: cut % (len(whole) + 1)]
  path.write_bytes(kept)

  torn = records.repair_torn_tail(path)

  assert torn == len(kept) - (kept.rfind(b'\n') + 1)
  assert path.read_bytes() == kept[: len(kept) - torn]
  assert list(records.read_rows(path, records.Submission)) == rows[: kept.count(b'\n')]


@pytest.mark.parametrize('size', [65_535, 65_536, 65_537, 200_000])
def test_a_torn_tail_of_any_size_is_cut_off(tmp_path, size):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'{}\n' + b'x' * size)
  assert records.repair_torn_tail(path) == size
  assert path.read_bytes() == b'{}\n'
  path.write_bytes(b'x' * size)  # No complete row at all.
  assert records.repair_torn_tail(path) == size
  assert path.read_bytes() == b''


def test_an_absent_or_empty_file_has_no_torn_tail(tmp_path):
  assert records.repair_torn_tail(tmp_path / 'absent') == 0
  assert not (tmp_path / 'absent').exists()
  (tmp_path / 'empty').touch()
  assert records.repair_torn_tail(tmp_path / 'empty') == 0


def test_appending_goes_on_behind_the_last_complete_row(tmp_path):
  path = tmp_path / 'deep' / 'rows.jsonl'
  with records.Appender(path) as appender:
    appender.append(submission(0), submission(1))
  with open(path, 'ab') as f:
    f.write(records.to_json(submission(2))[:-5])
  with records.Appender(path) as appender:
    appender.append(submission(2))
  rows = list(records.read_rows(path, records.Submission))
  assert [row.sample_index for row in rows] == [0, 1, 2]


def test_a_row_is_in_the_file_when_append_returns(tmp_path):
  path = tmp_path / 'rows.jsonl'
  with records.Appender(path) as appender:
    for i in range(3):
      appender.append(submission(i))
      rows = list(records.read_rows(path, records.Submission))
      assert [row.sample_index for row in rows] == list(range(i + 1))


def _run_and_kill(program: str, path: pathlib.Path, until) -> int:
  """Runs the program, kills it soon after `until()`; returns what it said.

  The program prints a number after each write that has returned.
  """
  command = [sys.executable, '-c', program, str(path)]
  with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
    try:
      deadline = time.monotonic() + 30
      while not until():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    finally:
      process.kill()
    said = process.communicate()[0].split()
  return int(said[-1]) if said else -1


APPEND = """
import sys
from valley_jax import records
with records.Appender(sys.argv[1]) as appender:
  for i in range(10**9):
    # More than a pipe or a page holds, so that a kill can land in mid-write.
    row = records.Submission(
        problem_id='p', sample_index=i, source='x' * 300_000
    )
    appender.append(row)
    print(i, flush=True)
"""


def test_a_killed_appender_keeps_every_row_that_it_had_written(tmp_path):
  path = tmp_path / 'rows.jsonl'

  def has_grown() -> bool:
    return path.exists() and path.stat().st_size > 2_000_000

  written = _run_and_kill(APPEND, path, has_grown)
  records.repair_torn_tail(path)
  rows = list(records.read_rows(path, records.Submission))
  assert [row.sample_index for row in rows] == list(range(len(rows)))
  assert len(rows) > written


# --- Whole files. -------------------------------------------------------------

REWRITE = """
import itertools
import sys
from valley_jax import records
for i in itertools.count():
  records.write_atomically(sys.argv[1], f'{i % 10}' * 3_000_000)
  print(i, flush=True)
"""


def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path):
  path = tmp_path / 'whole'
  written = _run_and_kill(REWRITE, path, path.exists)
  text = path.read_text()
  assert len(text) == 3_000_000
  assert len(set(text)) == 1
  # The last that it told of, or the one that it was about to tell of.
  assert text[0] in {str(written % 10), str((written + 1) % 10)}


def test_a_reader_never_sees_half_a_file(tmp_path):
  path = tmp_path / 'whole'
  seen = []

  def has_been_read_often() -> bool:
    if path.exists():
      seen.append(path.read_text())
    return len(seen) == 10

  _run_and_kill(REWRITE, path, has_been_read_often)
  assert {(len(text), len(set(text))) for text in seen} == {(3_000_000, 1)}


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'whole'
  records.write_atomically(path, 'old')

  def fail(unused_descriptor):
    raise OSError('no space left')

  monkeypatch.setattr(records.os, 'fsync', fail)
  with pytest.raises(OSError, match='no space'):
    records.write_atomically(path, 'new')
  assert path.read_text() == 'old'


def test_text_bytes_and_json_are_written_as_they_are(tmp_path):
  path = tmp_path / 'deep' / 'file'
  records.write_atomically(path, 'ä\r\n')
  assert path.read_bytes() == 'ä\r\n'.encode()
  records.write_atomically(path, b'\xff')
  assert path.read_bytes() == b'\xff'
  records.write_json(path, {'b': (1, None), 'a': SUBMISSION})
  value = records.read_json(path)
  assert list(value) == ['b', 'a']
  assert value['a']['problem_id'] == 'p'
