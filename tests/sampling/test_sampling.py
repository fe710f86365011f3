"""A sample depends on student, prompt, problem, index, seed and method only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import marks
from tests import tiny
from valley_jax import records
from valley_jax.models import cache as cache_lib
from valley_jax.models import parameters
from valley_jax.sampling import decode
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib

STUDENT = tiny.student(qkv_bias=True, qk_norm=True)
GREEDY = methods.Greedy()
TOP_P = methods.Sampling(top_p=0.9, temperature=1.0)


PROGRAMS = (
    decode.allocate_slots,
    decode.embed_prompts,
    decode.prefill_layer,
    decode.write_heads,
    decode.decode_chunk,
)
# Wide enough that XLA rounds a product of 1 row, of 16 and of 64 otherwise.
WIDE = tiny.student(embed_dim=256, mlp_dim=512, vocab_size=512)


def _request(name, length, sample_index=0):
  rng = np.random.default_rng(length)
  prompt = tuple(rng.integers(0, 40, length).tolist())
  return samples_lib.Request(name, sample_index, prompt)


# More than there are slots; the last prompt is of another bucket.
REQUESTS = [_request(f'p{n}', length) for n, length in enumerate([5, 1, 9, 64, 30, 7, 12, 3, 65])]


def _samples(requests, student=STUDENT, params=None, **changes):
  few = {'stages': (lanes.Stage(128, 4),), 'prefill_tokens': 128}
  with tiny.mesh():
    engine = tiny.engine(student, params, **{**few, **changes})
    return list(engine.draw_samples(requests))


def _by_request(samples):
  return {
      (s.request.problem_id, s.request.sample_index): (
          s.tokens, s.log_prob, s.finish_reason
      )
      for s in samples
  }  # fmt: skip


@functools.cache
def _usual(method=GREEDY):
  return _by_request(_samples(REQUESTS, method=method))


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(student, params, tokens_L):
  """The full forward of one example: log-probabilities LV."""
  model = parameters.bind_transformer(student, params)
  positions_BL = jnp.arange(len(tokens_L))[None]
  hidden_BLD, _ = model(tokens_L[None], positions_BL, jnp.ones_like(positions_BL))
  return jax.nn.log_softmax(hidden_BLD[0] @ model.output_head(jnp.float32))


def _full_forward(student, sample):
  """What the full forward says of each sampled token: LV."""
  tokens = [*sample.request.prompt, *sample.tokens]
  first, end = len(sample.request.prompt) - 1, len(tokens) - 1
  tokens = np.array(tokens + [0] * (128 - len(tokens)), np.int32)
  with tiny.mesh():
    params = tiny.put_params(student)
    log_probs_LV = jax.device_get(_log_probs(student, params, tokens))
  return log_probs_LV[first:end]


@pytest.mark.parametrize('variant', marks.long_but_first(tiny.VARIANTS))
def test_cached_decode_equals_the_full_forward(variant):
  student = tiny.student(**tiny.VARIANTS[variant])
  (sample,) = _samples([_request('p', 9)], student)
  log_probs_LV = _full_forward(student, sample)
  assert len(log_probs_LV) == 12
  assert sample.tokens == log_probs_LV.argmax(axis=1).tolist()
  np.testing.assert_allclose(sample.log_prob, log_probs_LV.max(axis=1).sum(), atol=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def _cached_log_probs(student, params, tokens_L):
  """Every position by the cache alone, without a prefill: LV."""

  def feed(cache, at):
    slot = (jax.sharding.reshard(x[None], cache_lib.SLOTS) for x in (tokens_L[at], at))
    token_B, at_B = slot
    cache, logits_BV = cache_lib.decode_step(student, params, cache, token_B, at_B, at_B + 1)
    return cache, jax.nn.log_softmax(logits_BV[0])

  cache = cache_lib.empty_cache(student, 1, 64, jnp.float32)
  return jax.lax.scan(feed, cache, jnp.arange(len(tokens_L)))[1]


@pytest.mark.parametrize('variant', marks.long_but_first(tiny.VARIANTS))
def test_logits_of_every_position_equal_the_full_forward(variant):
  student = tiny.student(**tiny.VARIANTS[variant])
  tokens = np.array(_request('p', 12).prompt, np.int32)
  with tiny.mesh():
    params = tiny.put_params(student)
    unstacked = cache_lib.unstack_layers(student, params, jnp.float32)
    found_LV = jax.device_get(_cached_log_probs(student, unstacked, tokens))
    expected_LV = jax.device_get(_log_probs(student, params, tokens))
  np.testing.assert_allclose(found_LV, expected_LV, rtol=0, atol=1e-4)


def test_log_probs_are_of_the_raw_model_and_of_the_tempered_one():
  method = methods.Sampling(top_p=0.7, temperature=2.0)
  for sample in _samples(REQUESTS[:3], method=method):
    log_probs_LV = _full_forward(STUDENT, sample)
    expected = log_probs_LV[np.arange(12), sample.tokens].sum()
    np.testing.assert_allclose(sample.log_prob, expected, atol=1e-4)
    tempered_LV = jax.nn.log_softmax(log_probs_LV / 2, axis=-1)
    expected = tempered_LV[np.arange(12), sample.tokens].sum()
    np.testing.assert_allclose(sample.log_prob_tempered, expected, atol=1e-4)


# The same bits: tokens, log-probabilities and finish reasons.


@pytest.mark.parametrize('method', marks.long_but_first([TOP_P, GREEDY]))
def test_a_sample_alone_is_the_sample_among_others(method):
  for request in (REQUESTS[2], REQUESTS[8]):
    alone = _by_request(_samples([request], method=method))
    key = request.problem_id, request.sample_index
    assert alone == {key: _usual(method)[key]}


@pytest.mark.parametrize('method', [GREEDY, TOP_P])
def test_the_order_of_requests_does_not_matter(method):
  samples = _samples(REQUESTS[::-1], method=method)
  assert _by_request(samples) == _usual(method)


@pytest.mark.parametrize('method', marks.long_but_first([TOP_P, GREEDY]))
@pytest.mark.parametrize('chunk_len', marks.long_but_first([12, 1, 17]))
def test_the_chunk_does_not_matter(method, chunk_len):
  samples = _samples(REQUESTS, method=method, chunk_len=chunk_len)
  assert _by_request(samples) == _usual(method)


def test_an_engine_used_again_gives_the_same_samples():
  assert _by_request(_samples([*REQUESTS, *REQUESTS])) == _usual()


def test_samples_differ_by_index_problem_and_seed():
  prompt = _request('p', 5).prompt
  requests = [samples_lib.Request(name, index, prompt) for name in ('p', 'q') for index in range(4)]
  found = [
      tuple(sample.tokens)
      for seed in (0, 1)
      for sample in _samples(requests, method=TOP_P, seed=seed)
  ]
  assert len(set(found)) == 16


def test_every_position_is_drawn_anew():
  with tiny.mesh():
    # All zeros: every token is as likely as any other, everywhere.
    params = tiny.put_params(STUDENT, jax.tree.map(np.zeros_like, tiny.params(STUDENT)))
  (sample,) = _samples([_request('p', 5)], params=params, method=TOP_P)
  assert len(set(sample.tokens)) > 6


def test_greedy_samples_do_not_differ():
  prompt = _request('p', 5).prompt
  requests = [samples_lib.Request('p', index, prompt) for index in range(6)]
  samples = _samples(requests)
  assert len({tuple(s.tokens) for s in samples}) == 1
  assert len({s.log_prob for s in samples}) == 1


def test_the_end_token_ends_a_sample_and_is_not_part_of_it():
  whole = _usual()
  end = whole['p2', 0][0][6]
  for sample in _samples(REQUESTS, end_token=end):
    tokens, log_prob, _ = whole[sample.request.problem_id, 0]
    if end not in tokens:
      assert sample.tokens == tokens
      continue
    n = tokens.index(end)
    assert sample.tokens == tokens[:n]
    assert sample.finish_reason is records.FinishReason.EOS
    # The end token is drawn like any other: it counts.
    log_probs_LV = _full_forward(STUDENT, samples_lib.Sample(sample.request, tokens[: n + 1]))
    expected = log_probs_LV.max(axis=1).sum()
    np.testing.assert_allclose(sample.log_prob, expected, atol=1e-4)


@pytest.mark.parametrize('length', [1, 5, 7])
def test_a_sample_of_the_greatest_length_is_truncated(length):
  for sample in _samples(REQUESTS[:2], max_new_tokens=length):
    expected = _usual()[sample.request.problem_id, 0][0]
    assert sample.tokens == expected[:length]
    assert sample.finish_reason is records.FinishReason.LENGTH


def test_the_cache_holds_the_longest_prompt_and_its_completion():
  requests = [_request('long', 60), _request('short', 2), _request('x', 3)]
  with tiny.mesh():
    stages = lanes.plan_stages(
        STUDENT, lengths=(), longest_prompt=60, max_new_tokens=68, num_slots=2, dtype=jnp.float32
    )
  assert stages == (lanes.Stage(128, 2),)
  samples = _samples(requests, max_new_tokens=68, stages=stages)
  assert len(samples) == 3
  for sample in samples:
    log_probs_LV = _full_forward(STUDENT, sample)
    assert sample.tokens == log_probs_LV.argmax(axis=1).tolist()


def test_traffic_compiles_nothing_new():
  sizes = lambda: [f._cache_size() for f in PROGRAMS]
  _usual()
  before = sizes()
  for count in (1, 2, 3, 9):
    _samples(REQUESTS[-count:])
    _samples(REQUESTS[:count])
  _samples([_request(f'q{n}', 1 + n) for n in range(40)])
  assert sizes() == before


def test_any_seed_is_a_seed():
  for seed in (0, 2**31, -1):
    assert len(_samples(REQUESTS[:1], seed=seed)) == 1


# Slots, stages, and going on.


@pytest.mark.parametrize('method', [GREEDY, TOP_P])
@pytest.mark.parametrize('num_slots', [1, 3, 40])
def test_the_number_of_slots_does_not_matter(method, num_slots):
  stages = (lanes.Stage(128, num_slots),)
  samples = _samples([*REQUESTS, *REQUESTS], method=method, stages=stages)
  assert _by_request(samples) == _usual(method)


@pytest.mark.parametrize('method', marks.long_but_first([TOP_P, GREEDY]))
def test_products_of_other_shapes_do_not_change_a_bit(method):
  requests = [_request(f'q{n}', 1 + n) for n in range(20)]
  run = lambda num_slots: _by_request(
      _samples(requests, WIDE, method=method, stages=(lanes.Stage(128, num_slots),))
  )
  by_num_slots = [run(num_slots) for num_slots in (1, 16, 64)]
  assert by_num_slots == 3 * [by_num_slots[0]]


STAGES = (lanes.Stage(64, 8), lanes.Stage(128, 3))
STAGED = {'stages': STAGES, 'max_new_tokens': 58, 'method': TOP_P}


@functools.cache
def _staged():
  return _by_request(s for s in _samples(REQUESTS, **STAGED) if s.finish_reason)


def test_samples_that_outgrow_a_stage_go_on_in_the_next():
  found = _samples(REQUESTS, **STAGED)
  grown = [s.request.problem_id for s in found if s.finish_reason is None]
  # Prompts of less than 64 tokens that with 58 more are longer.
  assert sorted(grown) == ['p2', 'p4', 'p5', 'p6']
  assert {len(tokens) for tokens, _, _ in _staged().values()} == {58}


def test_greedy_samples_do_not_notice_their_stages():
  # Only in the last bits: what was decoded is prefilled anew.
  in_one = {**STAGED, 'stages': STAGES[1:], 'method': GREEDY}
  found = _by_request(
      s for s in _samples(REQUESTS, **{**STAGED, 'method': GREEDY}) if s.finish_reason
  )
  expected = _by_request(_samples(REQUESTS, **in_one))
  assert {k: v[0] for k, v in found.items()} == {k: v[0] for k, v in expected.items()}


@pytest.mark.parametrize(
    'changes',
    marks.long_but_first(
        [
            {'stages': (lanes.Stage(64, 2), lanes.Stage(128, 20))},
            {'chunk_len': 1},
            {'chunk_len': 64},
        ]
    ),
    ids=str,
)
def test_stages_with_other_slots_and_chunks_give_the_same_bits(changes):
  found = _samples(REQUESTS[::-1], **{**STAGED, **changes})
  assert _by_request(s for s in found if s.finish_reason) == _staged()


def test_a_sample_that_is_handed_in_again_ends_with_the_same_bits():
  with tiny.mesh():
    few = {'prefill_tokens': 128, **STAGED}
    begun = [
        s for s in tiny.engine(STUDENT, **few).draw_samples(REQUESTS) if s.finish_reason is None
    ]
    ended = list(tiny.engine(STUDENT, **few).draw_samples((), begun))
  assert len(ended) == len(begun) == 4
  for sample in ended:
    tokens, log_prob, reason = _staged()[sample.request.problem_id, 0]
    assert (sample.tokens, sample.finish_reason) == (tokens, reason)
    assert sample.log_prob == log_prob


def test_a_prompt_that_no_stage_holds_is_refused():
  with pytest.raises(ValueError, match='p8 has a prompt of 65 .* 64 .* 128'):
    _samples(REQUESTS, max_new_tokens=64)


def test_samples_of_one_prompt_are_prefilled_once(monkeypatch):
  prompt = _request('p', 9).prompt
  requests = [samples_lib.Request('p', index, prompt) for index in range(6)]
  calls = []
  prefill = decode.prefill_slots

  def count(*args):
    calls.append(args)
    return prefill(*args)

  monkeypatch.setattr(decode, 'prefill_slots', count)
  stages = (lanes.Stage(128, 8),)
  together = _samples(requests, method=TOP_P, stages=stages)
  [(*_, length_B, places, _, _)] = calls
  assert int(places.count) == 6
  assert int(np.sum(length_B > 1)) == 1
  apart = [sample for r in requests for sample in _samples([r], method=TOP_P)]
  assert _by_request(together) == _by_request(apart)
  assert len({tuple(s.tokens) for s in together}) == 6


@pytest.mark.parametrize('student', marks.long_but_first([STUDENT, WIDE]))
def test_as_many_programs_are_compiled_as_predicted(student):
  requests = [_request(f'p{n}', n) for n in (3, 5, 30, 70)]
  for program in PROGRAMS:
    program.clear_cache()  # Of other tests.
  with tiny.mesh():
    engine = tiny.engine(student, **{**STAGED, 'stages': STAGES})
    predicted = engine.count_programs(requests)
    list(engine.draw_samples(requests))
  assert {f.__name__: f._cache_size() for f in PROGRAMS} == predicted
  # Prompts of 64, in the first stage; of 128, in the last; and those that
  # come with 64 from the first.
  assert predicted['prefill_layer'] == 3
  assert predicted['decode_chunk'] == 2


def test_the_cache_is_written_in_place():
  student = tiny.student()
  with tiny.mesh():
    params = cache_lib.unstack_layers(student, tiny.put_params(student), jnp.float32)
    slots = decode.allocate_slots(student, 16, 8192, jnp.float32)
    compiled = decode.decode_chunk.lower(
        student, params, slots, np.ones(16, bool), TOP_P, 8
    ).compile()
  memory = compiled.memory_analysis()
  cache = sum(x.nbytes for x in jax.tree.leaves(slots.cache))
  heads = sum(x.nbytes for x in jax.tree.leaves(slots.heads))
  assert memory.alias_size_in_bytes == cache + heads
  assert memory.temp_size_in_bytes < 0.05 * cache
