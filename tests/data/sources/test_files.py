"""A source is a file, a glob or a directory, packed or not, here or remote."""

import gzip
import hashlib
import pathlib
import random
import tracemalloc

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests import source_rows
from valley_jax import records
from valley_jax.data.sources import ocr
from valley_jax.data.sources import rows
from valley_jax.data.sources import traces

OCR2 = pathlib.Path(__file__).parents[2] / 'fixtures' / 'ocr2'
SUFFIXES = ['jsonl', 'jsonl.gz', 'jsonl.zst', 'parquet']
ROWS = source_rows.copy_row('table', 5)


def _read_source(*sources, copies=''):
  quarantine = []
  return list(traces.read_traces(sources, copies, quarantine)), quarantine


def _list_numbers(parsed):
  return [int(trace.response[-5:]) for trace in parsed]


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_file_is_read_by_its_suffix(tmp_path, suffix):
  path = source_rows.write_rows(tmp_path / f'x.{suffix}', *ROWS)
  parsed, quarantine = _read_source(f'table:{path}')
  assert not quarantine
  assert _list_numbers(parsed) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('path', ['', '*', 'p*.jsonl', '**/part-*'])
def test_files_of_a_directory_or_a_glob_are_read_by_name(tmp_path, path):
  for name in ('part-1.jsonl', 'part-0.jsonl', 'part-2.jsonl'):
    source_rows.write_rows(tmp_path / name, ROWS[int(name[5])])
  if not path:  # What is no data is left alone, and so is what is below.
    (tmp_path / 'README.md').write_text('{}')
    (tmp_path / '.part-3.jsonl').write_text('{}')
    source_rows.write_rows(tmp_path / 'below' / 'part-4.jsonl', ROWS[4])
  parsed, quarantine = _read_source(f'table:{tmp_path}/{path}')
  assert not quarantine
  assert _list_numbers(parsed) == [0, 1, 2]


def test_sources_are_read_in_the_order_in_which_they_are_given(tmp_path):
  a = source_rows.write_rows(tmp_path / 'a.jsonl', *ROWS[:2])
  b = source_rows.write_rows(tmp_path / 'b.parquet', *ROWS[2:])
  parsed, _ = _read_source(f'table:{b}', f'table:{a}')
  assert _list_numbers(parsed) == [2, 3, 4, 0, 1]


@pytest.mark.parametrize(
    ('given', 'wanted'),
    [
        ('a:b', ('a:b',)),
        ('[a:b]', ('a:b',)),
        ('[\'a:b\', "c:d",]', ('a:b', 'c:d')),
        (['a:b', 'c:d,e'], ('a:b', 'c:d,e')),
        ('[]', ()),
    ],
)
def test_sources_of_a_flag_are_one_or_a_list(given, wanted):
  assert traces.parse_sources(given) == wanted


def test_no_source_is_an_error():
  with pytest.raises(ValueError, match='names no source; want FORMAT:PATH'):
    list(traces.read_traces([], '', []))


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('scheme', ['memory', 'file'])
def test_remote_files_are_read_like_local_ones(tmp_path, scheme, suffix):
  local = source_rows.write_rows(tmp_path / f'x-1.{suffix}', *ROWS)
  root = f'{scheme}://{tmp_path}/remote'
  with fsspec.open(f'{root}/x-1.{suffix}', 'wb', auto_mkdir=True) as f:
    f.write(local.read_bytes())
  wanted, _ = _read_source(f'table:{local}')
  for path in (f'{root}/x-1.{suffix}', f'{root}/x-*', root, f'{root}/'):
    parsed, quarantine = _read_source(f'table:{path}')
    assert not quarantine
    assert parsed == wanted
    assert traces.hash_source(f'table:{path}') == traces.hash_source(f'table:{local}')


def test_a_bad_remote_row_is_named_with_its_address():
  with fsspec.open('memory://bad/x.jsonl', 'wb') as f:
    f.write(b'{\n')
  _, (bad,) = _read_source('table:memory://bad/*.jsonl')
  assert (bad['file'], bad['line']) == ('memory:///bad/x.jsonl', 1)


@pytest.mark.parametrize(
    'path', ['memory://nowhere/x.jsonl', 'nowhere://x', 'no.jsonl', 'a\0b', '']
)
def test_what_is_not_there_is_said(path):
  with pytest.raises(ValueError, match='no file|cannot be reached: .*nowhere'):
    _read_source(f'table:{path}')


def test_a_directory_without_data_is_said(tmp_path):
  (tmp_path / 'README.md').write_text('{}')
  with pytest.raises(ValueError, match=r'no file .* end in \.jsonl, .*parquet'):
    _read_source(f'table:{tmp_path}')


def test_a_format_and_its_path_are_split():
  path = OCR2 / 'python.jsonl'
  assert traces.split_source(f'ocr2:{path}') == ('ocr2', str(path))
  spec = 'table/prompt=question/response=r1_generation'
  assert traces.split_source(f'{spec}:{path}') == ('table', str(path))
  assert traces.needs_questions(f'ocr2:{path}')
  assert not traces.needs_questions(f'{spec}:{path}')


def test_a_digest_is_of_the_bytes_of_all_files(tmp_path):
  digests = set()
  for text in ('a', 'b', 'ab'):
    path = source_rows.write_rows(tmp_path / text / '0.jsonl', text.encode())
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    assert traces.hash_source(f'table:{path.parent}') == wanted
    digests.add(wanted)
    source_rows.write_rows(path.with_name('1.jsonl'), b'c')
    digests.add(traces.hash_source(f'table:{path.parent}'))
  assert len(digests) == 6


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_file_is_never_in_memory_as_a_whole(tmp_path, suffix):
  chance = random.Random(0)
  given = [{'prompt': 'Why?', 'response': chance.randbytes(20_000).hex()} for _ in range(250)]
  path = tmp_path / f'x.{suffix}'
  if suffix == 'parquet':  # One row group of small pages.
    pq.write_table(pa.Table.from_pylist(given), path, write_batch_size=8)
  else:
    source_rows.write_rows(path, *given)
  assert path.stat().st_size > 4.5e6
  _read_source(f'table:{path}')  # What is imported on the way is no part of it.
  tracemalloc.start()
  try:
    assert sum(1 for _ in traces.read_traces([f'table:{path}'], '', [])) == 250
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 3.5e6, peak


def _cut_file(path, share):
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize('share', [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize('suffix', ['jsonl.gz', 'jsonl.zst'])
def test_rows_before_the_cut_are_kept_and_the_cut_is_named(tmp_path, suffix, share):
  given = source_rows.copy_row('table', 20_000)
  path = source_rows.write_rows(tmp_path / f'x.{suffix}', *given)
  _cut_file(path, share)
  parsed, (bad,) = _read_source(f'table:{path}')
  assert len(parsed) >= 20_000 * (share - 0.1)
  assert _list_numbers(parsed) == list(range(len(parsed)))
  assert (bad['file'], bad['line']) == (str(path), len(parsed) + 1)
  assert 'cut off' in bad['reason']


def test_a_cut_parquet_file_is_one_bad_row(tmp_path):
  path = source_rows.write_rows(tmp_path / 'a.parquet', *ROWS)
  _cut_file(path, 0.9)
  source_rows.write_rows(tmp_path / 'b.parquet', *ROWS)
  parsed, (bad,) = _read_source(f'table:{tmp_path}')
  assert _list_numbers(parsed) == [0, 1, 2, 3, 4]
  assert (bad['file'], bad['line']) == (str(path), 1)
  assert 'all rows are lost' in bad['reason']


def test_undamaged_row_groups_of_a_parquet_file_are_kept(tmp_path):
  path = source_rows.write_rows(tmp_path / 'x.parquet', *ROWS)
  data = bytearray(path.read_bytes())
  place = data.index(b'00002')  # The third row's response.
  data[place - 150 : place + 5] = bytes(155)
  path.write_bytes(data)
  parsed, (bad,) = _read_source(f'table:{path}')
  assert _list_numbers(parsed) == [0, 1, 3, 4]
  assert (bad['file'], bad['line']) == (str(path), 3)
  assert 'rows 3 to 3 are lost' in bad['reason']


def test_a_parquet_file_of_other_columns_is_one_bad_row(tmp_path):
  path = source_rows.write_rows(tmp_path / 'x.parquet', *ROWS)
  parsed, (bad,) = _read_source(f'ocr1:{path}')
  assert not parsed
  assert bad['reason'] == 'all rows lack the column dataset, id, input, output'


@pytest.mark.parametrize('suffix', ['gz', 'zst'])
def test_one_packed_stream_behind_another_is_one_file(tmp_path, suffix):
  pack = gzip.compress if suffix == 'gz' else zstandard.compress
  path = tmp_path / f'x.jsonl.{suffix}'
  parts = [pack(source_rows.encode_row(row) + b'\n') for row in ROWS]
  path.write_bytes(b''.join(parts) + bytes(512))
  parsed, quarantine = _read_source(f'table:{path}')
  assert not quarantine
  assert _list_numbers(parsed) == [0, 1, 2, 3, 4]


def test_lines_of_any_length_are_put_together_and_endless_ones_refused():
  text = [b'a' * n for n in (0, 1, 5, 6, 7, 30, 2)]
  data = b'\n'.join(text)
  for size in (1, 3, 7, 100):
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    assert list(rows.split_lines(chunks, None)) == text
    cut = [line if len(line) <= 6 else None for line in text]
    assert list(rows.split_lines(chunks, 6)) == cut


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
  first = b'\xef\xbb\xbf' + source_rows.encode_row(ROWS[0])
  path = source_rows.write_rows(tmp_path / 'x.jsonl', first, ROWS[1])
  assert _list_numbers(_read_source(f'table:{path}')[0]) == [0, 1]


STATEMENTS = [{'question': f'Question {i}.'} for i in range(4)]
_LAYOUTS = {
    'jsonl': ['train.jsonl'],
    'gz': ['train.jsonl.gz'],
    'zst': ['train.jsonl.zst'],
    'parquet': ['train.parquet'],
    'parts': ['train-00000-of-00002.parquet', 'train-00001-of-00002.parquet'],
    'directory': ['train/a.parquet', 'train/b.jsonl'],
}


@pytest.mark.parametrize('names', _LAYOUTS.values(), ids=_LAYOUTS)
@pytest.mark.parametrize('is_remote', [False, True])
def test_local_copies_come_in_every_form(tmp_path, names, is_remote):
  source_rows.write_rows(tmp_path / 'taco' / 'test-0.parquet', {'question': 'No.'})
  parts = [STATEMENTS[:3], STATEMENTS[3:]] if names[1:] else [STATEMENTS]
  for name, part in zip(names, parts):
    source_rows.write_rows(tmp_path / 'taco' / name, *part)
  directory = f'file://{tmp_path}' if is_remote else str(tmp_path)
  copies = ocr.QuestionCopies(directory)
  assert copies.look_up('taco', 'train', '0') == 'Question 0.'
  assert copies.look_up('taco', 'train', '3') == 'Question 3.'
  with pytest.raises(rows.UnusableRowError, match='none of the 4 rows'):
    copies.look_up('taco', 'train', '4')


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_damaged_local_copy_is_refused(tmp_path, suffix):
  path = tmp_path / 'taco' / f'train.{suffix}'
  source_rows.write_rows(path, *STATEMENTS)
  _cut_file(path, 0.9)
  with pytest.raises(records.BadRowError, match=rf'train\.{suffix}, line \d'):
    _read_source(f'ocr2:{OCR2}/python.jsonl', copies=str(tmp_path))


def test_a_row_without_a_statement_answers_no_question(tmp_path):
  source_rows.write_rows(tmp_path / 'taco' / 'train.jsonl', {'question': ' '})
  copies = ocr.QuestionCopies(str(tmp_path))
  with pytest.raises(rows.UnusableRowError, match='row 0 of taco .* no statement'):
    copies.look_up('taco', 'train', '0')


@pytest.mark.parametrize(
    ('suffix', 'number'), [('jsonl', 5), ('parquet', 5), ('jsonl.gz', 0), ('jsonl.zst', 0)]
)
def test_rows_are_counted_where_that_takes_no_unpacking(tmp_path, suffix, number):
  path = source_rows.write_rows(tmp_path / f'x.{suffix}', *ROWS)
  assert traces.estimate_num_rows(f'table:{path}') == number
  again = source_rows.write_rows(tmp_path / 'y.parquet', *ROWS)
  both = 10 if number else 0
  assert traces.estimate_num_rows([f'table:{path}', f'table:{again}']) == both


def test_a_damaged_file_counts_no_rows(tmp_path):
  (tmp_path / 'x.parquet').write_bytes(b'PAR1')
  assert traces.estimate_num_rows(f'table:{tmp_path}/x.parquet') == 0


@pytest.mark.parametrize('given', ['[a:x, b:y,a:x]', ('a:x', 'b:y', 'a:x')])
def test_a_source_that_is_named_twice_is_refused(given):
  with pytest.raises(ValueError, match='names a:x twice; name it once'):
    traces.parse_sources(given)


def test_a_directory_with_files_only_below_it_is_refused_with_a_remedy(tmp_path):
  source_rows.write_rows(tmp_path / 'train' / 'x.jsonl', *ROWS)
  with pytest.raises(ValueError, match=r'a glob \(\*\* searches subdir'):
    _read_source(f'table:{tmp_path}')
  assert _list_numbers(_read_source(f'table:{tmp_path}/**/*.jsonl')[0]) == [0, 1, 2, 3, 4]


def test_a_page_whose_checksum_is_wrong_is_damage_and_no_text(tmp_path):
  path = tmp_path / 'x.parquet'
  table = pa.Table.from_pylist(ROWS)
  pq.write_table(table, path, write_page_checksum=True, compression='none', use_dictionary=False)
  data = path.read_bytes()
  text = ROWS[2]['response'].encode()
  assert data.count(text) == 1
  path.write_bytes(data.replace(text, text[:-1] + b'9'))
  parsed, (damage,) = _read_source(f'table:{path}')
  assert not parsed
  assert 'rows 1 to 5 are lost' in damage['reason']
