"""What a run tells is true, comes once, and changes nothing."""

import collections
import functools
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tests import tiny
from valley_jax import jsonl
from valley_jax import records
from valley_jax import rollouts
from valley_jax import train
from valley_jax.data import batching
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.subsets import drawing
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import metrics
from valley_jax.sampling import samples as samples_lib
from valley_jax.training import losses
from valley_jax.watching import held_out
from valley_jax.watching import reporter
from valley_jax.watching import watched_samples

_WATCH = {
    'held_out': 4,
    'held_out_every': 2,
    'prompts': 3,
    'prompts_every': 3,
    'max_new_tokens': 8,
    'profile': '2:3',
}
_TIMED = {
    'step_seconds', 'num_slow_steps', 'supervised_tokens_per_second',
    'tokens_per_second_per_chip',
}  # fmt: skip


@pytest.fixture(scope='module')
def world(tiny_world, tmp_path_factory):
  path = tmp_path_factory.mktemp('world')
  tiny.link_world(tiny_world, path)
  return path


def _config(world, **watch):
  return tiny.config(
      world,
      num_traces=8,
      problems='',
      mesh={'data': 1, 'fsdp': 8},
      train={'epochs': 5, 'checkpoint_every': 2, 'keep': 9},
      watch=watch,
  )


@pytest.fixture(scope='module')
def run(world):
  """A finished run of five steps; leave it as it is."""
  train.train(_config(world, **_WATCH), str(world / 'run'))
  return world / 'run'


def _rows(workdir):
  rows = jsonl.read_rows(workdir / 'metrics.jsonl', dict)
  return [{k: v for k, v in r.items() if k not in _TIMED} for r in rows]


def _events(workdir):
  reader = event_accumulator.EventAccumulator(
      str(workdir / 'tensorboard'), size_guidance={'scalars': 0, 'tensors': 0}
  )
  return reader.Reload()


def test_looks_are_taken_when_they_are_due_and_at_the_end(run):
  rows = _rows(run)
  has = lambda name: [row['step'] for row in rows if name in row]
  assert [row['step'] for row in rows] == [1, 2, 3, 4, 5]
  assert has('held_out/loss') == [2, 4, 5]
  assert has('samples/stop_rate') == [3, 5]
  assert has('loss_think') == has('loss_answer') == [1, 2, 3, 4, 5]


def test_held_out_loss_falls_as_the_student_learns(run):
  found = [r['held_out/loss'] for r in _rows(run) if 'held_out/loss' in r]
  assert found[-1] < found[0]


def test_tensorboard_reads_what_was_written(run):
  reader = _events(run)
  tags = reader.Tags()
  rows = list(jsonl.read_rows(run / 'metrics.jsonl', dict))
  assert set(tags['scalars']) == {k for row in rows for k in row} - {'step'}
  for name in tags['scalars']:
    wanted = [(row['step'], row[name]) for row in rows if name in row]
    found = [(e.step, e.value) for e in reader.Scalars(name)]
    assert found == [(s, pytest.approx(v)) for s, v in wanted], name
  pages = [name for name in tags['tensors'] if name.startswith('samples/')]
  assert len(pages) == 3
  for name in pages:
    assert [e.step for e in reader.Tensors(name)] == [3, 5]
    page = reader.Tensors(name)[0].tensor_proto.string_val[0].decode()
    assert '<|user|>Add ' in page  # The prompt as the student sees it.


def test_tensorboard_compares_runs_by_their_configs(run):
  metadata = _events(run).SummaryMetadata('_hparams_/session_start_info')
  data = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
  found = data.session_start_info.hparams
  assert found['train.learning_rate'].number_value == 2e-3
  assert found['student'].string_value == 'mini'


def test_a_resumed_run_writes_the_same_values_once(world, run, tmp_path):
  shutil.copytree(run, tmp_path, dirs_exist_ok=True)
  for step in (4, 5):  # Killed between the looks of steps 3 and 4.
    shutil.rmtree(tmp_path / f'checkpoints/{step}')
  train.train(_config(world, **{**_WATCH, 'profile': ''}), str(tmp_path))
  assert _rows(tmp_path) == _rows(run)
  steps = [e.step for e in _events(tmp_path).Scalars('held_out/loss')]
  assert steps == [2, 4, 5]


def test_to_be_watched_changes_no_bit_of_the_losses(world, run, tmp_path):
  config = _config(world, held_out=0, prompts=0)
  train.train(config, str(tmp_path))
  names = ('step', 'loss', 'grad_norm')
  of = lambda rows: [[row[name] for name in names] for row in rows]
  assert of(_rows(tmp_path)) == of(_rows(run))


def test_a_profile_is_there_when_it_was_asked_for(run):
  assert list((run / 'profile').rglob('*.xplane.pb'))


@pytest.mark.parametrize('spec', ['10', '5:5', '0:3', 'a:b', '8:12'])
def test_steps_that_cannot_be_profiled_are_refused(tmp_path, spec):
  with pytest.raises(ValueError, match=f'watch.profile={spec!r}'):
    reporter.StepProfile(tmp_path, spec, num_steps=10)


def test_too_many_held_out_traces_are_refused_before_anything_is_written(world, tmp_path):
  config = _config(world, **{**_WATCH, 'held_out': 5})
  with pytest.raises(ValueError, match=r'held_out=5 .*num_traces=8 .*12 traces'):
    train.train(config, str(tmp_path))
  assert not list(tmp_path.iterdir())


def test_nothing_to_ask_is_an_error(world, tmp_path):
  config = _config(world, held_out=0, prompts=3)
  with pytest.raises(ValueError, match='watch.prompts=3.*config.problems'):
    train.train(config, str(tmp_path))


def test_no_problem_in_the_file_is_an_error(world, tmp_path):
  (tmp_path / 'problems.jsonl').touch()
  config = _config(world, held_out=0, prompts=3).unlock()
  config.problems = f'jsonl:{tmp_path}/problems.jsonl'
  with pytest.raises(ValueError, match='problems.jsonl has no row'):
    train.train(config.lock(), str(tmp_path / 'run'))


@pytest.mark.parametrize('seed', [0, 1])
def test_held_out_traces_are_never_trained_on_at_any_size(seed):
  ids = [f't{i}' for i in range(40)]
  held = drawing.draw_held_out(ids, 10, 30, seed).tolist()
  for n in range(31):
    assert not set(held) & set(drawing.draw_nested(ids, n, seed).tolist())
    assert drawing.draw_held_out(ids, 10, n, seed).tolist() == held
  assert sorted([*held, *drawing.draw_nested(ids, 30, seed)]) == [*range(40)]


def _example(length):
  rng = np.random.default_rng(length)
  weights = (np.arange(length) > 0).astype(np.uint8)
  tokens = rng.integers(0, 40, length, dtype=np.int32)
  return tokenization.Example(tokens, weights, answer_start=length // 2)


def test_held_out_loss_is_an_exact_mean_over_the_tokens_of_each_length():
  lengths = [3, 4, 5, 7, 8, 9, 12]
  examples = [_example(n) for n in lengths]
  data = types.SimpleNamespace(
      lengths=np.array(lengths), read_examples=lambda which: [examples[i] for i in which]
  )
  loss_fn = functools.partial(
      losses.next_token_loss,
      student=tiny.student(),
      dtype=jnp.float32,
      attention='auto',
      remat='none',
      chunk_len=16,
  )
  sums, counts = collections.Counter(), collections.Counter()
  alone = jax.jit(loss_fn)
  with tiny.mesh():
    params = tiny.put_params(tiny.student())
    batch = held_out.load_held_out_batch(data, range(7), row_len=16, pack='best_fit', max_rows=2)
    losses_by_name = held_out.HeldOutLoss(batch, loss_fn, part=0, num_parts=1).measure(params)
    for example in examples:
      row = {k: x[None] for k, x in batching.lay_out_row([example], 16).items()}
      _, pairs = alone(params, row)
      edge = next(e for e in (2, 4, 8, 16) if len(example.tokens) <= e)
      pairs[f'loss_le_{edge}'] = pairs['loss']
      for name, (total, count) in pairs.items():
        sums[f'held_out/{name}'] += float(total)
        counts[f'held_out/{name}'] += float(count)
  assert batch['inputs'].shape[0] == 2  # Two micro-batches.
  assert len(sums) == 6
  assert {k: float(x) for k, x in losses_by_name.items()} == {
      k: pytest.approx(sums[k] / counts[k], rel=1e-5) for k in sums
  }


def test_rates_are_of_the_samples(world):
  tokenizer = tokenization.load_tokenizer(world / 'shards/tokenizer')
  texts = ['<think>a</think>b', '<think>a', 'c', '<think></think>']
  reasons = [records.FinishReason(r) for r in ('eos', 'length', 'eos', 'eos')]
  requests = [samples_lib.Request(f'p{i}', 0, (i,)) for i in range(4)]
  drawn = [
      samples_lib.Sample(
          request, tokenizer(text, add_special_tokens=False)['input_ids'], finish_reason=reason
      )
      for request, text, reason in zip(requests, texts, reasons)
  ]
  # Samples come in the order in which they end.
  engine = types.SimpleNamespace(draw_samples=lambda _: drawn[::-1])
  watched = watched_samples.WatchedSamples(requests, tokenizer, lambda params: engine)
  rates, pages = watched.measure(None)
  assert rates['samples/stop_rate'] == 0.75
  assert rates['samples/think_closed_rate'] == 0.5
  lengths = [len(sample.tokens) for sample in drawn]
  assert rates['samples/mean_tokens'] == np.mean(lengths)
  assert [*pages] == [f'samples/p{i}' for i in range(4)]
  assert all(text in page for text, page in zip(texts, pages.values()))


def test_a_prompt_of_a_trace_is_the_one_of_its_problem(world):
  data = shards_lib.Shards(world / 'shards')
  tokenizer = tokenization.load_tokenizer(world / 'shards/tokenizer')
  (of_trace,) = watched_samples.write_trace_requests(data, [3], num_samples=1)
  problem = records.Problem(
      problem_id='p', statement='Add 3 and 3.', tests=(records.TestCase(input='', expected='6'),)
  )
  plain = prompts.load_prompt('plain')
  (of_problem,) = rollouts.write_requests([problem], tokenizer, plain, num_samples=1)
  assert of_trace.prompt == of_problem.prompt
  assert tokenizer.decode(of_trace.prompt).endswith('3.<|assistant|>')


def test_only_steps_that_follow_a_step_are_timed(tmp_path):
  values = {
      'loss': 1.0, 'loss_think': np.nan, 'grad_norm': 1.0, 'fill': 0.5,
      'num_supervised': 3.0, 'num_tokens': 4.0, 'squared_lengths': 16.0,
  }  # fmt: skip
  with tiny.mesh():
    report = reporter.StepReporter(
        metrics.Writer(tmp_path),
        metrics.progress(5, 'step', 'train'),
        lambda step: 0.1 * step,
        tiny.student(),
    )
    for step in range(1, 6):
      report.write_step(step, values)
      if step == 3:
        report.pause_timing()
    report.close()
  rows = list(jsonl.read_rows(tmp_path / 'metrics.jsonl', dict))
  timed = [row['step'] for row in rows if 'step_seconds' in row]
  assert timed == [2, 3, 5]  # Step 1 compiles.
  assert [row['learning_rate'] for row in rows] == [pytest.approx(0.1 * step) for step in range(5)]
  assert not any('loss_think' in row for row in rows)  # Nobody thought.


def test_code_in_a_thinking_that_the_prompt_began_is_no_program(world):
  tokenizer = tokenization.load_tokenizer(world / 'shards/tokenizer')
  encode = lambda text: tokenizer(text, add_special_tokens=False)['input_ids']
  request = samples_lib.Request('p', 0, tuple(encode('Add.<think>\n')))
  drawn = samples_lib.Sample(
      request, encode('```python\nprint(1)\n```\n'), finish_reason=records.FinishReason.LENGTH
  )
  engine = types.SimpleNamespace(draw_samples=lambda _: [drawn])
  watched = watched_samples.WatchedSamples([request], tokenizer, lambda params: engine)
  rates, _ = watched.measure(None)
  assert rates['samples/program_rate'] == 0
