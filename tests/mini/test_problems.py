"""Generated problems are disjoint between splits, distinct, seeded, and have no idle definition."""

import collections
import itertools

import pytest

from valley_jax.mini import predicates
from valley_jax.mini import problems

NUMS = {problems.Split.BASE: 2000, problems.Split.TRAIN: 1000, problems.Split.EVAL: 400}


@pytest.fixture(scope='module')
def splits():
  return {s: list(problems.generate_puzzles(s, n)) for s, n in NUMS.items()}


def select_composed(puzzles):
  return [puzzle for puzzle in puzzles if len(puzzle.chain) > 1]


def test_no_two_splits_share_a_composed_predicate_for_any_seed(splits):
  truths = {
      split: {predicates.tabulate_chain(puzzle.chain) for puzzle in select_composed(puzzles)}
      for split, puzzles in splits.items()
  }
  for seed in (1, 2):
    for split in problems.Split:
      puzzles = select_composed(problems.generate_puzzles(split, 200, seed=seed))
      truths[split] |= {predicates.tabulate_chain(puzzle.chain) for puzzle in puzzles}
  for one, other in itertools.combinations(truths.values(), 2):
    assert not one & other


def test_no_two_splits_share_a_definition_graph(splits):
  def describe_graph(puzzle):
    """The definitions, their names replaced by how the request gets there."""
    text = ' '.join(link.sentence for link in puzzle.definitions)
    for steps, link in enumerate(reversed(puzzle.chain)):
      text = text.replace(f' {link.name}', f' <{steps} steps from the request>')
    if puzzle.distractor:
      text = text.replace(f' {puzzle.distractor.name}', ' <not reached>')
    return text

  graphs = [{describe_graph(p) for p in puzzles} for puzzles in splits.values()]
  assert all(len(puzzles) > 300 for puzzles in graphs)
  for one, other in itertools.combinations(graphs, 2):
    assert not one & other


def test_no_split_repeats_a_statement(splits):
  for split, puzzles in splits.items():
    assert len({p.statement for p in puzzles}) == NUMS[split]
    assert len({p.problem_id for p in puzzles}) == NUMS[split]


def test_no_two_evaluation_problems_have_the_same_right_programs(splits):
  puzzles = select_composed(splits[problems.Split.EVAL])
  predicates_and_requests = {(predicates.tabulate_chain(p.chain), p.request) for p in puzzles}
  assert len(predicates_and_requests) == len(puzzles)


def test_the_evaluation_is_balanced_over_depths(splits):
  counts = collections.Counter(p.difficulty for p in splits[problems.Split.EVAL])
  assert counts == {f'depth-{d}': 100 for d in (1, 2, 3, 4)}


def test_base_problems_follow_the_depth_weights():
  world = problems.WorldSettings(base_depth_weights=(0, 1, 3))
  puzzles = problems.generate_puzzles(problems.Split.BASE, 1000, world=world)
  counts = collections.Counter(p.difficulty for p in puzzles)
  assert set(counts) == {'depth-2', 'depth-3'}
  assert 650 < counts['depth-3'] < 850


@pytest.mark.parametrize('split', problems.Split)
def test_fewer_problems_are_a_prefix_of_more(split):
  few = list(problems.generate_puzzles(split, 30, seed=5))
  more = problems.generate_puzzles(split, 90, seed=5)
  assert few == list(itertools.islice(more, 30))


def test_another_seed_gives_other_problems():
  one, other = (
      {p.statement for p in problems.generate_puzzles(problems.Split.TRAIN, 50, seed=s)}
      for s in (0, 1)
  )
  assert len(one & other) < 3


def test_every_definition_of_a_chain_decides_some_numbers(splits):
  for puzzle in splits[problems.Split.TRAIN]:
    truth = predicates.tabulate_chain(puzzle.chain)
    for i in range(len(puzzle.chain)):
      so_far = predicates.tabulate_chain(puzzle.chain[: i + 1])
      assert so_far not in (0, predicates.EVERYTHING)
      if len(puzzle.chain) > 1:
        rest = predicates.drop_definition(puzzle.chain, i)
        assert (predicates.tabulate_chain(rest) ^ truth).bit_count() >= 4


def test_the_basic_definition_does_not_stand_out(splits):
  """Half the time the distractor, too, builds on nothing."""
  puzzles = splits[problems.Split.TRAIN]
  loose = sum(not p.distractor.refers_to for p in puzzles)
  assert 0.45 < loose / len(puzzles) < 0.55


def test_the_place_in_the_statement_does_not_betray_the_basic_definition(splits):
  puzzles = [p for p in splits[problems.Split.TRAIN] if len(p.chain) == 4]
  places = collections.Counter(p.order.index(0) for p in puzzles)
  assert all(0.12 < places[i] / len(puzzles) < 0.28 for i in range(5))


def test_too_many_evaluation_problems_say_what_to_do():
  world = problems.WorldSettings(max_limit=5)
  with pytest.raises(ValueError, match='ask for fewer'):
    list(problems.generate_puzzles(problems.Split.EVAL, 2000, world=world))
