"""Verdicts of the profile lcb_compat are those of LiveCodeBench's grader."""

import pytest

from tests import judge_cases
from tests import judged
from valley_jax import records

CASES = {f'{c.group}: {c.name}': c for c in judge_cases.CASES}
COMPAT = {'profile': records.Profile.LCB_COMPAT}
# What is not reproduced: the verdict in this profile, and why.
OWN_LIMIT = 'the limits of this judge hold in both profiles'
HIDDEN = 'the answer is never in the sandbox'
APART = {
    'comparison: .1 + .2 for a float': (
        'AC', 'a problem with a checker of its own keeps it'
    ),
    'call: state in self between tests': ('AC', 'a process is made each test'),
    'limits: right but late': ('TLE', OWN_LIMIT),
    'limits: signal.alarm(0) and on': ('TLE', OWN_LIMIT),
    'limits: swallows every exception': ('TLE', OWN_LIMIT),
    'limits: memory touched': ('MLE', OWN_LIMIT),
    'limits: endless output': ('MLE', 'it is kept in memory, which is limited'),
    'anti-cheat: the answer in the frames of its caller': ('RE', HIDDEN),
    'anti-cheat: a comparison that is patched': ('WA', HIDDEN),
    'control: no syntax': ('CE', 'there it is the same error as any other'),
}  # fmt: skip


@pytest.fixture(scope='module')
def judgements():
  table = {n: (c.problem, c.source) for n, c in CASES.items()}
  return judged.judge_table(table, **COMPAT)


def test_the_known_cases_are_all_here():
  ours = [c.verdict == 'AC' for c in CASES.values()]
  theirs = [c.lcb == 'AC' for c in CASES.values()]
  assert sum(a and not b for a, b in zip(ours, theirs)) == 28  # Misjudged.
  assert sum(b and not a for a, b in zip(ours, theirs)) >= 11  # Let through.


@pytest.mark.parametrize('name', CASES)
def test_a_program_gets_the_verdict_that_it_gets_there(judgements, name):
  case, judgement = CASES[name], judgements[name]
  found = judgement.verdict.value
  if case.lcb == '-':
    assert found != 'AC'  # There is no result there, which is no pass either.
  else:
    expected, _ = APART.get(name, (case.lcb, ''))
    assert found == expected, judgement


@pytest.mark.parametrize('name', CASES)
def test_a_difference_is_explained_and_nothing_else(judgements, name):
  case, judgement = CASES[name], judgements[name]
  assert judgement.profile is records.Profile.LCB_COMPAT
  if judgement.verdict.value == case.verdict:
    assert judgement.difference == ''
  else:
    start = f'strict {case.verdict}, LiveCodeBench {judgement.verdict.value}: '
    assert judgement.difference.startswith(start)
    assert 'signal' not in judgement.difference  # That is no reason.


@pytest.mark.parametrize('name', APART)
def test_what_is_not_reproduced_is_really_not(name):
  assert CASES[name].lcb != APART[name][0]


WORDS = {
    'stdin: for line in stdin': 'not iterable',
    'stdin: buffer.readline until end of file': 'out of time',
    'stdout: os.write(1)': 'sys.stdout',
    'stdout: quit()': 'NoneType',
    'comparison: 1_000 for 1000': 'decimals',
    'control: right, but a non-zero exit': 'exit status 1',
    'call: a missing import': 'imports',
}


@pytest.mark.parametrize('name', WORDS)
def test_the_explanation_names_the_cause(judgements, name):
  assert WORDS[name] in judgements[name].difference


def test_it_knows_no_tolerance_that_a_statement_allows():
  problem = judged.build_problem(('', '0.333333333'), flags=('float_tolerance', '1e-6'))
  row = judged.judge_program(problem, 'print(1 / 3)', **COMPAT)
  assert row.verdict.value == 'WA'
  assert row.difference.startswith('strict AC, LiveCodeBench WA: ')


def test_other_modes_and_languages_are_judged_alike_in_both():
  table = {
      'assert': (judged.build_assert_problem('assert f(2) == 4'), 'f = lambda x: x * x'),
      'wrong': (judged.build_assert_problem('assert f(2) == 4'), 'f = lambda x: x'),
  }
  rows = judged.judge_table(table, **COMPAT)
  assert [row.verdict.value for row in rows.values()] == ['AC', 'WA']
  assert not any(row.difference for row in rows.values())
