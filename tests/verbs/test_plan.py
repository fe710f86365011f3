"""plan compiles the step that train would run, and says what fits where."""

import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import valley
from valley_jax import plan
from valley_jax.models import decode_attention
from valley_jax.models import parameters
from valley_jax.planning import arithmetic
from valley_jax.planning import programs
from valley_jax.runtime import partitioning
from valley_jax.training import flops


def test_a_topology_has_a_kind_and_a_shape():
  topology = arithmetic.parse_topology('2*v5p:2x2x4')
  assert (topology.num_chips, topology.num_slices) == (32, 2)
  assert arithmetic.parse_topology('v6e:4x4').num_chips == 16


@pytest.mark.parametrize('name', ['v6e', 'v6e:16', 'v5p:4x4', 'v9z:2x2', 'v6e:0x4', 'v6e:4x4x4'])
def test_an_unknown_topology_is_refused_with_a_remedy(name):
  with pytest.raises(ValueError, match=f'{name!r}.*(such as v6e:4x4|give AxB)'):
    arithmetic.parse_topology(name)


def _make_candidate(remat, peak_gb, seconds):
  needs = programs.Needs(arguments=1, temporaries=1, peak=peak_gb * 1e9, flops=1)
  bound = arithmetic.Bound(
      flops=1, hbm_bytes=1, flops_seconds=seconds, hbm_seconds=0, mfu=0.5, tokens_per_second=1
  )
  return plan.Candidate('v6e:4x4', 'train', remat, 1, 8, needs, bound)


def test_the_fastest_that_fits_is_recommended():
  full, saved = _make_candidate('full', 20, 9.0), _make_candidate('attention', 30, 8.0)
  too_big = _make_candidate('qkv', 31, 7.0)
  assert plan.recommend_candidate([full, saved, too_big]) is saved
  assert plan.recommend_candidate([too_big]) is None
  failed = dataclasses.replace(too_big, bound=None)
  assert plan.recommend_candidate([failed, full]) is full


def _make_config(**train):
  config = valley.get_config('mini').unlock()
  config.data.max_len = 256
  config.train.update(batch_size=8, dtype='bfloat16', remat='full', **train)
  config.mesh.fsdp = -1
  config.sample.update(max_new_tokens=64, num_slots=8)
  return config.lock()


@pytest.fixture(scope='module')
def planned(tmp_path_factory):
  path = tmp_path_factory.mktemp('plan') / 'plan.json'
  candidates = plan.plan(_make_config(), ['v5e:2x2'], output=str(path), with_decode=True)
  return candidates, json.loads(path.read_text())


def test_a_step_is_compiled_for_chips_that_are_not_there(planned):
  [step, _], _ = planned
  student = plan.preset_student(_make_config())
  with jax.set_mesh(jax.make_mesh((1,) * 4, ('data', 'fsdp', 'cp', 'tp'))):
    size = parameters.count_params(parameters.abstract_params(student))
  # Parameters and two moments in float32, a quarter each; a TPU fills the
  # narrow arrays of so small a student up to whole tiles.
  assert 3 * size <= step.needs.arguments < 6 * size
  assert step.accumulate == 2
  tokens = 8 * 256
  model = flops.count_step_flops(student, tokens, tokens * 256) / 4
  # Remat computes the layers again; dense attention the upper half, too.
  assert model < step.bound.flops < 2 * model
  assert step.fits
  assert 0 < step.bound.mfu < 1


def test_a_chunk_of_decoding_is_compiled_too(planned):
  [_, chunk], _ = planned
  assert chunk.program == 'decode'
  assert chunk.needs.peak >= chunk.needs.arguments > 0
  assert chunk.bound.tokens_per_second > 0


def test_the_table_and_the_file_say_the_same(planned):
  candidates, rows = planned
  assert [row['topology'] for row in rows] == ['v5e:2x2'] * 2
  assert rows[0]['needs']['peak'] == candidates[0].needs.peak
  assert rows[0]['fits'] is True
  table = plan.format_table(candidates)
  assert f'{candidates[0].needs.peak / 1e9:.1f}' in table


def test_a_batch_that_the_chips_cannot_share_is_refused():
  with pytest.raises(ValueError, match='batch_size=8.*micro-batches of 12'):
    plan.plan_train_step(_make_config(), arithmetic.parse_topology('v5e:2x2'), 'full', rows=3)


def _measure_layers(num_layers):
  """Compiles a step of layers without any parts for one chip of 16 GB."""
  devices = arithmetic.describe_devices(arithmetic.parse_topology('v5e:2x2'))[:1]
  mesh = jax.sharding.Mesh(np.asarray(devices), ('x',))
  of = functools.partial(jax.ShapeDtypeStruct, sharding=jax.NamedSharding(mesh, jax.P()))
  weights = of((num_layers, 2048, 2048), jnp.float32)
  x = of((65_536, 2048), jnp.bfloat16)

  @jax.checkpoint
  def layer(x, w):
    return jnp.tanh(x @ w.astype(x.dtype)), None

  def loss(weights, x):
    return jax.lax.scan(layer, x, weights)[0].astype(jnp.float32).sum()

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(weights, mean, x):
    grads = jax.grad(loss)(weights, x)
    mean = 0.9 * mean + grads / jnp.linalg.norm(grads)
    return weights - mean, mean

  with jax.set_mesh(mesh):
    return programs.measure_program(step.trace(weights, weights, x))


def test_memory_is_what_the_layers_need():
  n = 24
  needs = _measure_layers(n)
  x, w = 65_536 * 2048 * 2, 2048 * 2048 * 4
  assert needs.arguments == pytest.approx(2 * n * w + x, rel=0.01)
  # Inputs of all layers, gradients, and the weights in bfloat16; and two to
  # four activations at a time. (`temp_size_in_bytes`
  # counts some of it twice.)
  known = n * (x + w + w / 2)
  assert known + x < needs.temporaries < known + 4 * x
  assert needs.peak == pytest.approx(needs.arguments + needs.temporaries)


def test_what_the_compiler_refuses_is_a_size_and_no_error():
  needs = _measure_layers(80)
  assert not needs.is_compiled
  assert needs.peak > 80 * 65_536 * 2048 * 2 > 16e9
  line = plan.Candidate('v5e:2x2', 'train', 'full', 1, 1, needs, None)
  assert not line.fits
  assert f'{needs.peak / 1e9:.1f}' in plan.format_table([line])


@pytest.mark.long
def test_lora_needs_less_than_learning_it_all(planned):
  [full, _], _ = planned
  config = _make_config(lora_rank=4)
  adapted = plan.plan_train_step(config, arithmetic.parse_topology('v5e:2x2'), 'full', rows=1)
  # Two bytes a frozen parameter, where there were twelve.
  assert adapted.needs.arguments < 0.4 * full.needs.arguments
  assert adapted.needs.flops < 0.9 * full.needs.flops
  assert adapted.bound.hbm_bytes < full.bound.hbm_bytes


@pytest.mark.long
def test_parameters_in_bfloat16_take_half(planned):
  [full, _], _ = planned
  config = _make_config(param_dtype='bfloat16')
  half = plan.plan_train_step(config, arithmetic.parse_topology('v5e:2x2'), 'full', rows=1)
  ratio = half.needs.arguments / full.needs.arguments
  assert ratio == pytest.approx(10 / 12, rel=0.05)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.version_info < (3, 12), reason='Once is enough.')
def test_qwen2_5_7b_at_32k_fits_sixteen_v6e():
  config = valley.get_config('student=qwen2_5_7b')
  line = plan.plan_train_step(config, arithmetic.parse_topology('v6e:4x4'), 'full', rows=1)
  assert line.accumulate == 8
  # Parameters and two moments in float32, a sixteenth of 7.6e9 each.
  assert line.needs.arguments == pytest.approx(12 * 7.616e9 / 16, rel=0.01)
  assert line.fits
  assert line.needs.peak < 30e9


@pytest.mark.parametrize('tp', [1, 4])
@pytest.mark.parametrize('topology', ['v5e:2x2', 'v6e:2x2'])
def test_decoding_on_tpu_reads_by_the_kernel(topology, tp):
  """Heads and slots of Qwen2.5-7B; only the compiler is there."""
  mesh = partitioning.make_mesh(
      data=-1,
      fsdp=1,
      tp=tp,
      devices=arithmetic.describe_devices(arithmetic.parse_topology(topology)),
  )

  def describe(shape, spec, dtype=jnp.bfloat16):
    sharding = jax.NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  with jax.set_mesh(mesh):
    cache = describe((16, 8192, 512), decode_attention.CACHE)
    attend = jax.jit(functools.partial(decode_attention.attend_to_slots, platform='tpu'))
    compiled = attend.lower(
        describe((16, 4, 7, 128), jax.P(partitioning.BATCH, 'tp')),
        cache,
        cache,
        describe((16,), jax.P(partitioning.BATCH), jnp.int32),
    ).compile()
  assert 'tpu_custom_call' in compiled.as_text()
  assert compiled.memory_analysis().temp_size_in_bytes < 2e6
