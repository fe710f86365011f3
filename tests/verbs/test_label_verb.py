"""label and execute, in turn, say which traces are right."""

import json
import pathlib

import ml_collections as mlc
import pytest

from tests import forked
from tests import judged
from valley_jax import execute
from valley_jax import jsonl
from valley_jax import label
from valley_jax import records

ROOT = pathlib.Path(__file__).parents[2]
SUM = 'Read two integers and print their sum.'
SQUARE = 'Read an integer and print its square.'
WRONG = 'a, b = map(int, input().split())\nprint(a + b if a > 1 else 0)'
CPP = '#include <iostream>\nint main() { int a; std::cin >> a;' ' std::cout << a * a; }'


def _trace(name, problem, program, declared='python', **fields):
  return records.Trace(
      trace_id=name,
      problem_id=problem,
      response=f'<think>So.</think>\n```{declared}\n{program}\n```',
      **{'question': '-', **fields},
  )


TRACES = [
    _trace('a', 'sum', judged.CONTROL),
    _trace('b', 'f00', CPP, 'cpp', question=SQUARE, language='cpp17'),
    _trace('c', 'sum', WRONG, is_correct=True),
    _trace('d', 'nowhere', 'print(1)', is_correct=True),
    _trace('e', 'sum', 'print(', 'text'),  # No program.
    _trace('f', 'f00', 'print(input())', question=SQUARE),
]


def _config(directory: pathlib.Path, **fields) -> mlc.ConfigDict:
  values = {
      'traces': f'jsonl:{directory}/given.jsonl',
      'questions': '',
      'problems': f'jsonl:{directory}/problems.jsonl',
      'submissions': f'{directory}/w/submissions.jsonl',
      'cpu_seconds': 5.0,
      'multipliers': {'python': 1.0, 'cpp17': 1.0},
      'profile': 'strict',
      'all_tests': True,
      'tier': '',
      'waivers': (),
      'num_workers': 1,
      'ray': '',
      'cache': '',
  }
  return mlc.ConfigDict({**values, **fields}).lock()


def _write_inputs(directory: pathlib.Path) -> None:
  square = judged.build_problem(('2', '4'), ('1', '1'))
  problems = [
      records.replace(judged.build_problem(), problem_id='sum', statement=SUM),
      records.replace(square, problem_id='square', statement=SQUARE),
  ]
  jsonl.write_rows(directory / 'problems.jsonl', problems)
  jsonl.write_rows(directory / 'given.jsonl', TRACES)


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
  """A directory in which all is judged and labelled; do not write to it."""
  directory = tmp_path_factory.mktemp('labelled')
  _write_inputs(directory)
  with open(directory / 'given.jsonl', 'ab') as file:
    file.write(b'{"trace_id": 7}\n')
  for verb in (label.label, execute.execute, label.label):
    verb(_config(directory), str(directory / 'w'))
  return directory


def _read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_traces_are_labelled_by_execution(labelled):
  rows = list(jsonl.read_rows(labelled / 'w/traces.jsonl', records.Trace))
  assert [(t.trace_id, t.is_correct, t.pass_rate) for t in rows] == [
      ('a', True, 1.0),
      ('b', True, 1.0),
      ('c', False, 0.5),
      ('d', None, None),
      ('e', False, 0.0),
      ('f', False, 0.5),
  ]
  assert json.loads((labelled / 'w/labels.json').read_text()) == {
      'right': 2,
      'wrong': 3,
      'unknown': 1,
      'all_tests': True,
      'verdicts': {'AC': 2, 'WA': 2},
  }


def test_it_is_written_which_program_is_of_which_trace(labelled):
  assert _read(labelled / 'w/asked.jsonl') == [
      {'trace_id': 'a', 'problem_id': 'sum', 'sample_index': 0},
      {'trace_id': 'b', 'problem_id': 'square', 'sample_index': 0},
      {'trace_id': 'c', 'problem_id': 'sum', 'sample_index': 1},
      {'trace_id': 'd', 'reason': 'its problem is not there'},
      {'trace_id': 'e', 'reason': 'no program in the answer'},
      {'trace_id': 'f', 'problem_id': 'square', 'sample_index': 1},
  ]


def test_a_bad_row_is_kept_with_its_reason(labelled):
  (bad,) = _read(labelled / 'w/quarantine.jsonl')
  assert bad['line'] == 7 and 'trace_id' in bad['reason']


def test_labelling_again_writes_the_same(labelled):
  before = {p.name: p.read_bytes() for p in (labelled / 'w').iterdir()}
  label.label(_config(labelled), str(labelled / 'w'))
  after = {p.name: p.read_bytes() for p in (labelled / 'w').iterdir()}
  assert after == before


@pytest.mark.parametrize('rule', [{'all_tests': False}, {'cpu_seconds': 1.0}], ids=str)
def test_judgements_by_other_rules_are_refused(labelled, rule):
  before = (labelled / 'w/traces.jsonl').read_bytes()
  with pytest.raises(ValueError, match='Trace a .* run `execute`'):
    label.label(_config(labelled, **rule), str(labelled / 'w'))
  assert (labelled / 'w/traces.jsonl').read_bytes() == before


def test_a_program_that_changed_needs_a_judgement_of_its_own(labelled, tmp_path):
  _write_inputs(tmp_path)
  changed = _trace('c', 'sum', judged.CONTROL)
  rows = [*TRACES[:2], changed, *TRACES[3:]]
  jsonl.write_rows(tmp_path / 'given.jsonl', rows)
  judgements = (labelled / 'w/judgements.jsonl').read_bytes()
  jsonl.write_atomically(tmp_path / 'w/judgements.jsonl', judgements)
  with pytest.raises(ValueError, match='Trace c .* run `execute`'):
    label.label(_config(tmp_path), str(tmp_path / 'w'))
  assert not (tmp_path / 'w/traces.jsonl').exists()


@pytest.mark.parametrize('kill_at', [4, 6, 8, 10])
def test_killed_on_its_way_it_writes_the_same_in_the_end(labelled, tmp_path, kill_at):
  _write_inputs(tmp_path)
  judgements = (labelled / 'w/judgements.jsonl').read_bytes()
  jsonl.write_atomically(tmp_path / 'w/judgements.jsonl', judgements)
  killed = forked.start_verb('label', _config(tmp_path).to_json(), tmp_path / 'w', kill_at)
  assert killed.wait() == -9, killed.read_output()
  label.label(_config(tmp_path), str(tmp_path / 'w'))
  for name in ('submissions.jsonl', 'asked.jsonl', 'traces.jsonl'):
    found = (tmp_path / 'w' / name).read_bytes()
    assert found == (labelled / 'w' / name).read_bytes()


def test_without_judgements_the_next_command_is_named(tmp_path, capsys):
  _write_inputs(tmp_path)
  label.label(_config(tmp_path), str(tmp_path / 'w'))
  said = capsys.readouterr().out
  assert f'--config.submissions={tmp_path}/w/submissions.jsonl' in said
  assert not (tmp_path / 'w/traces.jsonl').exists()


def test_a_failure_of_the_judge_is_unknown_and_said(labelled, tmp_path, capsys):
  _write_inputs(tmp_path)
  path = labelled / 'w/judgements.jsonl'
  rows = list(jsonl.read_rows(path, records.Judgement))
  failed = records.replace(rows[0], verdict=records.Verdict.INTERNAL_ERROR)
  jsonl.write_rows(tmp_path / 'w/judgements.jsonl', [failed, *rows[1:]])
  label.label(_config(tmp_path), str(tmp_path / 'w'))
  assert _read(tmp_path / 'w/traces.jsonl')[0]['is_correct'] is None
  assert '1 programs could not be judged (IE)' in capsys.readouterr().out


def test_judgements_that_are_being_made_anew_are_waited_for(tmp_path):
  _write_inputs(tmp_path)
  jsonl.write_atomically(tmp_path / 'w/judgements.jsonl.next', '')
  with pytest.raises(ValueError, match='being rebuilt'):
    label.label(_config(tmp_path), str(tmp_path / 'w'))
