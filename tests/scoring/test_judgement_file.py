"""The file of judgements loses no row and doubles none, whatever happens."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tests import rows
from valley_jax import jsonl
from valley_jax import records
from valley_jax.scoring import judgement_file

_KEYS = [(name, index) for name in 'pq' for index in range(3)]
_IE = records.Verdict.INTERNAL_ERROR


class _Killed(Exception):
  """Ends a run; nothing of it is tidied up."""


class _Judge:
  """Records its calls; `fails` are the numbers of those that end as IE."""

  def __init__(self, fails=()):
    self.calls: list[tuple] = []
    self._fails = fails

  def __call__(self, sample):
    failed = len(self.calls) in self._fails
    self.calls.append(sample[:3])
    return rows.make_judgement(
        sample.problem_id,
        sample.sample_index,
        _IE if failed else records.Verdict.ACCEPTED,
        digest=sample.digest,
        message=f'call {len(self.calls)}',
    )


def _make_samples(keys, digest='d'):
  return [judgement_file.Sample(*key, digest) for key in keys]


def _run_judge(path, samples, judge, kill_at=None):
  """One run; it is killed before row `kill_at`, in the midst of writing."""
  progress = judgement_file.survey_file(path, samples)
  with jsonl.Appender(progress.output) as file:
    for number, (sample, row) in enumerate(progress.remaining(samples)):
      if number == kill_at:
        with open(progress.output, 'ab') as torn:
          torn.write(b'{"problem_id":"p","sam')
        raise _Killed
      file.append(row or judge(sample))
  progress.finish()


def _read_rows(path):
  return list(jsonl.read_rows(path, records.Judgement))


def _read_keys_and_digests(path):
  return [(*records.sample_key(row), row.digest) for row in _read_rows(path)]


_events = st.lists(
    st.tuples(
        st.permutations(_KEYS),
        st.dictionaries(st.sampled_from(_KEYS), st.sampled_from('ab')),
        st.none() | st.integers(0, 6),
        st.sets(st.integers(0, 8), max_size=2),
    ),
    min_size=1,
    max_size=6,
)


@given(events=_events)
def test_no_verdict_is_lost_or_doubled_by_kills_and_changes(tmp_path_factory, events):
  path = tmp_path_factory.mktemp('w') / 'judgements.jsonl'
  digests = dict.fromkeys(_KEYS, 'd')
  known: dict[tuple, str] = {}  # What has a verdict that nothing overtook.
  for order, changes, kill_at, fails in events:
    digests.update(changes)
    known = {key: d for key, d in known.items() if digests[key] == d}
    samples = [judgement_file.Sample(*key, digests[key]) for key in order]
    judge = _Judge(fails)
    try:
      _run_judge(path, samples, judge, kill_at)
    except _Killed:
      pass
    else:
      assert _read_keys_and_digests(path) == [sample[:3] for sample in samples]
    for call, (*key, digest) in enumerate(judge.calls):
      assert tuple(key) not in known
      if call not in fails:
        known[tuple(key)] = digest
  _run_judge(path, samples, _Judge())
  assert _read_keys_and_digests(path) == [sample[:3] for sample in samples]


@pytest.mark.parametrize('kills', [*itertools.product(range(6), repeat=2)])
def test_a_rebuild_that_is_killed_twice_judges_each_program_once(tmp_path, kills):
  path = tmp_path / 'judgements.jsonl'
  _run_judge(path, _make_samples(_KEYS, 'old'), _Judge())
  samples, judge = _make_samples(_KEYS, 'new'), _Judge()
  for kill_at in (*kills, None):
    try:
      _run_judge(path, samples, judge, kill_at)
    except _Killed:
      pass
  assert judge.calls == [sample[:3] for sample in samples]
  assert [row.message for row in _read_rows(path)] == [f'call {i + 1}' for i in range(len(_KEYS))]


def test_a_run_that_is_killed_leaves_rows_in_their_place(tmp_path):
  path = tmp_path / 'judgements.jsonl'
  with pytest.raises(_Killed):
    _run_judge(path, _make_samples(_KEYS), _Judge(), kill_at=2)
  inode = path.stat().st_ino
  _run_judge(path, _make_samples(_KEYS), _Judge())
  assert path.stat().st_ino == inode  # Appended to, not built anew.


def test_until_it_is_whole_a_new_file_does_not_replace_the_old(tmp_path):
  path = tmp_path / 'judgements.jsonl'
  _run_judge(path, _make_samples(_KEYS), _Judge())
  before = path.read_bytes()
  with pytest.raises(_Killed):
    _run_judge(path, _make_samples(_KEYS, 'new'), _Judge(), kill_at=3)
  assert path.read_bytes() == before
  assert judgement_file.rebuild_path(path).exists()


def test_a_failure_of_ours_stands_in_its_place_until_the_next_run(tmp_path):
  path = tmp_path / 'judgements.jsonl'
  _run_judge(path, _make_samples(_KEYS), _Judge(fails=[2]))
  before = _read_rows(path)
  assert [row.verdict is _IE for row in before] == [i == 2 for i in range(6)]
  judge = _Judge()
  _run_judge(path, _make_samples(_KEYS), judge)
  assert judge.calls == [('p', 2, 'd')]
  mended = _read_rows(path)
  assert mended[2].verdict is records.Verdict.ACCEPTED
  assert mended[:2] + mended[3:] == before[:2] + before[3:]


def test_of_two_rows_of_a_sample_the_last_one_stands(tmp_path):
  path = tmp_path / 'judgements.jsonl'
  _run_judge(path, _make_samples(_KEYS), _Judge())
  first = path.read_bytes()
  path.unlink()
  _run_judge(path, _make_samples(reversed(_KEYS)), _Judge())
  second = _read_rows(path)
  path.write_bytes(first + path.read_bytes())
  _run_judge(path, _make_samples(_KEYS), _Judge(fails=range(9)))
  assert _read_rows(path) == second[::-1]


@pytest.mark.parametrize('index', [-1, 1 << 20])
def test_a_sample_index_without_a_place_names_the_range(tmp_path, index):
  with pytest.raises(ValueError, match=f'{index:,} .* 0..1,048,575; number'):
    judgement_file.survey_file(tmp_path / 'x', _make_samples([('p', index)]))


def test_a_row_of_a_strange_sample_is_named_before_a_file_changes(tmp_path):
  path = tmp_path / 'judgements.jsonl'
  _run_judge(path, _make_samples(_KEYS), _Judge())
  with pytest.raises(_Killed):
    _run_judge(path, _make_samples([('new', 9), *_KEYS]), _Judge(), kill_at=2)
  before = {p: p.read_bytes() for p in tmp_path.iterdir()}
  with pytest.raises(ValueError, match=r"next judges 1 samples.*\('new', 9\)"):
    judgement_file.survey_file(path, _make_samples(_KEYS))
  assert {p.name for p in before} == {'judgements.jsonl', 'judgements.jsonl.next'}
  assert path.read_bytes() == before[path]
