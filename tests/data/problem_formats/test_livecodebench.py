"""LiveCodeBench's tests come out whole, and nothing in them is ever run."""

import base64
import json
import os
import pathlib
import pickle
import zlib

import hypothesis
from hypothesis import strategies as st
import pytest

from tests import foreign_rows
from valley_jax import records
from valley_jax.data.problem_formats import livecodebench
from valley_jax.data.problem_formats import problems

encode_lcb_tests = foreign_rows.encode_lcb_tests


def _read_problems(tmp_path, **changes):
  return foreign_rows.read_changed_row(tmp_path, 'livecodebench', **changes)


def _pack_bytes(data: bytes) -> str:
  return base64.b64encode(zlib.compress(data)).decode()


def test_public_tests_come_first_and_are_samples(tmp_path):
  (problem,) = _read_problems(tmp_path)
  assert [(t.input, t.expected, t.is_sample) for t in problem.tests] == [
      ('1\n', '2\n', True),
      ('2\n', '3\n', False),
  ]
  assert problem.problem_id == 'abc300_a'
  assert problem.statement == 'Add one.'
  assert problem.mode is records.Mode.STDIN
  assert (problem.platform, problem.difficulty) == ('atcoder', 'easy')
  assert problem.date == '2023-04-29'


def test_private_tests_may_also_be_plain_json(tmp_path):
  plain = _read_problems(tmp_path, private_test_cases=encode_lcb_tests(('2\n', '3\n')))
  assert plain == _read_problems(tmp_path)


def _read_functional_problem(tmp_path, given: str, expected: str) -> records.Problem:
  tests = encode_lcb_tests((given, expected), testtype='functional')
  (problem,) = _read_problems(
      tmp_path,
      public_test_cases='[]',
      private_test_cases=tests,
      metadata='{"func_name": "addOne"}',
      starter_code='class Solution:\n    def addOne(self, x):\n        ',
  )
  return problem


def test_a_functional_input_becomes_a_list_of_arguments(tmp_path):
  problem = _read_functional_problem(tmp_path, '[1, 2]\n"a"\n{"b": null}', '[1.50]')
  assert problem.mode is records.Mode.FUNCTION
  assert problem.entry_point == 'addOne'
  assert json.loads(problem.tests[0].input) == [[1, 2], 'a', {'b': None}]
  assert problem.tests[0].expected == '[1.50]'


def test_the_starter_code_of_a_function_is_its_stub(tmp_path):
  problem = _read_functional_problem(tmp_path, '1', '2')
  assert problem.statement == 'Add one.'
  assert problem.stub == 'class Solution:\n    def addOne(self, x):\n        '


def test_what_leetcode_provides_runs(tmp_path):
  namespace = {}
  exec(_read_functional_problem(tmp_path, '1', '2').starter_code, namespace)
  assert namespace['pow'](2, 10, 7) == 2  # Not that of math.
  assert {'List', 'inf', 'deque', 'heappush', 'ListNode'} <= set(namespace)


def test_an_integer_of_any_length_survives(tmp_path):
  digits = '7' * 10_000
  problem = _read_functional_problem(tmp_path, f'[{digits}]', digits)
  assert problem.tests[0].input == f'[[{digits}]]'
  assert problem.tests[0].expected == digits


@pytest.mark.parametrize(
    ('given', 'reason'),
    [
        ('[1', 'truncated'),
        ('1 2', 'trailing'),
        ('[' * 100_000 + ']' * 100_000, 'recursion'),
        ('[' * 1_001 + '"]"' + ']' * 1_001, 'over 1,000 deep'),
    ],
    ids=['cut off', 'two values', 'far too deep', 'too deep'],
)
def test_a_functional_input_that_is_no_json_is_named(tmp_path, given, reason):
  with pytest.raises(records.BadRowError, match=f'line 1: `private_test_cases`: .*{reason}'):
    _read_functional_problem(tmp_path, given, '1')


def test_many_brackets_are_not_deep(tmp_path):
  text = '[' + ', '.join(['["[[", "\\\\", {"a": []}]'] * 2_000) + ']'
  assert _read_functional_problem(tmp_path, text, text).tests[0].expected == text


@pytest.mark.parametrize(
    ('file', 'release'), [('test', 'v1'), ('test2', 'v2'), ('test6', 'v6'), ('mine', '')]
)
def test_the_file_says_the_release(tmp_path, file, release):
  row = foreign_rows.ROWS['livecodebench']
  path = foreign_rows.write_rows(tmp_path / f'{file}.jsonl', row)
  (problem,) = problems.read_problems(f'livecodebench:{path}')
  assert problem.release == release


def test_a_directory_is_read_release_by_release(tmp_path):
  row = foreign_rows.ROWS['livecodebench']
  for name in ('test2', 'test', 'test3'):
    row = row | {'question_id': name}
    foreign_rows.write_rows(tmp_path / f'{name}.jsonl', row)
  read = problems.read_problems(f'livecodebench:{tmp_path}')
  assert [p.release for p in read] == ['v1', 'v2', 'v3']


def test_tests_of_two_kinds_in_one_problem_are_refused(tmp_path):
  tests = encode_lcb_tests(('1', '1'), testtype='functional')
  with pytest.raises(records.BadRowError, match='`testtype`'):
    _read_problems(tmp_path, private_test_cases=tests)


def test_a_functional_problem_without_a_name_is_refused(tmp_path):
  tests = encode_lcb_tests(('1', '1'), testtype='functional')
  with pytest.raises(records.BadRowError, match='line 1: `entry_point`'):
    _read_problems(tmp_path, private_test_cases=tests, public_test_cases='[]')


# --- The pickle. --------------------------------------------------------------


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('text', ['', 'a', 'ä\n\\\0😀' * 100])
def test_a_pickled_string_is_read_as_pickle_would(text, protocol):
  data = pickle.dumps(text, protocol)
  assert livecodebench.read_pickled_string(data) == text


class _Touch:
  """A pickle that makes a file when it is loaded."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def __reduce__(self):
    return os.mkdir, (str(self._path),)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, protocol):
  data = pickle.dumps(_Touch(tmp_path / 'run'), protocol)
  with pytest.raises(records.BadRowError, match='opcode .* not loaded'):
    _read_problems(tmp_path, private_test_cases=_pack_bytes(data))
  assert not (tmp_path / 'run').exists()
  pickle.loads(data)
  assert (tmp_path / 'run').exists()  # It would have.


@pytest.mark.parametrize('value', [None, 1, b'a', ['a'], ('a', 'b'), {'a': 1}, 1.5, True])
def test_a_pickle_of_anything_but_a_string_is_refused(value):
  with pytest.raises(ValueError, match='opcode'):
    livecodebench.read_pickled_string(pickle.dumps(value))


def test_two_strings_or_none_are_refused():
  two = pickle.dumps('a')[:-1] + pickle.dumps('b', 0)
  with pytest.raises(ValueError, match='2 strings'):
    livecodebench.read_pickled_string(two)
  with pytest.raises(ValueError, match='0 strings'):
    livecodebench.read_pickled_string(b'.')


def test_a_bomb_is_refused_before_it_bursts():
  bomb = _pack_bytes(pickle.dumps('a' * 10**7))
  assert len(bomb) < 20_000
  with pytest.raises(ValueError, match='more than max_bytes=1,000,000'):
    livecodebench.unpack_tests(bomb, max_bytes=10**6)
  assert len(livecodebench.unpack_tests(bomb, max_bytes=2 * 10**7)) == 10**7


@pytest.mark.parametrize('cut', [1, 10, -1])
def test_a_stream_that_is_cut_off_is_refused(tmp_path, cut):
  data = base64.b64decode(foreign_rows.pack_tests(encode_lcb_tests(('1', '2'))))
  text = base64.b64encode(data[:cut]).decode()
  with pytest.raises(records.BadRowError, match='`private_test_cases`'):
    _read_problems(tmp_path, private_test_cases=text)


@hypothesis.given(data=st.binary(max_size=200))
def test_any_bytes_unpickle_to_a_string_or_a_value_error(data):
  try:
    assert isinstance(livecodebench.read_pickled_string(data), str)
  except ValueError:
    pass


@hypothesis.given(
    value=st.recursive(
        st.none() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255))),
)
def test_a_changed_pickle_unpickles_to_a_string_or_a_value_error(value, protocol, flips):
  data = bytearray(pickle.dumps(value, protocol))
  for position, byte in flips:
    data[position % len(data)] = byte
  try:
    assert isinstance(livecodebench.read_pickled_string(bytes(data)), str)
  except ValueError:
    pass


@hypothesis.given(text=st.text() | st.binary().map(_pack_bytes))
def test_any_text_unpacks_or_is_refused(text):
  try:
    assert isinstance(livecodebench.unpack_tests(text), str)
  except (ValueError, zlib.error):
    pass
