"""What a student looks like: sizes, and the presets of known families."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student:
  """Sizes and switches of one decoder; hashable, so a static jit argument.

  Qwen2 and 2.5: `qkv_bias`. Qwen3: `qk_norm`, `head_dim` given. Llama 3:
  neither. The smallest of each family tie the head to the embedding.
  """

  vocab_size: int
  num_layers: int
  embed_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  rope_theta: float = 10_000.0
  norm_eps: float = 1e-6
  tied_head: bool = False
  qkv_bias: bool = False
  qk_norm: bool = False

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
          f'num_heads={self.num_heads} is not a multiple of'
          f' num_kv_heads={self.num_kv_heads}; every KV head serves as many'
          ' query heads.'
      )
    if self.head_dim % 2:
      raise ValueError(f'head_dim={self.head_dim} is odd; RoPE turns pairs.')


def mini(vocab_size: int) -> Student:
  """About a million parameters: the student of the embedded world."""
  return Student(
      vocab_size=vocab_size,
      num_layers=4,
      embed_dim=128,
      num_heads=4,
      num_kv_heads=2,
      head_dim=32,
      mlp_dim=384,
      qk_norm=True,
  )


def qwen2_5_7b(vocab_size: int = 152_064) -> Student:
  """Qwen2.5-7B and Qwen2.5-7B-Instruct."""
  return Student(
      vocab_size=vocab_size,
      num_layers=28,
      embed_dim=3584,
      num_heads=28,
      num_kv_heads=4,
      head_dim=128,
      mlp_dim=18_944,
      rope_theta=1e6,
      qkv_bias=True,
  )


def qwen2_5_0_5b(vocab_size: int = 151_936) -> Student:
  """Qwen2.5-0.5B and Qwen2.5-0.5B-Instruct."""
  return Student(
      vocab_size=vocab_size,
      num_layers=24,
      embed_dim=896,
      num_heads=14,
      num_kv_heads=2,
      head_dim=64,
      mlp_dim=4864,
      rope_theta=1e6,
      tied_head=True,
      qkv_bias=True,
  )


def qwen3_8b(vocab_size: int = 151_936) -> Student:
  """Qwen3-8B."""
  return Student(
      vocab_size=vocab_size,
      num_layers=36,
      embed_dim=4096,
      num_heads=32,
      num_kv_heads=8,
      head_dim=128,
      mlp_dim=12_288,
      rope_theta=1e6,
      qk_norm=True,
  )


def llama3_8b(vocab_size: int = 128_256) -> Student:
  """Llama-3-8B and Llama-3-8B-Instruct (3.1 adds RoPE scaling)."""
  return Student(
      vocab_size=vocab_size,
      num_layers=32,
      embed_dim=4096,
      num_heads=32,
      num_kv_heads=8,
      head_dim=128,
      mlp_dim=14_336,
      rope_theta=500_000.0,
      norm_eps=1e-5,
  )


PRESETS = {
    'mini': mini,
    'qwen2_5_7b': qwen2_5_7b,
    'qwen2_5_0_5b': qwen2_5_0_5b,
    'qwen3_8b': qwen3_8b,
    'llama3_8b': llama3_8b,
}


def of(name: str, vocab_size: int, multiple: int) -> Student:
  """Returns a preset with a tokenizer's vocabulary, padded to a multiple."""
  if name not in PRESETS:
    raise ValueError(
        f'config.student={name!r}: want one of {", ".join(PRESETS)}.'
    )
  return PRESETS[name](-(-vocab_size // multiple) * multiple)
