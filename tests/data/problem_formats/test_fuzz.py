"""Whatever a file holds, its readers return problems or a named error."""

import json
import pathlib
import warnings

import hypothesis
from hypothesis import strategies as st
import pytest

from tests import foreign_rows
from valley_jax import records
from valley_jax.data.problem_formats import problems

# Any text that JSON can carry, among them some that mean something to us.
texts = st.text(st.characters(exclude_categories=['Cs'])) | st.sampled_from(
    ['[', '{}', '[]', 'gAS.', '2.0 seconds', 'test', 'assert f(', '2024-13-01']
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
any_set = st.sampled_from(sorted(foreign_rows.ROWS))


@pytest.fixture(scope='module')
def scratch(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('fuzz')


def _reads_or_names(spec: str, *names: str) -> None:
  """Reads; an error must be a ValueError that says the file or the spec."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', UserWarning)
    try:
      read = problems.read_problems(spec)
    except ValueError as e:
      assert any(name in str(e) for name in names), e
    else:
      assert all(isinstance(x, records.Problem) and x.tests for x in read)


@hypothesis.given(name=any_set, data=st.binary(max_size=100))
@pytest.mark.parametrize('ending', ['jsonl', 'jsonl.gz', 'parquet'])
def test_any_bytes(scratch, ending, name, data):
  path = scratch / f'rows.{ending}'
  path.write_bytes(data)
  _reads_or_names(f'{name}:{path}', str(path))


@hypothesis.given(data=st.data(), name=any_set)
def test_any_value_in_any_column(scratch, data, name):
  row = dict(foreign_rows.ROWS[name])
  column = data.draw(st.sampled_from(sorted(row)))
  row[column] = data.draw(values)
  path = foreign_rows.write_rows(scratch / 'rows.jsonl', row)
  _reads_or_names(f'{name}:{path}', f'{path}, line 1', quote_spec(name, path))


def quote_spec(name: str, path: pathlib.Path) -> str:
  return repr(f'{name}:{path}')


JSON_COLUMNS = [
    ('apps', 'input_output'),
    ('livecodebench', 'public_test_cases'),
    ('livecodebench', 'private_test_cases'),
    ('livecodebench', 'metadata'),
]


@hypothesis.given(place=st.sampled_from(JSON_COLUMNS), value=values)
def test_any_json_in_a_column_of_json(scratch, place, value):
  name, column = place
  row = foreign_rows.ROWS[name] | {column: json.dumps(value)}
  path = foreign_rows.write_rows(scratch / 'rows.jsonl', row)
  _reads_or_names(f'{name}:{path}', f'{path}, line 1: `{column}`', quote_spec(name, path))


@hypothesis.given(
    inputs=st.lists(values, max_size=3),
    outputs=st.lists(values, max_size=3),
    fn_name=st.none() | st.just('f'),
    starter_code=texts | st.just('def f(x) -> List[int]:'),
)
def test_any_tests_of_apps(scratch, inputs, outputs, fn_name, starter_code):
  pairs = {'inputs': inputs, 'outputs': outputs, 'fn_name': fn_name}
  row = foreign_rows.ROWS['apps'] | {
      'input_output': json.dumps(pairs),
      'starter_code': starter_code,
  }
  path = foreign_rows.write_rows(scratch / 'rows.jsonl', row)
  _reads_or_names(f'apps:{path}', f'{path}, line 1: `', quote_spec('apps', path))


@hypothesis.given(
    file=st.sampled_from(['problem.yaml', '.timelimit', 'data/testdata.yaml', 'data/secret/1.in']),
    data=st.binary(max_size=60)
    | texts.map(str.encode)
    | values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(['type', 'validation', 'validator_flags', 'limits']), values
    ).map(lambda value: json.dumps(value).encode()),
)
def test_any_file_of_a_package(scratch, file, data):
  package = scratch / 'package'
  contents = {
      'problem.yaml': b'name: x\n',
      'statement/problem.md': b'Add one.',
      'data/secret/1.in': b'1',
      'data/secret/1.ans': b'1',
      '.timelimit': b'1',
      'data/testdata.yaml': b'',
  }
  for name, kept in (contents | {file: data}).items():
    (package / name).parent.mkdir(parents=True, exist_ok=True)
    (package / name).write_bytes(kept)
  _reads_or_names(f'kattis:{package}', str(package))
