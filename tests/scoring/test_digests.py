"""A digest changes with what a verdict depends on, and with nothing else."""

import pytest

from valley_jax import records
from valley_jax.scoring import digests

_PROBLEM = records.Problem(
    problem_id='p',
    statement='?',
    tests=(records.TestCase(input='1', expected='2'),),
    entry_point='f',
)
_JUDGES = {
    'tests': (records.TestCase(input='1', expected='3'),),
    'mode': records.Mode.FUNCTION,
    'entry_point': 'g',
    'starter_code': 'import math',
    'checker': 'lines',
    'flags': ('float_tolerance', '1e-6'),
    'program': records.Program(
        language='python', files={'a': 'b'}, protocol=records.Protocol.TESTLIB
    ),
    'limits': records.Limits(cpu_seconds=1.0),
}
_RULES = {
    'cpu_seconds': 1.0,
    'multipliers': (('cpp17', 1.0), ('python', 2.0)),
    'profile': records.Profile.STRICT,
    'stop_at_failure': True,
}
_SUBMISSION = records.Submission(problem_id='p', sample_index=0, source='x')


@pytest.mark.parametrize('field', _JUDGES)
def test_what_judges_is_in_the_digest_of_a_problem(field):
  other = records.replace(_PROBLEM, **{field: _JUDGES[field]})
  assert digests.of_problem(other) != digests.of_problem(_PROBLEM)


@pytest.mark.parametrize(
    'field',
    [
        'statement', 'stub', 'difficulty', 'source', 'platform', 'date',
        'release',
    ],  # fmt: skip
)
def test_what_describes_is_not_in_the_digest_of_a_problem(field):
  other = records.replace(_PROBLEM, **{field: 'other'})
  assert digests.of_problem(other) == digests.of_problem(_PROBLEM)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('cpu_seconds', 1.5),
        ('multipliers', (('cpp17', 2.0), ('python', 2.0))),
        ('profile', records.Profile.LCB_COMPAT),
        ('stop_at_failure', False),
    ],
)
def test_every_rule_is_in_the_digest(field, value):
  other = {**_RULES, field: value}
  assert digests.of_rules(**other) != digests.of_rules(**_RULES)


def test_rules_that_are_equal_have_one_digest():
  other = {**_RULES, 'cpu_seconds': 1, 'multipliers': _RULES['multipliers'][::-1]}
  assert digests.of_rules(**other) == digests.of_rules(**_RULES)


@pytest.mark.parametrize('other', [{'source': 'y'}, {'language': 'cpp17'}])
def test_another_program_has_another_digest(other):
  changed = records.replace(_SUBMISSION, **other)
  assert digests.of_program(changed) != digests.of_program(_SUBMISSION)


def test_an_empty_program_is_not_the_absence_of_one():
  empty = records.replace(_SUBMISSION, source='')
  assert digests.of_program(empty) != digests.of_program(None)


def test_a_foreign_digest_equals_no_part_of_ours():
  assert digests.split('0123abcd') == ('', '', '')
