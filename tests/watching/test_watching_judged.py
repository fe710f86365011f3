"""What a run solves while it trains is what the judge says, and comes once."""

import functools
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import leftovers
from tests import marks
from tests import rows
from tests import tiny
from valley_jax import jsonl
from valley_jax import records
from valley_jax import rollouts
from valley_jax import train
from valley_jax.data.problem_formats import problems
from valley_jax.data.tokens import tokenization
from valley_jax.execution import judge
from valley_jax.models import cache as cache_lib
from valley_jax.sampling import decode
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib
from valley_jax.watching import watched_samples

_RESPONSE = '<think></think>```python\nprint(0)\n```'  # Of all traces: soon learnt.
_WATCH = {
    'held_out': 0,
    'prompts': 4,
    'prompts_every': 20,
    'max_new_tokens': 32,
    'judge': True,
    'num_samples': 2,
}
_TIMED = {
    'step_seconds', 'num_slow_steps', 'supervised_tokens_per_second',
    'tokens_per_second_per_chip',
}  # fmt: skip
_REASONS = records.FinishReason


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  path = tmp_path_factory.mktemp('world')
  tiny.write_world(path, _RESPONSE)
  return path


def _config(world, **watch):
  return tiny.config(
      world,
      train={'epochs': 24, 'checkpoint_every': 15, 'keep': 9},
      watch={**_WATCH, **watch},
      num_workers=1,
  )


@pytest.fixture(scope='module')
def run(world):
  """A finished run of thirty steps; leave it as it is."""
  train.train(_config(world), str(world / 'run'))
  return world / 'run'


def _rows(workdir):
  rows = jsonl.read_rows(workdir / 'metrics.jsonl', dict)
  return [{k: v for k, v in r.items() if k not in _TIMED} for r in rows]


def _judged(world, **settings):
  judge_all = functools.partial(judge.judge_all, settings=judge.Settings(num_workers=1, **settings))
  asked = problems.read_problems(f'jsonl:{world}/problems.jsonl')
  return watched_samples.WatchedJudge(asked, judge_all)


def _look(world, texts, judged):
  """Looks at completions by problem and sample, in the order of a dict."""
  tokenizer = tokenization.load_tokenizer(world / 'shards/tokenizer')
  requests = [samples_lib.Request(*key, (1,)) for key in texts]
  drawn = [
      samples_lib.Sample(
          request, tokenizer(text, add_special_tokens=False)['input_ids'], finish_reason=reason
      )
      for request, (text, reason) in zip(requests, texts.values())
  ]
  engine = types.SimpleNamespace(draw_samples=lambda _: drawn[::-1])
  watched = watched_samples.WatchedSamples(requests, tokenizer, lambda _: engine, judged)
  return watched.measure(None)


def _verdicts(rates):
  """How many there are of each verdict that there is."""
  name = 'samples/verdict_'
  return {k.removeprefix(name): n for k, n in rates.items() if name in k and n}


def _program(source):
  return f'<think>a</think>```python\n{source}\n```', _REASONS.EOS


_ANSWERS = {  # Problem p3 has the answer 6, and p4 8.
    ('p3', 0): _program('print(6)'),
    ('p3', 1): _program('print(7)'),
    ('p4', 0): _program('print(8)'),
    ('p4', 1): ('<think>a</think>It is 8.', _REASONS.EOS),
    ('p5', 0): ('<think>a</think>```python\nprint(10)\n', _REASONS.LENGTH),
    ('p5', 1): _program('print(1 / 0)'),
}


def test_pass_at_1_is_the_share_of_samples_that_the_judge_accepts(world):
  with leftovers.expect_no_leftovers():
    rates, pages = _look(world, _ANSWERS, _judged(world))
  assert rates['samples/pass@1'] == pytest.approx(2 / 6)
  assert rates['samples/program_rate'] == 4 / 6
  assert rates['samples/truncated_rate'] == 1 / 6
  assert rates['samples/stop_rate'] == 5 / 6
  assert rates['samples/judge_errors'] == 0
  assert _verdicts(rates) == {'AC': 2, 'WA': 1, 'RE': 1, 'CE': 2}
  assert [*pages] == ['samples/p3', 'samples/p4', 'samples/p5']
  assert 'print(6)' in pages['samples/p3']  # Of each prompt the first sample.


def test_without_a_program_nothing_is_judged_and_nothing_solved(world):
  rates, _ = _look(world, {('p3', 0): ('6', _REASONS.EOS)}, _judged(world))
  assert (rates['samples/pass@1'], rates['samples/program_rate']) == (0, 0)


def _failing_at(*keys):
  """A judge that fails at some programs, and accepts the others."""

  def judge_all(pairs):
    for problem, submission in pairs:
      failed = records.sample_key(submission) in keys
      yield rows.make_judgement(
          problem.problem_id,
          submission.sample_index,
          'IE' if failed else 'AC',
          message='no space left' if failed else '',
          profile=records.Profile.STRICT,
      )

  return judge_all


def _rollout(problem_id, index):
  request = samples_lib.Request(problem_id, index, (1,))
  return rollouts.Rollout(samples_lib.Sample(request), text='', source='')


def test_what_the_judge_fails_at_is_counted_and_is_no_score(world, capsys):
  asked = problems.read_problems(f'jsonl:{world}/problems.jsonl')
  failing = _failing_at(('p3', 0), ('p4', 0), ('p4', 1))
  look = watched_samples.WatchedJudge(asked, failing)
  found = look.measure([_rollout(*key) for key in (('p3', 0), ('p3', 1), ('p4', 0), ('p4', 1))])
  assert found['samples/pass@1'] == 1  # Of one sample.
  assert found['samples/judge_errors'] == 3
  assert "3 of 4 programs could not be judged, such as ('p3', 0): no" in (capsys.readouterr().out)
  assert 'samples/pass@1' not in look.measure([_rollout('p4', 0), _rollout('p4', 1)])


def test_a_judge_that_fails_at_once_is_refused(world):
  with pytest.raises(ValueError, match='IE: no space left.*watch.judge=False'):
    watched_samples.WatchedJudge([], _failing_at(('proof', 0)))


def test_a_student_that_prints_0_solves_the_problem_that_asks_for_it(run):
  rows = [r for r in _rows(run) if 'samples/pass@1' in r]
  assert [row['step'] for row in rows] == [20, 30]
  assert _verdicts(rows[-1])['AC'] == 2
  assert rows[-1]['samples/pass@1'] == 1 / 4  # Two samples each, of four.


def test_killed_and_resumed_a_run_writes_the_same_verdicts_once(world, run, tmp_path):
  shutil.copytree(run, tmp_path, dirs_exist_ok=True)
  shutil.rmtree(tmp_path / 'checkpoints/30')  # It goes on from step 15.
  before = leftovers.find_descendants()
  train.train(_config(world), str(tmp_path))
  assert leftovers.find_descendants() <= before
  assert _rows(tmp_path) == _rows(run)


def test_to_be_judged_changes_no_bit_of_the_losses(world, run, tmp_path):
  train.train(_config(world, prompts=0, judge=False), str(tmp_path))
  of = lambda rows: [(r['step'], r['loss'], r['grad_norm']) for r in rows]
  assert of(_rows(tmp_path)) == of(_rows(run))


@pytest.mark.long
def test_parameters_that_are_not_copied_say_the_same(world, run, tmp_path):
  train.train(_config(world, copy_params=False), str(tmp_path))
  assert _rows(tmp_path) == _rows(run)


def test_missing_isolation_is_refused_before_the_first_step(world, tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))  # Without bwrap.
  config = _config(world).unlock()
  config.tier = 'T1'
  with pytest.raises(ValueError, match=r'watch.judge=True, .*bwrap.*watch.judge=False'):
    train.train(config.lock(), str(tmp_path / 'run'))
  assert not list((tmp_path / 'run').glob('checkpoints/*[0-9]'))
  assert not (tmp_path / 'run/metrics.jsonl').exists()


@pytest.mark.parametrize(
    'change, said',
    [
        ({'problems': ''}, 'watch.judge=True.*problems=.*name config.problems'),
        ({'watch': {'prompts': 0}}, 'watch.judge=True.*watch.prompts=0'),
        ({'watch': {'num_samples': 0}}, 'watch.num_samples=0 is below 1'),
        ({'tier': 'T9'}, "tier='T9' is not known"),
    ],
)
def test_what_cannot_be_judged_is_refused(world, tmp_path, change, said):
  config = _config(world).unlock()
  config.update(change)
  with pytest.raises(ValueError, match=said):
    train.train(config.lock(), str(tmp_path))


def test_a_problem_that_cannot_be_judged_is_refused(world):
  problem = records.Problem(
      problem_id='p',
      statement='',
      tests=(records.TestCase(input='', expected=''),),
      checker='guess',
  )
  with pytest.raises(ValueError, match='guess'):
    watched_samples.WatchedJudge([problem], _failing_at())


_LARGE = tiny.student(num_layers=8, embed_dim=128, mlp_dim=512)


def _temporaries(copy, **mesh):
  """Bytes that decoding allocates beside its arguments, and of the weights."""
  with tiny.mesh(**mesh):
    params = tiny.put_params(_LARGE)
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    if copy:
      params = cache_lib.unstack_layers(_LARGE, params, jnp.float32)
    slots = decode.allocate_slots(_LARGE, 16, 64, jnp.float32)
    compiled = decode.decode_chunk.lower(
        _LARGE, params, slots, np.ones(16, bool), methods.Greedy(), 4
    ).compile()
  return compiled.memory_analysis().temp_size_in_bytes, weights


@pytest.mark.skipif(
    jax.__version_info__ < (0, 12),
    reason='older compilers cut all layers out at once on a CPU, as docs say',
)
@pytest.mark.parametrize('mesh', marks.long_but_first([{'fsdp': 8}, {}]))
def test_parameters_that_are_not_copied_are_in_memory_once(mesh):
  temporaries, weights = _temporaries(copy=False, **mesh)
  assert temporaries < 2.5 * weights / _LARGE.num_layers


@pytest.mark.long
def test_a_copy_is_gathered_as_a_whole():
  """Why it is a choice: what is cut over devices, each gets all of."""
  temporaries, weights = _temporaries(copy=True, fsdp=8)
  assert temporaries > 0.9 * weights
