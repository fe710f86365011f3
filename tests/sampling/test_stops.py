"""A sample ends where its own tokens say so, however many come at a time."""

import random

import numpy as np
import pytest

from tests import tiny
from valley_jax import records
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib

STUDENT = tiny.student(qk_norm=True)
_WORDS = ['`', '```', '\n', 'a', 'b', 'é', '</th', 'ink>', '</think>', 'end']


def _decode(tokens):
  return ''.join(_WORDS[token % len(_WORDS)] for token in tokens)


def _tokens(*words):
  return [_WORDS.index(word) for word in words]


def _find(stops, tokens, sizes):
  """The end of a sample whose tokens come in pieces of these sizes."""
  before, opening = 0, None
  for size in sizes:
    so_far = tokens[: before + size]
    if opening is None:
      opening = stops.find_opening(so_far, before)
    if opening is not None:
      if end := stops.find_string_end(so_far, before, opening):
        return end
    before += size
  return None


def _expected(tokens, string, after):
  """By looking at all of it for every number of tokens."""
  ends = range(1, len(tokens) + 1)
  first = 0
  if after:
    first = next((n for n in ends if after in _decode(tokens[:n])), None)
    if first is None:
      return None
  return next((n for n in ends if string in _decode(tokens[first:n])), None)


@pytest.mark.parametrize('after', ['', '</think>', 'é'])
@pytest.mark.parametrize('string', ['```\n', '\n```\n', 'aa', 'end', 'é`'])
def test_a_string_is_found_at_its_token_whatever_the_pieces(string, after):
  rng = random.Random(0)
  found = 0
  for _ in range(200):
    tokens = [rng.randrange(len(_WORDS)) for _ in range(60)]
    sizes = []
    while sum(sizes) < len(tokens):
      sizes.append(rng.randint(1, 12))
    stops = samples_lib.Stops(decode=_decode, strings=(string,), after=after)
    expected = _expected(tokens, string, after)
    assert _find(stops, tokens, sizes) == expected
    found += expected is not None
  assert found > 5


def test_the_first_of_several_strings_counts():
  tokens = _tokens('a', 'b', 'end', 'a', 'a')
  stops = samples_lib.Stops(decode=_decode, strings=('aa', 'bend'))
  assert _find(stops, tokens, [5]) == 3


def test_a_loop_is_found_every_64_tokens():
  stops = samples_lib.Stops(loop_tokens=96)
  start = list(np.random.default_rng(0).permutation(150))
  phrase = [7, 1, 2, 2, 9]
  tokens = start + phrase * 100
  # 150 tokens and 96 in the loop: 246; looked for at 256.
  assert stops.find_loop_end(tokens, 0) == 256
  assert stops.find_loop_end(tokens, 200) == 256
  assert stops.find_loop_end(tokens[:255], 0) is None
  assert stops.find_loop_end(start + [*range(25)] * 20, 0) is None  # 3.8 times.
  assert stops.find_loop_end(start + [*range(24)] * 20, 0) == 256
  assert samples_lib.Stops().find_loop_end(tokens, 0) is None


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'strings': ('',), 'decode': _decode}, 'holds an empty string'),
        ({'after': 'x'}, "stop_after='x'.*names no string"),
        ({'loop_tokens': 3}, 'loop_tokens=3 is below 64'),
    ],
)
def test_what_means_nothing_is_refused(changes, said):
  with pytest.raises(ValueError, match=said):
    samples_lib.Stops(**changes)


REQUESTS = [samples_lib.Request(f'p{n}', 0, tuple(range(n + 1))) for n in range(6)]


def _samples(chunk_len, stops=None, end_token=-1):
  with tiny.mesh():
    engine = tiny.engine(
        STUDENT,
        method=methods.Sampling(),
        end_token=end_token,
        max_new_tokens=70,
        stages=(lanes.Stage(128, 4),),
        chunk_len=chunk_len,
        prefill_tokens=128,
        stops=stops,
    )
    samples = engine.draw_samples(REQUESTS)
    return sorted(samples, key=lambda s: s.request.problem_id)


@pytest.mark.parametrize('chunk_len', [1, 7, 32])
def test_the_engine_cuts_a_sample_at_its_stop(chunk_len):
  stops = samples_lib.Stops(decode=_decode, strings=('ab', 'ba'), after='end')
  ended = _samples(chunk_len, stops)
  reasons = [s.finish_reason for s in ended]
  assert reasons.count(records.FinishReason.STOP) > 1
  for sample, whole in zip(ended, _samples(7), strict=True):
    ends = [_expected(whole.tokens, s, 'end') for s in stops.strings]
    end = min(filter(None, ends), default=70)
    assert sample.tokens == whole.tokens[:end]
    stopped = sample.finish_reason is records.FinishReason.STOP
    assert stopped == (end < 70 or any(ends))
    if end == 70:
      assert sample.log_prob == whole.log_prob
    else:
      assert whole.log_prob < sample.log_prob < 0


def test_a_stop_before_the_end_token_comes_first():
  [whole, *_] = _samples(7)
  token = whole.tokens[20]
  at = whole.tokens.index(token)
  ended = _samples(7, end_token=token)[0]
  assert ended.finish_reason is records.FinishReason.EOS
  assert ended.tokens == whole.tokens[:at]
  text = _decode(whole.tokens[:3])
  stops = samples_lib.Stops(decode=_decode, strings=(text,))
  stopped = _samples(7, stops, end_token=whole.tokens[3])[0]
  assert whole.tokens[3] not in whole.tokens[:3]
  assert stopped.finish_reason is records.FinishReason.STOP
  assert stopped.tokens == whole.tokens[:3]


def test_a_looping_sample_is_cut_off():
  """A student without any weights but the head's says one token for ever."""
  params = tiny.params(STUDENT)
  with tiny.mesh():
    engine = tiny.engine(
        STUDENT,
        tiny.put_params(STUDENT, {**params, 'head_DV': 0 * params['head_DV']}),
        max_new_tokens=200,
        stages=(lanes.Stage(256, 1),),
        chunk_len=50,
        stops=samples_lib.Stops(loop_tokens=64),
    )
    [sample] = engine.draw_samples(REQUESTS[:1])
  assert sample.finish_reason is records.FinishReason.LOOP
  assert sample.tokens == [0] * 64
  assert sample.log_prob == pytest.approx(-64 * np.log(40), rel=1e-5)
