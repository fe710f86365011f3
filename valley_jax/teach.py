"""Has a teacher write traces: several solutions a question, thinking included.

    vllm serve TEACHER_DIR --generation-config vllm
    python -m valley_jax.teach --config configs/valley.py --workdir TEACH \\
        --config.problems=taco:TACO --config.sample.num_samples=4 \\
        --config.sample.server=http://HOST:8000/v1 \\
        --config.shards=hf:TEACHER_DIR --config.teacher=QwQ-32B
    python -m valley_jax.shard ... --config.traces=jsonl:TEACH/traces.jsonl

Reads   what `sample` reads: problems, the words in which they are put
        (config.prompt), how samples are drawn (config.sample), and a server, or
        a local model (config.checkpoint with its config.shards)
        config.teacher     its name; '': the name of the served model
Writes  what `sample` writes, and of it
        TEACH/traces.jsonl     the samples that ended by themselves, as traces
        TEACH/truncated.jsonl  the others, which are no traces, with reasons
        TEACH/teacher.json     who wrote them, how, and how many

config.sample.num_samples is the number of traces a question. A trace has the
question without the words around it, the teacher, its method and the hash of
the words that it was asked in; its id is TEACHER/PROBLEM/SAMPLE-DIGEST, where
the digest is that of sampling.json: two runs with other seeds share no id. A
`<think>` that the teacher's chat template has begun stands in the trace.

Killed, the next run draws the missing samples; a run that is done changes
nothing. More samples can be asked for later.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

import collections
from collections.abc import Iterator
import contextlib
import filecmp
import hashlib
import json
import os
import pathlib
from typing import Any, BinaryIO

import jax
import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax import sample
from valley_jax.data.formats import problems
from valley_jax.runtime import hosts

_ENDED = (records.FinishReason.EOS, records.FinishReason.STOP)


def _question(problem: records.Problem) -> str:
  """Returns what a student will be asked, without the words around it."""
  stub = f'\n\n```python\n{problem.stub}\n```' if problem.stub else ''
  return problem.statement + stub


def _method(drawn: dict[str, Any]) -> str:
  """Returns how samples were drawn: `temperature=0.6, top_p=0.95, ...`."""
  names = [name for name in drawn if name.startswith('sample.')]
  names += ['seed', *(['server.seeded'] if 'server.seeded' in drawn else [])]
  pairs = ((name.rpartition('.')[2], json.dumps(drawn[name])) for name in names)
  return ', '.join(f'{name}={value}' for name, value in pairs)


def _digest(drawn: dict[str, Any]) -> str:
  """Returns 8 hex digits of all that the samples depend on."""
  text = json.dumps(drawn, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens a file that appears whole, and only if its bytes are new."""
  # One name for all writers: what a kill leaves, the next run writes over.
  scratch = path.with_name(f'.{path.name}.tmp')
  with open(scratch, 'wb') as f:
    yield f
    f.flush()
    os.fsync(f.fileno())
  if path.exists() and filecmp.cmp(path, scratch, shallow=False):
    scratch.unlink()
  else:
    os.replace(scratch, path)


def _cut_off(trace: records.Trace, row: records.Completion) -> dict[str, Any]:
  """Returns the row of a sample that is no trace."""
  return {
      'trace_id': trace.trace_id,
      'problem_id': trace.problem_id,
      'reason': row.finish_reason.value,
      'num_tokens': len(row.tokens),
      'response': trace.response,
  }


def _write(
    place: pathlib.Path, asked: dict[str, records.Trace], digest: str
) -> collections.Counter[str]:
  """Writes traces and truncated samples; returns how many ended how.

  Args:
    place: Where the completions are.
    asked: By problem id, all of its traces but id and response.
    digest: The end of each id.
  """
  counts: collections.Counter[str] = collections.Counter()
  rows = jsonl.read_rows(place / 'completions.jsonl', records.Completion)
  with _whole(place / 'traces.jsonl') as traces, _whole(place / 'truncated.jsonl') as truncated:
    for row in rows:
      stem = asked[row.problem_id]
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
        truncated.write(records.to_json(_cut_off(trace, row)) + b'\n')
  return counts


def _stems(found: list[records.Problem], teacher: str, method: str) -> dict[str, records.Trace]:
  """Returns by problem id what all of its traces have."""
  return {
      problem.problem_id: records.Trace(
          trace_id=f'{teacher}/{problem.problem_id}',
          problem_id=problem.problem_id,
          question=_question(problem),
          response='',
          teacher=teacher,
          difficulty=problem.difficulty,
          source=problem.source,
          method=method,
      )
      for problem in found
  }


def teach(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/traces.jsonl; see the module's docstring.

  Raises:
    ValueError: a local teacher without a name, no sample that ended, or what
      `sample` refuses.
  """
  if not config.teacher and not config.sample.server:
    raise errors.UserError('config.teacher is empty; name the local model that writes the traces.')
  sample.sample(config, workdir)
  if jax.process_index():
    return
  place = pathlib.Path(workdir)
  drawn = jsonl.read_json(place / 'sampling.json')
  teacher = config.teacher or drawn['server.model']
  method = _method(drawn)
  found = problems.read_problems(config.problems)
  asked = _stems(found, teacher, method)
  counts = _write(place, asked, _digest({**drawn, 'teacher': teacher}))
  num_traces = sum(counts[reason.value] for reason in _ENDED)
  num_truncated = counts.total() - num_traces
  if not num_traces:
    raise errors.UserError(
        f'None of the {counts.total():,} samples ended before'
        f' config.sample.max_new_tokens={config.sample.max_new_tokens:,}; raise'
        ' it and take another --workdir. They are in'
        f' {place}/truncated.jsonl.'
    )
  # Last: it says that all the rest is there.
  summary = {
      'teacher': teacher,
      'method': method,
      'num_problems': len(found),
      'num_traces': num_traces,
      'num_truncated': num_truncated,
      'finish_reasons': dict(sorted(counts.items())),
  }
  jsonl.write_json(place / 'teacher.json', summary)
  print(
      f'teach: {num_traces:,} traces of {len(found):,} problems by {teacher};'
      f' {num_truncated:,} truncated (truncated.jsonl).'
  )


if __name__ == '__main__':
  hosts.join_processes(os.environ)
  entry.run(teach)
