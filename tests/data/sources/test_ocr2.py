"""Every row of OCR-2 becomes a trace, or is named with the reason."""

import json
import pathlib
import re

import pytest

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.sources import ocr
from valley_jax.data.sources import rows
from valley_jax.data.sources import traces

OCR2 = pathlib.Path(__file__).parents[2] / 'fixtures' / 'ocr2'
QUESTIONS = str(OCR2 / 'questions')
ROWS = [json.loads(line) for line in (OCR2 / 'python.jsonl').read_text().splitlines()[:3]]


def _write_file(path, *lines):
  """Writes rows, as JSON if they are not bytes."""
  data = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
  path.write_bytes(b'\n'.join(data) + b'\n')
  return path


def _read_source(source, copies=QUESTIONS):
  quarantine = []
  return list(traces.read_traces(source, copies, quarantine)), quarantine


def _make_trace(**changes):
  values = dict(trace_id='a', problem_id='p', question='Why?', response='So.')
  return records.Trace(**{**values, **changes})


def test_each_row_of_the_file_is_read_or_quarantined_with_its_line():
  path = OCR2 / 'python.jsonl'
  lines = path.read_text().splitlines()
  parsed, quarantine = _read_source(f'ocr2:{path}')
  assert len(parsed) + len(quarantine) == sum(map(bool, lines))
  assert {bad['file'] for bad in quarantine} == {str(path)}
  bad = {row['line'] for row in quarantine}
  kept = [
      json.loads(line)['id']
      for number, line in enumerate(lines, start=1)
      if line and number not in bad
  ]
  assert [trace.trace_id for trace in parsed] == kept


def test_a_codeforces_statement_is_put_together_as_ocr2_does():
  copies = ocr.QuestionCopies(QUESTIONS)
  assert copies.look_up('open-r1/codeforces', 'train', '0') == (
      'Vasya writes the numbers from 1 to n one after another. How many digits'
      ' does he write?\n\nInput\n\nA single integer n (1 ≤ n ≤ $10^9$).\n\n'
      'Output\n\nPrint the number of digits.\n\nExamples\n\nInput\n\n13\n\n'
      'Output\n\n17\n\nInput\n\n4\n\nOutput\n\n4\n\nNote\n\nIn the first'
      ' example he writes 12345678910111213.'
  )


@pytest.mark.parametrize(
    ('dataset', 'index', 'start'),
    [
        ('taco', '2', 'Read a word and print it backwards.\n\nExample'),
        ('apps', '0', 'Polycarp has n coins.'),
        ('code_contests', '2', 'A café sells naïve “specials” at x €'),
        ('open-r1/codeforces', '1', 'Is the string a palindrome?\n\nInput'),
    ],
)
def test_a_question_is_looked_up_in_its_own_set(dataset, index, start):
  copies = ocr.QuestionCopies(QUESTIONS)
  assert copies.look_up(dataset, 'train', index).startswith(start)


def test_a_question_that_is_there_is_not_looked_up(tmp_path):
  path = _write_file(tmp_path / 'x.jsonl', {**ROWS[0], 'question': 'Why?'})
  (trace,), _ = _read_source(f'ocr2:{path}', copies='')
  assert trace.question == 'Why?'


@pytest.mark.parametrize(
    ('said', 'rate'),
    [('0.98', 0.98), ('1', 1.0), (' 0 ', 0.0), ('-1', None), ('-1.00', None), ('', None)],
)
def test_the_pass_rate_is_the_number_that_stands_there(tmp_path, said, rate):
  path = _write_file(tmp_path / 'x.jsonl', {**ROWS[0], 'pass_rate': said})
  (trace,), _ = _read_source(f'ocr2:{path}')
  assert trace.pass_rate == rate


@pytest.mark.parametrize(
    ('judgement', 'is_correct'),
    [
        ('right', True),
        ('wrong', False),
        ('Right', True),
        (' WRONG\n', False),
        ('', None),
        ('unsure', None),
    ],
)
def test_the_judgement_is_kept(tmp_path, judgement, is_correct):
  path = _write_file(tmp_path / 'x.jsonl', {**ROWS[0], 'judgement': judgement})
  (trace,), _ = _read_source(f'ocr2:{path}')
  assert trace.is_correct is is_correct


_BAD = {
    'index is no row': ({**ROWS[0], 'index': '99'}, "'99' is none of the 4"),
    'index below 0': ({**ROWS[0], 'index': '-1'}, "'-1' is none of the 4"),
    'index no number': ({**ROWS[0], 'index': '²'}, "'²' is none of the 4"),
    'set unknown': ({**ROWS[0], 'dataset': 'x'}, "'x' is none of taco, apps"),
    'no local copy': ({**ROWS[0], 'split': 'test'}, 'no local copy .*test'),
    'wrong type': ({**ROWS[0], 'index': 0}, r'Expected `str`.*\$\.index'),
    'null': ({**ROWS[0], 'r1_generation': None}, r'\$\.r1_generation'),
    'missing key': (
        {k: v for k, v in ROWS[0].items() if k != 'split'},
        'missing required field `split`',
    ),
    'empty id': ({**ROWS[0], 'id': ''}, 'trace_id is empty'),
    'NUL in text': ({**ROWS[0], 'r1_generation': 'a\0b'}, 'NUL'),
    'NUL in file': (b'\0' * 64, 'malformed'),
    'lone surrogate': (b'{"id": "\\ud800"}', '.'),
    'not UTF-8': (b'{"id": "\xff"}', 'utf-8'),
    'cut off': (json.dumps(ROWS[0]).encode()[:99], 'truncated'),
    'not JSON': (b'id,question\n', 'malformed'),
    'not an object': (b'["id"]', 'Expected `object`'),
    'two in a line': (json.dumps(ROWS[0]).encode() * 2, 'trailing'),
    'too deep': (b'{"x": ' + b'[' * 100_000, 'recursion'),
}


@pytest.mark.parametrize(('bad', 'reason'), _BAD.values(), ids=_BAD)
def test_a_bad_row_is_quarantined_and_the_good_ones_are_kept(tmp_path, bad, reason):
  path = _write_file(tmp_path / 'x.jsonl', ROWS[1], b'', bad, ROWS[2])
  parsed, (named,) = _read_source(f'ocr2:{path}')
  assert [t.trace_id for t in parsed] == [ROWS[1]['id'], ROWS[2]['id']]
  assert named['file'] == str(path)
  assert named['line'] == 3
  assert re.search(reason, named['reason'], re.IGNORECASE)
  assert named['row']


@pytest.mark.parametrize('copies', ['', 'nowhere'])
def test_without_local_copies_the_first_row_says_what_to_name(copies):
  with pytest.raises(ValueError, match=f"questions='{copies}' is no directory"):
    _read_source(f'ocr2:{OCR2}/python.jsonl', copies=copies)


def test_rows_with_questions_of_their_own_need_no_local_copies(tmp_path):
  path = _write_file(tmp_path / 'x.jsonl', ROWS[1] | {'question': 'Why?'})
  (trace,), _ = _read_source(f'ocr2:{path}', copies='')
  assert trace.question == 'Why?'


def test_a_local_copy_with_a_bad_row_is_refused_as_a_whole(tmp_path):
  (tmp_path / 'taco').mkdir()
  _write_file(tmp_path / 'taco' / 'train.jsonl', {'question': 'A'}, b'{', b'{}')
  with pytest.raises(records.BadRowError, match='train.jsonl, line 2'):
    _read_source(f'ocr2:{OCR2}/python.jsonl', copies=str(tmp_path))


def test_our_own_traces_come_back_as_they_were_written(tmp_path):
  rows = [_make_trace(), _make_trace(trace_id='b', response=' \n<think>é', teacher='T')]
  jsonl.write_rows(tmp_path / 'x.jsonl', rows)
  assert _read_source(f'jsonl:{tmp_path}/x.jsonl') == (rows, [])


def test_a_bad_row_of_our_own_is_quarantined_too(tmp_path):
  good = records.to_json(_make_trace())
  path = _write_file(tmp_path / 'x.jsonl', b'{}', good, {'trace_id': 1})
  parsed, quarantine = _read_source(f'jsonl:{path}')
  assert parsed == [_make_trace()]
  assert [bad['line'] for bad in quarantine] == [1, 3]
  assert '`trace_id`' in quarantine[0]['reason']


@pytest.mark.parametrize('source', ['', 'x.jsonl', 'csv:x', 'OCR2:x', 'ocr2', 'ocr2/id=x:x'])
def test_an_unknown_format_names_the_known_ones(source):
  with pytest.raises(ValueError, match='want FORMAT:PATH .* ocr1, ocr2'):
    _read_source(source)


def test_an_index_just_behind_the_last_row_is_unusable(tmp_path):
  (tmp_path / 'taco').mkdir()
  _write_file(tmp_path / 'taco' / 'train.jsonl', {'question': 'A'})
  copies = ocr.QuestionCopies(str(tmp_path))
  assert copies.look_up('taco', 'train', '0') == 'A'
  with pytest.raises(rows.UnusableRowError, match="index '1' is none of the 1 "):
    copies.look_up('taco', 'train', '1')
