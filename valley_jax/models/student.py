"""What a student looks like: sizes, and the presets of known families."""

import dataclasses

from valley_jax import errors
from valley_jax.models import lora as lora_lib
from valley_jax.models import rope


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student:
  """Sizes and switches of one decoder; hashable, so a static jit argument.

  Qwen2 and 2.5: `qkv_bias`. Qwen3: `qk_norm`. Llama 3: neither. The smallest
  of each family tie the head to the embedding.
  """

  vocab_size: int
  num_layers: int
  embed_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  rope_theta: float = 10_000.0
  rope_scaling: rope.Scaling | None = None
  norm_eps: float = 1e-6
  tied_head: bool = False
  qkv_bias: bool = False
  qk_norm: bool = False
  max_positions: int = 32_768  # What it is made for; changes no number.
  lora: lora_lib.Lora | None = None  # While it is being adapted.

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise errors.UserError(
          f'num_heads={self.num_heads} is not a multiple of'
          f' num_kv_heads={self.num_kv_heads}; every KV head serves as many'
          ' query heads.'
      )
    if self.head_dim % 2:
      raise errors.UserError(f'head_dim={self.head_dim} is odd; RoPE turns pairs.')


def _student(
    family: dict,
    num_layers: int,
    embed_dim: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    mlp_dim: int,
    **changes,
) -> Student:
  """Returns one line of the table below."""
  return Student(
      num_layers=num_layers,
      embed_dim=embed_dim,
      num_heads=num_heads,
      num_kv_heads=num_kv_heads,
      head_dim=head_dim,
      mlp_dim=mlp_dim,
      **{**family, **changes},
  )


def _llama3(factor: float) -> dict:
  """Returns what the Llamas with a stretched context of 131,072 share."""
  scaling = rope.Llama3(
      factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
  )
  return {**_LLAMA3, 'max_positions': 131_072, 'rope_scaling': scaling}


_QWEN2_5 = {'vocab_size': 151_936, 'rope_theta': 1e6, 'qkv_bias': True}
_QWEN3 = {'vocab_size': 151_936, 'rope_theta': 1e6, 'qk_norm': True, 'max_positions': 40_960}
_LLAMA3 = {'vocab_size': 128_256, 'rope_theta': 500_000.0, 'norm_eps': 1e-5, 'max_positions': 8192}
_LLAMA3_1, _LLAMA3_2 = _llama3(8.0), _llama3(32.0)
# The small ones come from Qwen2.5-Math, the others from the base models.
_R1_QWEN = {**_QWEN2_5, 'rope_theta': 1e4, 'max_positions': 131_072}
_R1_QWEN_BASE = {**_R1_QWEN, 'rope_theta': 1e6, 'norm_eps': 1e-5}
_BIG = {'vocab_size': 152_064}
_TIED = {'tied_head': True}

# The Instruct variants; where the base or coder variant differs in a number
# (Qwen2.5-14B and -32B: norm_eps), take its own config.json, `init=hf:DIR`.
#           family, layers, width, heads, KV heads, head width, MLP width
PRESETS = {
    # About a million parameters: the student of the embedded world.
    'mini': _student({'vocab_size': 640}, 4, 128, 4, 2, 32, 384, qk_norm=True),
    # Qwen2.5, and Qwen2.5-Coder in the same sizes.
    'qwen2_5_0_5b': _student(_QWEN2_5, 24, 896, 14, 2, 64, 4864, **_TIED),
    'qwen2_5_1_5b': _student(_QWEN2_5, 28, 1536, 12, 2, 128, 8960, **_TIED),
    'qwen2_5_3b': _student(_QWEN2_5, 36, 2048, 16, 2, 128, 11_008, **_TIED),
    'qwen2_5_7b': _student(_QWEN2_5, 28, 3584, 28, 4, 128, 18_944, **_BIG),
    'qwen2_5_14b': _student(_QWEN2_5, 48, 5120, 40, 8, 128, 13_824, **_BIG),
    'qwen2_5_32b': _student(_QWEN2_5, 64, 5120, 40, 8, 128, 27_648, **_BIG),
    'qwen3_0_6b': _student(_QWEN3, 28, 1024, 16, 8, 128, 3072, **_TIED),
    'qwen3_1_7b': _student(_QWEN3, 28, 2048, 16, 8, 128, 6144, **_TIED),
    'qwen3_4b': _student(_QWEN3, 36, 2560, 32, 8, 128, 9728, **_TIED),
    'qwen3_8b': _student(_QWEN3, 36, 4096, 32, 8, 128, 12_288),
    'qwen3_14b': _student(_QWEN3, 40, 5120, 40, 8, 128, 17_408),
    'qwen3_32b': _student(_QWEN3, 64, 5120, 64, 8, 128, 25_600),
    'llama3_8b': _student(_LLAMA3, 32, 4096, 32, 8, 128, 14_336),
    'llama3_1_8b': _student(_LLAMA3_1, 32, 4096, 32, 8, 128, 14_336),
    'llama3_2_1b': _student(_LLAMA3_2, 16, 2048, 32, 8, 64, 8192, **_TIED),
    'llama3_2_3b': _student(_LLAMA3_2, 28, 3072, 24, 8, 128, 8192, **_TIED),
    # DeepSeek-R1-Distill.
    'r1_qwen_1_5b': _student(_R1_QWEN, 28, 1536, 12, 2, 128, 8960),
    'r1_qwen_7b': _student(_R1_QWEN, 28, 3584, 28, 4, 128, 18_944, **_BIG),
    'r1_qwen_14b': _student(_R1_QWEN_BASE, 48, 5120, 40, 8, 128, 13_824, **_BIG),
    'r1_qwen_32b': _student(_R1_QWEN_BASE, 64, 5120, 40, 8, 128, 27_648, **_BIG),
    'r1_llama_8b': _student(_LLAMA3_1, 32, 4096, 32, 8, 128, 14_336),
}


def preset(name: str) -> Student:
  """Returns a published student, with the rows of its own vocabulary."""
  if name not in PRESETS:
    raise errors.UserError(f'config.student={name!r}: want one of {", ".join(PRESETS)}.')
  return PRESETS[name]


def of(name: str, vocab_size: int, multiple: int) -> Student:
  """Returns a preset with a tokenizer's vocabulary, padded to a multiple."""
  rows = -(-vocab_size // multiple) * multiple
  return dataclasses.replace(preset(name), vocab_size=rows)


def differences(student: Student, other: Student) -> list[str]:
  """Returns in what two students compute differently: `embed_dim=64, not 32`.

  The vocabulary and the length that they are made for do not count.
  """
  names = [field.name for field in dataclasses.fields(Student)]
  found = []
  for name in names:
    a, b = getattr(student, name), getattr(other, name)
    if name not in ('vocab_size', 'max_positions') and a != b:
      found.append(f'{name}={a}, not {b}')
  return found
