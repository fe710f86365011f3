"""Whatever a source holds, bad rows are named and all good ones are kept."""

import json
import pathlib
import random

import hypothesis
from hypothesis import strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import source_rows
from valley_jax import records
from valley_jax.data.sources import traces

QUESTIONS = str(pathlib.Path(__file__).parents[2] / 'fixtures/ocr2/questions')
SUFFIXES = ['jsonl', 'jsonl.gz', 'jsonl.zst', 'parquet']

texts = st.text(st.characters(exclude_categories=['Cs'])) | st.sampled_from(
    ['-', '-1', 'right', '\0', '</think>', '```cpp', 'train', '²', '1e999']
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(texts | st.sampled_from(['role', 'content', 'input']), inner, max_size=3),
    max_leaves=8,
)
any_form = st.sampled_from(sorted(source_rows.ROWS))


@pytest.fixture(scope='module')
def scratch(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('fuzz')


def _read_source(name, path):
  """Reads; what is bad must be named with file, row and reason."""
  quarantine = []
  source = f'{name.split()[0]}:{path}'
  parsed = list(traces.read_traces([source], QUESTIONS, quarantine))
  assert all(isinstance(trace, records.Trace) for trace in parsed)
  for bad in quarantine:
    assert bad['file'] == str(path)
    assert bad['line'] >= 1
    assert bad['reason']
    json.dumps(bad, ensure_ascii=False).encode()  # It can be written down.
  return parsed, quarantine


@hypothesis.given(name=any_form, data=st.binary(max_size=100))
@pytest.mark.parametrize('suffix', SUFFIXES)
def test_any_bytes(scratch, suffix, name, data):
  path = scratch / f'any.{suffix}'
  path.write_bytes(data)
  _read_source(name, path)


@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data(), name=any_form)
def test_any_value_in_any_column_between_two_good_rows(scratch, data, name):
  good = source_rows.ROWS[name]
  columns = data.draw(st.lists(st.sampled_from(sorted(good)), min_size=1))
  bad = good | {column: data.draw(values) for column in columns}
  for column in data.draw(st.sets(st.sampled_from(sorted(good)), max_size=1)):
    del bad[column]
  path = source_rows.write_rows(scratch / 'value.jsonl', good, bad, good)
  (wanted,), _ = _read_source(name, source_rows.write_rows(scratch / 'x.jsonl', good))
  parsed, quarantine = _read_source(name, path)
  assert len(parsed) + len(quarantine) == 3
  assert parsed[0] == parsed[-1] == wanted
  assert [bad['line'] for bad in quarantine] in ([], [2])


_COLUMNS = {
    'integers': pa.array([1, 2]),
    'bytes': pa.array([b'\xff', b'a']),
    'nothing': pa.nulls(2),
    'nanoseconds': pa.array([2**62 + 1, 5], pa.timestamp('ns')),
    'far dates': pa.array([2**60, 5], pa.timestamp('ms')),
    'lists': pa.array([[None], []], pa.list_(pa.int8())),
    'structs': pa.array([{'a': 1}, None]),
    'decimals': pa.array([1, 2]).cast(pa.decimal128(38, 3)),
    'texts': pa.array(['\0', '-']).dictionary_encode(),
    'views': pa.array(['a', None], pa.string_view()),
}


@pytest.mark.parametrize('kind', _COLUMNS)
@pytest.mark.parametrize('name', source_rows.ROWS)
def test_any_type_in_any_column_of_parquet(tmp_path, name, kind):
  good = pa.Table.from_pylist([source_rows.ROWS[name]] * 2)
  for i, column in enumerate(good.column_names):
    table = good.set_column(i, column, _COLUMNS[kind])
    path = tmp_path / f'{column}.parquet'
    pq.write_table(table, path)
    parsed, quarantine = _read_source(name, path)
    assert len(parsed) + len(quarantine) == 2


@hypothesis.settings(max_examples=60)
@hypothesis.given(seed=st.integers(0, 2**32), flips=st.integers(1, 20), cut=st.booleans())
@pytest.mark.parametrize('suffix', SUFFIXES[1:])
def test_damage_anywhere_in_a_file(scratch, suffix, seed, flips, cut):
  path = scratch / f'damage.{suffix}'
  source_rows.write_rows(path, *source_rows.copy_row('table', 12))
  data, chance = bytearray(path.read_bytes()), random.Random(seed)
  if cut:
    del data[chance.randrange(len(data)) :]
  for _ in range(flips):
    if data:
      data[chance.randrange(len(data))] = chance.randrange(256)
  path.write_bytes(data)
  parsed, quarantine = _read_source('table', path)
  assert len(parsed) == 12 or quarantine or not data


BAD_ROWS = {
    'wrong type': {'prompt': 1, 'response': 'So.'},
    'missing key': {'prompt': 'Why?'},
    'null': {'prompt': 'Why?', 'response': None},
    'NUL': {'prompt': 'Why?', 'response': 'a\0b'},
    'lone surrogate': b'{"prompt": "\\udc00", "response": "So."}',
    'surrogate in UTF-8': b'{"prompt": "\xed\xb0\x80", "response": "So."}',
    'ten megabytes': {'prompt': 'x' * 10_000_000, 'response': 'So.'},
    'not UTF-8': b'{"prompt": "\xff", "response": "So."}',
    'nested': b'{"prompt": ' + b'[' * 50_000 + b']' * 50_000 + b'}',
    'cut off': b'{"prompt": "Why?", "resp',
    'binary': bytes(range(256)).replace(b'\n', b''),
}


@pytest.mark.parametrize('suffix', SUFFIXES[:3])
def test_each_planted_row_is_named_and_each_good_one_kept(tmp_path, suffix):
  rows = source_rows.copy_row('table', 60)
  planted = {5 * i + 3: bad for i, bad in enumerate(BAD_ROWS.values())}
  for place, bad in planted.items():
    rows.insert(place - 1, bad)
  path = source_rows.write_rows(tmp_path / f'x.{suffix}', *rows)
  parsed, quarantine = _read_source('table', path)
  assert [bad['line'] for bad in quarantine] == list(planted)
  assert [int(trace.response[-5:]) for trace in parsed] == list(range(60))


def _not_utf8(texts: list[bytes]) -> pa.Array:
  """A column of strings that no writer would write."""
  column = pa.array(texts, pa.binary())
  return pa.StringArray.from_buffers(len(texts), *column.buffers()[1:])


def test_each_planted_row_of_parquet_is_named(tmp_path):
  responses = [f'So {i:05d}'.encode() for i in range(100)]
  responses[7], responses[70] = b'\xff', b'\xed\xb0\x80'
  prompts = ['Why?'] * 100
  prompts[20], prompts[40], prompts[99] = None, 'a\0', 'x' * 10_000_000
  table = pa.table({'prompt': prompts, 'response': _not_utf8(responses)})
  path = tmp_path / 'x.parquet'
  pq.write_table(table, path, row_group_size=50)
  parsed, quarantine = _read_source('table', path)
  assert [bad['line'] for bad in quarantine] == [8, 21, 41, 71, 100]
  assert len(parsed) == 95


def test_no_byte_of_a_footer_hides_a_row(tmp_path):
  path = tmp_path / 'x.parquet'
  table = pa.Table.from_pylist(source_rows.copy_row('table', 2))
  # As small a footer as there is.
  pq.write_table(table, path, 1, write_statistics=False, store_schema=False)
  data = path.read_bytes()
  footer = int.from_bytes(data[-8:-4], 'little') + 8
  for place in range(len(data) - footer, len(data)):
    changed = bytearray(data)
    changed[place] ^= 2
    path.write_bytes(changed)
    parsed, quarantine = _read_source('table', path)
    assert len(parsed) == 2 or quarantine, place
