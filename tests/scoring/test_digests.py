"""A digest changes with what a verdict depends on, and with nothing else."""

import dataclasses

import pytest

from tests import rows
from valley_jax import records
from valley_jax.execution import settings as judge_settings
from valley_jax.scoring import completeness

_PROBLEM = rows.make_problem(entry_point='f')
_OTHER_VALUES = {
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
_RULES = judge_settings.Settings(
    cpu_seconds=1.0, multipliers=(('cpp17', 1.0), ('python', 2.0)), stop_at_failure=True
)
_SUBMISSION = rows.make_submission(source='x')


@pytest.mark.parametrize('field', _OTHER_VALUES)
def test_what_a_verdict_depends_on_is_in_the_digest_of_a_problem(field):
  other = records.replace(_PROBLEM, **{field: _OTHER_VALUES[field]})
  assert completeness.digest_problem(other) != completeness.digest_problem(_PROBLEM)


@pytest.mark.parametrize(
    'field', ['statement', 'stub', 'difficulty', 'source', 'platform', 'date', 'release']
)
def test_what_only_describes_a_problem_is_not_in_its_digest(field):
  other = records.replace(_PROBLEM, **{field: 'other'})
  assert completeness.digest_problem(other) == completeness.digest_problem(_PROBLEM)


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
  other = dataclasses.replace(_RULES, **{field: value})
  assert completeness.digest_rules(other) != completeness.digest_rules(_RULES)


def test_rules_that_are_equal_have_one_digest():
  other = dataclasses.replace(_RULES, cpu_seconds=1, multipliers=_RULES.multipliers[::-1])
  assert completeness.digest_rules(other) == completeness.digest_rules(_RULES)


@pytest.mark.parametrize('other', [{'source': 'y'}, {'language': 'cpp17'}])
def test_another_program_has_another_digest(other):
  changed = records.replace(_SUBMISSION, **other)
  assert completeness.digest_program(changed) != completeness.digest_program(_SUBMISSION)


def test_an_empty_program_is_not_the_absence_of_one():
  empty = records.replace(_SUBMISSION, source='')
  assert completeness.digest_program(empty) != completeness.digest_program(None)


def test_a_digest_of_another_form_has_no_part_in_common_with_ours():
  assert completeness.split_digest('0123abcd') == ('', '', '')
