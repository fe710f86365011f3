"""LoRA: small matrices learn beside frozen ones, and are merged at the end."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import marks
from tests import tiny
from valley_jax import convert
from valley_jax import sample
from valley_jax import train
from valley_jax.models import declarations
from valley_jax.models import initial
from valley_jax.models import parameters
from valley_jax.models import pretrained
from valley_jax.models import student as student_lib
from valley_jax.runtime import checkpoints
from valley_jax.runtime import partitioning
from valley_jax.sampling import samples as samples_lib
from valley_jax.training import flops
from valley_jax.training import losses
from valley_jax.training import optimizer
from valley_jax.training import program as program_lib

LORA = student_lib.Lora(rank=4, alpha=6.0)
PLAIN = tiny.student(qkv_bias=True, qk_norm=True)
STUDENT = dataclasses.replace(PLAIN, lora=LORA)
DECLARED = parameters.describe_parameters(STUDENT)
TX = optimizer.AdamW(b1=0.9, b2=0.95, weight_decay=0.1, clip_norm=1.0).build(DECLARED)
MESHES = marks.long_but_first([{'data': 2, 'fsdp': 2, 'tp': 2}, {'fsdp': 8}, {'tp': 2, 'cp': 4}])


def _loss(student, dtype=jnp.float32):
  return functools.partial(
      losses.next_token_loss,
      student=student,
      dtype=dtype,
      attention='auto',
      remat='full',
      chunk_len=4,
  )


def _hidden(student, params):
  batch = partitioning.put_batch(tiny.batch(8, 12))
  rows = batch['inputs'], batch['positions'], batch['segments']
  run = jax.jit(lambda params, rows: parameters.bind_transformer(student, params)(*rows)[0])
  return jax.device_get(run(params, rows))


def test_an_adapted_student_begins_as_it_was():
  with tiny.mesh():
    plain = tiny.put_params(PLAIN)
    added = parameters.init_adapters(STUDENT, jax.random.key(0))
    assert parameters.count_params(added) == PLAIN.num_layers * sum(
        LORA.rank * (n + m)
        for n, m in [(16, 48), (16, 16), (16, 16), (48, 16)] + [(16, 32), (16, 32), (32, 16)]
    )
    found = _hidden(STUDENT, parameters.join_adapters(added, plain))
    np.testing.assert_array_equal(found, _hidden(PLAIN, plain))


@pytest.mark.parametrize(
    'names',
    marks.long_but_first([tuple(student_lib.ADAPTABLE_MATRICES), *student_lib.ADAPTABLE_MATRICES]),
)
def test_merged_and_unmerged_compute_the_same(names):
  names = (names,) if isinstance(names, str) else names
  chosen = dataclasses.replace(LORA, matrices=names)
  student = dataclasses.replace(PLAIN, lora=chosen)
  with tiny.mesh():
    params = tiny.put_params(student)
    declared = parameters.describe_parameters(student)
    base = _hidden(PLAIN, parameters.split_adapters(declared, params)[1])
    unmerged = _hidden(student, params)
    merged = _hidden(PLAIN, parameters.merge_adapters(student, params))
  np.testing.assert_allclose(unmerged, merged, rtol=0, atol=1e-5)
  assert np.abs(base - merged).max() > 0.1  # The pair does something.


def test_gradients_are_those_of_the_products():
  """Against differentiating through W + (alpha / rank) A B, all at once."""
  with tiny.mesh():
    params = tiny.put_params(STUDENT)
    learning, frozen = parameters.split_adapters(DECLARED, params)
    batch = partitioning.put_batch(tiny.batch(8, 12))

    def direct(learning):
      return _loss(STUDENT)(parameters.join_adapters(learning, frozen), batch)[0]

    def through_products(learning):
      added, blocks = learning['blocks'], dict(frozen['blocks'])
      for name in student_lib.ADAPTABLE_MATRICES:
        a, b = (added[part] for part in student_lib.adapter_names(name))
        w = blocks[student_lib.matrix_name(name)]
        num = [w.shape[0], np.prod(a.shape[1:-1]), np.prod(b.shape[2:])]
        product = a.reshape(*num[:2], -1) @ b.reshape(num[0], -1, num[2])
        blocks[student_lib.matrix_name(name)] = w + 1.5 * product.reshape(w.shape)
      return _loss(PLAIN)({**frozen, 'blocks': blocks}, batch)[0]

    found = jax.device_get(jax.jit(jax.grad(direct))(learning))
    expected = jax.device_get(jax.jit(jax.grad(through_products))(learning))
  compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
  jax.tree.map(compare, found, expected)
  assert all(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(found))


def _train(mesh):
  step = jax.jit(
      functools.partial(
          program_lib.train_step, loss_fn=_loss(STUDENT), tx=TX, declarations=DECLARED
      )
  )
  found = []
  with tiny.mesh(**mesh):
    state = program_lib.init_state(tiny.put_params(STUDENT), TX, DECLARED)
    layout = jax.tree.map(lambda x: x.sharding, state)
    for seed in range(2):
      batch = partitioning.put_batch(tiny.batch(2, 8, 12, seed=seed))
      state, metrics = step(state, batch, 1e-2)
      found.append(metrics)
    assert jax.tree.map(lambda x: x.sharding, state) == layout
  return jax.device_get((found, state))


_one_device = functools.cache(lambda: _train({}))


def test_only_the_pairs_learn_and_have_moments():
  _, state = _one_device()
  learning, frozen = parameters.split_adapters(DECLARED, state.params)
  before, base = parameters.split_adapters(DECLARED, tiny.params(STUDENT))
  jax.tree.map(np.testing.assert_array_equal, frozen, base)
  moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), learning, before)
  assert min(jax.tree.leaves(moved)) > 1e-3
  shape = lambda tree: jax.tree.map(np.shape, tree)
  assert shape(state.opt_state[1].mu) == shape(learning)


@pytest.mark.parametrize('mesh', MESHES, ids=str)
def test_steps_do_not_depend_on_the_mesh(mesh):
  compare = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-4)
  jax.tree.map(compare, _train(mesh), _one_device())


@pytest.mark.long
@pytest.mark.parametrize('name', ['adafactor', 'muon'])
def test_other_optimisers_train_them_too(name):
  more = {'adafactor': {'adafactor_decay': 0.8}, 'muon': {'muon_beta': 0.95, 'b2': 0.95}}[name]
  kind = optimizer.OPTIMIZERS[name]
  tx = kind(b1=0.9, weight_decay=0.0, clip_norm=1.0, **more).build(DECLARED)
  step = jax.jit(
      functools.partial(
          program_lib.train_step, loss_fn=_loss(STUDENT), tx=tx, declarations=DECLARED
      )
  )
  with tiny.mesh(fsdp=2):
    state = program_lib.init_state(tiny.put_params(STUDENT), tx, DECLARED)
    batch = partitioning.put_batch(tiny.batch(1, 8, 12))
    values = []
    for _ in range(8):
      state, metrics = step(state, batch, 3e-2)
      values.append(float(metrics['loss']))
  assert values[-1] < 0.9 * values[0]


def test_what_is_frozen_has_no_gradient_in_memory():
  """No array of the head's, the embedding's or a layer's size in float32."""

  def text(student):
    with tiny.mesh():
      params = parameters.abstract_params(student)
      declared = parameters.describe_parameters(student)
      if student.lora:
        learning, frozen = parameters.split_adapters(DECLARED, params)
        frozen = declarations.cast_matrices(DECLARED, frozen, jnp.bfloat16)
        params = parameters.join_adapters(learning, frozen)
      place = jax.NamedSharding(jax.sharding.get_mesh(), jax.P())
      batch = {
          name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
          for name, x in tiny.batch(8, 12).items()
      }
      grad = jax.grad(
          lambda part, rest, batch: _loss(student, jnp.bfloat16)(
              parameters.join_adapters(part, rest), batch
          )[0]
      )
      jaxpr = jax.jit(grad).trace(*parameters.split_adapters(declared, params), batch).jaxpr
      return re.sub(r'@(\(.*?\)|\w+)', '', str(jaxpr))  # Without meshes.

  shapes = ['f32[40,16]', 'f32[16,40]', 'f32[2,16,32]', 'f32[2,32,16]']
  assert all(shape in text(PLAIN) for shape in shapes)
  assert not any(shape in text(STUDENT) for shape in shapes)


@pytest.mark.parametrize('mesh', MESHES, ids=str)
def test_an_adapted_student_is_sampled_as_the_merged_one(mesh):
  requests = [samples_lib.Request(f'p{n}', 0, tuple(range(n + 1))) for n in range(8)]

  def samples(student, params, **mesh):
    with tiny.mesh(**mesh):
      samples = tiny.engine(student, params()).draw_samples(requests)
      return {s.request.problem_id: s.tokens for s in samples}

  adapted = lambda: tiny.put_params(STUDENT)
  merged = lambda: parameters.merge_adapters(STUDENT, adapted())
  assert samples(STUDENT, adapted, **mesh) == samples(PLAIN, merged)


def test_model_flops_leave_out_gradients_that_are_not_made():
  plain, adapted = (flops.count_step_flops(s, 100, 0) for s in (PLAIN, STUDENT))
  pairs = PLAIN.num_layers * LORA.rank * (64 + 32 + 32 + 64 + 3 * 48)
  assert adapted == pytest.approx(plain * 4 / 6 + 6 * pairs * 100)


def _config(path, **train):
  changes = {'lora_rank': 4, 'learning_rate': 1e-2, **train}
  return tiny.config(path, train=changes, shards='', seed=3)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp('run')
  tiny.write_world(path)
  train.train(_config(path, epochs=3), str(path))
  return path


@pytest.mark.long
def test_a_run_is_exported_sampled_and_gone_on_from_without_lora(run):
  checkpoint = run / 'checkpoints'
  student = initial.read_checkpoint_student(checkpoint)
  assert student.lora is None
  adapted = dataclasses.replace(student, lora=student_lib.Lora(rank=4, alpha=32.0))
  with tiny.mesh(fsdp=2):
    saved = checkpoints.load_latest_params(checkpoint, parameters.abstract_params(adapted))
    base = parameters.init_params(student, jax.random.key(3))
    for name, before in parameters.split_adapters(DECLARED, saved)[1]['blocks'].items():
      if not isinstance(before, dict):  # Frozen since the beginning.
        np.testing.assert_array_equal(before, base['blocks'][name])
    up = np.asarray(saved['blocks']['up_DF'])
    a, b = (np.asarray(saved['blocks'][name]) for name in student_lib.adapter_names('up'))
    assert np.abs(b).max() > 0
    found, merged = initial.load_trained(checkpoint)
    assert found == student
    np.testing.assert_allclose(merged['blocks']['up_DF'], up + 8 * a @ b, rtol=0, atol=1e-5)
    convert.export(run, dtype='float32')
    exported = pretrained.load_params(run / 'hf', student)
    jax.tree.map(np.testing.assert_array_equal, exported, merged)
    anew = initial.load_or_init_params(f'hf:{run}/hf', adapted, 0, 'bfloat16')
    added, frozen = parameters.split_adapters(DECLARED, anew)
    assert frozen['blocks']['up_DF'].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        frozen['blocks']['up_DF'], exported['blocks']['up_DF'].astype('bfloat16')
    )
    assert not added['blocks'][student_lib.adapter_names('up')[1]].any()
    learnt = initial.load_or_init_params(f'checkpoint:{checkpoint}', adapted, 0, 'bfloat16')
    _, frozen = parameters.split_adapters(DECLARED, learnt)
    assert frozen['embed_VD'].dtype == jnp.bfloat16
    assert frozen['final_norm']['scale'].dtype == jnp.float32
    gone_on = initial.load_or_init_params(f'checkpoint:{checkpoint}', student, 0, 'float32')
    jax.tree.map(np.testing.assert_array_equal, gone_on, merged)
  sample.sample(_config(run), str(run))
  assert (run / 'completions.jsonl').exists()


def test_an_interrupted_run_ends_with_the_same_bits(run, tmp_path, monkeypatch):
  tiny.write_world(tmp_path)
  config = _config(tmp_path, epochs=3, checkpoint_every=1)
  whole = checkpoints.save_checkpoint
  calls = []

  def breaks(*args, **kwargs):
    whole(*args, **kwargs)
    calls.append(args)
    if len(calls) == 2:
      raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(checkpoints, 'save_checkpoint', breaks)
    with pytest.raises(KeyboardInterrupt):
      train.train(config, str(tmp_path))
  train.train(config, str(tmp_path))
  with tiny.mesh():
    jax.tree.map(
        np.testing.assert_array_equal,
        initial.load_trained(tmp_path / 'checkpoints')[1],
        initial.load_trained(run / 'checkpoints')[1],
    )


def test_another_rank_is_another_run(run):
  with pytest.raises(ValueError, match='config.train.lora_rank=4, now it is 8'):
    train.train(_config(run, epochs=3, lora_rank=8), str(run))


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'lora_rank': -1}, 'lora_rank=-1: want 1 or more'),
        ({'lora_matrices': ('q', 'o')}, r"\['q', 'o'\]: want some of q, k, v"),
        ({'lora_matrices': ()}, 'want some of'),
        ({'lora_matrices': ('q', 'q')}, 'each once'),
    ],
)
def test_what_a_user_can_get_wrong_is_said(changes, said):
  fields = {'lora_rank': 4, 'lora_alpha': 8.0, 'lora_matrices': ('q',), **changes}
  with pytest.raises(ValueError, match=said):
    student_lib.choose_lora(*fields.values())
