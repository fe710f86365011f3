"""Parts of the server alone: text in pieces, and a device that fails."""

import queue

import jax
import jax.numpy as jnp
import pytest
import tiny

from valley_jax.models import cache as cache_lib
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.sampling import stages
from valley_jax.sampling import stops
from valley_jax.serving import loop as loop_lib
from valley_jax.serving import text as text_lib


def _decode(tokens):
  return bytes(tokens).decode(errors='replace')


def _cuts(n):
  """Every way to cut n tokens into pieces of one to three."""
  if not n:
    yield []
  for k in range(1, min(3, n) + 1):
    for rest in _cuts(n - k):
      yield [k, *rest]


@pytest.mark.parametrize(
    'data', ['aé€😀b'.encode(), b'a\xff\xfe\xe2\x82b\xe2', '\ufffdx'.encode()]
)
def test_no_piece_has_half_a_character(data):
  for cuts in _cuts(len(data)):
    text, pieces, start = text_lib.Text(_decode), [], 0
    for k in cuts:
      pieces.append(text.add(list(data[start : start + k])))
      start += k
    assert ''.join(pieces) + text.end() == _decode(data)
    assert not any(piece.endswith('\ufffd') for piece in pieces)


@pytest.mark.parametrize('keep', [False, True])
def test_no_piece_has_half_a_stop_string(keep):
  data, strings = b'ab```py``\n```\nrest', ('```\n', '\n\n')
  for cuts in ([1] * len(data), [3, 5, 7, 3], [len(data)]):
    text, told, start = text_lib.Text(_decode, strings, keep), '', 0
    for k in cuts:
      told += text.add(list(data[start : start + k]))
      start += k
    assert told + text.end() == 'ab```py``\n' + '```\n' * keep
    assert text.stop == '```\n'


def test_what_only_looks_like_a_stop_string_is_told_in_the_end():
  text = text_lib.Text(_decode, ('stop',))
  assert text.add(list(b'a sto')) == 'a '
  assert text.end() == 'sto'


def _loop(**changes):
  student = tiny.student()
  params = cache_lib.unstack(tiny.put(tiny.params(student)), jnp.float32)
  settings = lanes.Settings(
      student=student,
      params=params,
      method=methods.Greedy(),
      seed=0,
      chunk_len=4,
      prefill_tokens=512,
      dtype=jnp.float32,
  )
  sizes = {'num_lanes': 1, 'max_waiting': 8, **changes}
  return params, loop_lib.Loop(settings, stages.Stage(64, 2), **sizes)


def _job(updates, **changes):
  settings = {
      'method': methods.Greedy(),
      'max_new_tokens': 6,
      'end_tokens': frozenset(),
      'stops': stops.Stops(),
      'publish': updates.put,
      **changes,
  }
  return loop_lib.Job(loop_lib.named(0, 0, (1, 2, 3)), **settings)


def test_a_device_that_fails_is_told_to_all_and_more_is_taken():
  with tiny.mesh():
    params, loop = _loop()
    loop.start()
    updates = queue.Queue()
    for x in jax.tree.leaves(params):
      x.delete()
    for _ in range(2):  # One after the other: the thread goes on.
      loop.submit([_job(updates), _job(updates), _job(updates)])
      for _ in range(3):
        assert 'deleted' in updates.get(timeout=60).error
    assert loop.is_alive
    loop.close()
  with pytest.raises(loop_lib.EndedError, match='start it again'):
    loop.submit([_job(updates)])


def test_methods_take_turns_in_the_order_they_came():
  with tiny.mesh():
    _, loop = _loop()
    came = queue.Queue()
    chosen = [methods.Greedy(), methods.Sampling()] * 2
    jobs = [
        _job(
            queue.Queue(),
            method=method,
            publish=lambda update, i=i: came.put((i, update)),
        )
        for i, method in enumerate(chosen)
    ]
    loop.submit(jobs)
    loop.start()
    ended = []
    while len(ended) < 4:
      i, update = came.get(timeout=60)
      ended += [i] * (update.reason is not None)
    loop.close()
  assert ended == [0, 1, 2, 3]
  assert all(len(job.tokens) == 6 for job in jobs)


def test_a_loop_that_ends_leaves_nobody_waiting():
  with tiny.mesh():
    _, loop = _loop()
    updates = queue.Queue()
    loop.submit([_job(updates) for _ in range(5)])
    loop.start()
    loop.close()
    last = [u for u in updates.queue if u.error or u.reason]
    assert len(last) == 5
