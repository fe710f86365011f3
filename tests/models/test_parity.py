"""The decoder equals transformers' on torch: logits, gradients, files.

Tiny random checkpoints of each family are written by transformers here. The rows are longer than
`original_max_position_embeddings`, so that RoPE scaling bites.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors
import transformers

from tests import tiny
from valley_jax import convert
from valley_jax import jsonl
from valley_jax import records
from valley_jax.models import hf_config
from valley_jax.models import hf_weights
from valley_jax.models import parameters
from valley_jax.models import pretrained
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib
from valley_jax.training import losses

torch = pytest.importorskip('torch')

NUM_TOKENS = 640
_SIZES = {
    'vocab_size': 96,
    'hidden_size': 32,
    'intermediate_size': 64,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'max_position_embeddings': 1024,
}
_LLAMA3 = {
    'rope_type': 'llama3',
    'rope_theta': 500.0,
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 128,
}
_YARN = {
    'rope_type': 'yarn',
    'rope_theta': 1000.0,
    'factor': 4.0,
    'original_max_position_embeddings': 128,
}
# Family, KV heads, tied head, and what else differs.
CASES = {
    'qwen2': ('qwen2', 2, False, {}),
    'qwen2 tied': ('qwen2', 1, True, {}),
    'qwen2 yarn': ('qwen2', 4, False, {'rope_parameters': _YARN}),
    'qwen3': ('qwen3', 2, False, {'head_dim': 16}),
    'qwen3 tied, yarn': (
        'qwen3',
        1,
        True,
        {'head_dim': 16, 'rope_parameters': {**_YARN, 'beta_fast': 8.0}},
    ),
    'llama': ('llama', 4, False, {'rms_norm_eps': 1e-5}),
    'llama3': ('llama', 2, False, {'rope_parameters': _LLAMA3}),
    'llama3 tied': ('llama', 1, True, {'rope_parameters': _LLAMA3}),
}


@functools.cache
def _model(case):
  """A random model; norms and biases random too."""
  family, num_kv_heads, tied, changes = CASES[case]
  config = transformers.AutoConfig.for_model(
      family, num_key_value_heads=num_kv_heads, tie_word_embeddings=tied, **{**_SIZES, **changes}
  )
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
  with torch.no_grad():
    for name, x in model.named_parameters():
      scale = 0.3 if 'norm' in name or 'bias' in name else 0.15
      x.copy_(scale * torch.randn(x.shape) + (1.0 if 'norm' in name else 0.0))
  return model


@pytest.fixture(scope='module', params=CASES)
def case(request, tmp_path_factory):
  """A directory written by transformers, its model, our student."""
  path = tmp_path_factory.mktemp('hf')
  model = _model(request.param)
  model.save_pretrained(path, max_shard_size='40KB')
  assert (path / 'model.safetensors.index.json').exists()
  return path, model, pretrained.read_student(path)


TOKENS = np.random.default_rng(0).integers(0, 96, NUM_TOKENS)


def test_logits_equal_those_of_transformers(case):
  path, model, _ = case
  with torch.no_grad():
    theirs = model(torch.from_numpy(TOKENS[None])).logits[0].numpy()
  assert np.abs(theirs).max() > 1
  ours = convert.compute_our_logits(path, TOKENS)
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_greedy_samples_are_those_of_transformers(case):
  """48 prompts, more than there are slots.

  One pass of transformers over prompt and sample says whether its own greedy token would have been
  ours, everywhere.
  """
  path, model, student = case
  rng = np.random.default_rng(1)
  requests = [
      samples_lib.Request(f'p{n}', 0, tuple(rng.integers(0, 96, rng.integers(1, 90)).tolist()))
      for n in range(48)
  ]
  with tiny.mesh():
    params = pretrained.load_params(path, student)
    engine = tiny.engine(
        student, params, end_token=5, max_new_tokens=40, stages=(lanes.Stage(128, 16),)
    )
    samples = list(engine.draw_samples(requests))
  assert len(samples) == 48
  for sample in samples:
    prompt, tokens = list(sample.request.prompt), list(sample.tokens)
    if sample.finish_reason is records.FinishReason.EOS:
      tokens.append(5)
    with torch.no_grad():
      logits = model(torch.tensor([prompt + tokens])).logits[0]
    theirs = logits.argmax(-1)[len(prompt) - 1 : -1].tolist()
    assert tokens == theirs


@functools.partial(jax.jit, static_argnums=0)
def _gradients(student, params, tokens_BL):
  def loss(params):
    model = parameters.bind_transformer(student, params)
    positions_BL = jnp.arange(tokens_BL.shape[1])[None]
    ones_BL = jnp.ones_like(tokens_BL)
    hidden_BLD, _ = model(tokens_BL, positions_BL, ones_BL)
    targets_BL = jnp.roll(tokens_BL, -1, axis=1)
    weights_BL = ones_BL.at[:, -1].set(0).astype(jnp.float32)
    total, _ = losses.cross_entropy(
        hidden_BLD, model.output_head(), targets_BL, weights_BL, chunk_len=100
    )
    return total / weights_BL.sum()

  return jax.grad(loss)(params)


def test_gradients_equal_those_of_transformers(case, tmp_path):
  path, model, student = case
  model.zero_grad()
  batch = torch.from_numpy(TOKENS[None])
  model(batch, labels=batch).loss.backward()
  # As a checkpoint of gradients, which our reader brings into our form.
  names = dict(model.named_parameters())
  with torch.no_grad():
    gradients = {name: x.grad.numpy() for name, x in names.items()}
  safetensors.save_file(gradients, tmp_path / 'model.safetensors')
  with tiny.mesh():
    theirs = pretrained.load_params(tmp_path, student)
    params = pretrained.load_params(path, student)
    ours = _gradients(student, params, TOKENS[None].astype(np.int32))

  def compare(a, b):
    error = np.linalg.norm(np.asarray(a - b)) / np.linalg.norm(np.asarray(b))
    assert error <= 1e-3

  jax.tree.map(compare, ours, theirs)


def test_transformers_loads_what_we_write(case, tmp_path):
  path, model, student = case
  with tiny.mesh(fsdp=2):
    params = pretrained.load_params(path, student)
    hf_weights.write_weights(tmp_path, student, params, 'float32', 40_000)
  jsonl.write_json(tmp_path / 'config.json', hf_config.build_student_config(student))
  loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path, output_loading_info=True, dtype=torch.float32
  )
  assert not any(report.values()), report
  with torch.no_grad():
    batch = torch.from_numpy(TOKENS[None])
    same = loaded.eval()(batch).logits.equal(model(batch).logits)
  assert same  # Bit for bit.


def test_check_finds_agreement_and_its_lack(case, tmp_path, capsys):
  path, model, _ = case
  assert convert.main(['check', str(path), '--tokens', '512']) == 0
  assert 'agrees' in capsys.readouterr().out
  theirs = convert.compute_their_logits(path, TOKENS)
  scaled = convert.measure_differences(theirs, 1.05 * theirs)
  assert scaled['kl_mean'] > convert.MAX_MEAN_KL
  assert scaled['agreement'] == 1


@pytest.mark.parametrize(
    'filters',
    [
        {'top_p': 0.8},
        {'top_k': 20},
        {'min_p': 0.2},
        {'top_k': 30, 'top_p': 0.7},
        {'top_k': 30, 'top_p': 0.9, 'min_p': 0.1},
    ],
)
@pytest.mark.parametrize('temperature', [0.6, 1.0, 1.7])
def test_sampling_filters_are_those_of_transformers(filters, temperature):
  logits_BV = np.random.default_rng(0).normal(size=(50, 300), scale=2)
  logits_BV = logits_BV.astype(np.float32)
  warpers = [transformers.TemperatureLogitsWarper(temperature)]
  if 'top_k' in filters:
    warpers.append(transformers.TopKLogitsWarper(filters['top_k']))
  if 'top_p' in filters:
    warpers.append(transformers.TopPLogitsWarper(filters['top_p']))
  if 'min_p' in filters:
    warpers.append(transformers.MinPLogitsWarper(filters['min_p']))
  theirs = transformers.LogitsProcessorList(warpers)(
      torch.zeros((50, 1), dtype=torch.long), torch.from_numpy(logits_BV)
  )
  theirs = theirs.softmax(-1).numpy()
  method = methods.Sampling(temperature=temperature, **filters)
  probs_BV = jax.nn.softmax(logits_BV / temperature)
  ours = jax.vmap(functools.partial(methods.filter_probs, method))(probs_BV)
  ours /= ours.sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
  assert 0 < (theirs == 0).mean() < 1
