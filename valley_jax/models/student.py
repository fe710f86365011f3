"""What a student looks like: sizes, what LoRA adapts, and the presets of known families."""

from collections.abc import Sequence
import dataclasses
import math

from valley_jax import errors
from valley_jax.models import rope

# The matrices of a layer by what a config calls them: inputs, then outputs, in the letters of
# transformer.py.
ADAPTABLE_MATRICES = {
    'q': 'D KGH',
    'k': 'D KH',
    'v': 'D KH',
    'out': 'KGH D',
    'gate': 'D F',
    'up': 'D F',
    'down': 'F D',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
  """Which matrices are adapted, and how much; hashable."""

  rank: int
  alpha: float
  matrices: tuple[str, ...] = tuple(ADAPTABLE_MATRICES)

  def __post_init__(self):
    if self.rank < 1:
      raise errors.UserError(f'lora_rank={self.rank}: want 1 or more, or 0 for none.')
    names = set(self.matrices)
    if not names or names - set(ADAPTABLE_MATRICES) or len(names) < len(self.matrices):
      raise errors.UserError(
          f'lora_matrices={list(self.matrices)}: want some of {", ".join(ADAPTABLE_MATRICES)}, each'
          ' once.'
      )

  @property
  def scale(self) -> float:
    """The factor of A B."""
    return self.alpha / self.rank


def choose_lora(rank: int, alpha: float, matrices: Sequence[str]) -> Lora | None:
  """Returns what LoRA adapts; None, so that all parameters learn, where the rank is 0."""
  return Lora(rank=rank, alpha=alpha, matrices=tuple(matrices)) if rank else None


def matrix_name(name: str) -> str:
  """Returns the name of a matrix among the parameters of a layer: `q_DKGH`."""
  return f'{name}_{ADAPTABLE_MATRICES[name].replace(" ", "")}'


def adapter_names(name: str) -> tuple[str, str]:
  """Returns the names of its A and its B: `q_lora_a_DR`, `q_lora_b_RKGH`."""
  ins, outs = ADAPTABLE_MATRICES[name].split()
  return f'{name}_lora_a_{ins}R', f'{name}_lora_b_R{outs}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student:
  """Sizes and switches of one decoder; hashable, so a static jit argument.

  Qwen2 and 2.5: `qkv_bias`. Qwen3: `qk_norm`. Llama 3: neither. The smallest of each family tie the
  head to the embedding.
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
  max_positions: int = 32_768  # The longest context that it is trained for; changes no number.
  lora: Lora | None = None  # While it is being adapted.

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise errors.UserError(
          f'num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}; every'
          ' KV head serves equally many query heads.'
      )
    if self.head_dim % 2:
      raise errors.UserError(f'head_dim={self.head_dim} is odd; RoPE rotates pairs.')

  def axis_sizes(self) -> dict[str, int]:
    """Returns the sizes of the letters of a layer's parameters."""
    return {
        'D': self.embed_dim,
        'K': self.num_kv_heads,
        'G': self.num_heads // self.num_kv_heads,
        'H': self.head_dim,
        'F': self.mlp_dim,
    }

  def count_adapter_params(self) -> int:
    """Returns how many parameters the As and Bs of one layer have; 0 without LoRA."""
    if self.lora is None:
      return 0
    sizes = self.axis_sizes()
    count = lambda letters: math.prod(sizes[letter] for letter in letters)
    groups = [ADAPTABLE_MATRICES[name].split() for name in self.lora.matrices]
    return sum(self.lora.rank * (count(ins) + count(outs)) for ins, outs in groups)


def _build_student(
    family: dict,
    num_layers: int,
    embed_dim: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    mlp_dim: int,
    **changes,
) -> Student:
  return Student(
      num_layers=num_layers,
      embed_dim=embed_dim,
      num_heads=num_heads,
      num_kv_heads=num_kv_heads,
      head_dim=head_dim,
      mlp_dim=mlp_dim,
      **{**family, **changes},
  )


def _stretch_llama3(factor: float) -> dict:
  """Returns what the Llamas whose context is stretched to 131,072 tokens share."""
  scaling = rope.Llama3Scaling(
      factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
  )
  return {**_LLAMA3, 'max_positions': 131_072, 'rope_scaling': scaling}


_QWEN2_5 = {'vocab_size': 151_936, 'rope_theta': 1e6, 'qkv_bias': True}
_QWEN3 = {'vocab_size': 151_936, 'rope_theta': 1e6, 'qk_norm': True, 'max_positions': 40_960}
_LLAMA3 = {'vocab_size': 128_256, 'rope_theta': 500_000.0, 'norm_eps': 1e-5, 'max_positions': 8192}
_LLAMA3_1, _LLAMA3_2 = _stretch_llama3(8.0), _stretch_llama3(32.0)
# The small ones come from Qwen2.5-Math, the others from the base models.
_R1_QWEN = {**_QWEN2_5, 'rope_theta': 1e4, 'max_positions': 131_072}
_R1_QWEN_BASE = {**_R1_QWEN, 'rope_theta': 1e6, 'norm_eps': 1e-5}
_BIG = {'vocab_size': 152_064}
_TIED = {'tied_head': True}

# The Instruct variants; where the base or coder variant differs in a number (Qwen2.5-14B and -32B:
# norm_eps), take its own config.json, `init=hf:DIR`.
#           family, layers, width, heads, KV heads, head width, MLP width
PRESETS = {
    # About a million parameters: the student of the embedded world.
    'mini': _build_student({'vocab_size': 640}, 4, 128, 4, 2, 32, 384, qk_norm=True),
    # Qwen2.5, and Qwen2.5-Coder in the same sizes.
    'qwen2_5_0_5b': _build_student(_QWEN2_5, 24, 896, 14, 2, 64, 4864, **_TIED),
    'qwen2_5_1_5b': _build_student(_QWEN2_5, 28, 1536, 12, 2, 128, 8960, **_TIED),
    'qwen2_5_3b': _build_student(_QWEN2_5, 36, 2048, 16, 2, 128, 11_008, **_TIED),
    'qwen2_5_7b': _build_student(_QWEN2_5, 28, 3584, 28, 4, 128, 18_944, **_BIG),
    'qwen2_5_14b': _build_student(_QWEN2_5, 48, 5120, 40, 8, 128, 13_824, **_BIG),
    'qwen2_5_32b': _build_student(_QWEN2_5, 64, 5120, 40, 8, 128, 27_648, **_BIG),
    'qwen3_0_6b': _build_student(_QWEN3, 28, 1024, 16, 8, 128, 3072, **_TIED),
    'qwen3_1_7b': _build_student(_QWEN3, 28, 2048, 16, 8, 128, 6144, **_TIED),
    'qwen3_4b': _build_student(_QWEN3, 36, 2560, 32, 8, 128, 9728, **_TIED),
    'qwen3_8b': _build_student(_QWEN3, 36, 4096, 32, 8, 128, 12_288),
    'qwen3_14b': _build_student(_QWEN3, 40, 5120, 40, 8, 128, 17_408),
    'qwen3_32b': _build_student(_QWEN3, 64, 5120, 64, 8, 128, 25_600),
    'llama3_8b': _build_student(_LLAMA3, 32, 4096, 32, 8, 128, 14_336),
    'llama3_1_8b': _build_student(_LLAMA3_1, 32, 4096, 32, 8, 128, 14_336),
    'llama3_2_1b': _build_student(_LLAMA3_2, 16, 2048, 32, 8, 64, 8192, **_TIED),
    'llama3_2_3b': _build_student(_LLAMA3_2, 28, 3072, 24, 8, 128, 8192, **_TIED),
    # DeepSeek-R1-Distill.
    'r1_qwen_1_5b': _build_student(_R1_QWEN, 28, 1536, 12, 2, 128, 8960),
    'r1_qwen_7b': _build_student(_R1_QWEN, 28, 3584, 28, 4, 128, 18_944, **_BIG),
    'r1_qwen_14b': _build_student(_R1_QWEN_BASE, 48, 5120, 40, 8, 128, 13_824, **_BIG),
    'r1_qwen_32b': _build_student(_R1_QWEN_BASE, 64, 5120, 40, 8, 128, 27_648, **_BIG),
    'r1_llama_8b': _build_student(_LLAMA3_1, 32, 4096, 32, 8, 128, 14_336),
}


def find_preset(name: str) -> Student:
  """Returns a published student, with the rows of its own vocabulary."""
  if name not in PRESETS:
    raise errors.UserError(f'config.student={name!r}: want one of {", ".join(PRESETS)}.')
  return PRESETS[name]


def build_preset(name: str, vocab_size: int, multiple: int) -> Student:
  """Returns a preset with a tokenizer's vocabulary, padded to a multiple."""
  rows = -(-vocab_size // multiple) * multiple
  return dataclasses.replace(find_preset(name), vocab_size=rows)


def list_differences(student: Student, other: Student) -> list[str]:
  """Returns in what two students compute differently: `embed_dim=64, not 32`.

  The vocabulary and the longest context do not count.
  """
  names = [field.name for field in dataclasses.fields(Student)]
  pairs = [(name, getattr(student, name), getattr(other, name)) for name in names]
  return [
      f'{name}={a}, not {b}'
      for name, a, b in pairs
      if name not in ('vocab_size', 'max_positions') and a != b
  ]
