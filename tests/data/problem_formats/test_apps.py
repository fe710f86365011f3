"""APPS and TACO: texts, arguments, wrapped outputs, limits in words."""

import json

import pytest

from tests import foreign_rows
from valley_jax import records
from valley_jax.data.problem_formats import apps
from valley_jax.data.problem_formats import problems


def _read_problem(tmp_path, inputs, outputs, fn_name=None, starter_code=''):
  pairs = {'inputs': inputs, 'outputs': outputs}
  if fn_name:
    pairs['fn_name'] = fn_name
  (problem,) = foreign_rows.read_changed_row(
      tmp_path, 'apps', input_output=json.dumps(pairs), starter_code=starter_code
  )
  return problem


def test_texts_go_through_standard_input_and_output(tmp_path):
  problem = _read_problem(tmp_path, ['1\n', '2\r\n'], ['2\n', '3\n'])
  assert problem.mode is records.Mode.STDIN
  assert [t.input for t in problem.tests] == ['1\n', '2\r\n']
  assert [t.expected for t in problem.tests] == ['2\n', '3\n']


def test_a_text_may_be_a_list_of_lines_or_a_bare_number(tmp_path):
  problem = _read_problem(tmp_path, [['1', '2'], 5], [['3'], 6])
  assert [t.input for t in problem.tests] == ['1\n2', '5']
  assert [t.expected for t in problem.tests] == ['3', '6']


def test_a_list_of_lists_is_no_text(tmp_path):
  with pytest.raises(records.BadRowError, match='`input_output`: .*a text'):
    _read_problem(tmp_path, [[['1']]], ['1'])


def test_inputs_of_a_function_are_lists_of_arguments(tmp_path):
  problem = _read_problem(tmp_path, [[[1, 2], 'a'], []], [3, 'b'], 'f', 'def f(x, y):\n\t')
  assert problem.mode is records.Mode.FUNCTION
  assert problem.entry_point == 'f'
  assert [json.loads(t.input) for t in problem.tests] == [[[1, 2], 'a'], []]
  assert [json.loads(t.expected) for t in problem.tests] == [3, 'b']
  assert problem.stub == 'def f(x, y):\n\t'


def test_a_function_without_starter_code_is_named(tmp_path):
  problem = _read_problem(tmp_path, [[1]], [3], 'f')
  assert '`f`' in problem.statement and not problem.stub


def test_a_value_that_is_too_deep_is_refused(tmp_path):
  deep = '[' * 1_002 + ']' * 1_002  # One pair would be unwrapped.
  for inputs, outputs in ((deep, '1'), ('[1]', deep)):
    text = f'{{"inputs": [{inputs}], "outputs": [{outputs}], "fn_name": "f"}}'
    with pytest.raises(records.BadRowError, match='over 1,000 deep'):
      foreign_rows.read_changed_row(tmp_path, 'apps', input_output=text)


def test_arguments_may_be_one_a_line(tmp_path):
  problem = _read_problem(tmp_path, ['[1, 2]\n3'], [4], 'f')
  assert json.loads(problem.tests[0].input) == [[1, 2], 3]


def test_an_integer_of_any_length_survives(tmp_path):
  digits = '7' * 10_000
  text = f'{{"inputs": [[{digits}]], "outputs": [{digits}], "fn_name": "f"}}'
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'apps', input_output=text)
  assert problem.tests[0].input == f'[{digits}]'
  assert problem.tests[0].expected == digits
  text = f'{{"inputs": [{digits}], "outputs": ["1"]}}'
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'apps', input_output=text)
  assert problem.tests[0].input == digits


@pytest.mark.parametrize(
    ('outputs', 'starter_code', 'meant'),
    [
        ([[5], [7]], '', [5, 7]),
        ([[[1, 2]], [[]]], '', [[1, 2], []]),
        ([[5], [6, 7]], '', [[5], [6, 7]]),  # One is no wrapping: none is.
        ([[5], []], '', [[5], []]),
        ([5, 7], '', [5, 7]),
        ([[5], [7]], 'def f(x) -> int:', [5, 7]),
        ([[5], [7]], 'def f(x) -> List[int]:', [[5], [7]]),
        ([[[5]], [[7]]], 'def f(x) -> list[int]:', [[5], [7]]),
        ([[[5]], [[7]]], 'def f(x) -> List[List[int]]:', [[[5]], [[7]]]),
        ([[[]], [[7]]], 'def f(x) -> Optional[List[int]]:', [[], [7]]),
    ],
)
def test_outputs_are_unwrapped_only_if_all_of_them_are_wrapped(
    tmp_path, outputs, starter_code, meant
):
  inputs = [[1]] * len(outputs)
  problem = _read_problem(tmp_path, inputs, outputs, 'f', starter_code)
  assert [json.loads(t.expected) for t in problem.tests] == meant


@pytest.mark.parametrize(
    ('pairs', 'reason'),
    [
        ({'inputs': [], 'outputs': []}, 'no tests'),
        ({'inputs': ['N = 5'], 'outputs': ['1'], 'fn_name': 'f'}, 'no arguments'),
        ({'inputs': [[{1: 'a'}]], 'outputs': [1], 'fn_name': 'f'}, 'integer keys'),
    ],
)
def test_what_cannot_be_judged_is_left_out_loudly(tmp_path, pairs, reason):
  rows = [
      foreign_rows.ROWS['apps'],
      foreign_rows.ROWS['apps'] | {'problem_id': 6, 'input_output': json.dumps(pairs)},
  ]
  path = foreign_rows.write_rows(tmp_path / 'train.jsonl', *rows)
  with pytest.warns(UserWarning, match=f'1 left out: .*{reason}.*/6'):
    read = problems.read_problems(f'apps:{path}')
  assert [p.problem_id for p in read] == ['apps/train/5']


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('{', 'truncated'),
        ('{"inputs": ["1"], "outputs": []}', '1 inputs, but 0 outputs'),
        ('{"inputs": "1", "outputs": "2"}', 'Expected `array`'),
        ('[' * 100_000, 'Expected `object`'),
        ('{"inputs": ' + '[' * 100_000, 'recursion'),
        ('{"inputs": ["\\ud800"], "outputs": ["1"]}', 'hex escape|truncated'),
    ],
)
def test_a_broken_column_is_named(tmp_path, text, reason):
  with pytest.raises(records.BadRowError, match=f'line 1: `input_output`: .*({reason})'):
    foreign_rows.read_changed_row(tmp_path, 'apps', input_output=text)


def test_ids_go_by_split_and_by_id_or_index(tmp_path):
  row = foreign_rows.ROWS['taco']
  path = foreign_rows.write_rows(tmp_path / 'train.jsonl', row, row)
  read = problems.read_problems(f'taco:{path}')
  assert [p.problem_id for p in read] == ['taco/train/0', 'taco/train/1']


def test_the_columns_of_taco_are_kept(tmp_path):
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'taco')
  assert problem.limits == records.Limits(cpu_seconds=2.0, memory_mib=256)
  assert (problem.difficulty, problem.platform) == ('easy', 'codechef')
  assert problem.date == '2021-03-20'
  (problem,) = foreign_rows.read_changed_row(tmp_path, 'apps')
  assert (problem.source, problem.platform) == ('apps', 'codeforces')


@pytest.mark.parametrize(
    ('said', 'value'),
    [
        ('2.0 seconds', 2.0),
        ('500 ms', 0.5),
        ('256 megabytes', 256.0),
        ('1 gigabytes', 1024.0),
        ('524288 kb', 512.0),
        (1.5, 1.5),
        ('None', None),
        (None, None),
    ],
)
def test_a_limit_in_words_is_a_number(said, value):
  assert apps.parse_quantity(said) == value


def test_a_limit_that_is_not_understood_is_said(tmp_path):
  with pytest.warns(UserWarning, match="kept.*'a while' is not understood"):
    (problem,) = foreign_rows.read_changed_row(tmp_path, 'taco', time_limit='a while')
  assert problem.limits == records.Limits()
