"""Attention of decoding: whoever computes it, the same; and only what lives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from valley_jax.models import decode_attention

# Slots of 256: empty but for one, a block's edge, behind it, full.
LENGTHS = np.array([1, 63, 64, 65, 200, 256], np.int32)


def _arrays(k, g, h, dtype=np.float32, cache_len=256):
  rng = np.random.default_rng(0)
  b = len(LENGTHS)
  q_BKGH = rng.normal(size=(b, k, g, h)).astype(dtype)
  k_BMJ, v_BMJ = rng.normal(size=(2, b, cache_len, k * h)).astype(dtype)
  return q_BKGH, k_BMJ, v_BMJ


def _expected(q_BKGH, k_BMJ, v_BMJ, length_B):
  """By numpy, a slot and a head at a time."""
  b, k, g, h = q_BKGH.shape
  y_BKGH = np.zeros((b, k, g, h))
  for slot, head in np.ndindex(b, k):
    n, at = length_B[slot], slice(head * h, (head + 1) * h)
    scores = q_BKGH[slot, head] @ k_BMJ[slot, :n, at].T
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    y_BKGH[slot, head] = weights @ v_BMJ[slot, :n, at]
  return y_BKGH


def _spreading(attend):
  def run(q_BKGH, *others):
    y_BNJ = attend(decode_attention.spread_queries(q_BKGH), *others)
    return decode_attention.take_own_parts(y_BNJ, q_BKGH.shape[1])

  return jax.jit(run)


WAYS = {
    'blocks': _spreading(decode_attention.attend_slot_by_slot),
    'pallas': _spreading(functools.partial(decode_attention.attend_by_pallas, interpret=True)),
    # cuDNN's door, with the arithmetic that runs anywhere.
    'dot_product': functools.partial(decode_attention.attend_by_cudnn, implementation='xla'),
}


@pytest.mark.parametrize('heads', [(1, 1, 32), (2, 4, 64), (8, 1, 16)])
@pytest.mark.parametrize('way', WAYS)
def test_each_way_computes_attention_to_what_is_live(way, heads):
  arrays = _arrays(*heads)
  found = WAYS[way](*map(jnp.asarray, arrays), jnp.asarray(LENGTHS))
  expected = _expected(*arrays, LENGTHS)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_blocks_behind_a_slots_length_are_not_read():
  q_BKGH, k_BMJ, v_BMJ = _arrays(2, 2, 16)
  expected = _expected(q_BKGH, k_BMJ, v_BMJ, LENGTHS)
  for slot, length in enumerate(LENGTHS):
    end = -(-length // 128) * 128
    k_BMJ[slot, end:] = v_BMJ[slot, end:] = np.nan
  found = WAYS['blocks'](q_BKGH, k_BMJ, v_BMJ, jnp.asarray(LENGTHS))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_kernel_does_not_fetch_blocks_behind_a_slots_length(monkeypatch):
  monkeypatch.setattr(decode_attention, 'MAX_BLOCK_BYTES', 64 * 32 * 4)  # Blocks of 64.
  q_BKGH, k_BMJ, v_BMJ = _arrays(2, 2, 16)
  expected = _expected(q_BKGH, k_BMJ, v_BMJ, LENGTHS)
  for slot, length in enumerate(LENGTHS):
    end = -(-length // 64) * 64
    k_BMJ[slot, end:] = v_BMJ[slot, end:] = np.nan
  q_BNJ = decode_attention.spread_queries(jnp.asarray(q_BKGH))
  y_BNJ = decode_attention.attend_by_pallas(q_BNJ, k_BMJ, v_BMJ, LENGTHS, interpret=True)
  found = decode_attention.take_own_parts(y_BNJ, 2)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_slot_does_not_notice_how_long_the_others_are():
  q_BKGH, k_BMJ, v_BMJ = _arrays(2, 4, 64)
  alone = np.minimum(LENGTHS, 65)
  among = LENGTHS.copy()
  found = [WAYS['blocks'](q_BKGH, k_BMJ, v_BMJ, x) for x in (alone, among)]
  same = alone == among
  np.testing.assert_array_equal(found[0][same], found[1][same])


@pytest.mark.parametrize('width', [128, 256, 512, 1024])
@pytest.mark.parametrize('cache_len', [64, 192, 1024, 8192, 33_792])
def test_a_kernels_block_cuts_a_slot_evenly_and_fits(cache_len, width):
  n = decode_attention.pallas_block_len(cache_len, width, 2)
  assert cache_len % n == 0
  assert n % 64 == 0
  assert n * width * 2 <= decode_attention.MAX_BLOCK_BYTES
