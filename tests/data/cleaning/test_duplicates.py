"""The first of a group stays, near traces go, a question has one name."""

import pickle
import random

import pytest

from tests import planted
from valley_jax import records
from valley_jax.data.cleaning import duplicates
from valley_jax.data.cleaning import minhash
from valley_jax.data.cleaning import texts
from valley_jax.runtime import config_groups

RNG = random.Random(7)
QUESTION = planted.statement(RNG)
OTHER_QUESTION = planted.statement(RNG)
RESPONSE = planted.reasoning(RNG)
OTHER_RESPONSE = planted.reasoning(RNG)


def _make_trace(trace_id, problem_id='p', question=QUESTION, response=RESPONSE):
  return records.Trace(
      trace_id=trace_id, problem_id=problem_id, question=question, response=response
  )


def _build_settings(**changes):
  group = config_groups.get_duplicates_group() | changes
  return duplicates.Settings.from_config(group)


def _check_traces(*traces, **changes):
  index = duplicates.Duplicates(_build_settings(**changes))
  return [index.check_trace(trace) for trace in traces]


def test_the_first_one_stays_and_later_ones_name_it():
  edited = planted.edited(RESPONSE, RNG)
  results = _check_traces(
      _make_trace('a'),
      _make_trace('b'),
      _make_trace('c', response=planted.respaced(RESPONSE, RNG)),
      _make_trace('d', response=edited),
      _make_trace('e', response=edited),
  )
  assert results[0] is None
  assert [(f.trace_id, f.kind.value, f.is_refused) for f in results[1:]] == [
      ('a', 'exact trace', True),
      ('a', 'exact trace', True),
      ('a', 'near trace', True),
      ('a', 'near trace', True),
  ]
  assert results[1].similarity == 1 and 0.8 <= results[3].similarity < 1


def test_traces_of_one_question_that_differ_all_stay():
  assert _check_traces(_make_trace('a'), _make_trace('b', response=OTHER_RESPONSE)) == [None] * 2


def test_a_refused_trace_represents_nothing():
  # 'c' is near to 'b', which is near to 'a'; 'c' itself is not near to 'a'.
  words = RESPONSE.split()
  new = [w.upper() + 'X' for w in words]
  b = ' '.join(new[:25] + words[25:])
  c = ' '.join(new[:75] + words[75:])
  results = _check_traces(
      _make_trace('a'),
      _make_trace('b', response=b),
      _make_trace('c', response=c),
      _make_trace('d', response=c),
  )
  assert results[1].trace_id == 'a' and results[2] is None and results[3].trace_id == 'c'


@pytest.mark.parametrize(('choice', 'kept_as'), [('merge', 'p'), ('drop', None), ('keep', 'q')])
def test_a_question_under_another_id_is_treated_as_chosen(choice, kept_as):
  twin = planted.reformatted(planted.edited(QUESTION, RNG), RNG)
  traces = [
      _make_trace('a'),
      _make_trace('b', 'q', twin, OTHER_RESPONSE),
      _make_trace('c', 'q', twin, planted.reasoning(RNG)),
      _make_trace('d', 'r', OTHER_QUESTION, planted.reasoning(RNG)),
  ]
  for duplicate in _check_traces(*traces, questions=choice)[1:3]:
    if duplicate is None:
      assert kept_as == 'q'
    else:
      assert duplicate.kind is duplicates.Kind.SAME_QUESTION and duplicate.trace_id == 'a'
      assert duplicate.problem_id == (kept_as or '')
      assert duplicate.is_refused == (kept_as is None)
  assert _check_traces(*traces, questions=choice)[3] is None


def test_a_trace_dropped_for_its_question_represents_nothing():
  results = _check_traces(
      _make_trace('a'),
      _make_trace('b', 'q', QUESTION, OTHER_RESPONSE),
      _make_trace('c', 'r', OTHER_QUESTION, OTHER_RESPONSE),
      questions='drop',
  )
  assert results[1].kind is duplicates.Kind.SAME_QUESTION and results[2] is None


def test_traces_that_differ_in_signs_alone_are_near_not_exact():
  results = _check_traces(_make_trace('a'), _make_trace('b', response=RESPONSE.replace('.', '!')))
  assert results[1].kind is duplicates.Kind.NEAR_TRACE


def test_a_short_answer_in_between_does_not_matter():
  results = _check_traces(
      _make_trace('a', response='yes'),
      _make_trace('b'),
      _make_trace('c', response=planted.edited(RESPONSE, RNG)),
  )
  assert results[2].trace_id == 'b' and results[2].similarity > 0.8


def test_a_short_answer_repeats_only_one_to_the_same_question():
  results = _check_traces(
      _make_trace('a', response='It is 42.'),
      _make_trace('b', 'q', OTHER_QUESTION, 'It is 42.'),
      _make_trace('c', 'q', OTHER_QUESTION, 'It is 43.'),
      _make_trace('d', 'r', QUESTION, 'It  is 42.'),
  )
  assert results[:3] == [None] * 3
  assert (results[3].trace_id, results[3].is_refused) == ('a', True)


def test_signs_of_a_short_answer_count():
  results = _check_traces(_make_trace('a', response='x < y'), _make_trace('b', response='x > y'))
  assert results == [None, None]


def test_the_sketch_of_another_process_counts_as_the_response():
  settings = _build_settings()
  index = duplicates.Duplicates(settings)
  sketcher = pickle.loads(pickle.dumps(duplicates.build_response_sketcher(settings)))
  assert index.check_trace(_make_trace('a'), sketcher(RESPONSE)) is None
  assert index.check_trace(_make_trace('b', response=OTHER_RESPONSE)) is None
  duplicate = index.check_trace(_make_trace('c', response='So.'), sketcher(RESPONSE))
  assert duplicate and (duplicate.trace_id, duplicate.kind.value) == ('a', 'exact trace')


@pytest.mark.parametrize('question', ['', '-', '***'])
def test_questions_that_say_nothing_are_not_the_same(question):
  traces = [_make_trace('a', 'p', question), _make_trace('b', 'q', question, OTHER_RESPONSE)]
  assert _check_traces(*traces) == [None, None]


def test_exact_lets_near_ones_pass_and_keep_lets_all():
  traces = [
      _make_trace('a'),
      _make_trace('b', response=planted.edited(RESPONSE, RNG)),
      _make_trace('c'),
  ]
  exact = _check_traces(*traces, traces='exact')
  assert exact[1] is None and exact[2].kind is duplicates.Kind.EXACT_TRACE
  assert _check_traces(*traces, traces='keep') == [None] * 3


@pytest.mark.parametrize(
    'text',
    ['', ' \n', 'a' * 100_000, 'x ' * 60_000, '\ud800 lone', '\0', '数列' * 50],
    ids=['empty', 'space', 'word', 'loop', 'surrogate', 'NUL', 'ideograms'],
)
def test_odd_texts_repeat_themselves_and_nothing_else(text):
  results = _check_traces(
      _make_trace('a'), _make_trace('b', response=text), _make_trace('c', response=text)
  )
  assert results[:2] == [None, None] and results[2].trace_id == 'b'


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({'questions': 'fuse'}, "questions='fuse': want one of merge, drop"),
        ({'traces': ''}, 'near, exact, keep'),
        ({'trace_similarity': 80}, 'trace_similarity=80.* up to 1'),
        ({'num_hashes': 100}, 'num_hashes=100 is no multiple of bands=16'),
        ({'bands': 0}, 'bands=0: want 1 or more'),
    ],
)
def test_a_setting_that_cannot_be_names_value_and_remedy(settings, said):
  with pytest.raises(ValueError, match=said):
    _build_settings(**settings)


def test_the_hashes_are_the_same_on_every_machine_and_version():
  sketch = minhash.Sketcher(texts.split_words, 2, 1, 4, 1)('Add a to b, twice.')
  assert sketch.key == 2535423964972695691
  hashes = [889536073, 425415159, 696741094, 2493789927]
  assert sketch.hashes_H is not None and sketch.hashes_H.tolist() == hashes


def test_the_estimate_is_near_the_true_similarity():
  words = [f'w{i}' for i in range(1000)]
  sketch = minhash.Sketcher(texts.split_words, 1, 1, 512, 1)
  for shared in (500, 800, 950):
    index = minhash.Index(0.1, 512, 128)
    index.add_sketch(sketch(' '.join(words[:shared] + ['x', 'y'])))
    row, similarity = index.find_first(sketch(' '.join(words)))
    # Four standard errors of 512 hashes at most.
    assert row == 0 and similarity == pytest.approx(shared / 1002, abs=0.09)


def test_a_table_finds_every_row_of_every_key():
  table = minhash.Table(num_slots=4)
  keys = [0, 1 << 40, 3 << 40, 5, (1 << 64) - 1] * 20
  for row, key in enumerate(keys):
    table.add_row(key, row)
  for key in set(keys):
    rows = sorted(table.find_rows(key))
    assert rows == [row for row, other in enumerate(keys) if other == key]
  assert not list(table.find_rows(77))


def test_of_several_near_ones_the_first_of_the_sources_is_named():
  sketch = minhash.Sketcher(texts.split_words, 1, 1, 128, 1)
  index = minhash.Index(0.8, 128, 16)
  near = ' '.join(f'word{i}' for i in range(60))
  for row in range(16):
    text = f'{near} so{row}' if row in (3, 8) else f'{row} has others'
    assert index.add_sketch(sketch(text)) == row
  results = index.find_first(sketch(f'{near} and'))
  assert results and results[0] == 3


def test_a_key_of_very_many_rows_keeps_the_first_ones():
  table = minhash.Table(num_slots=4)
  for row in range(200):
    table.add_row(7, row)
  assert sorted(table.find_rows(7)) == list(range(64))
