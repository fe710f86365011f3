"""A score with a gap is refused, and the message names the remedy."""

import pytest

from tests import rows
from valley_jax import records
from valley_jax.scoring import completeness


def _index_judgements(*judgements):
  return {records.sample_key(judgement): judgement for judgement in judgements}


def test_an_internal_error_is_no_score():
  judgements = _index_judgements(
      rows.make_judgement('p', 0, records.Verdict.INTERNAL_ERROR, message='lost')
  )
  with pytest.raises(ValueError, match=r'IE.*lost.*p\[0\]; run `execute`'):
    completeness.check_samples(['p'], judgements, judgements.keys(), 1)


def test_a_completion_without_judgement_is_no_score():
  judgements = _index_judgements(rows.make_judgement())
  with pytest.raises(ValueError, match=r'no judgement: p\[1\]; run `execute`'):
    completeness.check_samples(['p'], judgements, {('p', 0), ('p', 1)}, 2)


def test_a_judgement_of_other_completions_is_no_score():
  judgements = _index_judgements(rows.make_judgement(), rows.make_judgement('p', 1))
  with pytest.raises(ValueError, match=r'no completion: p\[1\]'):
    completeness.check_samples(['p'], judgements, {('p', 0)}, 1)


def test_a_missing_sample_is_no_score():
  judgements = _index_judgements(rows.make_judgement(), rows.make_judgement('p', 2))
  with pytest.raises(ValueError, match=r'1 of 3 samples .* missing: p\[1\]'):
    completeness.check_samples(['p'], judgements, judgements.keys(), 3)


def test_submissions_of_unequal_number_are_no_score():
  judgements = _index_judgements(
      rows.make_judgement(), rows.make_judgement('p', 1), rows.make_judgement('q', 0)
  )
  with pytest.raises(ValueError, match=r'missing: q\[1\]'):
    completeness.check_samples(['p', 'q'], judgements, judgements.keys(), None)


def test_more_samples_than_asked_for_are_no_score():
  judgements = _index_judgements(rows.make_judgement(), rows.make_judgement('p', 1))
  with pytest.raises(ValueError, match=r'samples 0..0: p\[1\]'):
    completeness.check_samples(['p'], judgements, judgements.keys(), 1)


def test_a_sample_that_comes_twice_is_no_score():
  with pytest.raises(ValueError, match=r'judgements.jsonl holds p\[0\] twice'):
    completeness.collect_unique([(('p', 0), 1), (('p', 0), 1)], 'judgements.jsonl')


def test_two_problems_of_one_name_are_no_score():
  judgements = _index_judgements(rows.make_judgement())
  with pytest.raises(ValueError, match='2 problems with 1 names'):
    completeness.check_samples(['p', 'p'], judgements, judgements.keys(), None)
