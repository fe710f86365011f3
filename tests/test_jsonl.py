"""Bad rows are named, a crash loses nothing, and a whole file is the old one or the new."""

import gzip
import os
import pathlib
import subprocess
import sys
import time

import hypothesis
from hypothesis import strategies as st
import pytest

from valley_jax import jsonl
from valley_jax import records

SUBMISSION = records.Submission(problem_id='p', sample_index=0, source='1')


def make_submission(sample_index: int) -> records.Submission:
  return records.replace(SUBMISSION, sample_index=sample_index)


@pytest.fixture(scope='module')
def scratch(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('jsonl')


def test_gzip_and_blank_lines_are_read(tmp_path):
  path = tmp_path / 'rows.jsonl.gz'
  line = records.to_json(SUBMISSION)
  path.write_bytes(gzip.compress(b'\n' + line + b'\n  \r\n' + line))
  rows = list(jsonl.read_rows(path, records.Submission))
  assert rows == [SUBMISSION] * 2


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


def _write_bad_row(path: pathlib.Path, row: bytes) -> None:
  good = records.to_json(SUBMISSION)
  path.write_bytes(b'\n'.join([good, row, good]) + b'\n')


@bad_rows
def test_a_bad_row_raises_with_file_line_field_and_remedy(tmp_path, row, reason):
  path = tmp_path / 'rows.jsonl'
  _write_bad_row(path, row)
  rows = jsonl.read_rows(path, records.Submission)
  assert next(rows) == SUBMISSION
  message = rf'rows\.jsonl, line 2: not a valid Submission: .*({reason}).*remove'
  with pytest.raises(records.BadRowError, match=message):
    next(rows)


# --- Appending. ---------------------------------------------------------------


submissions = st.builds(
    records.Submission,
    problem_id=st.just('p'),
    sample_index=st.integers(0, 2**53),
    source=st.text(st.characters(exclude_categories=['Cs']), max_size=20),
)


@hypothesis.given(rows=st.lists(submissions, max_size=4), cut=st.integers(0, 10_000))
def test_whatever_the_cut_complete_rows_stay_and_torn_ones_go(scratch, rows, cut):
  path = scratch / 'torn.jsonl'
  jsonl.write_rows(path, rows)
  whole = path.read_bytes()
  kept = whole[: cut % (len(whole) + 1)]
  path.write_bytes(kept)

  torn = jsonl.repair_torn_tail(path)

  assert torn == len(kept) - (kept.rfind(b'\n') + 1)
  assert path.read_bytes() == kept[: len(kept) - torn]
  assert list(jsonl.read_rows(path, records.Submission)) == rows[: kept.count(b'\n')]


@pytest.mark.parametrize('size', [65_535, 65_536, 65_537, 200_000])
def test_a_torn_tail_of_any_size_is_cut_off(tmp_path, size):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'{}\n' + b'x' * size)
  assert jsonl.repair_torn_tail(path) == size
  assert path.read_bytes() == b'{}\n'
  path.write_bytes(b'x' * size)  # No complete row at all.
  assert jsonl.repair_torn_tail(path) == size
  assert path.read_bytes() == b''


def test_an_absent_or_empty_file_has_no_torn_tail(tmp_path):
  assert jsonl.repair_torn_tail(tmp_path / 'absent') == 0
  assert not (tmp_path / 'absent').exists()
  (tmp_path / 'empty').touch()
  assert jsonl.repair_torn_tail(tmp_path / 'empty') == 0


def test_appending_continues_after_the_last_complete_row(tmp_path):
  path = tmp_path / 'deep' / 'rows.jsonl'
  with jsonl.Appender(path) as appender:
    appender.append(make_submission(0), make_submission(1))
  with open(path, 'ab') as f:
    f.write(records.to_json(make_submission(2))[:-5])
  with jsonl.Appender(path) as appender:
    appender.append(make_submission(2))
  rows = list(jsonl.read_rows(path, records.Submission))
  assert [row.sample_index for row in rows] == [0, 1, 2]


def test_a_row_is_in_the_file_when_append_returns(tmp_path):
  path = tmp_path / 'rows.jsonl'
  with jsonl.Appender(path) as appender:
    for i in range(3):
      appender.append(make_submission(i))
      rows = list(jsonl.read_rows(path, records.Submission))
      assert [row.sample_index for row in rows] == list(range(i + 1))


def _run_and_kill(program: str, path: pathlib.Path, until) -> int:
  """Runs the program, kills it soon after `until()`; returns the last number it printed.

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
    printed = process.communicate()[0].split()
  return int(printed[-1]) if printed else -1


APPEND = """
import sys
from valley_jax import jsonl
from valley_jax import records
with jsonl.Appender(sys.argv[1]) as appender:
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
  jsonl.repair_torn_tail(path)
  rows = list(jsonl.read_rows(path, records.Submission))
  assert [row.sample_index for row in rows] == list(range(len(rows)))
  assert len(rows) > written


# --- Whole files. -------------------------------------------------------------

REWRITE = """
import itertools
import sys
from valley_jax import jsonl
for i in itertools.count():
  jsonl.write_atomically(sys.argv[1], f'{i % 10}' * 3_000_000)
  print(i, flush=True)
"""


def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path):
  path = tmp_path / 'whole'
  written = _run_and_kill(REWRITE, path, path.exists)
  text = path.read_text()
  assert len(text) == 3_000_000
  assert len(set(text)) == 1
  # The last number printed, or the next one, which was about to be printed.
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
  jsonl.write_atomically(path, 'old')

  def fail(unused_descriptor):
    raise OSError('no space left')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match='no space'):
    jsonl.write_atomically(path, 'new')
  assert path.read_text() == 'old'


def test_text_bytes_and_json_are_written_as_they_are(tmp_path):
  path = tmp_path / 'deep' / 'file'
  jsonl.write_atomically(path, 'ä\r\n')
  assert path.read_bytes() == 'ä\r\n'.encode()
  jsonl.write_atomically(path, b'\xff')
  assert path.read_bytes() == b'\xff'
  jsonl.write_json(path, {'b': (1, None), 'a': SUBMISSION})
  value = jsonl.read_json(path)
  assert list(value) == ['b', 'a']
  assert value['a']['problem_id'] == 'p'
