"""A server of /v1/completions on the engine, in a process of its own.

    python tests/engine_server.py HF_DIRECTORY

For the tests of `sampling/remote.py`: vLLM's names and answers, and refusals of
what it does not know. An address of /v1/no_seeds or /v1/no_ids is that of a
server without them. Prints its port.
"""

import contextlib
import functools
from http import server
import json
import os
import pathlib
import subprocess
import sys
import threading

from tests import tiny
from valley_jax.data.tokens import tokenization
from valley_jax.models import pretrained
from valley_jax.records import FinishReason
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib

FIXED = {
    'n': 1,
    'echo': False,
    'stream': False,
    'min_tokens': 0,
    'repetition_penalty': 1.0,
    'presence_penalty': 0.0,
    'frequency_penalty': 0.0,
    'ignore_eos': True,
    'include_stop_str_in_output': True,
    'skip_special_tokens': False,
    'spaces_between_special_tokens': False,
    'logprobs': 1,
    'return_token_ids': True,
    'return_tokens_as_token_ids': True,
}
FREE = {'prompt', 'max_tokens', 'temperature', 'top_p', 'top_k', 'min_p'}
FREE |= {'model', 'seed', 'stop', 'stop_token_ids'}


class Refusal(Exception):
  """What the server does not do."""

  status = 400


class NoModel(Refusal):
  """A model that it does not have."""

  status = 404


class Completions:
  """Answers one request after another."""

  def __init__(self, directory: str):
    self._tokenizer = tokenization.load_tokenizer(directory)
    self._student = pretrained.read_student(directory)
    self._params = pretrained.load_params(directory, self._student)
    self._lock = threading.Lock()

  @functools.cache  # noqa: B019
  def _engine(self, numbers, max_tokens, end_token, strings, seed):
    decode = lambda tokens: str(self._tokenizer.decode(tokens))
    return tiny.engine(
        self._student,
        self._params,
        method=methods.make_method(*numbers),
        seed=seed,
        end_token=end_token,
        max_new_tokens=max_tokens,
        stops=samples_lib.Stops(decode=decode, strings=strings),
    )

  def answer(self, body: dict, path: str) -> dict:
    unknown = set(body) - set(FIXED) - FREE
    wrong = [name for name in FIXED if body.get(name) != FIXED[name]]
    if body['model'] != 'tiny':
      raise NoModel(f'There is no model {body["model"]}.')
    if unknown or wrong:
      raise Refusal(f'Unexpected fields: {sorted(unknown)}, values: {wrong}')
    if 'no_seeds' in path and 'seed' in body:
      raise Refusal('This platform does not support a per-request seed.')
    if len(body['prompt']) + body['max_tokens'] > 128:
      raise Refusal('The context is 128 tokens.')
    numbers = [body[name] for name in ('temperature', 'top_p', 'top_k')]
    numbers = *numbers[:2], max(0, numbers[2]), body['min_p']
    (end_token,) = body['stop_token_ids']
    strings = tuple(body['stop'])
    with self._lock, tiny.mesh():
      engine = self._engine(numbers, body['max_tokens'], end_token, strings, body.get('seed', 0))
      request = samples_lib.Request('', 0, tuple(body['prompt']))
      (sample,) = engine.draw_samples([request])
    return self._json(sample, end_token, has_ids='no_ids' not in path)

  def _json(self, sample: samples_lib.Sample, end_token: int, has_ids: bool) -> dict:
    is_eos = sample.finish_reason is FinishReason.EOS
    is_whole = sample.finish_reason is FinishReason.LENGTH
    tokens = sample.tokens + [end_token] * is_eos
    choice = {
        'index': 0,
        'text': self._tokenizer.decode(tokens),
        'finish_reason': 'length' if is_whole else 'stop',
    }
    if has_ids:
      choice['token_ids'] = tokens
      # The engine keeps their sum.
      each = [sample.log_prob] + [0.0] * (len(tokens) - 1)
      choice['logprobs'] = {'token_logprobs': each}
    usage = {'prompt_tokens': len(sample.request.prompt), 'completion_tokens': len(tokens)}
    return {'choices': [choice], 'usage': usage}


class Handler(server.BaseHTTPRequestHandler):
  """HTTP around `completions`."""

  protocol_version = 'HTTP/1.1'
  completions: Completions

  def log_message(self, *unused_args):
    pass

  def _say(self, status: int, value: dict) -> None:
    data = json.dumps(value).encode()
    self.send_response(status)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  def do_GET(self):
    self._say(200, {'data': [{'id': 'tiny'}]})

  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    try:
      self._say(200, self.completions.answer(body, self.path))
    except Refusal as e:
      self._say(e.status, {'error': {'message': str(e), 'code': e.status}})


@contextlib.contextmanager
def running(directory):
  """Yields the address of such a server, and its process."""
  here = pathlib.Path(__file__)
  environment = {
      **os.environ,
      'JAX_NUM_CPU_DEVICES': '1',
      'PYTHONPATH': f'{here.parents[1]}:{here.parent}',
  }
  command = [sys.executable, str(here), str(directory)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
    try:
      assert process.stdout is not None
      port = process.stdout.readline().strip()
      yield f'http://127.0.0.1:{port}/v1', process
    finally:
      process.kill()


def main(directory: str) -> None:
  with tiny.mesh():
    Handler.completions = Completions(directory)
  http = server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  print(http.server_port, flush=True)
  http.serve_forever()


if __name__ == '__main__':
  main(sys.argv[1])
