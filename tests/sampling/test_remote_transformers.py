"""`transformers serve`, as it is, samples what the engine samples.

It takes text and returns text. So that text says which tokens were drawn, each
token of this student is one character.
"""

import dataclasses
import os
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import tokenizers
import transformers

from tests import tiny
from valley_jax import jsonl
from valley_jax import records
from valley_jax.models import hf_config
from valley_jax.models import hf_weights
from valley_jax.sampling import dialects
from valley_jax.sampling import methods
from valley_jax.sampling import remote
from valley_jax.sampling import request as request_lib
from valley_jax.sampling import stops

pytest.importorskip('torch')
pytest.importorskip('fastapi')
pytest.importorskip('openai')

# No space: the tokenizers of Qwen2, as which it is loaded, have none as such.
_LETTERS = 'abcdefghijklmnopqrstuvwxyz;.,:()0123'
_END = len(_LETTERS)
_STUDENT = tiny.student(qkv_bias=True)  # Qwen2; a vocabulary of 40.


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  """A student whose tokens are letters, and its own bad defaults."""
  path = tmp_path_factory.mktemp('hf')
  vocab = {letter: i for i, letter in enumerate(_LETTERS)} | {'<|end|>': _END}
  vocab |= {f'<|{i}|>': i for i in range(_END + 1, _STUDENT.vocab_size)}
  model = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
  model.decoder = tokenizers.decoders.Fuse()
  transformers.PreTrainedTokenizerFast(tokenizer_object=model, eos_token='<|end|>').save_pretrained(
      path
  )
  config = hf_config.build_student_config(_STUDENT)
  ids = {'eos_token_id': _END, 'pad_token_id': _END, 'torch_dtype': 'float32'}
  jsonl.write_json(path / 'config.json', {**config, **ids})
  defaults = {'do_sample': True, 'repetition_penalty': 1.9, 'eos_token_id': [3]}
  jsonl.write_json(path / 'generation_config.json', defaults)
  with tiny.mesh():
    params = tiny.put_params(_STUDENT)
    hf_weights.write_weights(path, _STUDENT, params, 'float32')
  return path


@pytest.fixture(scope='module')
def url(directory):
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  program = 'from transformers.cli.transformers import main; main()'
  command = [sys.executable, '-c', program, 'serve', str(directory)]
  command += ['--port', str(port), '--device', 'cpu', '--dtype', 'float32']
  with subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL) as process:
    try:
      _wait(f'http://localhost:{port}/health', process)
      yield f'http://localhost:{port}/v1'
    finally:
      process.kill()


def _wait(url, process):
  for _ in range(400):
    assert process.poll() is None
    try:
      with urllib.request.urlopen(url, timeout=10):
        return
    except OSError:
      time.sleep(0.25)
  raise AssertionError(f'{url} does not answer')


def _asked(directory, **changes):
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
  encode = lambda text: tokenizer(text)['input_ids']
  default = {'method': methods.Greedy(), 'max_new_tokens': 24, 'seed': 0}
  return dialects.Asked(
      end_token=_END,
      encode=encode,
      decode=lambda tokens: str(tokenizer.decode(tokens)),
      encode_prompt=encode,
      **{**default, **changes},
  )


def _server(directory, url, **changes):
  asked = _asked(directory, **changes)
  return remote.Server(url, asked, model=str(directory), dialect='transformers', retries=1)


def _requests():
  rng = np.random.default_rng(1)
  return [
      request_lib.Request(f'p{n}', 0, tuple(rng.integers(0, _END, rng.integers(1, 40)).tolist()))
      for n in range(12)
  ]


def _ours(**changes):
  with tiny.mesh():
    settings = {'end_token': _END, 'max_new_tokens': 24}
    made = tiny.engine(_STUDENT, **{**settings, **changes})
    return {s.request.problem_id: s for s in made.run(_requests())}


def test_greedy_samples_are_those_of_the_engine(directory, url):
  server = _server(directory, url)
  found = {s.request.problem_id: s for s in server.run(_requests())}
  facts = server.learn(_requests()[0])
  assert facts.tokens_from == 'text' and not facts.seeded
  ours, num_equal = _ours(), 0
  for problem, sample in ours.items():
    # Control tokens, which text leaves out, say where the two may part.
    if max(sample.tokens, default=0) < _END:
      num_equal += 1
      assert found[problem].tokens == sample.tokens
      assert found[problem].finish_reason is sample.finish_reason
  assert num_equal >= 6


def test_stop_strings_are_kept(directory, url):
  decode = _asked(directory).decode
  stop = stops.Stops(decode=decode, strings=('a', 'e', '1'))
  server = _server(directory, url, stops=stop)
  ours = _ours(stops=stop)
  stopped = 0
  for sample in server.run(_requests()):
    expected = ours[sample.request.problem_id]
    if max(expected.tokens, default=0) < _END:
      assert sample.tokens == expected.tokens
      stopped += expected.finish_reason is records.FinishReason.STOP
  assert stopped


def test_sampling_goes_by_every_number(directory, url):
  """Of the likeliest token only: greedy, whatever the temperature."""
  method = methods.Sampling(temperature=2.0, top_k=1)
  found = _server(directory, url, method=method).run(_requests())
  greedy = _server(directory, url).run(_requests())
  key = lambda s: s.request.problem_id
  assert [s.tokens for s in sorted(found, key=key)] == [s.tokens for s in sorted(greedy, key=key)]


def test_token_ids_are_refused_in_its_own_words(directory, url):
  server = remote.Server(url, _asked(directory), model=str(directory))
  with pytest.raises(ValueError, match='HTTP 422.*return_token_ids'):
    server.learn(_requests()[0])


def test_a_prompt_that_text_does_not_say_is_refused(directory):
  asked = _asked(directory)
  asked = dataclasses.replace(asked, encode_prompt=lambda text: [0])
  with pytest.raises(ValueError, match='takes text only'):
    dialects.transformers(asked, _requests()[0])
