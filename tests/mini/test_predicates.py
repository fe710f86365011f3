"""The three forms of a chain of definitions have one meaning."""

import re

from valley_jax.mini import predicates
from valley_jax.mini import problems

DEFINITION = re.compile(r'A (\w+) number is ([^.]*)\.')


def read_phrase(phrase, definitions):
  """Returns the predicate of an English phrase, without the code of the package."""
  if ' but not ' in phrase:
    left, right = phrase.split(' but not ')
    keep, drop = (read_phrase(p, definitions) for p in (left, right))
    return lambda x: keep(x) and not drop(x)
  for word, join in (('and', min), ('or', max)):
    if f' {word} ' in phrase:
      parts = [read_phrase(p, definitions) for p in phrase.split(f' {word} ')]
      return lambda x: join(bool(part(x)) for part in parts)
  if phrase in definitions:
    return read_phrase(definitions[phrase], definitions)
  match re.findall(r'\d+', phrase), phrase.split()[0]:
    case [], 'even':
      return lambda x: x % 2 == 0
    case [], 'odd':
      return lambda x: x % 2 == 1
    case [limit], 'below':
      return lambda x: x < int(limit)
    case [limit], 'above':
      return lambda x: x > int(limit)
    case [modulus], 'a':
      return lambda x: x % int(modulus) == 0
    case [more, modulus], _:
      return lambda x: (x - int(more)) % int(modulus) == 0
  raise AssertionError(f'cannot read {phrase!r}')


def generate_puzzles(num=120):
  return problems.generate_puzzles(problems.Split.EVAL, num, seed=1)


def test_the_english_statement_means_the_truth_table():
  for puzzle in generate_puzzles():
    definitions = dict(DEFINITION.findall(puzzle.statement))
    name = re.search(r'of the (\w+) ones', puzzle.statement)[1]
    holds = read_phrase(name, definitions)
    truth = predicates.tabulate_chain(puzzle.chain)
    assert predicates.list_members(truth) == list(filter(holds, predicates.DOMAIN))


def test_the_unfolded_code_means_the_truth_table():
  for puzzle in generate_puzzles():
    code = compile(predicates.unfold_chain(puzzle.chain)[-1], '', 'eval')
    truth = predicates.tabulate_chain(puzzle.chain)
    for x in predicates.DOMAIN:
      assert eval(code, {'x': x}) == predicates.is_member(x, truth)


def test_each_unfolded_line_contains_the_line_before():
  for puzzle in generate_puzzles():
    codes = predicates.unfold_chain(puzzle.chain)
    for before, after in zip(codes, codes[1:]):
      assert before in after


def test_every_misread_condition_means_something_else():
  conditions = [predicates.Bound('<', 2), predicates.Bound('>', 99)]
  conditions += [predicates.Remainder(k, r) for k in range(2, 10) for r in range(k)]
  for condition in conditions:
    for misread in condition.list_misreadings():
      assert predicates.tabulate_condition(misread) != predicates.tabulate_condition(condition)
