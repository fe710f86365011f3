"""The sets of both papers that the configs name can be had."""

import collections

import pytest

from configs import distill
from configs import valley
from tests import tables
from valley_jax.data.subsets import corpus
from valley_jax.data.subsets import selections

# Small, so sizes are divided by this.
SMALLER = 100
TABLE = tables.drawn(480)
VALLEY = valley.get_config().subsets.to_dict()
DISTILL = distill.get_config().subsets.to_dict()


def _shrink_sizes(subsets):
  def cut(one):
    sizes = {'random', 'size'} | ({'most'} if 'match' in one else set())
    return {k: v // SMALLER if k in sizes else v for k, v in one.items()}

  return {name: [cut(one) for one in parts] for name, parts in subsets.items()}


def _select_ids(subsets, name, read_ids=None):
  rows = selections.select_rows(TABLE, _shrink_sizes(subsets), name, seed=0, read_ids=read_ids)
  return [TABLE.ids[row] for row in rows]


def _count_values(ids, column):
  value_of = dict(zip(TABLE.ids, getattr(TABLE, column)))
  return collections.Counter(value_of[i] for i in ids)


@pytest.mark.parametrize('name', VALLEY)
def test_every_set_of_the_valley_is_what_its_name_says(name):
  ids = _select_ids(VALLEY, name)
  kind, _, size = name.rpartition('_')
  if size != 'matched':
    # 30K are 300 here.
    assert len(ids) == int(size.removesuffix('k')) * 1000 // SMALLER
  if kind != 'random':
    assert _count_values(ids, 'source').keys() == {'taco'}
  if kind in ('correct', 'incorrect'):
    assert _count_values(ids, 'is_correct').keys() == {kind == 'correct'}
  if kind in ('hard', 'easy'):
    assert _count_values(ids, 'difficulty').keys() == {kind}


@pytest.mark.parametrize(
    ('one', 'other', 'column'),
    [
        ('correct_matched', 'incorrect_matched', 'difficulty'),
        ('hard_matched', 'easy_matched', 'is_correct'),
    ],
)
def test_matched_sets_are_of_one_size_and_alike(one, other, column):
  one, other = _select_ids(VALLEY, one), _select_ids(VALLEY, other)
  assert len(one) == len(other) and not set(one) & set(other)
  assert _count_values(one, column) == _count_values(other, column)


def test_the_random_sets_are_those_of_num_traces():
  def ids(name, num_traces):
    choice = corpus.choose_corpus(
        TABLE,
        _shrink_sizes(VALLEY),
        name,
        num_traces=num_traces,
        num_held_out=10,
        seed=3,
        directory='.',
    )
    return choice.manifest['ids']

  for name, size in (('1k', 10), ('10k', 100), ('30k', 300)):
    assert ids(f'random_{name}', corpus.ALL) == ids('', size)


# Of the first 30 questions all right traces of QwQ, and of each two of them.
HARD = [
    i
    for i in _select_ids(DISTILL, 'pool')
    if int(i.removeprefix('t')) < 120
]  # fmt: skip


def _pick_two_a_question():
  counts = collections.Counter()
  for i in HARD:
    question = TABLE.problem_ids[TABLE.ids.index(i)]
    counts[question] += 1
    if counts[question] <= 2:
      yield i


FILES = {
    'hard.json': HARD,
    'farthest.json': [*_pick_two_a_question()],
    'nearest.json': [*_pick_two_a_question()],
}


@pytest.mark.parametrize('name', DISTILL)
def test_every_corpus_of_distillation_can_be_had(name):
  ids = _select_ids(DISTILL, name, FILES.__getitem__)
  teacher = 'DeepSeek-R1' if name == 'r1' else 'QwQ-32B'
  assert _count_values(ids, 'teacher').keys() == {teacher}
  if name not in ('r1', 'qwq'):
    assert _count_values(ids, 'is_correct').keys() == {True}
  if name in ('r1', 'qwq', 'right', 'hard'):
    assert set(_count_values(ids, 'problem_ids').values()) == {1}


def test_the_controls_have_as_many_traces_of_each_question():
  config = distill.get_config('traces_per_question=2')
  subsets = config.subsets.to_dict()
  counts = [
      _count_values(_select_ids(subsets, name, FILES.__getitem__), 'problem_ids')
      for name in ('diverse', 'random', 'nearest')
  ]
  assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize(
    ('module', 'arg', 'expected'),
    [
        (valley, '', ('', 30_000, 0)),
        (valley, 'num_traces=1000', ('', 1000, 0)),
        (valley, 'subset=hard_4k', ('hard_4k', -1, 0)),
        (valley, 'num_traces=1000,fixed_steps=true', ('', 1000, 30_000)),
        (valley, 'mini,fixed_steps=true', ('', 30_000, 4096)),
        (distill, '', ('', 925, 0)),
        (distill, 'subset=diverse', ('diverse', -1, 0)),
    ],
)
def test_a_set_is_chosen_by_the_configs_argument(module, arg, expected):
  config = module.get_config(arg)
  choice = config.subset, config.num_traces, config.train.steps_of
  assert choice == expected
