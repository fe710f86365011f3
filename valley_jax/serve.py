"""Serves a student at OpenAI's addresses, so that people can talk to it.

    python -m valley_jax.serve --config configs/evaluate.py \\
        --config.checkpoint=RUN/checkpoints --config.shards=RUN/shards

Reads   config.checkpoint  a finished run's, or hf:DIR, what `convert` exports
        config.shards      the tokenizer; not wanted beside hf:DIR
Serves  POST /v1/chat/completions  messages, in the student's own chat template
        POST /v1/completions       a text or token ids, as they are
        GET  /v1/models, /health

Then, with curl, or with the package openai:

    curl localhost:8000/v1/chat/completions -d '{"stream": true,
        "messages": [{"role": "user", "content": "Add two numbers."}]}'

    client = openai.OpenAI(base_url='http://localhost:8000/v1', api_key='none')
    answer = client.chat.completions.create(
        model='student', messages=[{'role': 'user', 'content': 'Add.'}])

    python -m valley_jax.sample ... --config.sample.server=http://HOST:8000/v1

A request says how it is drawn: temperature (0: greedy), top_p, top_k, min_p,
seed, max_tokens, stop, n, logprobs (of the drawn tokens), and vLLM's
stop_token_ids, ignore_eos, include_stop_str_in_output, return_token_ids. What
it leaves out is as in config.sample; an unknown field is refused. The same seed
and prompt give the same tokens, whatever else is served, on one kind of
machine; without a seed each answer is another.

The engine's slots draw for all requests at once, config.sample.num_slots of
them (0: as many as fit the memory; on a CPU at most 16 a device), each of
config.serve.longest_prompt and config.sample.max_new_tokens positions; so lower
the latter where there is little memory. Slots that step together are of one
method, that is temperature, top_p, top_k and min_p: config.serve.num_lanes such
groups run at a time, and others wait for one to fall idle. A method that was
not asked for before is compiled first, and everybody waits: seconds on a CPU, a
minute for a large student. Text comes in pieces of config.sample.chunk_len
tokens; 8 reads more smoothly, and costs some speed.

When config.serve.max_waiting samples wait, the answer is 429 with Retry-After.
A client that goes away frees its slots. Ctrl-C or SIGTERM ends the server; what
is on its way has 5 seconds. There is no password and no encryption: what is
served beyond this machine (config.serve.host=0.0.0.0) belongs behind a proxy.
"""

import pathlib
import signal
import socket
from typing import Any

import jax
import ml_collections as mlc
import uvicorn

from valley_jax import checkpoints
from valley_jax import entry
from valley_jax import initial
from valley_jax.data import tokenization
from valley_jax.models import cache
from valley_jax.models import student as student_lib
from valley_jax.sampling import begin
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.sampling import stages as stages_lib
from valley_jax.serving import app
from valley_jax.serving import loop as loop_lib
from valley_jax.serving import served as served_lib

_GRACE_SECONDS = 5


def _load(
    config: mlc.ConfigDict,
) -> tuple[student_lib.Student, Any, tokenization.Tokenizer]:
  """Returns the student, its parameters on the mesh, and its tokenizer.

  Raises:
    ValueError: none is named, or the tokenizer is not the student's.
  """
  kind, _, directory = config.checkpoint.rpartition(':')
  if kind == 'hf':
    tokenizer = tokenization.load(directory)
    student = initial.student(
        config.checkpoint, '', num_tokens=len(tokenizer), multiple=1, max_len=1
    )
    params = initial.params(config.checkpoint, student, 0, config.sample.dtype)
    return student, params, tokenizer
  if not config.checkpoint or not config.shards:
    raise ValueError(
        f'config.checkpoint={config.checkpoint!r},'
        f' config.shards={config.shards!r}: want RUN/checkpoints and'
        ' RUN/shards, or hf:DIR as the checkpoint alone.'
    )
  tokenizer = tokenization.load(pathlib.Path(config.shards) / 'tokenizer')
  identity = checkpoints.finished_identity(config.checkpoint)
  found = {
      'tokenizer_sha256': tokenization.tokenizer_hash(tokenizer),
      'template_sha256': tokenization.template_hash(tokenizer),
  }
  for name, now in found.items():
    if identity.get(name) != now:
      raise ValueError(
          f'The student of {config.checkpoint} was trained with {name}='
          f'{identity.get(name)!r}, and config.shards={config.shards} has'
          f' {now!r}; name the shards that it was trained on.'
      )
  return *initial.trained(config.checkpoint), tokenizer


def _stage(
    config: mlc.ConfigDict, student: student_lib.Student
) -> stages_lib.Stage:
  """Returns the slots of a lane."""
  s, free = config.sample, stages_lib.free_bytes()
  num_slots = s.num_slots
  if not num_slots and free is None:
    num_slots = lanes.width(1)
  (stage,) = stages_lib.plan(
      student,
      lengths=(),
      longest_prompt=config.serve.longest_prompt,
      max_new_tokens=s.max_new_tokens,
      num_slots=num_slots,
      dtype=s.dtype,
      free=None if free is None else free / config.serve.num_lanes,
  )
  # On a CPU a lane has 16 slots a device at most; see `lanes`.
  width = lanes.width(stage.num_slots)
  return stages_lib.Stage(stage.length, min(stage.num_slots, width))


def _begin(config: mlc.ConfigDict) -> tuple[served_lib.Served, loop_lib.Loop]:
  """Returns what is served, and by what; on the current mesh."""
  s = config.sample
  student, params, tokenizer = _load(config)
  method = methods.of(s.temperature, s.top_p, s.top_k, s.min_p)
  settings = lanes.Settings(
      student=student,
      params=cache.unstack(params, s.dtype, give_up=True),
      method=method,
      seed=config.seed,
      chunk_len=s.chunk_len,
      prefill_tokens=s.prefill_tokens,
      dtype=s.dtype,
  )
  stage = _stage(config, student)
  loop = loop_lib.Loop(
      settings,
      stage,
      num_lanes=config.serve.num_lanes,
      max_waiting=config.serve.max_waiting,
  )
  lines = stages_lib.describe(student, [stage], s.dtype)
  print(f'{config.serve.num_lanes} lanes of {lines}.', flush=True)
  served = served_lib.Served(
      name=config.serve.name,
      tokenizer=tokenizer,
      vocab_size=student.vocab_size,
      method=method,
      max_new_tokens=s.max_new_tokens,
      context=stage.length,
      max_choices=config.serve.max_waiting,
  )
  return served, loop


def _listen(host: str, port: int) -> socket.socket:
  """Returns a socket; connections wait there until they are answered."""
  try:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)
  except (OSError, OverflowError) as e:
    raise ValueError(
        f'config.serve.host={host!r}, config.serve.port={port}: {e}; take'
        ' another, or port 0, which is any that is free.'
    ) from e


def serve(config: mlc.ConfigDict) -> None:
  """Serves until it is told to end; see the module's docstring.

  Raises:
    ValueError: the checkpoint, a number or the address is none.
  """
  with _listen(config.serve.host, config.serve.port) as listening:
    with jax.set_mesh(begin.mesh(config.sample.tp)):
      served, loop = _begin(config)
    host, port = listening.getsockname()[:2]
    host = f'[{host}]' if ':' in host else host
    say = lambda: print(
        f'{served.name} is served at http://{host}:{port}/v1', flush=True
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app.make(served, loop, say),
            log_level='warning',
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    # uvicorn ends well by itself, and raises the signal again after that.
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, lambda *unused: None)
    server.run(sockets=[listening])


if __name__ == '__main__':
  entry.run(serve, needs_workdir=False)
