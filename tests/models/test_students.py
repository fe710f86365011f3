"""Students are what is published, and what a config.json says; or an error."""

import dataclasses

import jax
import numpy as np
import pytest

from tests import tiny
from valley_jax.models import hf_config
from valley_jax.models import parameters
from valley_jax.models import rope
from valley_jax.models import student as student_lib

PUBLISHED = {
    'qwen2_5_0_5b': 494_032_768,
    'qwen2_5_1_5b': 1_543_714_304,
    'qwen2_5_3b': 3_085_938_688,
    'qwen2_5_7b': 7_615_616_512,
    'qwen2_5_14b': 14_770_033_664,
    'qwen2_5_32b': 32_763_876_352,
    'qwen3_0_6b': 596_049_920,
    'qwen3_1_7b': 1_720_574_976,
    'qwen3_4b': 4_022_468_096,
    'qwen3_8b': 8_190_735_360,
    'qwen3_14b': 14_768_307_200,
    'qwen3_32b': 32_762_123_264,
    'llama3_8b': 8_030_261_248,
    'llama3_1_8b': 8_030_261_248,
    'llama3_2_1b': 1_235_814_400,
    'llama3_2_3b': 3_212_749_824,
    'r1_qwen_1_5b': 1_777_088_000,
    'r1_qwen_7b': 7_615_616_512,
    'r1_qwen_14b': 14_770_033_664,
    'r1_qwen_32b': 32_763_876_352,
    'r1_llama_8b': 8_030_261_248,
}


def test_presets_have_the_published_numbers_of_parameters():
  with tiny.mesh():
    counts = {
        name: parameters.count_params(parameters.abstract_params(student))
        for name, student in student_lib.PRESETS.items()
    }
  del counts['mini']
  assert counts == PUBLISHED


@pytest.mark.parametrize('preset', ['mini', 'qwen2_5_0_5b', 'llama3_8b'])
def test_every_parameter_has_a_partition_spec(preset):
  student = student_lib.find_preset(preset)
  with tiny.mesh():
    shapes = parameters.abstract_params(student)
  declared = parameters.describe_parameters(student)
  jax.tree.map(lambda x, d: np.testing.assert_equal(len(d.spec), x.ndim), shapes, declared)


@pytest.mark.parametrize(
    'sizes, message',
    [({'num_heads': 5}, 'num_heads=5 .* num_kv_heads=2'), ({'head_dim': 7}, 'head_dim=7 is odd')],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
  with pytest.raises(ValueError, match=message):
    tiny.student(**sizes)


def test_an_unknown_preset_names_the_known_ones():
  with pytest.raises(ValueError, match="'gpt2': want one of mini, qwen2_5_0"):
    student_lib.build_preset('gpt2', 100, 1)


def test_the_vocabulary_is_padded_to_a_multiple():
  assert student_lib.build_preset('mini', 641, 128).vocab_size == 768


# RoPE scaling.

LLAMA3 = rope.Llama3Scaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
)
YARN = rope.YarnScaling(factor=4.0, original_max_positions=32_768)


def _ratio(theta, scaling):
  """By how much the scaling slows each pair of a head of 128 down."""
  plain, _ = rope.compute_frequencies(128, theta, None)
  scaled, _ = rope.compute_frequencies(128, theta, scaling)
  return np.asarray(plain / scaled)


@pytest.mark.parametrize('theta, scaling', [(5e5, LLAMA3), (1e6, YARN)])
def test_fast_turns_are_kept_and_slow_ones_slowed_by_the_factor(theta, scaling):
  ratio = _ratio(theta, scaling)
  np.testing.assert_allclose(ratio[:20], 1.0, rtol=1e-6)
  np.testing.assert_allclose(ratio[-15:], scaling.factor, rtol=1e-6)
  between = ratio[(ratio > 1.001) & (ratio < scaling.factor - 0.001)]
  assert len(between) > 5 and (np.diff(ratio) > -1e-6).all()


def test_yarn_multiplies_queries_and_keys_by_its_attention_factor():
  q_BLKGH = np.ones((1, 1, 1, 1, 8), np.float32)
  turned = rope.rotate_pairs(q_BLKGH, np.zeros((1, 1)), 1e4, YARN)
  np.testing.assert_allclose(turned, 1 + 0.1 * np.log(4), rtol=1e-6)
  given = dataclasses.replace(YARN, attention_factor=1.5)
  np.testing.assert_allclose(rope.rotate_pairs(q_BLKGH, np.zeros((1, 1)), 1e4, given), 1.5)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'factor': 0.5}, 'factor=0.5 would shorten'),
        ({'high_freq_factor': 1.0}, 'high_freq_factor=1.0 is not above'),
    ],
)
def test_a_scaling_that_makes_no_sense_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(LLAMA3, **changes)


# config.json

# As downloaded; from transformers 4 and 5.
QWEN2_5_7B = {
    'architectures': ['Qwen2ForCausalLM'],
    'attention_dropout': 0.0,
    'bos_token_id': 151643,
    'eos_token_id': 151645,
    'hidden_act': 'silu',
    'hidden_size': 3584,
    'initializer_range': 0.02,
    'intermediate_size': 18944,
    'max_position_embeddings': 32768,
    'max_window_layers': 28,
    'model_type': 'qwen2',
    'num_attention_heads': 28,
    'num_hidden_layers': 28,
    'num_key_value_heads': 4,
    'rms_norm_eps': 1e-06,
    'rope_theta': 1000000.0,
    'sliding_window': 131072,
    'tie_word_embeddings': False,
    'torch_dtype': 'bfloat16',
    'transformers_version': '4.43.1',
    'use_cache': True,
    'use_sliding_window': False,
    'vocab_size': 152064,
}
LLAMA3_1_8B = {
    'architectures': ['LlamaForCausalLM'],
    'attention_bias': False,
    'attention_dropout': 0.0,
    'bos_token_id': 128000,
    'dtype': 'bfloat16',
    'eos_token_id': [128001, 128008, 128009],
    'head_dim': 128,
    'hidden_act': 'silu',
    'hidden_size': 4096,
    'initializer_range': 0.02,
    'intermediate_size': 14336,
    'max_position_embeddings': 131072,
    'mlp_bias': False,
    'model_type': 'llama',
    'num_attention_heads': 32,
    'num_hidden_layers': 32,
    'num_key_value_heads': 8,
    'pad_token_id': None,
    'pretraining_tp': 1,
    'rms_norm_eps': 1e-05,
    'rope_parameters': {
        'factor': 8.0,
        'high_freq_factor': 4.0,
        'low_freq_factor': 1.0,
        'original_max_position_embeddings': 8192,
        'rope_theta': 500000.0,
        'rope_type': 'llama3',
    },
    'tie_word_embeddings': False,
    'transformers_version': '5.12.0',
    'use_cache': True,
    'vocab_size': 128256,
}


@pytest.mark.parametrize(
    'config, preset', [(QWEN2_5_7B, 'qwen2_5_7b'), (LLAMA3_1_8B, 'llama3_1_8b')]
)
def test_a_downloaded_config_is_its_preset(config, preset):
  student = hf_config.parse_student_config(config, 'config.json')
  assert student == student_lib.find_preset(preset)


@pytest.mark.parametrize('preset', student_lib.PRESETS)
def test_a_student_written_and_read_is_the_same(preset):
  student = student_lib.find_preset(preset)
  written = hf_config.build_student_config(student)
  assert hf_config.parse_student_config(written, 'config.json') == student


YARN_FIELDS = {'factor': 4.0, 'original_max_position_embeddings': 32768}


@pytest.mark.parametrize(
    'fields, want',
    [
        # Two ways to name the type, and the length that may be left out.
        ({'type': 'yarn', **YARN_FIELDS}, YARN),
        ({'rope_type': 'yarn', 'factor': 4.0}, YARN),
        (
            {'rope_type': 'yarn', **YARN_FIELDS, 'beta_fast': 16},
            dataclasses.replace(YARN, beta_fast=16),
        ),
        (
            {'rope_type': 'yarn', **YARN_FIELDS, 'truncate': False},
            dataclasses.replace(YARN, truncate=False),
        ),
        # DeepSeek's way to say that there is no attention factor.
        (
            {'type': 'yarn', **YARN_FIELDS, 'mscale': 1.0, 'mscale_all_dim': 1},
            dataclasses.replace(YARN, attention_factor=1.0),
        ),
        ({'rope_type': 'default'}, None),
        (None, None),
    ],
)
def test_rope_scaling_is_read_in_all_its_forms(fields, want):
  config = {**QWEN2_5_7B, 'rope_scaling': fields}
  assert hf_config.parse_student_config(config, 'config.json').rope_scaling == want


@pytest.mark.parametrize('scaling', [LLAMA3, YARN, None])
def test_rope_scaling_survives_a_round_trip(scaling):
  student = tiny.student(rope_scaling=scaling, qkv_bias=True)
  written = hf_config.build_student_config(student)
  assert hf_config.parse_student_config(written, 'config.json') == student


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'model_type': 'mixtral'}, "'mixtral'; supported are qwen2, qwen3, l"),
        ({'use_sliding_window': True}, 'use_sliding_window=True .only False'),
        ({'hidden_act': 'gelu'}, "hidden_act='gelu' .only 'silu' is supported"),
        ({'attention_dropout': 0.1}, 'attention_dropout=0.1 .only 0 is'),
        ({'mlp_bias': True}, 'mlp_bias=True'),
        ({'attention_bias': True}, 'attention_bias=True'),
        ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor=0.5'),
        ({'num_experts': 8}, r'num_experts=8 \(unknown here\)'),
        ({'quantization_config': {'bits': 4}}, 'quantization_config=.*unknown'),
        ({'layer_types': ['sliding_attention']}, 'layer_types.*full_attention'),
        ({'rope_scaling': {'type': 'linear', 'factor': 2}}, "type 'linear' is"),
        (
            {'rope_scaling': {'type': 'yarn', 'factor': 2, 'extra': 3}},
            r'extra=3 \(unknown',
        ),
        ({'rope_scaling': {'rope_type': 'llama3'}}, 'factor is missing'),
        ({'rope_parameters': {'rope_theta': 5.0}}, 'rope_theta is 1000000.* 5'),
        ({'rope_theta': None}, 'rope_theta is missing'),
        ({'hidden_size': None}, 'hidden_size is missing'),
        ({'num_hidden_layers': 'many'}, "num_hidden_layers is 'many'"),
        ({'vocab_size': 0}, 'vocab_size is 0; want a positive number'),
    ],
)  # fmt: skip
def test_what_we_would_not_compute_is_an_error(changes, message):
  with pytest.raises(ValueError, match=f'config.json.*{message}'):
    hf_config.parse_student_config({**QWEN2_5_7B, **changes}, 'config.json')


def test_all_faults_are_named_at_once():
  config = {**QWEN2_5_7B, 'num_experts': 8, 'mlp_bias': True}
  with pytest.raises(ValueError, match='mlp_bias=True.*num_experts=8'):
    hf_config.parse_student_config(config, 'config.json')


def test_a_student_of_no_family_cannot_be_written():
  student = tiny.student(qkv_bias=True, qk_norm=True)
  with pytest.raises(ValueError, match='in no family of transformers'):
    hf_config.build_student_config(student)
