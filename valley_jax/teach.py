"""Has a teacher write traces: several solutions a question, thinking included.

    vllm serve TEACHER_DIR --generation-config vllm
    python -m valley_jax.teach --config configs/valley.py --workdir TEACH \\
        --config.problems=taco:TACO --config.sample.num_samples=4 \\
        --config.sample.server=http://HOST:8000/v1 \\
        --config.shards=hf:TEACHER_DIR --config.teacher=QwQ-32B
    python -m valley_jax.shard ... --config.traces=jsonl:TEACH/traces.jsonl

Reads   the inputs of `sample`: problems, the texts in which they are put (config.prompt), how
        samples are drawn (config.sample), and a server, or a local model (config.checkpoint with
        its config.shards)
        config.teacher     its name; '': the name of the served model
Writes  the outputs of `sample`, and from these
        TEACH/traces.jsonl     the samples that ended by themselves, as traces
        TEACH/truncated.jsonl  the others, which are not traces, with reasons
        TEACH/teacher.json     who wrote them, how, and how many

config.sample.num_samples is the number of traces a question. A trace has the question without the
prompt's texts, the teacher, its method and the hash of the prompt; its id is
TEACHER/PROBLEM/SAMPLE-DIGEST, where the digest is that of sampling.json, so that two runs with
different seeds share no id. A `<think>` that the teacher's chat template has opened is part of the
trace.

After a kill, the next run draws the missing samples; a second run on a finished workdir changes
nothing. More samples can be drawn later.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

import collections
import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax import sample
from valley_jax.data.problem_formats import problems
from valley_jax.runtime import hosts

_ENDED = (records.FinishReason.EOS, records.FinishReason.STOP)


def _build_question(problem: records.Problem) -> str:
  """Returns what a student will be asked, without the prompt's texts."""
  stub = f'\n\n```python\n{problem.stub}\n```' if problem.stub else ''
  return problem.statement + stub


def _describe_method(sampling: dict[str, Any]) -> str:
  """Returns how samples were drawn: `temperature=0.6, top_p=0.95, ...`."""
  names = [name for name in sampling if name.startswith('sample.')]
  names += ['seed', *(['server.seeded'] if 'server.seeded' in sampling else [])]
  pairs = ((name.rpartition('.')[2], json.dumps(sampling[name])) for name in names)
  return ', '.join(f'{name}={value}' for name, value in pairs)


def _hash_sampling(sampling: dict[str, Any]) -> str:
  """Returns 8 hex digits of everything that the samples depend on."""
  text = json.dumps(sampling, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def _build_truncated_row(trace: records.Trace, row: records.Completion) -> dict[str, Any]:
  return {
      'trace_id': trace.trace_id,
      'problem_id': trace.problem_id,
      'reason': row.finish_reason.value,
      'num_tokens': len(row.tokens),
      'response': trace.response,
  }


def _write_traces(
    directory: pathlib.Path, stems: dict[str, records.Trace], digest: str
) -> collections.Counter[str]:
  """Writes traces and truncated samples; returns the number of samples by finish reason.

  Args:
    directory: Directory of the completions.
    stems: Traces by problem id, without the response and the end of the id.
    digest: The end of each id.
  """
  counts: collections.Counter[str] = collections.Counter()
  completions = jsonl.read_rows(directory / 'completions.jsonl', records.Completion)
  with (
      jsonl.open_atomically(directory / 'traces.jsonl', keep_if_equal=True) as traces,
      jsonl.open_atomically(directory / 'truncated.jsonl', keep_if_equal=True) as truncated,
  ):
    for row in completions:
      stem = stems[row.problem_id]
      trace = records.replace(
          stem,
          trace_id=f'{stem.trace_id}/{row.sample_index}-{digest}',
          response=row.text,
          prompt_sha256=row.prompt_sha256,
      )
      counts[row.finish_reason.value] += 1
      if row.finish_reason in _ENDED:
        traces.write(records.to_json(trace) + b'\n')
      else:
        truncated.write(records.to_json(_build_truncated_row(trace, row)) + b'\n')
  return counts


def _build_stems(
    all_problems: list[records.Problem], teacher: str, method: str
) -> dict[str, records.Trace]:
  """Returns, by problem id, what all traces of a problem have in common."""
  return {
      problem.problem_id: records.Trace(
          trace_id=f'{teacher}/{problem.problem_id}',
          problem_id=problem.problem_id,
          question=_build_question(problem),
          response='',
          teacher=teacher,
          difficulty=problem.difficulty,
          source=problem.source,
          method=method,
      )
      for problem in all_problems
  }


def teach(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/traces.jsonl; see the module's docstring.

  Raises:
    UserError: a local teacher has no name, no sample ended, or `sample` refuses the config.
  """
  if not config.teacher and not config.sample.server:
    raise errors.UserError('config.teacher is empty; name the local model that writes the traces.')
  sample.sample(config, workdir)
  if jax.process_index():
    return
  directory = pathlib.Path(workdir)
  sampling = jsonl.read_json(directory / 'sampling.json')
  teacher = config.teacher or sampling['server.model']
  method = _describe_method(sampling)
  all_problems = problems.read_problems(config.problems)
  stems = _build_stems(all_problems, teacher, method)
  counts = _write_traces(directory, stems, _hash_sampling({**sampling, 'teacher': teacher}))
  num_traces = sum(counts[reason.value] for reason in _ENDED)
  num_truncated = counts.total() - num_traces
  if not num_traces:
    raise errors.UserError(
        f'None of the {counts.total():,} samples ended before config.sample.max_new_tokens='
        f'{config.sample.max_new_tokens:,}; raise it and take another --workdir. They are in'
        f' {directory}/truncated.jsonl.'
    )
  # Last: it says that everything else is there.
  summary = {
      'teacher': teacher,
      'method': method,
      'num_problems': len(all_problems),
      'num_traces': num_traces,
      'num_truncated': num_truncated,
      'finish_reasons': dict(sorted(counts.items())),
  }
  jsonl.write_json(directory / 'teacher.json', summary)
  print(
      f'teach: {num_traces:,} traces of {len(all_problems):,} problems by {teacher};'
      f' {num_truncated:,} truncated (truncated.jsonl).'
  )


if __name__ == '__main__':
  hosts.join_processes(os.environ)
  entry.run(teach)
