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

How it is drawn, config.sample: temperature (0: greedy), and of the tokens those
that pass top_k, top_p and min_p, in this order. How it ends: by the student's
end token (finish reason eos); at one of the strings stop, behind stop_after
(stop); at max_new_tokens (length), which is a truncated sample; or, with
loop_tokens, when it says the same over and over (loop).

A sample depends on the student, the problem, its index and config.seed, not on
what else is sampled. Finished samples are appended as they come; killed, the
next run draws the missing ones, and the file ends up in the problems' order,
the same as without the interruption.
"""

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
from valley_jax.data import prompts
from valley_jax.data import tokenization
from valley_jax.sampling import begin
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import request as request_lib

Key = tuple[str, int]


def _requests(
    config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer
) -> list[request_lib.Request]:
  """Returns every sample of the run, in the order of the file."""
  requests, prompt = [], prompts.load(config.prompt)
  for problem in problems.read_problems(config.problems):
    text = prompts.words(prompt, problem)
    tokens = tokenization.encode_prompt(tokenizer, text, prompt.system)
    requests += [
        request_lib.Request(problem.problem_id, i, tuple(tokens))
        for i in range(config.sample.num_samples)
    ]
  return requests


def _completion(
    sample: request_lib.Sample,
    tokenizer: tokenization.Tokenizer,
    prompt_sha256: str,
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
      prompt_sha256=prompt_sha256,
  )


def _sample_missing(
    path: pathlib.Path,
    requests: list[request_lib.Request],
    done: set[Key],
    engine: engine_lib.Engine,
    tokenizer: tokenization.Tokenizer,
    prompt_sha256: str,
) -> None:
  bar = metrics.progress(len(requests), 'sample', 'sample', initial=len(done))
  num_tokens = 0
  missing = [r for r in requests if (r.problem_id, r.sample_index) not in done]
  with records.Appender(path) as file:
    for sample in engine.run(missing):
      file.append(_completion(sample, tokenizer, prompt_sha256))
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
  prompt = prompts.load(config.prompt)
  prompt_sha256 = prompts.sha256(prompt, manifest['template_sha256'])
  now = {**manifest, 'prompt': prompt.name, 'prompt_sha256': prompt_sha256}
  # The last: it is another, too, where the template is.
  for name in ('template_sha256', 'tokenizer_sha256', 'prompt_sha256'):
    if student.get(name) != now[name]:
      raise ValueError(
          f'The student of {directory} was trained with {name}='
          f'{student.get(name)!r} (prompt={student.get("prompt")!r}), and would'
          f' be sampled with {now[name]!r} (prompt={prompt.name!r}); change'
          ' config.prompt, or name the shards that it was trained on'
          ' (config.shards).'
      )
  kept = ('temperature', 'top_p', 'top_k', 'min_p', 'max_new_tokens')
  kept += ('dtype', 'stop_after', 'loop_tokens')
  return {
      'student': student,
      'seed': config.seed,
      'prompt': prompt.name,
      'prompt_sha256': prompt_sha256,
      **{f'sample.{name}': config.sample[name] for name in kept},
      'sample.stop': list(config.sample.stop),
      'sample.stages': list(config.sample.stages),
  }


def _check(
    path: pathlib.Path,
    rows: list[records.Completion],
    requests: list[request_lib.Request],
    max_new_tokens: int,
    prompt_sha256: str,
) -> None:
  """Refuses to go on with samples that this config would not draw."""
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
    if row.prompt_sha256 != prompt_sha256:
      return (
          f'was asked in words of prompt_sha256={row.prompt_sha256!r}, now they'
          f' have {prompt_sha256!r}'
      )
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
  """
  shards = pathlib.Path(config.shards or f'{workdir}/shards')
  directory = config.checkpoint or f'{workdir}/checkpoints'
  tokenizer = tokenization.load(shards / 'tokenizer')
  requests = _requests(config, tokenizer)
  path = pathlib.Path(workdir) / 'completions.jsonl'
  settings = _settings(config, directory, shards)
  records.claim(path.with_name('sampling.json'), settings)
  records.repair_torn_tail(path)
  rows = (
      list(records.read_rows(path, records.Completion)) if path.exists() else []
  )
  prompt_sha256 = settings['prompt_sha256']
  _check(path, rows, requests, config.sample.max_new_tokens, prompt_sha256)
  done = {records.key(row) for row in rows}
  if len(done) < len(requests):
    with jax.set_mesh(partitioning.make_mesh(**config.mesh)):
      engine = begin.engine(
          config,
          *initial.trained(directory),
          tokenizer,
          longest_prompt=max(len(r.prompt) for r in requests),
          give_up=True,
      )
      _sample_missing(path, requests, done, engine, tokenizer, prompt_sha256)
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
