"""Batch i is a function of shards, subset, seed and i, and of nothing else."""

import numpy as np
import pytest

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data import batching
from valley_jax.data.shards import building
from valley_jax.data.shards import shards
from valley_jax.data.subsets import drawing
from valley_jax.data.tokens import encoding
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization

NUM_TRACES = 23
KEYS = {'inputs', 'targets', 'weights', 'answers', 'positions', 'segments'}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> shards.Shards:
  """23 traces in three shards; no two of them are the same text."""
  directory = tmp_path_factory.mktemp('shards')
  traces = [
      records.Trace(
          trace_id=f't{i}',
          problem_id='p',
          question=f'Is {i} odd?',
          response='yes ' * (i % 7 + 1) + str(i),
      )
      for i in range(NUM_TRACES)
  ]
  tokenization.train_bpe(directory / 'tokenizer', traces, 300)
  tokenizer = tokenization.load_tokenizer(directory / 'tokenizer')
  settings = building.BlockSettings(
      directory=directory, prompt=prompts.load_prompt('plain'), max_len=100, traces_per_shard=8
  )
  encoder = encoding.TurnEncoder(tokenizer)
  for number in range(3):
    building.write_block(settings, number, traces[number * 8 : number * 8 + 8], encoder)
  jsonl.write_json(directory / 'manifest.json', {'format': shards.FORMAT})
  return shards.Shards(directory)


def _batches(data, pack='best_fit', rows=None, row_len=64, **changes):
  rows = range(len(data)) if rows is None else rows
  plan = batching.plan_epoch(data, rows, row_len, pack)
  values = dict(batch_size=4, accumulate=1, num_epochs=1, seed=0)
  return batching.make_batches(data, plan, **{**values, **changes}), plan


def _rows(batches):
  """Returns each row with a token as (inputs, segments), in order."""
  rows = []
  for i in range(len(batches)):
    batch = batches[i]
    for inputs, segments in zip(
        batch['inputs'].reshape(-1, batch['inputs'].shape[-1]),
        batch['segments'].reshape(-1, batch['segments'].shape[-1]),
    ):
      if segments.any():
        rows.append((inputs, segments))
  return rows


def _examples(rows):
  """Returns the inputs of every example of packed rows, as tuples."""
  return [
      tuple(inputs[segments == n].tolist())
      for inputs, segments in rows
      for n in range(1, segments.max() + 1)
  ]


def _equal(a, b):
  return a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


def test_shards_are_read_in_any_order(data):
  forward = data.read_examples(range(len(data)))
  order = np.random.default_rng(0).permutation(len(data))
  for i, example in zip(order, data.read_examples(order)):
    assert (example.tokens == forward[i].tokens).all()
    assert (example.weights == forward[i].weights).all()
    assert len(example.tokens) == data.lengths[i]


@pytest.mark.parametrize('pack', ['best_fit', 'none'])
@pytest.mark.parametrize('batch_size', [1, 4, 7])
def test_each_epoch_holds_each_example_once(data, pack, batch_size):
  batches, plan = _batches(data, pack, batch_size=batch_size, num_epochs=3)
  rows = _rows(batches)
  wanted = sorted(
      tuple(example.tokens[:-1].tolist()) for example in data.read_examples(range(len(data)))
  )
  n = len(plan.rows)
  assert len(rows) == 3 * n
  for epoch in range(3):
    assert sorted(_examples(rows[epoch * n : epoch * n + n])) == wanted


def test_only_the_examples_of_the_subset_occur(data):
  chosen = drawing.draw_nested(data.ids, 6, seed=1)
  batches, _ = _batches(data, rows=chosen)
  assert sorted(_examples(_rows(batches))) == sorted(
      tuple(example.tokens[:-1].tolist()) for example in data.read_examples(chosen)
  )


def test_every_epoch_has_an_order_of_its_own(data):
  batches, plan = _batches(data, 'none', num_epochs=3)
  examples = _examples(_rows(batches))
  n = len(plan.rows)
  epochs = {tuple(examples[i * n : i * n + n]) for i in range(3)}
  assert len(epochs) == 3


def test_another_seed_is_another_order(data):
  orders = {tuple(_examples(_rows(_batches(data, 'none', seed=seed)[0]))) for seed in range(3)}
  assert len(orders) == 3


def test_the_last_batch_is_filled_up_with_rows_of_no_weight(data):
  batches, _ = _batches(data, 'none', num_epochs=2)  # 46 rows in fours.
  assert len(batches) == 12
  for i in range(11):
    assert batches[i]['segments'].any(axis=-1).all()
  last = batches[11]
  assert last['inputs'].shape == (1, 4, 64)
  assert last['segments'].any(axis=-1).tolist() == [[True, True, False, False]]
  assert not any(array[0, 2:].any() for array in last.values())


@pytest.mark.parametrize(
    ('pack', 'start'),
    [*(('none', i) for i in (0, 1, 5, 11)), *(('best_fit', i) for i in (0, 1, 2))],
)
def test_a_run_that_goes_on_at_a_step_sees_what_it_would_have_seen(data, start, pack):
  batches, _ = _batches(data, pack, num_epochs=2)
  whole = list(batches.to_iter_dataset())
  iterator = iter(batches.to_iter_dataset())
  for _ in range(start):
    next(iterator)
  resumed = iter(_batches(data, pack, num_epochs=2)[0].to_iter_dataset())
  resumed.set_state(iterator.get_state())
  rest = list(resumed)
  assert len(rest) == len(whole) - start
  assert all(map(_equal, rest, whole[start:]))


@pytest.mark.parametrize('start', [2, 6, 9])
def test_a_run_in_phases_goes_on_as_it_would_have_gone(data, start):
  def batches():
    plan = batching.plan_epoch(data, range(23), 64, 'none', phases=(9, 14))
    return batching.make_batches(data, plan, batch_size=4, accumulate=1, num_epochs=2, seed=0)

  whole = list(batches().to_iter_dataset())
  iterator = iter(batches().to_iter_dataset())
  for _ in range(start):
    next(iterator)
  resumed = iter(batches().to_iter_dataset())
  resumed.set_state(iterator.get_state())
  rest = list(resumed)
  assert len(whole) == 12 and len(rest) == 12 - start
  assert all(map(_equal, rest, whole[start:]))


def test_no_row_has_examples_of_two_phases(data):
  plan = batching.plan_epoch(data, range(22, -1, -1), 64, 'best_fit', phases=(9, 14))
  first, second = np.split(np.arange(len(plan.rows)), plan.phases[:1])
  found = [{example for at in part for example in plan.rows[at]} for part in (first, second)]
  assert found == [set(range(14, 23)), set(range(14))]
  assert len(plan.rows) < 23


def test_iterating_and_indexing_are_the_same(data):
  batches, _ = _batches(data, num_epochs=3)
  whole = list(batches.to_iter_dataset())
  assert len(whole) == len(batches)
  for i in reversed(range(len(batches))):
    assert _equal(batches[i], whole[i])


@pytest.mark.parametrize('processes', [2, 4])
@pytest.mark.parametrize('accumulate', [1, 2])
def test_processes_together_have_the_batch_of_one(data, processes, accumulate):
  settings = dict(batch_size=8, accumulate=accumulate, num_epochs=2)
  whole, _ = _batches(data, 'none', **settings)
  parts = [
      _batches(data, 'none', part=i, num_parts=processes, **settings)[0] for i in range(processes)
  ]
  assert {len(part) for part in parts} == {len(whole)}
  for i in range(len(whole)):
    loaded = [part[i] for part in parts]
    together = {name: np.concatenate([part[name] for part in loaded], axis=1) for name in KEYS}
    assert _equal(together, whole[i])


@pytest.mark.parametrize('accumulate', [1, 2, 4])
def test_micro_batches_are_the_batch_cut_in_order(data, accumulate):
  whole, _ = _batches(data, batch_size=4)
  cut, _ = _batches(data, batch_size=4, accumulate=accumulate)
  for i in range(len(whole)):
    assert cut[i]['inputs'].shape == (accumulate, 4 // accumulate, 64)
    flat = {k: v.reshape(1, 4, 64) for k, v in cut[i].items()}
    assert _equal(flat, whole[i])


def test_without_packing_a_row_is_an_example(data):
  batches, plan = _batches(data, 'none')
  assert plan.rows == [[i] for i in range(NUM_TRACES)]
  assert max(batches[i]['segments'].max() for i in range(len(batches))) == 1


def test_packing_makes_fewer_and_fuller_rows(data):
  packed, unpacked = (_batches(data, p)[1] for p in ('best_fit', 'none'))
  assert len(packed.rows) < len(unpacked.rows)
  assert packed.fill > unpacked.fill
  tokens = int((data.lengths - 1).sum())
  assert packed.fill == tokens / (64 * len(packed.rows))


def test_packed_and_unpacked_rows_supervise_the_same_targets(data):
  def targets(pack):
    batches, _ = _batches(data, pack, num_epochs=1)
    return sorted(
        int(token)
        for i in range(len(batches))
        for token in batches[i]['targets'][batches[i]['weights'] == 1]
    )

  assert targets('best_fit') == targets('none')


def test_a_batch_has_the_keys_and_types_that_a_step_takes(data):
  batch = _batches(data)[0][0]
  assert batch.keys() == KEYS
  kinds = {name: array.dtype.name for name, array in batch.items()}
  assert kinds.pop('weights') == 'float32'
  assert set(kinds.values()) == {'int32'}


def test_no_trace_makes_no_batch(data):
  batches, plan = _batches(data, rows=[], num_epochs=5)
  assert len(batches) == 0
  assert plan.fill == 0


def test_a_bad_pack_names_the_known_ones(data):
  with pytest.raises(ValueError, match=r"'fast': want one of .*best_fit.*none"):
    _batches(data, 'fast')


@pytest.mark.parametrize('pack', ['best_fit', 'none'])
def test_rows_shorter_than_a_trace_name_the_remedy(data, pack):
  with pytest.raises(ValueError, match=r'rows take 1 to 5\. .*data\.max_len'):
    _batches(data, pack, row_len=5)


@pytest.mark.parametrize('changes', [dict(accumulate=3), dict(num_parts=3)], ids=str)
def test_a_batch_that_does_not_divide_is_refused(data, changes):
  with pytest.raises(ValueError, match='batch_size=4 is not a multiple'):
    _batches(data, **changes)


def test_shards_without_a_manifest_are_not_read(tmp_path):
  with pytest.raises(ValueError, match='run `python -m valley_jax.shard`'):
    shards.Shards(tmp_path)
