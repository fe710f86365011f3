"""Samples solutions from a student.

    python -m valley_jax.sample --config configs/valley.py --workdir RUN \\
        --config.problems=humaneval:HumanEval.jsonl.gz \\
        --config.shards=DATA/shards

Reads   config.problems    FORMAT:PATH; the statements
        config.prompt      the words in which they are put: ocr, livecodebench,
                           plain, or file:PATH of your own; those that the
                           student was trained with
        config.checkpoint  (default RUN/checkpoints) the student, which says
                           itself what it is
        config.shards      (default RUN/shards) its tokenizer
Writes  RUN/completions.jsonl  text, finish reason and tokens of
                               config.sample.num_samples samples a problem
        RUN/sampling.json      of which student and how; others are refused
        RUN/samples            while it works: each process's own samples
        RUN/tensorboard        lengths, and some texts

How it is drawn, config.sample: temperature (0: greedy), and of the tokens those
that pass top_k, top_p and min_p, in this order. How it ends: by the student's
end token (finish reason eos); at one of the strings stop, behind stop_after
(stop); at max_new_tokens (length), which is a truncated sample; or, with
loop_tokens, when it says the same over and over (loop).

All samples begin in slots as long as the first of config.sample.stages; those
that outgrow them go on in longer and fewer ones. Slots are num_slots, or as
many as fit the memory, which is printed.

A sample depends on the student, the problem, its index, config.seed and the
stages' lengths, not on what else is sampled. Finished samples are appended as
they come; killed, the next run draws the missing ones, and the file ends up in
the problems' order, the same as without the interruption. What was on its way
goes on from its last stage (resume=exact: the same bits), or from the last of
the flushes, flush_seconds apart (resume=fast: as likely, but other bits).

Several processes (JAX_COORDINATOR_ADDRESS, …; or a TPU pod) share the samples
by a hash; each has an engine of its own on its own devices, and the file is the
same as one process writes. RUN has to be where all of them see it.

With --config.sample.server=http://HOST:8000/v1 a server draws them (vLLM and
its like): no checkpoint is read, and config.shards, or hf:DIR in its place,
names the tokenizer of what is served. sampling.json says which model it was,
whether requests were seeded, and whether tokens came as ids or were made of
text; valley_jax/sampling/remote.py how to start one. VALLEY_API_KEY in the
environment is its key, if it wants one.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import hashlib
import os
import pathlib
from typing import Any

import jax
import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.formats import problems
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization
from valley_jax.models import initial
from valley_jax.runtime import checkpoints
from valley_jax.runtime import hosts
from valley_jax.runtime import locks
from valley_jax.sampling import begin
from valley_jax.sampling import files as files_lib
from valley_jax.sampling import remote
from valley_jax.sampling import request as request_lib
from valley_jax.sampling import show

Requests = list[request_lib.Request]


def _requests(config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer) -> Requests:
  """Returns every sample of the run, in the order of the file."""
  requests, prompt = [], prompts.load_prompt(config.prompt)
  for problem in problems.read_problems(config.problems):
    text = prompts.render_problem(prompt, problem)
    tokens = tokenization.encode_prompt(tokenizer, text, prompt.system)
    requests += [
        request_lib.Request(problem.problem_id, i, tuple(tokens))
        for i in range(config.sample.num_samples)
    ]
  return requests


def _part(request: request_lib.Request, num_parts: int) -> int:
  """Returns which of the processes draws a sample."""
  text = f'{request.problem_id}\0{request.sample_index}'.encode()
  digest = hashlib.blake2b(text, digest_size=8).digest()
  return int.from_bytes(digest, 'little') % num_parts


def _opened(config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer) -> str:
  """Returns the `<think>` that prompts end with, if the template opens it."""
  system = prompts.load_prompt(config.prompt).system
  return templates.find_opened_think(templates.render_prompt(tokenizer, 'Why?', system))


def _completion(
    sample: request_lib.Sample, tokenizer: tokenization.Tokenizer, prompt_sha256: str, opened: str
) -> records.Completion:
  assert sample.finish_reason is not None
  return records.Completion(
      problem_id=sample.request.problem_id,
      sample_index=sample.request.sample_index,
      # Thinking that the prompt has opened is thinking.
      text=opened + str(tokenizer.decode(sample.tokens)),
      finish_reason=sample.finish_reason,
      num_prompt_tokens=len(sample.request.prompt),
      tokens=tuple(sample.tokens),
      log_prob=sample.log_prob,
      log_prob_tempered=sample.log_prob_tempered,
      prompt_sha256=prompt_sha256,
  )


def _method_settings(config: mlc.ConfigDict, template_sha256: str) -> dict[str, Any]:
  kept = ('temperature', 'top_p', 'top_k', 'min_p', 'max_new_tokens')
  kept += ('stop_after', 'loop_tokens')
  prompt = prompts.load_prompt(config.prompt)
  return {
      'seed': config.seed,
      'prompt': prompt.name,
      'prompt_sha256': prompts.hash_prompt(prompt, template_sha256),
      **{f'sample.{name}': config.sample[name] for name in kept},
      'sample.stop': list(config.sample.stop),
  }


def _settings(config: mlc.ConfigDict, directory: str, shards: pathlib.Path) -> dict[str, Any]:
  """Returns what samples depend on, besides the problems.

  Raises:
    ValueError: the student was not trained to the end, or it was trained with
      another prompt, template or tokenizer than it would be sampled with.
  """
  student = checkpoints.read_finished_identity(directory)
  manifest = jsonl.read_json(shards / 'manifest.json')
  asked = _method_settings(config, manifest['template_sha256'])
  now = {**manifest, **asked}
  # The last: it is another, too, where the template is.
  for name in ('template_sha256', 'tokenizer_sha256', 'prompt_sha256'):
    if student.get(name) != now[name]:
      raise errors.UserError(
          f'The student of {directory} was trained with {name}='
          f'{student.get(name)!r} (prompt={student.get("prompt")!r}), and would'
          f' be sampled with {now[name]!r} (prompt={now["prompt"]!r}); change'
          ' config.prompt, or name the shards that it was trained on'
          ' (config.shards).'
      )
  return {
      'student': student,
      **asked,
      'sample.dtype': config.sample.dtype,
      'sample.stages': list(config.sample.stages),
  }


def _server_settings(
    config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer, facts: remote.Facts
) -> dict[str, Any]:
  """Returns what a server's samples depend on, besides the problems.

  Its address is not among it: the same model may be served elsewhere.
  """
  template_sha256 = tokenization.hash_chat_template(tokenizer)
  return {
      **{f'server.{k}': v for k, v in dataclasses.asdict(facts).items()},
      **_method_settings(config, template_sha256),
      'template_sha256': template_sha256,
      'tokenizer_sha256': tokenization.hash_tokenizer(tokenizer),
  }


def _check(
    path: pathlib.Path,
    rows: list[records.Completion],
    requests: Requests,
    max_new_tokens: int | None,
    prompt_sha256: str,
) -> None:
  """Refuses to go on with samples that this config would not draw.

  Where tokens were made of text, their number says nothing: `max_new_tokens`
  is None.
  """
  lengths = {(r.problem_id, r.sample_index): len(r.prompt) for r in requests}

  def fault(row: records.Completion) -> str:
    if (key := records.sample_key(row)) not in lengths:
      return 'is not asked for by config.problems and config.sample.num_samples'
    if row.num_prompt_tokens != lengths[key]:
      return f'has a prompt of {row.num_prompt_tokens} tokens, now it has' f' {lengths[key]}'
    if row.prompt_sha256 != prompt_sha256:
      return (
          f'was asked in words of prompt_sha256={row.prompt_sha256!r}, now they'
          f' have {prompt_sha256!r}'
      )
    if max_new_tokens is None:
      return ''
    is_truncated = row.finish_reason is records.FinishReason.LENGTH
    if len(row.tokens) > max_new_tokens or (is_truncated and len(row.tokens) != max_new_tokens):
      return f'ends at {len(row.tokens)} tokens, not at {max_new_tokens}'
    return ''

  for row in rows:
    if reason := fault(row):
      raise errors.UserError(
          f'{path}: sample {records.sample_key(row)} {reason}; take another --workdir,'
          ' or remove that file.'
      )


def _begun(
    config: mlc.ConfigDict, files: files_lib.Files, missing: Requests
) -> tuple[list[request_lib.Sample], Requests]:
  """Returns the missing samples that can go on, and those that begin."""
  if config.sample.resume not in ('exact', 'fast'):
    raise errors.UserError(f'config.sample.resume={config.sample.resume!r}: want exact or fast.')
  partials = files.read_begun(config.sample.resume == 'exact')
  begun, new = [], []
  for request in missing:
    row = partials.get((request.problem_id, request.sample_index))
    if row is None or not row.tokens:
      new.append(request)
      continue
    sample = request_lib.Sample(request, list(row.tokens))
    sample.log_prob = row.log_prob
    sample.log_prob_tempered = row.log_prob_tempered
    begun.append(sample)
  return begun, new


Draw = Callable[[show.Progress], Iterator[request_lib.Sample]]


def _engine(
    config: mlc.ConfigDict,
    directory: str,
    tokenizer: tokenization.Tokenizer,
    files: files_lib.Files,
    longest_prompt: int,
    missing: Requests,
) -> Draw:
  """Returns what draws the missing samples on this process's devices."""
  begun, new = _begun(config, files, missing)

  def draw(progress: show.Progress) -> Iterator[request_lib.Sample]:
    with jax.set_mesh(begin.mesh(config.sample.tp)):
      student, params = initial.load_trained(directory)
      engine = begin.engine(
          config, student, params, tokenizer, longest_prompt=longest_prompt, give_up=True
      )
      progress.say(engine.describe(new))

      def watch() -> None:
        progress.look(engine.state)
        if progress.is_due(config.sample.flush_seconds):
          files.write_live(engine.live())

      yield from engine.run(new, begun, watch)

  return draw


def _draw(
    draw: Draw,
    files: files_lib.Files,
    complete: Callable[[request_lib.Sample], records.Completion],
    num_done: int,
    num_missing: int,
) -> None:
  """Writes samples as they come."""
  progress = show.Progress(num_done, num_done + num_missing)
  with files:
    for sample in draw(progress):
      if sample.finish_reason is None:
        files.append_grown(sample)
        continue
      files.append(complete(sample))
      progress.count(sample)
  progress.close()


def read_tokenizer(config: mlc.ConfigDict, workdir: str) -> tuple[pathlib.Path, Any]:
  """Returns the shards, and the tokenizer that belongs to them."""
  if config.sample.server and config.shards.startswith('hf:'):
    directory = config.shards.removeprefix('hf:')
    return pathlib.Path(directory), tokenization.load_tokenizer(directory)
  shards = pathlib.Path(config.shards or f'{workdir}/shards')
  return shards, tokenization.load_tokenizer(shards / 'tokenizer')


def sample(config: mlc.ConfigDict, workdir: str) -> None:
  """Draws the missing samples; see the module's docstring.

  Raises:
    ValueError: completions.jsonl holds samples of another config or student.
    remote.ServerError: a server is away; what is there stays.
  """
  directory = config.checkpoint or f'{workdir}/checkpoints'
  shards, tokenizer = read_tokenizer(config, workdir)
  requests = _requests(config, tokenizer)
  me, num_parts = jax.process_index(), jax.process_count()
  max_new_tokens = config.sample.max_new_tokens
  if config.sample.server:
    key = os.environ.get('VALLEY_API_KEY', '')
    server = begin.server(config, tokenizer, key)
    facts = server.learn(requests[0])
    settings = _server_settings(config, tokenizer, facts)
    max_new_tokens = max_new_tokens if facts.tokens_from == 'ids' else None
  else:
    server = None
    settings = _settings(config, directory, shards)
  place = pathlib.Path(workdir)
  files = files_lib.Files(place, me)
  if me == 0:
    locks.claim_directory(place / 'sampling.json', settings)
    files.repair()
  hosts.wait_for_processes('samples are being read')
  locks.claim_directory(place / 'sampling.json', settings)
  rows = files.read()
  prompt_sha256 = settings['prompt_sha256']
  _check(files.completions, rows, requests, max_new_tokens, prompt_sha256)
  complete = functools.partial(
      _completion,
      tokenizer=tokenizer,
      prompt_sha256=prompt_sha256,
      opened=_opened(config, tokenizer),
  )
  done = {records.sample_key(row) for row in rows}
  missing = [
      request for request in requests if (request.problem_id, request.sample_index) not in done
  ]
  mine = [request for request in missing if _part(request, num_parts) == me]
  if server:
    draw: Draw = lambda progress: server.run(mine)
  else:
    longest = max(len(request.prompt) for request in requests)
    draw = _engine(config, directory, tokenizer, files, longest, mine)
  hosts.wait_for_processes('samples are drawn')
  if missing:  # Of whomever: to read the student takes all processes.
    _draw(draw, files, complete, len(done), len(mine))
  hosts.wait_for_processes('samples are put together')
  if me == 0:
    keys = [(r.problem_id, r.sample_index) for r in requests]
    rows = files.put_together(files.read(), {k: n for n, k in enumerate(keys)})
    if missing:
      show.write_tensorboard(place, rows)
    print(show.summary(rows))
  hosts.wait_for_processes('samples are there')


if __name__ == '__main__':
  hosts.join_processes(os.environ)
  entry.run(sample)
