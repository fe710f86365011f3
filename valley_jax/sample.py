"""Samples solutions from a student.

    python -m valley_jax.sample --config configs/valley.py --workdir RUN \\
        --config.problems=humaneval:HumanEval.jsonl.gz \\
        --config.shards=DATA/shards

Reads   config.problems    FORMAT:PATH; the statements
        config.prompt      the prompt around them: ocr, livecodebench, plain, or
                           file:PATH of your own; the one that the student was
                           trained with
        config.checkpoint  (default RUN/checkpoints) the student, with its own
                           description
        config.shards      (default RUN/shards) its tokenizer
Writes  RUN/completions.jsonl  text, finish reason and tokens of
                               config.sample.num_samples samples a problem
        RUN/sampling.json      which student, and how; other settings are refused
        RUN/samples            during the run: each process's own samples
        RUN/tensorboard        lengths, and some texts

How tokens are drawn, config.sample: at a temperature (0: greedy), from those
that pass top_k, top_p and min_p, in this order. How a sample ends: by the
student's end token (finish reason eos); at one of the strings of stop, after
stop_after (stop); at max_new_tokens (length), which is a truncated sample; or,
with loop_tokens, when it repeats one phrase (loop).

All samples begin in slots as long as the first of config.sample.stages; those
that outgrow them go on in longer and fewer slots. There are num_slots slots, or
as many as fit the memory, which is printed.

A sample depends on the student, the problem, its index, config.seed and the
stages' lengths, not on what else is sampled. Finished samples are appended as
they come; after a kill, the next run draws the missing ones, and the file ends
up in the problems' order, the same as without the interruption. An unfinished
sample resumes from its last stage (resume=exact: the same bits), or from the
last flush, every flush_seconds (resume=fast: as likely, but other bits).

Several processes (JAX_COORDINATOR_ADDRESS, …; or a TPU pod) share the samples
by a hash; each has its own engine on its own devices, and the file is the same
as one process writes. All of them must see RUN.

With --config.sample.server=http://HOST:8000/v1 a server such as vLLM draws the
samples: no checkpoint is read, and config.shards, or hf:DIR in its place, names
the tokenizer of the served model. sampling.json records the model, whether
requests were seeded, and whether tokens came as ids or were made from text;
valley_jax/sampling/remote.py tells how to start a server. VALLEY_API_KEY in the
environment is its key, if it needs one.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
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
from valley_jax import rollouts
from valley_jax.data.problem_formats import problems
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization
from valley_jax.models import initial
from valley_jax.runtime import checkpoints
from valley_jax.runtime import hosts
from valley_jax.runtime import storage
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import output
from valley_jax.sampling import protocol
from valley_jax.sampling import remote
from valley_jax.sampling import samples as samples_lib
from valley_jax.sampling import settings as settings_lib

# Settings that samples of a student and of a server both depend on.
_METHOD_FIELDS = (
    'temperature',
    'top_p',
    'top_k',
    'min_p',
    'max_new_tokens',
    'stop_after',
    'loop_tokens',
)

DrawSamples = Callable[[output.SampleProgress], Iterator[samples_lib.Sample]]


def _assign_process(request: samples_lib.Request, num_processes: int) -> int:
  """Returns the index of the process that draws a sample."""
  text = f'{request.problem_id}\0{request.sample_index}'.encode()
  digest = hashlib.blake2b(text, digest_size=8).digest()
  return int.from_bytes(digest, 'little') % num_processes


def _find_opened_think(config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer) -> str:
  """Returns the `<think>` that prompts end with, if the template opens it."""
  system = prompts.load_prompt(config.prompt).system
  return templates.find_opened_think(templates.render_prompt(tokenizer, 'Why?', system))


def _make_completion(
    sample: samples_lib.Sample,
    tokenizer: tokenization.Tokenizer,
    prompt_sha256: str,
    opened_think: str,
) -> records.Completion:
  assert sample.finish_reason is not None
  return records.Completion(
      problem_id=sample.request.problem_id,
      sample_index=sample.request.sample_index,
      # Thinking that the prompt has opened belongs to the completion.
      text=opened_think + str(tokenizer.decode(sample.tokens)),
      finish_reason=sample.finish_reason,
      num_prompt_tokens=len(sample.request.prompt),
      tokens=tuple(sample.tokens),
      log_prob=sample.log_prob,
      log_prob_tempered=sample.log_prob_tempered,
      prompt_sha256=prompt_sha256,
  )


def _describe_method(config: mlc.ConfigDict, template_sha256: str) -> dict[str, Any]:
  prompt = prompts.load_prompt(config.prompt)
  return {
      'seed': config.seed,
      'prompt': prompt.name,
      'prompt_sha256': prompts.hash_prompt(prompt, template_sha256),
      **{f'sample.{name}': config.sample[name] for name in _METHOD_FIELDS},
      'sample.stop': list(config.sample.stop),
  }


def _describe_student_run(
    config: mlc.ConfigDict, checkpoint_dir: str, shards_dir: pathlib.Path
) -> dict[str, Any]:
  """Returns what an engine's samples depend on, besides the problems.

  Raises:
    UserError: the student was not trained to the end, or was trained with another prompt, template
      or tokenizer than it would be sampled with.
  """
  student = checkpoints.read_finished_identity(checkpoint_dir)
  manifest = jsonl.read_json(shards_dir / 'manifest.json')
  method = _describe_method(config, manifest['template_sha256'])
  current = {**manifest, **method}
  # prompt_sha256 comes last: it differs, too, where the template does.
  for name in ('template_sha256', 'tokenizer_sha256', 'prompt_sha256'):
    if student.get(name) != current[name]:
      raise errors.UserError(
          f'The student of {checkpoint_dir} was trained with {name}={student.get(name)!r} (prompt='
          f'{student.get("prompt")!r}), but would be sampled with {current[name]!r} (prompt='
          f'{current["prompt"]!r}); change config.prompt, or name the shards that it was trained on'
          ' (config.shards).'
      )
  return {
      'student': student,
      **method,
      'sample.dtype': config.sample.dtype,
      'sample.stages': list(config.sample.stages),
  }


def _describe_server_run(
    config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer, facts: protocol.ServerFacts
) -> dict[str, Any]:
  """Returns what a server's samples depend on, besides the problems.

  Its address is not part of it: the same model may be served elsewhere.
  """
  template_sha256 = tokenization.hash_chat_template(tokenizer)
  return {
      **{f'server.{k}': v for k, v in dataclasses.asdict(facts).items()},
      **_describe_method(config, template_sha256),
      'template_sha256': template_sha256,
      'tokenizer_sha256': tokenization.hash_tokenizer(tokenizer),
  }


def _check_done_samples(
    path: pathlib.Path,
    rows: Sequence[records.Completion],
    requests: Sequence[samples_lib.Request],
    max_new_tokens: int | None,
    prompt_sha256: str,
) -> None:
  """Refuses to continue with samples that this config would not draw.

  Args:
    path: The file, for the message.
    rows: The samples that are done.
    requests: All samples of the run.
    max_new_tokens: None where tokens were made from text, so that their number says nothing.
    prompt_sha256: Hash of the run's prompt.

  Raises:
    UserError: a sample is not one of the run.
  """
  lengths = {request.key: len(request.prompt) for request in requests}

  def find_fault(row: records.Completion) -> str:
    if (key := records.sample_key(row)) not in lengths:
      return 'is not asked for by config.problems and config.sample.num_samples'
    if row.num_prompt_tokens != lengths[key]:
      return f'has a prompt of {row.num_prompt_tokens} tokens, now it has {lengths[key]}'
    if row.prompt_sha256 != prompt_sha256:
      return f'was asked with prompt_sha256={row.prompt_sha256!r}, now it is {prompt_sha256!r}'
    if max_new_tokens is None:
      return ''
    is_truncated = row.finish_reason is records.FinishReason.LENGTH
    if len(row.tokens) > max_new_tokens or (is_truncated and len(row.tokens) != max_new_tokens):
      return f'ends at {len(row.tokens)} tokens, not at {max_new_tokens}'
    return ''

  for row in rows:
    if fault := find_fault(row):
      raise errors.UserError(
          f'{path}: sample {records.sample_key(row)} {fault}; take another --workdir, or remove'
          ' that file.'
      )


def _resume_samples(
    config: mlc.ConfigDict, files: output.SampleFiles, missing: Sequence[samples_lib.Request]
) -> tuple[list[samples_lib.Sample], list[samples_lib.Request]]:
  """Returns the missing samples that can resume, and the requests of those that begin."""
  if config.sample.resume not in ('exact', 'fast'):
    raise errors.UserError(f'config.sample.resume={config.sample.resume!r} is not exact or fast.')
  partials = files.read_partials(config.sample.resume == 'exact')
  begun, new = [], []
  for request in missing:
    row = partials.get(request.key)
    if row is None or not row.tokens:
      new.append(request)
      continue
    sample = samples_lib.Sample(request, list(row.tokens))
    sample.log_prob = row.log_prob
    sample.log_prob_tempered = row.log_prob_tempered
    begun.append(sample)
  return begun, new


def _prepare_engine(
    config: mlc.ConfigDict,
    checkpoint_dir: str,
    tokenizer: tokenization.Tokenizer,
    files: output.SampleFiles,
    longest_prompt: int,
    missing: Sequence[samples_lib.Request],
) -> DrawSamples:
  """Returns a function that draws the missing samples on this process's devices."""
  settings = settings_lib.SampleSettings.from_config(config.sample, config.seed)
  begun, new = _resume_samples(config, files, missing)

  def draw_samples(progress: output.SampleProgress) -> Iterator[samples_lib.Sample]:
    with jax.set_mesh(engine_lib.make_local_mesh(settings.tp)):
      student, params = initial.load_trained(checkpoint_dir)
      engine = engine_lib.build_engine(
          settings, student, params, tokenizer, longest_prompt=longest_prompt, delete_params=True
      )
      progress.print_line(engine.describe_stages(new))

      def flush_live() -> None:
        progress.show_state(engine.state)
        if progress.is_flush_due(config.sample.flush_seconds):
          files.write_live(engine.list_live())

      yield from engine.draw_samples(new, begun, flush_live)

  return draw_samples


def _write_samples(
    draw_samples: DrawSamples,
    files: output.SampleFiles,
    make_completion: Callable[[samples_lib.Sample], records.Completion],
    num_done: int,
    num_missing: int,
) -> None:
  """Writes samples as they come."""
  progress = output.SampleProgress(num_done, num_done + num_missing)
  with files:
    for sample in draw_samples(progress):
      if sample.finish_reason is None:
        files.append_grown(sample)
        continue
      files.append_done(make_completion(sample))
      progress.count_sample(sample)
  progress.close()


def read_tokenizer(config: mlc.ConfigDict, workdir: str) -> tuple[pathlib.Path, Any]:
  """Returns the directory of the shards, and their tokenizer."""
  if config.sample.server and config.shards.startswith('hf:'):
    directory = config.shards.removeprefix('hf:')
    return pathlib.Path(directory), tokenization.load_tokenizer(directory)
  shards_dir = pathlib.Path(config.shards or f'{workdir}/shards')
  return shards_dir, tokenization.load_tokenizer(shards_dir / 'tokenizer')


def _connect_server(config: mlc.ConfigDict, tokenizer: tokenization.Tokenizer) -> remote.Server:
  return remote.Server(
      settings_lib.ServerSettings.from_config(config.sample),
      settings_lib.SampleSettings.from_config(config.sample, config.seed),
      tokenizer,
      os.environ.get('VALLEY_API_KEY', ''),
  )


def sample(config: mlc.ConfigDict, workdir: str) -> None:
  """Draws the missing samples; see the module's docstring.

  Raises:
    UserError: completions.jsonl holds samples of another config or student.
    ServerError: a server is unreachable; samples that are done stay.
  """
  checkpoint_dir = config.checkpoint or f'{workdir}/checkpoints'
  shards_dir, tokenizer = read_tokenizer(config, workdir)
  requests = rollouts.write_requests(
      problems.read_problems(config.problems),
      tokenizer,
      prompts.load_prompt(config.prompt),
      config.sample.num_samples,
  )
  max_new_tokens = config.sample.max_new_tokens
  server = None
  if config.sample.server:
    server = _connect_server(config, tokenizer)
    facts = server.learn_facts(requests[0])
    description = _describe_server_run(config, tokenizer, facts)
    max_new_tokens = max_new_tokens if facts.tokens_from == 'ids' else None
  else:
    description = _describe_student_run(config, checkpoint_dir, shards_dir)
  files = _claim_files(workdir, description)
  rows = files.read_done()
  _check_done_samples(
      files.completions, rows, requests, max_new_tokens, description['prompt_sha256']
  )
  done = {records.sample_key(row) for row in rows}
  missing = [request for request in requests if request.key not in done]
  own = [
      request
      for request in missing
      if _assign_process(request, jax.process_count()) == jax.process_index()
  ]
  if server:
    draw_samples: DrawSamples = lambda progress: server.draw_samples(own)
  else:
    longest = max(len(request.prompt) for request in requests)
    draw_samples = _prepare_engine(config, checkpoint_dir, tokenizer, files, longest, own)
  hosts.wait_for_processes('samples are drawn')
  # A process without a sample of its own takes part: reading the student takes all processes.
  if missing:
    make_completion = functools.partial(
        _make_completion,
        tokenizer=tokenizer,
        prompt_sha256=description['prompt_sha256'],
        opened_think=_find_opened_think(config, tokenizer),
    )
    _write_samples(draw_samples, files, make_completion, len(done), len(own))
  hosts.wait_for_processes('samples are put together')
  if jax.process_index() == 0:
    rows = files.merge_done(files.read_done(), {r.key: n for n, r in enumerate(requests)})
    if missing:
      output.write_tensorboard(workdir, rows)
    print(output.summarize_samples(rows))
  hosts.wait_for_processes('samples are there')


def _claim_files(workdir: str, description: dict[str, Any]) -> output.SampleFiles:
  """Returns the files of a run that has been begun with this description, or begins now.

  Raises:
    UserError: the run was begun with another description.
  """
  path = pathlib.Path(workdir) / 'sampling.json'
  files = output.SampleFiles(path.parent, jax.process_index())
  if jax.process_index() == 0:
    storage.claim_directory(path, description)
    files.repair_torn_lines()
  # No process reads while process 0 repairs.
  hosts.wait_for_processes('samples are being read')
  storage.claim_directory(path, description)
  return files


if __name__ == '__main__':
  hosts.join_processes(os.environ)
  entry.run(sample)
