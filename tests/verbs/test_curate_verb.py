"""curate writes what subsets read, however often it is killed."""

import json

import pytest

from configs import distill
from tests import rows
from tests import tiny
from valley_jax import curate
from valley_jax import jsonl
from valley_jax import records
from valley_jax import shard
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.subsets import corpus
from valley_jax.data.tokens import tokenization

# Passed, of four programs of the student.
SOLVED = {'p0': 4, 'p1': 2, 'p2': 0}
WORDS = ('one', 'two', 'three', 'four', 'five', 'six')


def _trace(question, number):
  words = WORDS[number:] if number else WORDS[1:]  # t0 and t1 are copies.
  return records.Trace(
      trace_id=f'{question}t{number}',
      problem_id=question,
      question=f'Solve {question}.',
      response=f'<think>{" ".join(words)}</think>print({question!r})',
  )


def _config(world, **curate_fields):
  c = distill.get_config('mini,traces_per_question=3').unlock()
  c.shards = f'{world}/shards'
  c.subsets.pool = ({'where': 'num_tokens', 'most': 100},)
  c.curate.judgements = f'{world}/judgements.jsonl'
  c.curate.update(curate_fields)
  return c.lock()


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  path = tmp_path_factory.mktemp('world')
  traces = [_trace(q, i) for q in SOLVED for i in range(6)]
  jsonl.write_rows(path / 'traces.jsonl', traces)
  shard.shard(tiny.config(path, data={'max_len': 200}), str(path))
  verdicts = [records.Verdict.WRONG_ANSWER, records.Verdict.ACCEPTED]
  judgements = [
      rows.make_judgement(q, i, verdicts[i < SOLVED[q]]) for q in SOLVED for i in range(4)
  ]
  jsonl.write_rows(path / 'judgements.jsonl', judgements)
  return path


@pytest.fixture(scope='module')
def curated(world):
  curate.curate(_config(world), f'{world}/run')
  return world / 'run' / 'curated'


def _files(directory):
  return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


def test_questions_that_the_student_solves_are_dropped(curated):
  hard = corpus.read_manifest_ids(curated / 'hard.json')
  assert sorted(hard) == [f'p{q}t{i}' for q in (1, 2) for i in range(6)]


def test_each_hard_question_has_as_many_traces_in_every_arm(curated):
  for name in ('farthest', 'nearest'):
    ids = corpus.read_manifest_ids(curated / f'{name}.json')
    assert sorted(i[:2] for i in ids) == ['p1', 'p1', 'p1', 'p2', 'p2', 'p2']


def test_copies_are_near_and_never_far(curated):
  far, near = (
      corpus.read_manifest_ids(curated / f'{name}.json') for name in ('farthest', 'nearest')
  )
  assert not {'p1t0', 'p1t1'} <= set(far)
  assert {'p1t0', 'p1t1'} <= set(near)


def test_a_manifest_says_how_it_was_made(curated):
  made = json.loads((curated / 'farthest.json').read_bytes())
  assert made['max_pass_rate'] == 0.5 and made['unit'] == 'tokens'
  assert (made['questions'], made['questions_too_easy']) == (3, 1)
  assert (made['num_traces'], made['num_questions']) == (6, 2)


def test_done_it_does_nothing(world, curated):
  before = _files(curated)
  curate.curate(_config(world), f'{world}/run')
  assert _files(curated) == before


def test_killed_it_ends_with_the_same_files(world, curated, tmp_path):
  lines = (curated / 'choices.jsonl').read_bytes().splitlines(keepends=True)
  other = tmp_path / 'curated'
  other.mkdir()
  (other / 'choices.jsonl').write_bytes(lines[0] + lines[1][:20])
  curate.curate(_config(world), str(tmp_path))
  for name, (data, _) in _files(curated).items():
    assert (other / name).read_bytes() == data, name


def test_characters_are_those_of_the_responses(world):
  shards = shards_lib.Shards(f'{world}/shards')
  tokenizer = tokenization.load_tokenizer(world / 'shards/tokenizer')
  rows = [shards.ids.index('p1t3'), shards.ids.index('p2t0')]
  responses = [_trace('p1', 3).response, _trace('p2', 0).response]
  assert curate.read_responses(shards, rows, tokenizer) == responses
  tokens = curate.read_responses(shards, rows, None)
  assert [len(text) for text in tokens] == [
      example.weights.sum() for example in shards.read_examples(rows)
  ]


def test_arms_by_characters_have_as_many_traces(world, tmp_path):
  curate.curate(_config(world, unit='characters', start='longest'), str(tmp_path))
  for name in ('farthest', 'nearest'):
    assert len(corpus.read_manifest_ids(tmp_path / f'curated/{name}.json')) == 6


def test_train_reads_what_was_curated(world, curated):
  table = shards_lib.Shards(f'{world}/shards').read_table()
  subsets = _config(world).subsets.to_dict()
  found = {
      name: corpus.choose_corpus(
          table, subsets, name, num_traces=corpus.ALL, num_held_out=2, seed=0, directory=curated
      )
      for name in ('hard', 'diverse', 'random', 'nearest')
  }
  sizes = {name: len(one.rows) for name, one in found.items()}
  assert sizes == {'hard': 2, 'diverse': 6, 'random': 6, 'nearest': 6}


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'judgements': 'none.jsonl'}, "judgements='none.jsonl' is no file"),
        ({'unit': 'words'}, "curate.unit='words': want one of"),
        ({'start': 'first'}, "curate.start='first': want one of"),
        ({'traces_per_question': 0}, 'traces_per_question=0: want 1'),
        ({'max_pass_rate': -1.0}, 'max_pass_rate=-1.0; raise it'),
        ({'pool': 'hard'}, 'takes its ids from hard.json, which curate has yet'),
    ],
)
def test_what_cannot_be_curated_says_why(world, tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    curate.curate(_config(world, **fields), str(tmp_path))


def test_other_settings_are_refused(world, curated):
  with pytest.raises(ValueError, match='begun with max_pass_rate=0.5, now'):
    curate.curate(_config(world, max_pass_rate=0.2), f'{world}/run')


def test_a_question_without_judgement_is_an_error_or_dropped(world, tmp_path):
  rows = list(jsonl.read_rows(world / 'judgements.jsonl', records.Judgement))
  failed = records.Verdict.INTERNAL_ERROR
  some = [records.replace(row, verdict=failed) if row.problem_id == 'p1' else row for row in rows]
  jsonl.write_rows(tmp_path / 'some.jsonl', some)
  fields = {'judgements': f'{tmp_path}/some.jsonl'}
  with pytest.raises(ValueError, match=r"1 of the 3 questions, such as 'p1'"):
    curate.curate(_config(world, **fields), f'{tmp_path}/refused')
  curate.curate(_config(world, **fields, unjudged='drop'), f'{tmp_path}/run')
  made = json.loads((tmp_path / 'run/curated/hard.json').read_bytes())
  assert made['questions_unjudged'] == 1 and made['num_questions'] == 1
