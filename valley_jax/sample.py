"""Samples solutions from a student.

    python -m valley_jax.sample --config configs/valley.py --workdir RUN \\
        --config.problems=humaneval:HumanEval.jsonl.gz \\
        --config.shards=DATA/shards

Reads   config.problems    FORMAT:PATH; the statements
        config.checkpoint  (default RUN/checkpoints) the student, which says
                           itself what it is
        config.shards      (default RUN/shards) its tokenizer
Writes  RUN/completions.jsonl  text, finish reason and tokens of
                               config.sample.num_samples samples a problem
        RUN/sampling.json      of which student and how; others are refused

How it is drawn, config.sample: temperature (0: greedy), and of the tokens those
that pass top_k, top_p and min_p, in this order. How it ends: by the student's
end token (finish reason eos); at one of the strings stop, behind stop_after
(stop); at max_new_tokens (length), which is a truncated sample; or, with
loop_tokens, when it says the same over and over (loop).

A sample depends on the student, the problem, its index and config.seed, not on
what else is sampled. Finished samples are appended as they come; killed, the
next run draws the missing ones, and the file ends up in the problems' order,
the same as without the interruption.

With --config.sample.server=http://HOST:8000/v1 a server draws them (vLLM and
its like): no checkpoint is read, and config.shards, or hf:DIR in its place,
names the tokenizer of what is served. sampling.json says which model it was,
whether requests were seeded, and whether tokens came as ids or were made of
text; valley_jax/sampling/remote.py how to start one. VALLEY_API_KEY in the
environment is its key, if it wants one.
"""

import dataclasses
import os
import pathlib
from typing import Any

import jax
import ml_collections as mlc

from valley_jax import checkpoints
from valley_jax import entry
from valley_jax import initial
from valley_jax import metrics
from valley_jax import partitioning
from valley_jax import records
from valley_jax.data import problems
from valley_jax.data import tokenization
from valley_jax.sampling import dialects
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import methods
from valley_jax.sampling import remote
from valley_jax.sampling import stops as stops_lib

Key = tuple[str, int]


def _requests(
    config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer
) -> list[engine_lib.Request]:
  """Returns every sample of the run, in the order of the file."""
  requests = []
  for problem in problems.read_problems(config.problems):
    text = problems.words(problem, config.prompt, config.function_prompt)
    prompt = tuple(tokenization.encode_prompt(tokenizer, text))
    requests += [
        engine_lib.Request(problem.problem_id, i, prompt)
        for i in range(config.sample.num_samples)
    ]
  return requests


def _completion(
    sample: engine_lib.Sample, tokenizer: tokenization.Tokenizer
) -> records.Completion:
  assert sample.finish_reason is not None
  return records.Completion(
      problem_id=sample.request.problem_id,
      sample_index=sample.request.sample_index,
      text=str(tokenizer.decode(sample.tokens)),
      finish_reason=sample.finish_reason,
      num_prompt_tokens=len(sample.request.prompt),
      tokens=tuple(sample.tokens),
      log_prob=sample.log_prob,
      log_prob_tempered=sample.log_prob_tempered,
  )


def _stops(
    config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer
) -> stops_lib.Stops:
  s = config.sample
  return stops_lib.Stops(
      decode=lambda tokens: str(tokenizer.decode(tokens)),
      strings=tuple(s.stop),
      after=s.stop_after,
      loop_tokens=s.loop_tokens,
  )


def _server(
    config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer
) -> remote.Server:
  """Returns the server that samples instead of an engine."""
  s = config.sample
  end_token: Any = tokenizer.eos_token_id
  encode = lambda text, **extra: tokenizer(text, **extra)['input_ids']
  asked = dialects.Asked(
      method=methods.of(s.temperature, s.top_p, s.top_k, s.min_p),
      seed=config.seed,
      end_token=end_token,
      max_new_tokens=s.max_new_tokens,
      encode=lambda text: encode(text, add_special_tokens=False),
      decode=lambda tokens: str(tokenizer.decode(tokens)),
      encode_prompt=encode,
      stops=_stops(config, tokenizer),
  )
  return remote.Server(
      s.server,
      asked,
      model=s.model,
      dialect=s.dialect,
      seeded=s.seeded,
      concurrency=s.concurrency,
      timeout_seconds=s.timeout_seconds,
      retries=s.retries,
      api_key=os.environ.get('VALLEY_API_KEY', ''),
  )


def _engine(
    config: mlc.ConfigDict,
    directory: str,
    requests: list[engine_lib.Request],
    tokenizer: tokenization.Tokenizer,
) -> engine_lib.Engine:
  """Loads the student and allocates slots for it."""
  s = config.sample
  end_token: Any = tokenizer.eos_token_id
  return engine_lib.Engine(
      *initial.trained(directory),
      method=methods.of(s.temperature, s.top_p, s.top_k, s.min_p),
      seed=config.seed,
      end_token=end_token,
      max_new_tokens=s.max_new_tokens,
      cache_len=engine_lib.cache_len(requests, s.max_new_tokens),
      num_slots=s.num_slots,
      chunk_len=s.chunk_len,
      prefill_rows=s.prefill_rows,
      dtype=s.dtype,
      stops=_stops(config, tokenizer),
  )


def _sample_missing(
    path: pathlib.Path,
    requests: list[engine_lib.Request],
    done: set[Key],
    engine: engine_lib.Engine | remote.Server,
    tokenizer: tokenization.Tokenizer,
) -> None:
  bar = metrics.progress(len(requests), 'sample', 'sample', initial=len(done))
  num_tokens = 0
  missing = [r for r in requests if (r.problem_id, r.sample_index) not in done]
  with records.Appender(path) as file:
    for sample in engine.run(missing):
      file.append(_completion(sample, tokenizer))
      num_tokens += len(sample.tokens)
      elapsed = bar.format_dict['elapsed'] or 1.0
      bar.set_postfix(tok_s=f'{num_tokens / elapsed:.0f}', refresh=False)
      bar.update(1)
  bar.close()


def _settings(
    config: mlc.ConfigDict, directory: str, shards: pathlib.Path
) -> dict[str, Any]:
  """Returns what samples depend on, besides the problems.

  Raises:
    ValueError: the student was not trained to the end, or it was trained with
      another prompt, template or tokenizer than it would be sampled with.
  """
  student = checkpoints.finished_identity(directory)
  manifest = records.read_json(shards / 'manifest.json')
  now = {**manifest, 'prompt': config.prompt}
  for name in ('prompt', 'template_sha256', 'tokenizer_sha256'):
    if name in student and student[name] != now[name]:
      raise ValueError(
          f'The student of {directory} was trained with {name}='
          f'{student[name]!r}, and would be sampled with {now[name]!r}; change'
          ' config.prompt, or name the shards that it was trained on'
          ' (config.shards).'
      )
  kept = ('num_slots', 'dtype')
  return {
      'student': student,
      **_method_settings(config),
      **{f'sample.{name}': config.sample[name] for name in kept},
  }


def _method_settings(config: mlc.ConfigDict) -> dict[str, Any]:
  kept = ('temperature', 'top_p', 'top_k', 'min_p', 'max_new_tokens')
  kept += ('stop_after', 'loop_tokens')
  return {
      'seed': config.seed,
      'function_prompt': config.function_prompt,
      **{f'sample.{name}': config.sample[name] for name in kept},
      'sample.stop': list(config.sample.stop),
  }


def _server_settings(
    config: mlc.ConfigDict,
    tokenizer: tokenization.Tokenizer,
    facts: remote.Facts,
) -> dict[str, Any]:
  """Returns what a server's samples depend on, besides the problems.

  Its address is not among it: the same model may be served elsewhere.
  """
  return {
      **{f'server.{k}': v for k, v in dataclasses.asdict(facts).items()},
      **_method_settings(config),
      'prompt': config.prompt,
      'template_sha256': tokenization.template_hash(tokenizer),
      'tokenizer_sha256': tokenization.tokenizer_hash(tokenizer),
  }


def _check(
    path: pathlib.Path,
    rows: list[records.Completion],
    requests: list[engine_lib.Request],
    max_new_tokens: int | None,
) -> None:
  """Refuses to go on with samples that this config would not draw.

  Where tokens were made of text, their number says nothing: `max_new_tokens`
  is None.
  """
  lengths = {(r.problem_id, r.sample_index): len(r.prompt) for r in requests}
  seen = set()

  def fault(row: records.Completion) -> str:
    if (key := records.key(row)) not in lengths:
      return 'is not asked for by config.problems and config.sample.num_samples'
    if key in seen:
      return 'occurs twice'
    if row.num_prompt_tokens != lengths[key]:
      return (
          f'has a prompt of {row.num_prompt_tokens} tokens, now it has'
          f' {lengths[key]}'
      )
    if max_new_tokens is None:
      return ''
    is_truncated = row.finish_reason is records.FinishReason.LENGTH
    if len(row.tokens) > max_new_tokens or (
        is_truncated and len(row.tokens) != max_new_tokens
    ):
      return f'ends at {len(row.tokens)} tokens, not at {max_new_tokens}'
    return ''

  for row in rows:
    if reason := fault(row):
      raise ValueError(
          f'{path}: sample {records.key(row)} {reason}; take another --workdir,'
          ' or remove that file.'
      )
    seen.add(records.key(row))


def sample(config: mlc.ConfigDict, workdir: str) -> None:
  """Draws the missing samples; see the module's docstring.

  Raises:
    ValueError: completions.jsonl holds samples of another config or student.
    remote.ServerError: a server is away; what is there stays.
  """
  shards = pathlib.Path(config.shards or f'{workdir}/shards')
  directory = config.checkpoint or f'{workdir}/checkpoints'
  hf_directory = config.shards.removeprefix('hf:')
  is_hf = bool(config.sample.server) and hf_directory != config.shards
  tokenizer = tokenization.load(hf_directory if is_hf else shards / 'tokenizer')
  requests = _requests(config, tokenizer)
  path = pathlib.Path(workdir) / 'completions.jsonl'
  server, max_new_tokens = None, config.sample.max_new_tokens
  if config.sample.server:
    server = _server(config, tokenizer)
    facts = server.learn(requests[0])
    settings = _server_settings(config, tokenizer, facts)
    max_new_tokens = max_new_tokens if facts.tokens_from == 'ids' else None
  else:
    settings = _settings(config, directory, shards)
  records.claim(path.with_name('sampling.json'), settings)
  records.repair_torn_tail(path)
  rows = (
      list(records.read_rows(path, records.Completion)) if path.exists() else []
  )
  _check(path, rows, requests, max_new_tokens)
  done = {records.key(row) for row in rows}
  if server and len(done) < len(requests):
    _sample_missing(path, requests, done, server, tokenizer)
    rows = list(records.read_rows(path, records.Completion))
  elif len(done) < len(requests):
    with jax.set_mesh(partitioning.make_mesh(**config.mesh)):
      engine = _engine(config, directory, requests, tokenizer)
      _sample_missing(path, requests, done, engine, tokenizer)
    rows = list(records.read_rows(path, records.Completion))
  # In the problems' order, whatever the order of finishing was.
  wanted = {(r.problem_id, r.sample_index): n for n, r in enumerate(requests)}
  ordered = sorted(rows, key=lambda row: wanted[records.key(row)])
  if ordered != rows or not path.exists():
    records.write_rows(path, ordered)
  truncated = sum(
      row.finish_reason is records.FinishReason.LENGTH for row in ordered
  )
  looping = sum(row.finish_reason is records.FinishReason.LOOP for row in rows)
  print(
      f'sample: {len(ordered):,} completions, {truncated:,} truncated,'
      f' {looping:,} cut off in a loop.'
  )


if __name__ == '__main__':
  entry.run(sample)
