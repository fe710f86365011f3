"""A student's description as a Hugging Face config.json, read and written.

Every field of a config.json is accounted for: it describes the student, or it must have the one
value that this decoder computes with, or it is known to have no effect. Any other is an error that
names it, because a field that is not honoured is a model that is not the one that was downloaded. A
field that is null counts as absent, as it does to transformers.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from valley_jax import errors
from valley_jax.models import rope
from valley_jax.models import student as student_lib

# What tells the families apart; transformers has a class for each.
_FAMILIES: dict[str, Any] = {
    'qwen2': {'qkv_bias': True, 'qk_norm': False},
    'qwen3': {'qkv_bias': False, 'qk_norm': True},
    'llama': {'qkv_bias': False, 'qk_norm': False},
}
_CLASSES = {'qwen2': 'Qwen2', 'qwen3': 'Qwen3', 'llama': 'Llama'}

_SIZES = {
    'vocab_size': 'vocab_size',
    'num_layers': 'num_hidden_layers',
    'embed_dim': 'hidden_size',
    'num_heads': 'num_attention_heads',
    'mlp_dim': 'intermediate_size',
    'max_positions': 'max_position_embeddings',
}
_MUST_BE = {
    'attention_bias': False,  # On o_proj too, which we do not have.
    'attention_dropout': 0,
    'chunk_size_feed_forward': 0,
    'hidden_act': 'silu',
    'is_encoder_decoder': False,
    'mlp_bias': False,
    'partial_rotary_factor': 1,
    'pretraining_tp': 1,
    'use_mrope': False,
    'use_sliding_window': False,
}
_WITHOUT_EFFECT = frozenset((
    *('_name_or_path', 'architectures', 'dtype', 'torch_dtype'),
    *('bos_token_id', 'eos_token_id', 'pad_token_id'),
    *('initializer_range', 'transformers_version', 'use_cache'),
    # Only with use_sliding_window.
    *('max_window_layers', 'sliding_window'),
    *('output_attentions', 'output_hidden_states', 'return_dict'),
))  # fmt: skip

_LLAMA3 = {
    'factor': 'factor',
    'low_freq_factor': 'low_freq_factor',
    'high_freq_factor': 'high_freq_factor',
    'original_max_positions': 'original_max_position_embeddings',
}
_YARN = {
    'factor': 'factor',
    'original_max_positions': 'original_max_position_embeddings',
    'beta_fast': 'beta_fast',
    'beta_slow': 'beta_slow',
    'attention_factor': 'attention_factor',
    'truncate': 'truncate',
}
_SCALINGS = {'llama3': (rope.Llama3Scaling, _LLAMA3), 'yarn': (rope.YarnScaling, _YARN)}


class _ConfigFields:
  """Hands out fields once; what is left at the end was not accounted for."""

  def __init__(self, fields: Mapping[str, Any], where: str):
    self.left = {k: v for k, v in fields.items() if v is not None}
    self.where = where

  def pop(self, name: str, default: Any = None) -> Any:
    """Returns a field, or the default."""
    return self.left.pop(name, default)

  def number(self, name: str, default: float | None = None) -> Any:
    """Returns a field that is a positive number."""
    value = self.pop(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      value = f'{value!r}' if value is not None else 'missing'
    elif value > 0:
      return value
    raise errors.UserError(f'{self.where}: {name} is {value}; want a positive number.')

  def check_none_left(self, must_be: Mapping[str, Any]) -> None:
    """Raises ValueError for fields that this decoder cannot honour."""
    faults = []
    for name, value in sorted(self.left.items()):
      if name not in must_be:
        faults.append(f'{name}={value!r} (unknown here)')
      elif value != must_be[name]:
        faults.append(f'{name}={value!r} (only {must_be[name]!r} is supported)')
    if faults:
      raise errors.UserError(
          f'{self.where} has what this decoder does not compute: {"; ".join(faults)}. Take another'
          ' checkpoint; or, where you know that such a field has no effect, remove it from that'
          ' file.'
      )


def _read_rope(fields: _ConfigFields) -> tuple[float, rope.Scaling | None]:
  """Reads `rope_parameters`, or the older `rope_theta` and `rope_scaling`."""
  new, old = fields.pop('rope_parameters'), fields.pop('rope_scaling')
  if new and old and dict(new) != dict(old):
    raise errors.UserError(
        f'{fields.where}: rope_parameters={new} and rope_scaling={old} disagree; keep one of them.'
    )
  part = _ConfigFields(new or old or {}, f'{fields.where}, RoPE')
  outer = fields.pop('rope_theta')
  theta = part.number('rope_theta', outer)
  if outer is not None and outer != theta:
    raise errors.UserError(
        f'{fields.where}: rope_theta is {outer} and, in its rope_parameters, {theta}; keep one of'
        ' them.'
    )
  legacy = part.pop('type', 'default')
  kind = part.pop('rope_type', legacy)
  scaling = None
  if kind in _SCALINGS:
    scaling = _read_scaling(kind, part, fields.left.get('max_position_embeddings'))
  elif kind != 'default':
    raise errors.UserError(
        f'{fields.where}: the RoPE type {kind!r} is not supported; default,'
        f' {" and ".join(_SCALINGS)} are.'
    )
  part.check_none_left({'partial_rotary_factor': 1})
  return float(theta), scaling


def _read_scaling(kind: str, part: _ConfigFields, max_positions: Any) -> rope.Scaling:
  scaling_type, names = _SCALINGS[kind]
  values = {}
  if kind == 'yarn':
    part.left.setdefault('original_max_position_embeddings', max_positions)
    values['truncate'] = bool(part.pop('truncate', True))
    # Another way to say what the attention factor is.
    over, under = part.pop('mscale'), part.pop('mscale_all_dim')
    if over and under and 'attention_factor' not in part.left:
      factor = part.left.get('factor', 1.0)
      ratio = rope.yarn_attention_factor(factor, over)
      ratio /= rope.yarn_attention_factor(factor, under)
      part.left['attention_factor'] = ratio
  for field in dataclasses.fields(scaling_type):
    name = names[field.name]
    needed = field.default is dataclasses.MISSING
    if field.name not in values and (needed or name in part.left):
      values[field.name] = part.number(name)
  return scaling_type(**values)


def parse_student_config(config: Mapping[str, Any], where: str) -> student_lib.Student:
  """Returns the student that a config.json describes.

  Args:
    config: Its fields.
    where: Its name in errors, such as its path.

  Raises:
    UserError: fields that are missing, unknown, or not what this decoder computes; it names each
      with its value and with what is supported.
  """
  fields = _ConfigFields(config, where)
  family = fields.pop('model_type', 'missing')
  if family not in _FAMILIES:
    raise errors.UserError(
        f'{where}: model_type is {family!r}; supported are {", ".join(_FAMILIES)}.'
    )
  theta, scaling = _read_rope(fields)
  sizes = {ours: fields.number(name) for ours, name in _SIZES.items()}
  heads = sizes['num_heads']
  per_head = sizes['embed_dim'] // heads  # Where the file does not say.
  student = student_lib.Student(
      **sizes,
      **_FAMILIES[family],
      num_kv_heads=fields.number('num_key_value_heads', heads),
      head_dim=fields.number('head_dim', per_head),
      norm_eps=fields.number('rms_norm_eps'),
      rope_theta=theta,
      rope_scaling=scaling,
      tied_head=fields.pop('tie_word_embeddings', False),
  )
  if set(layers := fields.pop('layer_types', ())) - {'full_attention'}:
    raise errors.UserError(
        f'{where}: layer_types has {sorted(set(layers))}; only full_attention is supported.'
    )
  for name in _WITHOUT_EFFECT:
    fields.pop(name)
  fields.check_none_left(_MUST_BE)
  return student


def build_student_config(student: student_lib.Student) -> dict[str, Any]:
  """Returns the config.json that describes a student.

  RoPE is written the older way, which transformers 4 and 5 and vLLM all read.

  Raises:
    UserError: no family of transformers computes this.
  """
  switches = {'qkv_bias': student.qkv_bias, 'qk_norm': student.qk_norm}
  families = [name for name, s in _FAMILIES.items() if s == switches]
  if not families:
    raise errors.UserError(
        f'A student with {switches} is in no family of transformers; those are {_FAMILIES}.'
    )
  family = families[0]
  config = {
      'model_type': family,
      'architectures': [f'{_CLASSES[family]}ForCausalLM'],
      **{name: getattr(student, ours) for ours, name in _SIZES.items()},
      'num_key_value_heads': student.num_kv_heads,
      'head_dim': student.head_dim,
      'rms_norm_eps': student.norm_eps,
      'rope_theta': student.rope_theta,
      'rope_scaling': _build_scaling_fields(student.rope_scaling),
      'tie_word_embeddings': student.tied_head,
      'hidden_act': 'silu',
      'attention_dropout': 0.0,
  }
  if family == 'llama':
    config.update(attention_bias=False, mlp_bias=False)
  else:
    config.update(use_sliding_window=False)
  return config


def _build_scaling_fields(scaling: rope.Scaling | None) -> dict[str, Any] | None:
  for kind, (scaling_type, names) in _SCALINGS.items():
    if isinstance(scaling, scaling_type):
      values = {name: getattr(scaling, ours) for ours, name in names.items()}
      given = {name: v for name, v in values.items() if v is not None}
      return {'rope_type': kind, **given}
  return None
