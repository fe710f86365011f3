"""Samples of a server are those of the engine, whatever goes wrong between.

The server is a process of its own (tests/engine_server.py); what goes wrong is
a proxy in front of it (tests/faults.py).
"""

import dataclasses
import signal
import socket
import threading
import time

import ml_collections as mlc
import pytest

from tests import engine_server
from tests import faults
from tests import tiny
from valley_jax import convert
from valley_jax import jsonl
from valley_jax import records
from valley_jax import sample
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import config_groups
from valley_jax.sampling import methods
from valley_jax.sampling import protocol
from valley_jax.sampling import remote
from valley_jax.sampling import samples as samples_lib
from valley_jax.sampling import settings as settings_lib


def _config(world, **changes):
  config = tiny.config(world, num_traces=0).unlock()
  config.checkpoint = f'{world}/student/checkpoints'
  settings = {'num_samples': 2, 'concurrency': 4, 'retries': 3}
  config.sample.update({**settings, **changes})
  return config.lock()


@pytest.fixture(scope='module')
def world(tiny_student, tmp_path_factory):
  """A world, a student that knows nothing, and its HF directory."""
  path = tmp_path_factory.mktemp('world')
  tiny.link_world(tiny_student.parent, path)
  convert.export(path / 'student', path / 'hf', 'float32')
  return path


@pytest.fixture(scope='module')
def url(world):
  with engine_server.running(world / 'hf') as (url, _):
    yield url


@pytest.fixture(scope='module')
def whole(world):
  """The workdir of the engine's own samples; leave it as it is."""
  sample.sample(_config(world), str(world / 'whole'))
  return world / 'whole'


def _rows(workdir):
  path = workdir / 'completions.jsonl'
  return list(jsonl.read_rows(path, records.Completion))


def _sampling(**changes):
  group = mlc.ConfigDict({**config_groups.get_sample_group(), 'temperature': 0.0})
  settings = settings_lib.SampleSettings.from_config(group, seed=0)
  return dataclasses.replace(settings, **{'max_new_tokens': 16, **changes})


def _server(world, url, sampling=None, **changes):
  settings = {'concurrency': 4, 'retries': 3, 'timeout_seconds': 60.0, 'server': url, **changes}
  group = mlc.ConfigDict({**config_groups.get_sample_group(), **settings})
  return remote.Server(
      settings_lib.ServerSettings.from_config(group),
      sampling or _sampling(),
      tokenization.load_tokenizer(world / 'hf'),
  )


def _parse_answer(world, answer):
  """Parses the answer of a server that returns token ids."""
  tokenizer = tokenization.load_tokenizer(world / 'hf')
  facts = protocol.ServerFacts(model='tiny', seeded=True, tokens_from='ids')
  return protocol.CompletionsProtocol(_sampling(), tokenizer).parse_sample(
      facts, _requests(1)[0], answer
  )


def _requests(n, length=20):
  return [samples_lib.Request(f'p{i}', 0, (5 + i,) * length) for i in range(n)]


def _by_problem(server, requests):
  return {s.request.problem_id: s for s in server.draw_samples(requests)}


def test_greedy_samples_are_those_of_the_engine(world, whole, url, tmp_path):
  sample.sample(_config(world, server=url), str(tmp_path))
  ours, theirs = _rows(whole), _rows(tmp_path)
  assert len(ours) == 12
  for a, b in zip(ours, theirs, strict=True):
    assert b.log_prob == pytest.approx(a.log_prob, abs=1e-3)
    changes = {'log_prob': None, 'log_prob_tempered': None}
    assert records.replace(a, **changes) == records.replace(b, **changes)


def test_a_run_says_how_it_was_sampled(world, url, tmp_path):
  sample.sample(_config(world, server=url), str(tmp_path))
  found = jsonl.read_json(tmp_path / 'sampling.json')
  assert found['server.model'] == 'tiny'
  assert found['server.seeded'] is True
  assert found['server.tokens_from'] == 'ids'
  assert found['server.log_probs'] is True
  assert found['sample.temperature'] == 0


@pytest.mark.parametrize(
    'changes, word',
    [({'seeded': False}, 'server.seeded'), ({'temperature': 1.0}, 'sample.temperature')],
)
def test_other_settings_are_refused(world, url, tmp_path, changes, word):
  sample.sample(_config(world, server=url), str(tmp_path))
  with pytest.raises(ValueError, match=word):
    sample.sample(_config(world, server=url, **changes), str(tmp_path))


def test_a_hugging_face_directory_is_enough(world, whole, url, tmp_path):
  config = _config(world, server=url).unlock()
  config.update(checkpoint='', shards=f'hf:{world}/hf')
  sample.sample(config.lock(), str(tmp_path))
  texts = [row.text for row in _rows(tmp_path)]
  assert texts == [row.text for row in _rows(whole)]


def test_every_parameter_is_said(world, url):
  with faults.run_proxy(url) as proxy:
    method = methods.Sampling(temperature=0.5, top_p=0.9, top_k=7, min_p=0.1)
    list(_server(world, proxy.url, _sampling(method=method)).draw_samples(_requests(2)))
  body = proxy.bodies[-1]
  assert body['temperature'] == 0.5 and body['top_p'] == 0.9
  assert body['top_k'] == 7 and body['min_p'] == 0.1
  assert body['max_tokens'] == 16 and body['repetition_penalty'] == 1.0
  assert all(isinstance(token, int) for token in body['prompt'])


def test_a_seed_draws_the_same_again_in_any_order(world, url):
  method = methods.Sampling(temperature=1.0)
  requests = _requests(4)
  draw = lambda order, seed: {
      problem: tuple(s.tokens)
      for problem, s in _by_problem(
          _server(world, url, _sampling(method=method, seed=seed)), order
      ).items()
  }
  first = draw(requests, 0)
  assert draw(requests[::-1], 0) == first
  assert draw(requests, 1) != first


def test_no_two_samples_of_a_problem_share_a_seed():
  requests = [samples_lib.Request('p', i, (1,)) for i in range(1000)]
  seeds = {protocol.make_request_seed(3, request) for request in requests}
  assert len(seeds) == 1000 and max(seeds) < 2**31
  assert protocol.make_request_seed(4, requests[0]) not in seeds


def test_without_seeds_a_run_says_so(world, url, tmp_path):
  config = _config(world, server=f'{url}/no_seeds/no_ids', temperature=1.0)
  sample.sample(config, str(tmp_path))
  found = jsonl.read_json(tmp_path / 'sampling.json')
  assert found['server.seeded'] is False
  assert found['server.tokens_from'] == 'text'
  rows, tokenizer = _rows(tmp_path), tokenization.load_tokenizer(world / 'hf')
  assert len(rows) == 12
  for row in rows:
    assert row.log_prob is None and row.log_prob_tempered is None
    assert row.tokens == tuple(tokenizer(row.text)['input_ids'])
  # Tokens of text may be fewer or more: to go on is no error.
  sample.sample(config, str(tmp_path))


@pytest.mark.parametrize('has_after', [True, False])
def test_stops_are_those_of_the_engine(world, url, has_after):
  """With `after` the server is told of no string, and the sample cut here."""
  tokenizer, requests = tokenization.load_tokenizer(world / 'hf'), _requests(3)
  free = _by_problem(_server(world, url), requests)
  decode = lambda tokens: str(tokenizer.decode(tokens))
  sampling = _sampling(
      stop=tuple(decode(free['p0'].tokens[i : i + 1]) for i in (0, 9)),
      stop_after=decode(free['p0'].tokens[2:4]) if has_after else '',
  )
  stops = sampling.make_stops(tokenizer)
  cut = _by_problem(_server(world, url, sampling), requests)
  for problem, s in cut.items():
    tokens = free[problem].tokens
    opening = stops.find_opening(tokens, 0)
    end = None if opening is None else stops.find_string_end(tokens, 0, opening)
    assert s.tokens == tokens[:end]
    assert (s.finish_reason is records.FinishReason.STOP) == bool(end)
  assert cut['p0'].finish_reason is records.FinishReason.STOP


@pytest.mark.parametrize('fault', [500, 503, 'close', (429, {'Retry-After': '0'}), 0.1])
def test_what_goes_wrong_is_asked_again(world, url, fault):
  requests = _requests(6)
  right = _by_problem(_server(world, url), requests)
  plan = [None, fault, fault, None, fault]
  with faults.run_proxy(url, plan) as proxy:
    found = _by_problem(_server(world, proxy.url), requests)
  assert found == right
  assert len(proxy.bodies) == 7 + (0 if isinstance(fault, float) else 3)


def test_retry_after_is_waited_for(world, url):
  with faults.run_proxy(url, [None, (429, {'Retry-After': '1'})]) as proxy:
    list(_server(world, proxy.url).draw_samples(_requests(1)))
  assert proxy.times[2] - proxy.times[1] >= 1.0


def test_a_request_that_takes_too_long_is_asked_again(world, url):
  with faults.run_proxy(url, [None, 60.0]) as proxy:
    server = _server(world, proxy.url, timeout_seconds=2.0, retries=8)
    assert len(list(server.draw_samples(_requests(1)))) == 1
  assert proxy.bodies[2] == proxy.bodies[1]


def test_after_all_retries_the_run_ends_and_counts(world, url):
  with faults.run_proxy(url, [None, None, None, 500, 500]) as proxy:
    server = _server(world, proxy.url, retries=1, concurrency=1)
    samples = server.draw_samples(_requests(5))
    assert next(samples) and next(samples)
    with pytest.raises(
        protocol.ServerError, match=r'sample.retries=1: .*injected.* 2 of 5 samples'
    ):
      next(samples)


def test_a_refusal_ends_the_run_in_the_servers_words(world, url):
  requests = [*_requests(1), samples_lib.Request('long', 0, (5,) * 120)]
  with pytest.raises(ValueError, match='HTTP 400.*context is 128 tokens'):
    list(_server(world, url).draw_samples(requests))


def test_a_server_that_is_down_is_one_error(world):
  with socket.socket() as s:  # Nobody listens, and nobody else gets the port.
    s.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{s.getsockname()[1]}/v1'
    with pytest.raises(protocol.ServerError, match='No server answers at http'):
      list(_server(world, url).draw_samples(_requests(3)))


def test_another_students_tokenizer_is_found_out(world):
  answer = {'usage': {'prompt_tokens': 3}, 'choices': [{}]}
  with pytest.raises(protocol.ServerError, match='read 3 tokens .* has 20'):
    _parse_answer(world, answer)


@pytest.mark.parametrize(
    'choice, word',
    [
        ({'finish_reason': 'abort'}, "finish_reason='abort'"),
        ({'finish_reason': 'length', 'token_ids': None}, 'left token ids out'),
        ({'finish_reason': 'length'}, 'cut a sample at 2 tokens'),
        ({'finish_reason': 'stop', 'stop_reason': 9}, 'at token 9'),
    ],
)
def test_what_is_no_sample_is_an_error(world, choice, word):
  answer = {'choices': [{'token_ids': [5, 6], **choice}]}
  with pytest.raises(protocol.ServerError, match=word):
    _parse_answer(world, answer)


@pytest.mark.long
def test_a_server_that_dies_is_gone_on_with(world, whole, url, tmp_path):
  """Another, elsewhere, has the missing samples only to draw."""
  with engine_server.running(world / 'hf') as (mortal, process):
    with faults.run_proxy(mortal) as proxy:
      forward = proxy.take_next_fault

      def die(body):
        if len(proxy.bodies) == 6:
          process.kill()
        return forward(body)

      proxy.take_next_fault = die
      config = _config(world, server=proxy.url, retries=1, concurrency=1)
      with pytest.raises(protocol.ServerError, match='of 12 samples'):
        sample.sample(config, str(tmp_path))
  drawn = tmp_path / 'samples' / 'done-00000.jsonl'
  done = len(drawn.read_bytes().splitlines())
  assert 0 < done < 12
  with faults.run_proxy(url) as proxy:
    sample.sample(_config(world, server=proxy.url), str(tmp_path))
    assert len(proxy.bodies) == 12 - done + 1  # One to learn what it does.
  texts = [row.text for row in _rows(tmp_path)]
  assert texts == [row.text for row in _rows(whole)]


def test_so_many_requests_are_on_their_way_and_no_more(world, url):
  taken = 0

  class Many(list):
    """As a list of a million would be: it counts what is taken of it."""

    def __iter__(self):
      nonlocal taken
      for request in super().__iter__():
        taken += 1
        yield request

  with faults.run_proxy(url, [None] + [0.05] * 20) as proxy:
    samples = _server(world, proxy.url).draw_samples(Many(_requests(20)))
    for n, _ in enumerate(samples, start=1):
      assert taken <= n + 4
  assert n == 20 and proxy.most_live == 4


def test_nothing_goes_on_when_nobody_iterates(world, url):
  with faults.run_proxy(url, [None, None] + [60.0] * 8) as proxy:
    samples = _server(world, proxy.url).draw_samples(_requests(9))
    next(samples)
    started = time.monotonic()
    samples.close()
    assert time.monotonic() - started < 20
    assert len(proxy.bodies) <= 6


def test_an_interrupt_ends_a_run_at_once(world, url):
  with faults.run_proxy(url, [None] + [60.0] * 8) as proxy:
    samples = _server(world, proxy.url).draw_samples(_requests(4))
    main = threading.main_thread().ident
    assert main is not None
    interrupted = []

    def interrupt():
      while proxy.most_live < 2:  # Until samples are on their way.
        time.sleep(0.01)
      interrupted.append(time.monotonic())
      signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
      next(samples)
    thread.join()
    assert time.monotonic() - interrupted[0] < 20


def test_an_answer_without_a_choice_is_an_error(world):
  with pytest.raises(protocol.ServerError, match='has 0 choices, not one'):
    _parse_answer(world, {'choices': []})


def test_an_address_without_http_is_refused(world):
  with pytest.raises(ValueError, match="sample.server='localhost:8000/v1'"):
    _server(world, 'localhost:8000/v1')


def test_a_model_that_the_server_does_not_have_is_refused_with_its_remedy(world, url):
  with pytest.raises(ValueError, match='HTTP 404.*no model other.*config.sample.model'):
    _server(world, url, model='other').learn_facts(_requests(1)[0])


def test_an_answer_that_is_not_json_is_an_error(world, url):
  with faults.run_proxy(url, ['<html>']) as proxy:
    with pytest.raises(ValueError, match='other than JSON.*<html>.*config.sample.server'):
      _server(world, proxy.url).learn_facts(_requests(1)[0])


def test_the_key_is_sent_and_not_taken_from_the_environment_of_openai(world, url, monkeypatch):
  monkeypatch.setenv('OPENAI_API_KEY', 'wrong')
  tokenizer = tokenization.load_tokenizer(world / 'hf')
  with faults.run_proxy(url) as proxy:
    group = mlc.ConfigDict({**config_groups.get_sample_group(), 'server': proxy.url})
    settings = settings_lib.ServerSettings.from_config(group)
    remote.Server(settings, _sampling(), tokenizer, 'right').learn_facts(_requests(1)[0])
    remote.Server(settings, _sampling(), tokenizer).learn_facts(_requests(1)[0])
  assert proxy.keys == ['Bearer right', 'Bearer none']
