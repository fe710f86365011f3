"""Every trace is decided about once, in order, and the reason is kept."""

import weakref

import pytest

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.cleaning import decisions


def _trace(name, **changes):
  values = dict(trace_id=name, problem_id='p', question='Why?', response='So.')
  return records.Trace(**{**values, **changes})


def _reader(**sources):
  """Returns what reads these lists of traces; a text is a bad row."""

  def read(source, quarantine):
    for row in sources[source]:
      if isinstance(row, str):
        quarantine.append({'file': source, 'reason': row})
      else:
        yield row

  return read


def _decide(directory, read, sources, *steps, num_workers=0):
  decisions.write(directory, sources, read, steps, num_workers=num_workers)
  return list(decisions.kept(directory, read))


def _no_b(trace):
  if 'b' in trace.trace_id:
    return decisions.Refusal('has_b', f'{trace.trace_id} has one')
  return trace


def _hard(trace):
  return records.replace(trace, difficulty='hard', is_correct=False)


def test_kept_traces_come_in_order_and_as_they_were(tmp_path):
  rows = [_trace('a'), _trace('b'), _trace('c')]
  kept = _decide(tmp_path, _reader(x=rows), ['x'], _no_b)
  assert kept == [rows[0], rows[2]]


def test_a_refusal_is_written_with_source_number_reason_and_detail(tmp_path):
  read = _reader(x=[_trace('a')], y=['bad', _trace('c'), _trace('b')])
  _decide(tmp_path, read, ['x', 'y'], _no_b)
  *_, row = decisions.read_rows(tmp_path)
  assert row == decisions.Row(
      trace_id='b', source='y', number=1, reason='has_b', detail='b has one'
  )


def test_the_first_refusal_is_the_last_word(tmp_path):
  asked = []

  def later(trace):
    asked.append(trace.trace_id)
    return trace

  _decide(tmp_path, _reader(x=[_trace('b'), _trace('c')]), ['x'], _no_b, later)
  assert asked == ['c']


def test_labels_that_a_step_gives_stand_on_the_kept_trace(tmp_path):
  kept = _decide(tmp_path, _reader(x=[_trace('a')]), ['x'], _hard)
  assert kept == [_trace('a', difficulty='hard', is_correct=False)]


def test_the_next_step_sees_the_labels_of_the_one_before(tmp_path):
  def easy_only(trace):
    hard = trace.difficulty == 'hard'
    return decisions.Refusal('hard') if hard else trace

  assert not _decide(tmp_path, _reader(x=[_trace('a')]), ['x'], _hard, easy_only)


def test_a_step_that_changes_a_text_is_refused(tmp_path):
  def cut(trace):
    return records.replace(trace, response='S')

  with pytest.raises(ValueError, match='changed more of trace a than its lab'):
    _decide(tmp_path, _reader(x=[_trace('a')]), ['x'], cut)
  assert not (tmp_path / 'decisions.jsonl').exists()


def test_the_first_of_one_id_is_kept_over_all_sources(tmp_path):
  read = _reader(x=[_trace('a'), _trace('a')], y=[_trace('b'), _trace('a')])
  kept = _decide(tmp_path, read, ['x', 'y'], decisions.repeated_ids())
  assert [trace.trace_id for trace in kept] == ['a', 'b']


def test_bad_rows_are_written_once(tmp_path):
  read = _reader(x=['1', _trace('a'), '2'], y=['3'])
  _decide(tmp_path, read, ['x', 'y'])
  rows = jsonl.read_rows(tmp_path / 'quarantine.jsonl', dict)
  assert [row['reason'] for row in rows] == ['1', '2', '3']


def test_counts_have_up_to_five_examples(tmp_path):
  rows = [_trace(f'b{i}') for i in range(7)] + [_trace('a')]
  _decide(tmp_path, _reader(x=rows, y=[]), ['x', 'y'], _no_b)
  counts = decisions.count(tmp_path, ['x', 'y'])
  assert counts.read == {'x': 8, 'y': 0}
  assert counts.num_refused == {'has_b': 7}
  assert counts.refused == {'has_b': ['b0', 'b1', 'b2', 'b3', 'b4']}
  assert counts.num_kept == 1


def test_what_is_decided_is_not_decided_again(tmp_path):
  read = _reader(x=[_trace('a'), _trace('b')])
  _decide(tmp_path, read, ['x'])
  assert len(_decide(tmp_path, read, ['x'], _no_b)) == 2


@pytest.mark.parametrize('now', [['a'], ['a', 'c'], ['b', 'a'], ['a', 'b', 'c']], ids=str)
def test_a_source_that_changes_between_the_passes_is_refused(tmp_path, now):
  decisions.write(tmp_path, ['x'], _reader(x=[_trace('a'), _trace('b')]), [])
  changed = _reader(x=[_trace(name) for name in now])
  with pytest.raises(ValueError, match='x changed while it was read'):
    list(decisions.kept(tmp_path, changed))


class _Bad(dict):
  """A row that can be watched."""


def test_bad_rows_do_not_pile_up_in_memory_where_no_row_is_good(tmp_path):
  alive = []

  def read(source, quarantine):
    for number in range(100):
      row = _Bad(file=source, reason=str(number))
      alive.append(weakref.ref(row))
      quarantine.append(row)
      del row
      assert not any(known() for known in alive)
    yield from ()

  assert not _decide(tmp_path, read, ['x'])
  assert len((tmp_path / 'quarantine.jsonl').read_text().splitlines()) == 100


def test_every_row_is_counted_as_it_is_read(tmp_path):
  numbers = []
  read = _reader(x=[_trace('a'), 'bad', _trace('b')], y=[_trace('c')])
  decisions.write(tmp_path, ['x', 'y'], read, [_no_b], numbers.append)
  assert numbers == [1, 1, 1, 1]


def _look(trace):
  if 'b' in trace.trace_id:
    raise OSError('no b, please')
  return len(trace.response)


def _as_looked(trace, seen):
  by = 'itself' if seen is None else 'worker'
  seen = _look(trace) if seen is None else seen
  return records.replace(trace, difficulty=str(seen), method=by)


_LOOKING = decisions.LookingStep(_look, _as_looked)


@pytest.mark.parametrize('num_workers', [0, 1, 2])
def test_who_looks_changes_nothing_and_nobody_looks_behind_a_refusal(tmp_path, num_workers):
  names = [f'{"ab"[i % 3 == 0]}{i}' for i in range(70)]
  read = _reader(x=[*map(_trace, names), 'bad'], y=[_trace('a1'), _trace('c')])
  pure = decisions.pure(_no_b)
  steps = decisions.repeated_ids(), pure, _LOOKING
  kept = _decide(tmp_path, read, ['x', 'y'], *steps, num_workers=num_workers)
  expected = [name for name in names if 'b' not in name] + ['c']
  by = 'worker' if num_workers else 'itself'
  assert kept == [_trace(x, difficulty='3', method=by) for x in expected]
  counts = decisions.count(tmp_path, ['x', 'y'])
  assert counts.num_refused == {'has_b': 24, 'duplicate_trace_id': 1}


def test_a_look_that_fails_in_a_worker_names_its_trace(tmp_path):
  read = _reader(x=[_trace('a'), _trace('b7'), _trace('c')])
  with pytest.raises(RuntimeError, match='Trace b7 .*OSError: no b, please'):
    _decide(tmp_path, read, ['x'], _LOOKING, num_workers=1)
  assert not [*tmp_path.glob('*.jsonl')]
