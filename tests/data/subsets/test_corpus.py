"""What a run trains on and holds out, and the record of it."""

import numpy as np
import pytest

from tests import tables
from valley_jax import jsonl
from valley_jax.data.shards import shards
from valley_jax.data.subsets import corpus
from valley_jax.data.subsets import drawing

TABLE = tables.drawn(240)
SUBSETS = {
    'hard': ({'where': 'difficulty', 'equals': 'hard'},),
    'easy': ({'where': 'difficulty', 'equals': 'easy'},),
    'listed': ({'ids': 'listed.json'},),
    'early': ({'mixture': {'easy': 3, 'hard': 1}, 'size': 20},),
    'late': ({'mixture': {'easy': 1, 'hard': 3}, 'size': 20},),
    'rising': ({'phases': ('early', 'late')},),
    'even': ({'mixture': {'easy': 1, 'hard': 1}, 'size': 40},),
    'much': ({'phases': ('early', 'early_and_more')},),
    'early_and_more': ({'mixture': {'hard': 1}, 'size': 200},),
    'beside': ({'phases': ('early', 'late')}, {'random': 3}),
    'inside': ({'mixture': {'rising': 1}, 'size': 3},),
}


def _choose(name='', num_traces=corpus.ALL, num_held_out=10, **more):
  arguments = {'seed': 0, 'directory': '.', **more}
  return corpus.choose_corpus(
      TABLE, SUBSETS, name, num_traces=num_traces, num_held_out=num_held_out, **arguments
  )


def test_without_a_name_it_is_the_nested_subset():
  found = _choose(num_traces=30)
  assert found.rows.tolist() == drawing.draw_nested(TABLE.ids, 30, 0).tolist()
  held_out = drawing.draw_held_out(TABLE.ids, 10, 30, 0)
  assert found.held_out.tolist() == held_out.tolist()


@pytest.mark.parametrize('name', ['hard', 'easy'])
def test_all_subsets_hold_out_the_same_traces_and_train_on_none(name):
  found = _choose(name)
  assert found.held_out.tolist() == _choose(num_traces=0).held_out.tolist()
  assert {TABLE.difficulty[row] for row in found.rows} == {name}
  assert not set(found.rows.tolist()) & set(found.held_out.tolist())


def test_the_parts_of_a_subset_nest():
  every = _choose('hard').rows.tolist()
  assert _choose('hard', 20).rows.tolist() == every[:20]


def test_no_traces_are_none_of_any_subset(tmp_path):
  for name in SUBSETS:  # A file that is not there yet is not asked for.
    assert not len(_choose(name, 0, directory=tmp_path).rows)


def test_each_phase_has_its_weights_and_no_trace_of_another():
  found = _choose('rising')
  assert found.phases == (20, 20)
  phases = np.split(found.rows, [20])
  hard = [sum(TABLE.difficulty[i] == 'hard' for i in part) for part in phases]
  assert hard == [5, 15]
  assert len(set(found.rows.tolist())) == 40
  assert not set(found.rows.tolist()) & set(found.held_out.tolist())


def test_the_same_traces_without_phases_are_a_mixture():
  rising, even = _choose('rising'), _choose('even')
  assert set(rising.rows.tolist()) == set(even.rows.tolist())
  assert rising.manifest['ids_sha256'] != even.manifest['ids_sha256']
  assert even.phases == ()


def test_listed_traces_are_trained_on_and_others_held_out(tmp_path):
  last = drawing.draw_nested(TABLE.ids, 240, 0)[-30:].tolist()
  path = tmp_path / 'listed.json'
  jsonl.write_json(path, corpus.build_subset_manifest(TABLE, last, subset='listed'))
  found = _choose('listed', directory=tmp_path)
  assert sorted(found.rows.tolist()) == sorted(last)
  assert len(found.held_out) == 10 and not {*found.held_out.tolist()} & {*last}


def test_a_manifest_tells_what_the_subset_is():
  table = tables.table(
      {'num_tokens': 2048, 'difficulty': 'hard', 'is_correct': True},
      {'num_tokens': 2049, 'difficulty': 'hard', 'problem_ids': 'p0'},
      {'num_tokens': 4096, 'difficulty': 'easy', 'teacher': 'QwQ-32B'},
  )
  found = corpus.choose_corpus(
      table, {}, '', num_traces=3, num_held_out=0, seed=0, directory='.'
  ).manifest
  ids = found.pop('ids')
  assert sorted(ids) == ['t0', 't1', 't2']
  assert found.pop('ids_sha256') == shards.hash_ids(ids) != shards.hash_ids(ids[1:])
  assert found.pop('held_out_sha256') == shards.hash_ids([])
  assert found == {
      'subset': '',
      'selections': [{'random': 3}],
      'seed': 0,
      'held_out': 0,
      'num_traces': 3,
      'num_questions': 2,
      'num_tokens': 8193,
      'num_supervised_tokens': 8163,
      'lengths': {'le_2048': 1, 'le_4096': 2},
      'difficulty': {'hard': 2, 'easy': 1},
      'is_correct': {'unknown': 2, 'True': 1},
      'language': {'unknown': 3},
      'source': {'unknown': 3},
      'teacher': {'unknown': 2, 'QwQ-32B': 1},
  }


def test_a_manifest_is_read_back_and_not_if_it_was_changed(tmp_path):
  path = tmp_path / 'a.json'
  made = corpus.build_subset_manifest(TABLE, [5, 3], subset='a')
  jsonl.write_json(path, made)
  assert corpus.read_manifest_ids(path) == ['t5', 't3']
  jsonl.write_json(path, {**made, 'ids': ['t5']})
  with pytest.raises(ValueError, match='others than its ids_sha256 says'):
    corpus.read_manifest_ids(path)


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('', {'num_traces': -1}, 'num_traces=-1 but the shards hold 240'),
        ('hard', {'num_traces': 200}, "num_traces=200, but subset 'hard' has 1"),
        ('hard', {'num_held_out': 241}, 'held_out=241'),
        ('listed', {}, 'listed.json does not exist; run `python -m'),
        ('none', {}, "config.subset='none'"),
        ('much', {}, "200 traces of 'hard' are needed, it has"),
        ('rising', {'num_traces': 9}, "num_traces=9, but subset 'rising' has"),
        ('beside', {}, "'beside': phases are the whole of a subset"),
        ('inside', {}, 'cannot be part of another'),
    ],
)
def test_what_cannot_be_chosen_names_number_and_remedy(tmp_path, name, arguments, message):
  with pytest.raises(ValueError, match=message):
    _choose(name, **arguments, directory=tmp_path)
