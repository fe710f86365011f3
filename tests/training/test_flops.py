"""Model FLOPs are those of useful tokens, and MFU is never made up."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from valley_jax.models import parameters
from valley_jax.models import student as student_lib
from valley_jax.training import flops
from valley_jax.watching import reporter


@pytest.mark.parametrize('length, gflops', [(32_768, 62), (8192, 47)])
def test_flops_of_a_token_of_qwen_2_5_7b(length, gflops):
  found = flops.count_step_flops(student_lib.find_preset('qwen2_5_7b'), length, length**2)
  assert round(found / length / 1e9) == gflops


@pytest.mark.parametrize('tied', [False, True])
def test_matrices_are_all_parameters_but_the_lookup_norms_and_biases(tied):
  student = tiny.student(tied_head=tied, qkv_bias=True, qk_norm=True)
  leaves = jax.tree.leaves_with_path(tiny.params(student))
  matrices = sum(
      leaf.size
      for path, leaf in leaves
      if not {'scale', 'bias', 'embed'} & set(str(path[-1]).strip("[']").split('_'))
  )
  lookup = student.vocab_size * student.embed_dim if tied else 0
  assert flops.count_matrix_params(student) == matrices + lookup


def test_xla_counts_the_same_matrices():
  """Of a forward pass, whose attention is computed in full here."""
  student, length = tiny.student(num_layers=1), 8
  batch = {k: x[:, :length] for k, x in tiny.batch(2, length).items()}

  def logits(params):
    model = parameters.bind_transformer(student, params)
    hidden_BLD, _ = model(batch['inputs'], batch['positions'], batch['segments'])
    return hidden_BLD @ model.output_head(jnp.float32)

  with tiny.mesh():
    lowered = jax.jit(logits).lower(tiny.put_params(student))
  cost = lowered.compile().cost_analysis()
  full = flops.count_step_flops(student, 2 * length, 2 * 2 * length**2) / 3
  assert full < cost['flops'] < 1.3 * full  # Softmax, norms, RoPE.


def test_a_batch_counts_tokens_and_squared_lengths_of_its_examples():
  segments = np.array([[1, 1, 1, 2, 0], [1, 1, 0, 0, 0]])
  positions = np.array([[0, 1, 2, 0, 0], [0, 1, 0, 0, 0]])
  found = flops.count_batch({'segments': segments, 'positions': positions})
  assert found['num_tokens'] == 6
  assert found['squared_lengths'] == 3**2 + 1 + 2**2
  assert np.isclose(found['fill'], 0.6)


def test_padding_and_packing_do_not_raise_the_flops():
  student = tiny.student()
  of = lambda *lengths: flops.count_step_flops(student, sum(lengths), sum(n**2 for n in lengths))
  assert of(3, 5) < of(8)
  assert of(3) + of(5) == of(3, 5)


@pytest.mark.parametrize(
    'kind, teraflops',
    [
        ('TPU v4', 275),
        ('TPU v5 lite', 197),
        ('TPU v5', 459),
        ('TPU v6 lite', 918),
        ('TPU7x', 2307),
        ('NVIDIA A100-SXM4-80GB', 312),
        ('NVIDIA H100 80GB HBM3', 989),
        ('NVIDIA H100 PCIe', 756),
        ('NVIDIA H200', 989),
        ('NVIDIA B200', 2250),
        ('cpu', None),
        ('NVIDIA GeForce RTX 4090', None),
        ('TPU v9', None),
    ],
)
def test_the_peak_of_a_chip(kind, teraflops):
  found = flops.find_peak_flops(kind)
  assert found == (teraflops and teraflops * 1e12)


def _device(kind, i, coords=None):
  place = {} if coords is None else {'slice_index': 0, 'coords': coords}
  return types.SimpleNamespace(device_kind=kind, id=i, **place)


def test_two_cores_of_a_chip_are_one_chip():
  cores = [_device('TPU7x', i, [0, i // 2, 0]) for i in range(4)]
  gpus = [_device('NVIDIA H200', i) for i in range(4)]
  assert flops.count_chips(cores) == 2
  assert flops.count_chips(gpus) == 4


def test_mfu_is_needed_over_possible_flops():
  student = student_lib.find_preset('qwen2_5_7b')
  n = 32_768
  counts = dict(num_supervised=n / 2, num_tokens=n, squared_lengths=n**2)
  gpus = [_device('NVIDIA H200', i) for i in range(2)]
  found = reporter.compute_speeds(student, gpus, 2.0, counts)
  assert found['mfu'] == pytest.approx(62e9 * n / (2 * 2 * 989e12), rel=0.01)
  assert found['supervised_tokens_per_second'] == n / 4
  assert found['tokens_per_second_per_chip'] == n / 4


def test_where_the_peak_is_not_known_there_is_no_mfu():
  counts = dict(num_supervised=1, num_tokens=2, squared_lengths=2)
  found = reporter.compute_speeds(tiny.student(), jax.devices(), 1.0, counts)
  assert 'mfu' not in found
  assert not reporter.measure_peak_gib(jax.devices())


def test_a_step_of_twice_the_median_stands_out():
  pace = reporter.SlowStepDetector()
  found = [pace.add_step(s) for s in (9, 1, 1, 1, 1, 1.9, 4, 1, 2.5)]
  assert found == [None] * 6 + [4, None, 2.5]
  assert pace.num_slow == 2
