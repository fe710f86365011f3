"""What `shard` refuses, merges and labels, from one file to its manifest."""

import json
import random
import string

import pytest

from configs import valley
from valley_jax import jsonl
from valley_jax import records
from valley_jax import shard
from valley_jax.data.shards import shards as shards_lib


def _make_words(seed, count):
  """Words of no language, others for each seed."""
  rng = random.Random(seed)
  word = lambda: ''.join(rng.choices(string.ascii_lowercase, k=6))
  return ' '.join(word() for _ in range(count))


def _make_question(n):
  return f'Read: {_make_words(n, 40)}.'


def _make_response(n, code=None):
  code = f'print({n})' if code is None else code
  return f'<think>{_make_words(-n, 80)}</think>Here:\n```python\n{code}\n```'


def _make_trace(name, n, **changes):
  values = dict(
      trace_id=name,
      problem_id=f'p{n}',
      question=_make_question(n),
      response=_make_response(n),
      source='taco',
      difficulty='MEDIUM_HARD',
  )
  return records.Trace(**{**values, **changes})


TRACES = [
    _make_trace('first', 1),
    _make_trace('no thought', 2, response='```python\nprint(1)\n```'),
    _make_trace('no program', 3, response='<think>Well.</think>It is 3.'),
    _make_trace('no python', 4, response=_make_response(4, 'def (:')),
    _make_trace('examined', 5),
    _make_trace('again', 1, response=_make_response(1) + '\n'),
    _make_trace('other name', 6, question=_make_question(1).upper()),
    _make_trace('easy', 7, difficulty='EASY', is_correct=True),
    _make_trace('unruly', 8, source='elsewhere', difficulty='7 stars'),
    _make_trace('first', 9),
]


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  """The shards of `TRACES`, by the paper's own filters."""
  path = tmp_path_factory.mktemp('steps')
  jsonl.write_rows(path / 'traces.jsonl', TRACES)
  problem = records.Problem(
      problem_id='exam',
      statement=f'<p>{_make_question(5)}</p>',
      tests=(records.TestCase(input='', expected='1'),),
  )
  jsonl.write_rows(path / 'exam.jsonl', [problem])
  config = valley.get_config().unlock()
  config.traces = f'jsonl:{path}/traces.jsonl'
  config.tokenizer = 'bpe:300'
  config.prompt = 'plain'
  config.contamination.problems = (f'jsonl:{path}/exam.jsonl',)
  shard.shard(config.lock(), str(path))
  return path / 'shards'


def test_every_refusal_has_its_reason_count_and_example(directory):
  manifest = jsonl.read_json(directory / 'manifest.json')
  assert manifest['dropped'] == {
      'code_in_answer': 1,
      'contaminated': 1,
      'duplicate_trace_id': 1,
      'exact_trace': 1,
      'parses': 1,
      'think': 1,
  }
  assert manifest['examples'] == {
      'code_in_answer': ['no program'],
      'contaminated': ['examined'],
      'duplicate_trace_id': ['first'],
      'exact_trace': ['again'],
      'parses': ['no python'],
      'think': ['no thought'],
  }
  assert manifest['num_traces'] + 6 == manifest['num_read'] == len(TRACES)


def test_what_matches_an_evaluation_is_shown_beside_it(directory):
  (line,) = (directory / 'contaminated.jsonl').read_text().splitlines()
  row = json.loads(line)
  assert (row['problem_id'], row['trace_ids']) == ('exam', ['examined'])
  for name in ('question_text', 'problem_text'):
    assert _make_words(5, 40) in row[name]


def test_a_question_under_two_names_is_one_problem(directory):
  table = shards_lib.Shards(directory).read_table()
  problem_of = dict(zip(table.ids, table.problem_ids, strict=True))
  assert problem_of['other name'] == problem_of['first'] == 'p1'


def test_labels_are_in_the_table_in_one_language(directory):
  table = shards_lib.Shards(directory).read_table()
  difficulty = dict(zip(table.ids, table.difficulty, strict=True))
  assert difficulty == {
      'first': 'hard', 'other name': 'hard', 'easy': 'easy',
      'unruly': '7 stars',
  }  # fmt: skip
  assert dict(zip(table.ids, table.is_correct, strict=True))['easy'] is True


def test_another_evaluation_makes_other_shards(directory, tmp_path):
  config = valley.get_config().unlock()
  config.traces = f'jsonl:{directory.parent}/traces.jsonl'
  config.tokenizer = 'bpe:300'
  config.prompt = 'plain'
  with pytest.raises(ValueError, match='contamination'):
    shard.shard(config.lock(), str(directory.parent))
