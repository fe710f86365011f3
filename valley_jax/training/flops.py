"""How much a step computes, and what a chip could: model FLOPs and MFU.

Model FLOPs are those that the model needs, whatever the program does: a multiply-add of a matrix
counts twice forward and four times backward, for tokens of examples only. Padding, what remat
computes again, norms, RoPE, the softmax and the embedding's lookup count nothing; the output head
counts, once, tied or not, for every token (though the loss may skip unsupervised ones). Of
attention the causal half counts, within an example: under packing its cost is the sum of squared
lengths, not the row's length squared, which would overstate the MFU. (PaLM, 2204.02311, appendix B,
with those two corrections.)
"""

from collections.abc import Sequence
import re
from typing import Any

import jax
import jax.numpy as jnp

from valley_jax.models import student as student_lib

# Dense bfloat16 FLOP/s of a chip by `device_kind`; the first match wins.
_TPU = 'docs.cloud.google.com/tpu/docs/'
_PEAKS = (
    (r'TPU v4', 275e12, _TPU + 'v4'),
    (r'TPU v5 lite|TPU v5e', 197e12, _TPU + 'v5e'),
    (r'TPU v5p?', 459e12, _TPU + 'v5p'),
    (r'TPU v6 lite|TPU v6e', 918e12, _TPU + 'v6e'),
    (r'TPU ?7x', 2307e12, _TPU + 'tpu7x'),
    # NVIDIA's tables give twice this, "with sparsity", from Hopper on.
    (r'NVIDIA A100.*', 312e12, 'nvidia.com/a100, datasheet'),
    (r'NVIDIA H100 PCIe', 756e12, 'nvidia.com/h100, datasheet'),
    (r'NVIDIA H[12]00 NVL', 835e12, 'nvidia.com/h200, datasheet'),
    (r'NVIDIA H100.*', 989e12, 'nvidia.com/h100, datasheet: SXM'),
    (r'NVIDIA H200', 989e12, 'nvidia.com/h200, datasheet: SXM'),
    (r'NVIDIA B200', 2250e12, 'nvidia.com/hgx, datasheet: HGX B200'),
    (r'NVIDIA GB200', 2500e12, 'nvidia.com/gb200-nvl72, datasheet'),
)


def find_peak_flops(device_kind: str) -> float | None:
  """Returns a chip's FLOP/s, bfloat16 and dense; None if it is not known."""
  for pattern, flops, _source in _PEAKS:
    if re.fullmatch(pattern, device_kind):
      return flops
  return None


def count_chips(devices: Sequence[Any]) -> int:
  """Returns how many chips these devices are.

  One each, but for TPUs whose cores are devices of their own (TPU7x, and v4 without megacore): they
  share their coordinates.
  """
  places = {(d.slice_index, *d.coords) if hasattr(d, 'coords') else d.id for d in devices}
  return len(places)


def count_matrix_params(student: student_lib.Student) -> int:
  """Returns the parameters of all matrices but the embedding's and LoRA's."""
  s = student
  attention = 2 * s.embed_dim * s.head_dim * (s.num_heads + s.num_kv_heads)
  mlp = 3 * s.embed_dim * s.mlp_dim
  return s.num_layers * (attention + mlp) + s.embed_dim * s.vocab_size


def count_step_flops(
    student: student_lib.Student, num_tokens: float, squared_lengths: float
) -> float:
  """Returns the model FLOPs of a training step.

  A frozen matrix, under LoRA, counts twice backward: it has no gradient.

  Args:
    student: Sizes.
    num_tokens: Tokens of examples, without padding.
    squared_lengths: Sum of the squared lengths of the examples.

  Example: one example of 32,768 tokens takes 62 GFLOP a token on Qwen2.5-7B:
    >>> n = 32_768
    >>> round(count_step_flops(student_lib.find_preset('qwen2_5_7b'), n, n**2) / n / 1e9)
    62
  """
  width = student.num_heads * student.head_dim
  # Two products, queries with keys and weights with values, each half.
  attention = student.num_layers * width * squared_lengths
  adapters = student.num_layers * student.count_adapter_params()
  matrices = (4 if student.lora else 6) * count_matrix_params(student)
  return (matrices + 6 * adapters) * num_tokens + 6 * attention


def count_batch(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns what a batch holds, over all devices: sums, float32.

  num_tokens are those of examples, squared_lengths as `count_step_flops` wants them, fill the share
  of positions that hold a token.
  """
  is_token = batch['segments'] > 0
  num_tokens = jnp.sum(is_token, dtype=jnp.float32)
  # 1 + 3 + 5 + … + (2n - 1) = n²
  odd = jnp.where(is_token, 2 * batch['positions'] + 1, 0)
  return {
      'num_tokens': num_tokens,
      'fill': num_tokens / is_token.size,
      'squared_lengths': jnp.sum(odd, dtype=jnp.float32),
  }
