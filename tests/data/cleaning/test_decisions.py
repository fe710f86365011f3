"""Every trace is decided about once, in order, and the reason is kept."""

import weakref

import pytest

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.cleaning import decisions


def _make_trace(name, **changes):
  values = dict(trace_id=name, problem_id='p', question='Why?', response='So.')
  return records.Trace(**{**values, **changes})


def _make_reader(**sources):
  """Returns what reads these lists of traces; a text is a bad row."""

  def read(source, quarantine):
    for row in sources[source]:
      if isinstance(row, str):
        quarantine.append({'file': source, 'reason': row})
      else:
        yield row

  return read


def _keep_all(trace, unused_look):
  return trace


def _look_at_nothing(unused_trace):
  return None


def _keep_traces(directory, read, sources, decide=_keep_all, look=_look_at_nothing, num_workers=0):
  decisions.write_decisions(directory, sources, read, decide, look, num_workers=num_workers)
  return list(decisions.read_kept_traces(directory, read))


def _refuse_b(trace, unused_look=None):
  if 'b' in trace.trace_id:
    return decisions.Refusal('has_b', f'{trace.trace_id} has one')
  return trace


def _label_hard(trace, unused_look):
  return records.replace(trace, difficulty='hard', is_correct=False)


def test_kept_traces_come_in_order_and_as_they_were(tmp_path):
  rows = [_make_trace('a'), _make_trace('b'), _make_trace('c')]
  kept = _keep_traces(tmp_path, _make_reader(x=rows), ['x'], _refuse_b)
  assert kept == [rows[0], rows[2]]


def test_a_refusal_is_written_with_source_number_reason_and_detail(tmp_path):
  read = _make_reader(x=[_make_trace('a')], y=['bad', _make_trace('c'), _make_trace('b')])
  _keep_traces(tmp_path, read, ['x', 'y'], _refuse_b)
  *_, row = decisions.read_decisions(tmp_path)
  assert row == decisions.Decision(
      trace_id='b', source='y', number=1, reason='has_b', detail='b has one'
  )


def test_labels_of_a_decision_are_those_of_the_kept_trace(tmp_path):
  kept = _keep_traces(tmp_path, _make_reader(x=[_make_trace('a')]), ['x'], _label_hard)
  assert kept == [_make_trace('a', difficulty='hard', is_correct=False)]


def test_a_decision_that_changes_a_text_is_refused(tmp_path):
  def cut_response(trace, unused_look):
    return records.replace(trace, response='S')

  with pytest.raises(ValueError, match='More of trace a was changed than its labels'):
    _keep_traces(tmp_path, _make_reader(x=[_make_trace('a')]), ['x'], cut_response)
  assert not (tmp_path / 'decisions.jsonl').exists()


def test_bad_rows_are_written_once(tmp_path):
  read = _make_reader(x=['1', _make_trace('a'), '2'], y=['3'])
  _keep_traces(tmp_path, read, ['x', 'y'])
  rows = jsonl.read_rows(tmp_path / 'quarantine.jsonl', dict)
  assert [row['reason'] for row in rows] == ['1', '2', '3']


def test_counts_have_up_to_five_examples(tmp_path):
  rows = [_make_trace(f'b{i}') for i in range(7)] + [_make_trace('a')]
  _keep_traces(tmp_path, _make_reader(x=rows, y=[]), ['x', 'y'], _refuse_b)
  counts = decisions.count_decisions(tmp_path, ['x', 'y'])
  assert counts.read == {'x': 8, 'y': 0}
  assert counts.num_refused == {'has_b': 7}
  assert counts.refused == {'has_b': ['b0', 'b1', 'b2', 'b3', 'b4']}
  assert counts.num_kept == 1


def test_what_is_decided_is_not_decided_again(tmp_path):
  read = _make_reader(x=[_make_trace('a'), _make_trace('b')])
  _keep_traces(tmp_path, read, ['x'])
  assert len(_keep_traces(tmp_path, read, ['x'], _refuse_b)) == 2


@pytest.mark.parametrize('now', [['a'], ['a', 'c'], ['b', 'a'], ['a', 'b', 'c']], ids=str)
def test_a_source_that_changes_between_the_passes_is_refused(tmp_path, now):
  decisions.write_decisions(
      tmp_path, ['x'], _make_reader(x=[_make_trace('a'), _make_trace('b')]), _keep_all
  )
  changed = _make_reader(x=[_make_trace(name) for name in now])
  with pytest.raises(ValueError, match='x changed while it was read'):
    list(decisions.read_kept_traces(tmp_path, changed))


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

  assert not _keep_traces(tmp_path, read, ['x'])
  assert len((tmp_path / 'quarantine.jsonl').read_text().splitlines()) == 100


def test_every_row_is_counted_as_it_is_read(tmp_path):
  numbers = []
  read = _make_reader(x=[_make_trace('a'), 'bad', _make_trace('b')], y=[_make_trace('c')])
  decisions.write_decisions(tmp_path, ['x', 'y'], read, _refuse_b, report=numbers.append)
  assert numbers == [1, 1, 1, 1]


def _measure_response(trace):
  if trace.trace_id == 'bad':
    raise OSError('no bad, please')
  return len(trace.response)


def _refuse_b_or_label(trace, look):
  if 'b' in trace.trace_id:
    return decisions.Refusal('has_b')
  return records.replace(trace, difficulty=str(look))


@pytest.mark.parametrize('num_workers', [0, 1, 2, 4])
def test_the_number_of_workers_changes_nothing(tmp_path, num_workers):
  names = [f'{"ab"[i % 3 == 0]}{i}' for i in range(70)]
  read = _make_reader(
      x=[*map(_make_trace, names), 'damaged'], y=[_make_trace('c', response='Because.')]
  )
  kept = _keep_traces(
      tmp_path, read, ['x', 'y'], _refuse_b_or_label, _measure_response, num_workers
  )
  expected = [_make_trace(name, difficulty='3') for name in names if 'b' not in name]
  assert kept == [*expected, _make_trace('c', response='Because.', difficulty='8')]
  assert decisions.count_decisions(tmp_path, ['x', 'y']).num_refused == {'has_b': 24}


def test_a_look_that_fails_in_a_worker_names_its_trace(tmp_path):
  read = _make_reader(x=[_make_trace('a'), _make_trace('bad'), _make_trace('c')])
  with pytest.raises(RuntimeError, match='Trace bad .*OSError: no bad, please'):
    _keep_traces(tmp_path, read, ['x'], _keep_all, _measure_response, num_workers=1)
  assert not [*tmp_path.glob('*.jsonl')]
