"""The columns of every source become the fields of a trace."""

import pathlib

import pytest

from tests import source_rows
from valley_jax import jsonl
from valley_jax import programs
from valley_jax import records
from valley_jax.data.sources import traces

QUESTIONS = str(pathlib.Path(__file__).parents[2] / 'fixtures/ocr2/questions')
SUM = 'You are given two integers a and b on one line. Print their sum.'
R1 = 'DeepSeek-R1'

# What is not by default; an id of 16 digits is a hash, checked below.
_WANTED = {
    'ocr1': dict(
        trace_id='00000000000000000000000000000001-',
        problem_id='00000000000000000000000000000001',
        question='Print the sum of two integers.',
        response=source_rows.RESPONSE,
        teacher=R1,
        difficulty='EASY',
        source='taco',
        split='train',
        license='cc-by-4.0',
        language='python',
    ),
    'ocr2': dict(
        trace_id='e3e70682-c209-4cac-a29f-6fbed82c07cd',
        problem_id='00000000000000000000000000000001',
        question=SUM,
        response=source_rows.RESPONSE,
        teacher=R1,
        difficulty='MEDIUM',
        source='taco',
        is_correct=True,
        split='train',
        license='mit',
        language='python',
        pass_rate=0.75,
    ),
    'openr1': dict(
        trace_id='chat-',
        problem_id='',
        question='Print the sum of two integers.',
        response=source_rows.RESPONSE,
        teacher=R1,
        source='open-r1/codeforces-cots',
        language='python',
    ),
    'openr1 math': dict(
        trace_id='chat-',
        problem_id='586fd646-76d6-5070-8c81-9993ab9d8559',
        question='What is 1 + 1?',
        response='<think>\nTwo.\n</think>\n\n2',
        teacher=R1,
        source='olympiads',
    ),
    'codeforces_cots': dict(
        trace_id='codeforces_cots-',
        problem_id='1/A',
        question=(
            'Add two integers.\n\nInput\n\nTwo integers.\n\nOutput\n\nTheir'
            ' sum.\n\nExamples\n\nInput\n\n1 2\n\nOutput\n\n3'
        ),
        response=source_rows.RESPONSE,
        teacher=R1,
        source='open-r1/codeforces',
        language='python',
    ),
    'chat': dict(
        trace_id='chat-',
        problem_id='7',
        question='Print the sum of two integers.',
        response=source_rows.RESPONSE,
        teacher='QwQ-32B',
        language='python',
    ),
    's1k': dict(
        trace_id='s1k-',
        problem_id='s1k-',
        question='What is 1 + 1?',
        response='<think>\nOne and one are two.\n</think>\n\n2',
        teacher='Gemini-Flash-Thinking',
        source='qq8933/AIME_1983_2024',
    ),
    's1k 1.1': dict(
        trace_id='s1k-',
        problem_id='s1k-',
        question='What is 1 + 1?',
        response='<think>\nHm, 1 + 1 is 3.\n</think>\n\n3',
        teacher=R1,
        source='qq8933/AIME_1983_2024',
        is_correct=False,
    ),
    'table': dict(
        trace_id='table-',
        problem_id='',
        question='Print the sum.',
        response=source_rows.RESPONSE,
        language='python',
    ),
    'math': dict(
        trace_id='table-',
        problem_id='',
        question='What is 1 + 1?',
        response='<think>\nOne and one are two.\n</think>\n\n2',
    ),
    'jsonl': source_rows.ROWS['jsonl'],
}
_WANTED['ocr1 split_1'] = _WANTED['ocr1'] | {'question': SUM}
_WANTED['ocr2 cpp'] = _WANTED['ocr2'] | {
    'trace_id': 'f728b4fa-4248-4e3a-8a5d-2f346baa9455',
    'response': source_rows.ROWS['ocr2 cpp']['r1_generation'].strip(),
    'is_correct': False,
    'language': 'cpp17',
}
del _WANTED['ocr2 cpp']['pass_rate']  # "-1"


def _read_source(source, questions=QUESTIONS):
  quarantine = []
  return list(traces.read_traces([source], questions, quarantine)), quarantine


def _read_one_trace(source):
  (trace,), quarantine = _read_source(source)
  assert not quarantine
  return trace


@pytest.mark.parametrize('suffix', ['jsonl', 'parquet'])
@pytest.mark.parametrize('name', source_rows.ROWS)
def test_the_columns_become_the_fields_of_a_trace(tmp_path, name, suffix):
  path = source_rows.write_rows(tmp_path / f'x.{suffix}', source_rows.ROWS[name])
  parsed = source_rows.list_changed_fields(_read_one_trace(f'{name.split()[0]}:{path}'))
  wanted = dict(_WANTED[name])
  for field in ('trace_id', 'problem_id'):
    if wanted[field].endswith('-') or not wanted[field]:
      hashed = parsed.pop(field).removeprefix(wanted.pop(field))
      assert len(bytes.fromhex(hashed)) == 8
  assert parsed == wanted


def test_gemini_is_read_of_both_s1ks_when_it_is_asked_for(tmp_path):
  for name in ('s1k', 's1k 1.1'):
    path = source_rows.write_rows(tmp_path / 'x.jsonl', source_rows.ROWS[name])
    trace = _read_one_trace(f's1k_gemini:{path}')
    assert trace.teacher == 'Gemini-Flash-Thinking'
    assert trace.response == '<think>\nOne and one are two.\n</think>\n\n2'
    assert trace.is_correct is (True if name == 's1k 1.1' else None)


@pytest.mark.parametrize('name', ['ocr1', 'chat', 's1k', 'table'])
def test_a_hashed_id_tells_responses_apart_wherever_they_stand(tmp_path, name):
  row = source_rows.ROWS[name]
  other = source_rows.encode_row(row).replace(b'```', b'~~~').replace(b'One ', b'1 ')
  a = source_rows.write_rows(tmp_path / 'a.jsonl', row, other, row)
  b = source_rows.write_rows(tmp_path / 'b.parquet', row)
  first, second, again = _read_source(f'{name}:{a}')[0]
  assert first.problem_id == second.problem_id
  assert first.trace_id != second.trace_id
  assert first.trace_id == again.trace_id == _read_one_trace(f'{name}:{b}').trace_id


@pytest.mark.parametrize(
    'spec',
    [
        'table/prompt=q/response=a',
        'table/prompt=q/thinking=t/response=b/id=n/license=l',
        'math/question=q',
        'table/prompt=q/response=q',
        'table/prompt=',
        'table/prompt',
        'table/thinking=response',
    ],
)
def test_a_table_has_the_columns_that_it_is_said_to_have(tmp_path, spec):
  row = dict(q='Why?', a='<think>x</think>So.', t='x', b='So.', n=3, l='mit')
  path = source_rows.write_rows(tmp_path / 'x.jsonl', row)
  if 'id=n' in spec:
    trace = _read_one_trace(f'{spec}:{path}')
    assert trace.response == '<think>\nx\n</think>\n\nSo.'
    assert (trace.trace_id, trace.license) == ('3', 'mit')
  elif spec.endswith('response=a'):
    assert _read_one_trace(f'{spec}:{path}').response == row['a']
  else:
    with pytest.raises(ValueError, match=f"'{spec}:.*(want FIELD|one a field)"):
      _read_source(f'{spec}:{path}')


def test_a_column_serves_one_field(tmp_path):
  path = source_rows.write_rows(tmp_path / 'x.jsonl', {'prompt': 'a', 'response': 'b', 'id': 'p'})
  trace = _read_one_trace(f'table/problem=id:{path}')
  assert trace.problem_id == 'p'
  assert trace.trace_id.startswith('table-')


def test_the_mini_world_is_read_by_its_directory(tmp_path):
  trace = records.Trace(trace_id='a', problem_id='p', question='Why?', response='So.')
  jsonl.write_rows(tmp_path / 'train_traces.jsonl', [trace])
  jsonl.write_rows(tmp_path / 'base_traces.jsonl', [trace, trace])
  assert _read_one_trace(f'mini:{tmp_path}') == trace
  file = tmp_path / 'train_traces.jsonl'
  assert _read_one_trace(f'mini:{file}') == trace
  assert traces.hash_source(f'mini:{tmp_path}') == traces.hash_source(f'mini:{file}')


def test_a_null_of_parquet_is_a_column_that_is_left_out(tmp_path):
  row = source_rows.ROWS['jsonl']
  short = {k: v for k, v in row.items() if k != 'language'}
  path = source_rows.write_rows(tmp_path / 'x.parquet', row, short)
  (first, second), quarantine = _read_source(f'jsonl:{path}')
  assert not quarantine
  assert (first.language, second.language) == ('cpp17', '')


_UNUSABLE = {
    'no turns': ('chat', {'messages': []}, 'turns are none; want user'),
    'two questions': (
        'chat',
        {'messages': source_rows.ROWS['openr1']['messages'] * 2},
        'turns are user, assistant, user, assistant; want',
    ),
    'no answer yet': (
        'chat',
        {'messages': source_rows.ROWS['openr1']['messages'][:1]},
        'turns are user; want user, assistant',
    ),
    'thinks twice': (
        'chat',
        {
            'messages': [
                {'role': 'user', 'content': 'a'},
                {'role': 'assistant', 'content': source_rows.RESPONSE, 'reasoning_content': 'Hm.'},
            ]
        },
        'thinks both inline and apart',
    ),
    'no statement': ('codeforces_cots', {'description': None}, 'is empty'),
    'no thought': ('s1k', {'thinking_trajectories': []}, 'of Gemini'),
    'no attempt': ('s1k 1.1', {'deepseek_attempt': None}, 'of DeepSeek'),
    'pass rate': ('ocr2', {'pass_rate': 'nan'}, "pass_rate 'nan' is neither"),
    'rate over 1': ('ocr2', {'pass_rate': '75'}, "pass_rate '75' is neither"),
    'digits': ('ocr2', {'index': '1' * 5000}, 'is none of the 4 rows'),
    'climbing': ('ocr2', {'split': '../taco/train.jsonl'}, 'no local copy'),
    'no index': ('ocr1', {'input': '-'}, "index '' is none"),
    'long label': ('ocr2', {'license': 'x' * 1001}, '1,001 characters'),
    'NUL in label': ('ocr2', {'license': 'a\0'}, 'license contains a NUL'),
    'empty id': ('ocr1', {'id': ''}, 'trace_id is empty'),
}


@pytest.mark.parametrize(('name', 'changes', 'reason'), _UNUSABLE.values(), ids=_UNUSABLE)
def test_a_row_that_is_no_trace_is_named(tmp_path, name, changes, reason):
  row = source_rows.ROWS[name] | changes
  path = source_rows.write_rows(tmp_path / 'x.jsonl', row)
  parsed, (bad,) = _read_source(f'{name.split()[0]}:{path}')
  assert not parsed
  assert reason in bad['reason']
  assert (bad['file'], bad['line']) == (str(path), 1)


@pytest.mark.parametrize('chars', [4_000_000, 10_000_000])
def test_texts_that_no_student_could_read_are_refused(tmp_path, chars):
  row = source_rows.ROWS['table'] | {'response': 'x' * chars}
  path = source_rows.write_rows(tmp_path / 'x.jsonl', row, source_rows.ROWS['table'])
  parsed, quarantine = _read_source(f'table:{path}')
  assert len(parsed) + len(quarantine) == 2
  if chars > traces.MAX_CHARS:
    (bad,) = quarantine
    assert '10,000,000 characters, over 4,000,000' in bad['reason']
    assert len(bad['row']) <= 1000


_PYTHON = '```python\nprint(1)\n```'


@pytest.mark.parametrize(
    ('response', 'language'),
    [
        (f'{_PYTHON}\nIt prints:\n```text\n1\n```', 'python'),
        (f'{_PYTHON}\n```cpp20\nint main() {{}}\n```', 'cpp20'),
        ('```c\nint main() {}\n```', 'c'),
        (f'<think>{_PYTHON}</think>So.', ''),
    ],
)
def test_a_trace_s_language_is_that_of_the_program_that_is_judged(tmp_path, response, language):
  row = {'prompt': 'Why?', 'response': response}
  path = source_rows.write_rows(tmp_path / 'x.jsonl', row)
  trace = _read_one_trace(f'table:{path}')
  assert trace.language == language
  assert programs.extract_from_trace(trace)[0] == (language or 'python')


def test_a_language_has_the_names_that_blocks_have(tmp_path):
  names = ('Python3', 'pypy3', 'C', 'C++20', 'cpp', 'java')
  rows = [{'prompt': 'Why?', 'response': 'So.', 'language': name} for name in names]
  path = source_rows.write_rows(tmp_path / 'x.jsonl', *rows)
  parsed, _ = _read_source(f'table:{path}')
  assert [trace.language for trace in parsed] == [
      'python', 'python', 'c', 'cpp20', 'cpp17', ''
  ]  # fmt: skip
