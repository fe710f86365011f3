"""A served student says what the engine draws, to whoever asks, and refuses.

The server is the real one, in a process of its own; it is asked by the package
`openai`, as people do.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import openai
import pytest
import tiny

from valley_jax import convert
from valley_jax import records
from valley_jax import sample
from valley_jax import train
from valley_jax.data import prompts
from valley_jax.data import tokenization

_ROOT = pathlib.Path(__file__).parents[1]
_LONG = 150  # Tokens; some tens of chunks.


@contextlib.contextmanager
def _serve(*flags):
  """Yields the address of a server and its process; ends it as users do."""
  command = [sys.executable, '-m', 'valley_jax.serve']
  command += ['--config', f'{_ROOT}/configs/evaluate.py:mini', *flags]
  command += ['--config.serve.port=0', '--config.serve.longest_prompt=100']
  command += [f'--config.sample.max_new_tokens={_LONG}']
  command += ['--config.sample.num_slots=4', '--config.serve.max_waiting=32']
  environment = {
      **os.environ,
      'JAX_NUM_CPU_DEVICES': '1',
      'PYTHONPATH': str(_ROOT),
  }
  with subprocess.Popen(
      command, stdout=subprocess.PIPE, text=True, env=environment
  ) as process:
    try:
      assert process.stdout is not None
      lines = iter(process.stdout.readline, '')
      line = next(line for line in lines if ' is served at ' in line)
      yield line.split()[-1], process
    finally:
      process.terminate()


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """A world, a student that knows nothing, and its HF directory."""
  path = tmp_path_factory.mktemp('world')
  tiny.write_world(path)
  train.train(tiny.config(path, num_traces=0), str(path / 'student'))
  convert.export(path / 'student', path / 'hf', 'float32')
  return path


def _flags(world):
  return (
      f'--config.checkpoint={world}/student/checkpoints',
      f'--config.shards={world}/shards',
  )


@pytest.fixture(scope='module')
def url(world):
  with _serve(*_flags(world)) as (url, process):
    yield url
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=100) == 0


@pytest.fixture(scope='module')
def client(url):
  with openai.OpenAI(base_url=url, api_key='none', max_retries=0) as client:
    yield client


@pytest.fixture(scope='module')
def tokenizer(world):
  return tokenization.load(world / 'hf')


@pytest.fixture(scope='module')
def engine_rows(world):
  """The engine's own greedy samples."""
  config = _config(world)
  sample.sample(config, str(world / 'whole'))
  return _rows(world / 'whole')


def _config(world, **changes):
  config = tiny.config(world, num_traces=0).unlock()
  config.checkpoint = f'{world}/student/checkpoints'
  config.sample.update({'num_samples': 1, **changes})
  return config.lock()


def _rows(workdir):
  path = workdir / 'completions.jsonl'
  return list(records.read_rows(path, records.Completion))


def _complete(client, prompt='Add 1 and 1.', **asked):
  extra = {
      name: asked.pop(name)
      for name in ('top_k', 'min_p', 'return_token_ids', 'ignore_eos', 'shout')
      if name in asked
  }
  return client.completions.create(
      **{'model': 'student', 'prompt': prompt, 'temperature': 0, **asked},
      extra_body=extra,
  )


def _text(client, *args, **asked):
  return _complete(client, *args, **asked).choices[0].text


def _counts(url):
  address = url.removesuffix('/v1') + '/health'
  with urllib.request.urlopen(address, timeout=10) as response:
    return json.load(response)


def test_the_student_is_listed(client):
  (model,) = client.models.list()
  assert model.id == 'student'


def test_greedy_completions_are_the_engines(
    world, client, tokenizer, engine_rows
):
  config = _config(world)
  prompt = prompts.load(config.prompt)
  problems = records.read_rows(world / 'problems.jsonl', records.Problem)
  assert len(engine_rows) == 6
  for problem, row in zip(problems, engine_rows, strict=True):
    words = prompts.words(prompt, problem)
    tokens = tokenization.encode_prompt(tokenizer, words, prompt.system)
    answer = _complete(client, tokens, max_tokens=16, return_token_ids=True)
    (choice,) = answer.choices
    drawn = tuple(choice.token_ids)
    is_eos = row.finish_reason is records.FinishReason.EOS
    assert drawn == row.tokens + (tokenizer.eos_token_id,) * is_eos
    assert choice.text == tokenizer.decode(row.tokens, skip_special_tokens=True)
    assert choice.finish_reason == ('stop' if is_eos else 'length')
    assert answer.usage.prompt_tokens == row.num_prompt_tokens
    assert answer.usage.completion_tokens == len(drawn)


def test_our_own_sampling_takes_it_for_the_engine(
    world, url, engine_rows, tmp_path
):
  sample.sample(_config(world, server=url), str(tmp_path))
  for ours, theirs in zip(engine_rows, _rows(tmp_path), strict=True):
    assert theirs.log_prob == pytest.approx(ours.log_prob, abs=1e-3)
    changes = {'log_prob': None, 'log_prob_tempered': None}
    assert records.replace(ours, **changes) == records.replace(
        theirs, **changes
    )
  facts = records.read_json(tmp_path / 'sampling.json')
  assert facts['server.tokens_from'] == 'ids' and facts['server.seeded']


def test_pieces_make_up_the_whole(client):
  """Of a student that knows nothing, many are bytes that are no character."""
  asked = {'max_tokens': 120, 'temperature': 1, 'seed': 5}
  whole = _complete(client, **asked)
  options = {'include_usage': True}
  *chunks, last = _complete(
      client, stream=True, stream_options=options, **asked
  )
  assert len(chunks) > 3
  pieces = ''.join(chunk.choices[0].text for chunk in chunks)
  assert pieces == whole.choices[0].text
  reasons = [chunk.choices[0].finish_reason for chunk in chunks]
  assert reasons[-1] == whole.choices[0].finish_reason
  assert not any(reasons[:-1])
  assert last.usage == whole.usage


def test_company_changes_nothing(client):
  """Three methods, more requests than slots, and two lanes for all."""
  asked = [
      {
          'prompt': f'Add {i} and 3.',
          'temperature': (0, 1, 0.7)[i % 3],
          'seed': i,
          'max_tokens': 40,
      }
      for i in range(12)
  ]
  alone = [_text(client, **a) for a in asked]
  with concurrent.futures.ThreadPoolExecutor(12) as pool:
    together = list(pool.map(lambda a: _text(client, **a), asked))
  assert together == alone
  assert len(set(alone)) == 12


def test_a_seed_draws_the_same_and_another_something_else(client):
  draw = lambda **asked: _text(client, temperature=1, max_tokens=20, **asked)
  assert draw(seed=1) == draw(seed=1)
  assert len({draw(seed=1), draw(seed=2), draw(), draw()}) == 4


def test_the_choices_of_a_request_differ_and_come_back(client):
  asked = {'temperature': 1, 'max_tokens': 20, 'seed': 3, 'n': 3}
  answer = _complete(client, ['Add 1.', 'Add 2.'], **asked)
  texts = [choice.text for choice in answer.choices]
  assert [choice.index for choice in answer.choices] == list(range(6))
  assert len(set(texts)) == 6
  again = _complete(client, 'Add 2.', **asked)
  assert [choice.text for choice in again.choices] == texts[3:]


@pytest.mark.parametrize('stream', [False, True])
def test_a_string_ends_a_sample_and_is_not_told(client, stream):
  asked = {'max_tokens': 60, 'temperature': 1, 'seed': 11}
  free = _text(client, **asked)
  stop = free[20:23]
  wanted = free[: free.index(stop)]
  answer = _complete(client, stop=[stop], stream=stream, **asked)
  choices = [a.choices[0] for a in (answer if stream else [answer])]
  assert ''.join(choice.text for choice in choices) == wanted
  assert choices[-1].finish_reason == 'stop'


def test_so_many_tokens_and_no_more(client):
  answer = _complete(client, max_tokens=7, ignore_eos=True)
  assert answer.usage.completion_tokens == 7
  assert answer.choices[0].finish_reason == 'length'


def test_each_token_has_its_log_probability(client):
  answer = _complete(client, max_tokens=9, logprobs=1, ignore_eos=True)
  found = answer.choices[0].logprobs
  assert len(found.tokens) == len(found.token_logprobs) == 9
  assert all(p < 0 for p in found.token_logprobs)


def test_messages_are_put_into_the_template(client, tokenizer):
  messages = [
      {'role': 'user', 'content': 'Add 1 and 1.'},
      {'role': 'assistant', 'content': '2'},
      {'role': 'user', 'content': [{'type': 'text', 'text': 'Add 1 more.'}]},
  ]
  flat = [*messages[:2], {'role': 'user', 'content': 'Add 1 more.'}]
  prompt = tokenizer.apply_chat_template(
      flat, tokenize=False, add_generation_prompt=True
  )
  wanted = _text(client, prompt, max_tokens=20)
  ask = lambda **asked: client.chat.completions.create(
      model='student', messages=messages, temperature=0, **asked
  )
  answer = ask(max_completion_tokens=20)
  assert answer.choices[0].message.role == 'assistant'
  assert answer.choices[0].message.content == wanted
  chunks = list(ask(max_tokens=20, stream=True))
  assert chunks[0].choices[0].delta.role == 'assistant'
  pieces = (chunk.choices[0].delta.content for chunk in chunks)
  assert ''.join(pieces) == wanted


def test_a_message_with_a_control_token_is_refused(client):
  with pytest.raises(openai.BadRequestError, match=r'\[0\].*<.end.>.*reword'):
    client.chat.completions.create(
        model='student', messages=[{'role': 'user', 'content': 'a<|end|>'}]
    )


@pytest.mark.parametrize(
    'asked, param, words',
    [
        ({'shout': True}, 'shout', 'unknown field `shout`; the fields are'),
        ({'temperature': -1}, 'temperature', 'temperature=-1.0: want 0.0 to'),
        ({'top_p': 0}, 'top_p', 'top_p=0.0: want more than 0'),
        ({'top_k': 'all'}, 'top_k', 'Expected `int | null`, got `str`'),
        ({'max_tokens': 0}, 'max_tokens', 'max_tokens=0: want 1 to'),
        ({'stop': ['']}, 'stop', 'none of them empty'),
        ({'logprobs': 5}, 'logprobs', 'logprobs=5'),
        ({'presence_penalty': 1}, 'presence_penalty', '=1.0: this server has'),
        ({'prompt': [1, 'a']}, 'prompt', 'this is a mixture'),
        ({'prompt': [10**6]}, 'prompt', 'token id 1000000; want 0 to'),
        ({'prompt': [5] * 400}, 'prompt', 'prompt of 400 tokens.* 256 tokens'),
        ({'max_tokens': 999}, 'max_tokens', 'max_tokens=999.*256 tokens; sh'),
        ({'n': 33}, 'n', 'n=33 of 1 prompts: want 1 to 32 samples'),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_and_the_limit(client, asked, param, words):
  with pytest.raises(openai.BadRequestError, match=words) as refusal:
    _complete(client, **asked)
  assert refusal.value.param == param
  assert refusal.value.type == 'invalid_request_error'


def test_another_model_is_not_found(client):
  with pytest.raises(openai.NotFoundError, match="'gpt'.*'student' only"):
    _complete(client, model='gpt')


def _until(url, is_reached):
  for _ in range(1200):  # A minute.
    if is_reached(counts := _counts(url)):
      return counts
    time.sleep(0.05)
  raise AssertionError(counts)


@pytest.mark.parametrize('stream', [False, True])
def test_who_goes_away_frees_the_slots(client, url, stream):
  asked = {'max_tokens': _LONG, 'ignore_eos': True, 'n': 30}
  before = _counts(url)['left']
  if stream:
    chunks = _complete(client, stream=True, **asked)
    next(chunks)
    chunks.close()
  else:
    # The server has read the request by then, and is far from its end.
    hasty = client.with_options(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
      _complete(hasty, **asked)
  assert _text(client, max_tokens=5)
  ended = _until(url, lambda c: not c['running'] and not c['waiting'])
  assert ended['left'] > before + 10


def test_who_comes_when_too_many_wait_is_told_to_come_again(client, url):
  asked = {'max_tokens': _LONG, 'ignore_eos': True, 'n': 32}
  chunks = _complete(client, stream=True, **asked)
  _until(url, lambda c: c['waiting'])
  with pytest.raises(openai.RateLimitError, match='max_waiting=32') as found:
    _complete(client, n=32)
  assert int(found.value.response.headers['Retry-After']) > 0
  chunks.close()
  assert _text(client, max_tokens=5)


def test_a_directory_is_enough_and_a_signal_ends_it_well(world, client):
  with _serve(f'--config.checkpoint=hf:{world}/hf') as (url, process):
    with openai.OpenAI(base_url=url, api_key='none') as other:
      assert _text(other, max_tokens=9) == _text(client, max_tokens=9)
      chunks = _complete(other, n=30, stream=True, ignore_eos=True)
      next(chunks)
    process.terminate()
    assert process.wait(timeout=100) == 0
