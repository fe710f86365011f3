"""plan: compiles a run's steps for TPUs that are not there; says what fits.

  python -m valley_jax.plan --config configs/valley.py:student=qwen2_5_7b \\
    --topology v5p:2x2x2,v6e:4x4 --remat full,attention --rows 1,2

Needs the extra `tpu` (the compiler; no TPU). For each topology (v4, v5e, v5p or v6e; `2*v6e:4x4`
for two slices), remat policy and number of rows that a chip takes at a time, it compiles the very
step that `train` would run, and prints for each chip

  arguments     parameters, optimiser state and batch, GB
  temporaries   activations, gradients, gathered parameters, GB
  peak          the most that is in HBM at once, and its share of the HBM
  TFLOP         matrix products that it computes, recomputed ones included
  HBM           GB that must pass through HBM at least
  bound         the step's time if it did the slower of these two at full speed and the other
                meanwhile; and the MFU and tokens/s that this allows

and recommends, for each topology, the fastest that leaves 4 % of HBM free. `--decode` also compiles
a chunk of `sample`, for prompts of up to 1,024 tokens. `--output FILE` keeps all figures as JSON. A
bound is a bound: a real step takes longer, and waits for other chips besides.

A 7B student at 32k tokens takes a minute or two a line on two cores.
"""

from absl import flags

from valley_jax.runtime import entry

if __name__ == '__main__':
  flags.DEFINE_list('topology', None, 'KIND:SHAPE,…', required=True)
  flags.DEFINE_list('remat', [], "Policies; default: the config's.")
  flags.DEFINE_list('rows', ['1'], 'Rows a chip takes at a time.')
  flags.DEFINE_bool('decode', False, 'Compile a chunk of sample, too.')
  flags.DEFINE_string('output', '', 'A JSON file for all figures.')
  entry.answer_help(needs_workdir=False)  # Ahead of the imports below, which take seconds.

from collections.abc import Sequence
import dataclasses
import itertools
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax.data import batching
from valley_jax.models import student as student_lib
from valley_jax.planning import arithmetic
from valley_jax.planning import programs
from valley_jax.runtime import metrics
from valley_jax.runtime import partitioning
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.training import program as program_lib

_PROMPT_LEN = 1024  # Tokens of the longest problem, for the cache of decoding.
_MAX_HBM_SHARE = 0.96  # A run needs some HBM that the compiler does not know of.
_HEADER = (
    'topology',
    'program',
    'remat',
    'rows x accumulate',
    'arguments',
    'temporaries',
    'peak, GB',
    'of HBM',
    'TFLOP',
    'HBM, GB',
    'bound, s',
    'by',
    'MFU bound',
    'tokens/s/chip',
)


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One way to run a program, and what it needs of each chip."""

  topology: str
  program: str  # train or decode
  remat: str
  rows: int  # Rows of a micro-batch on one chip; for decoding, slots.
  accumulate: int
  needs: programs.Needs
  bound: arithmetic.Bound | None  # None: the compiler refused it.

  @property
  def share_of_hbm(self) -> float:
    return self.needs.peak / arithmetic.parse_topology(self.topology).chip.hbm_bytes

  @property
  def fits(self) -> bool:
    return self.bound is not None and self.share_of_hbm <= _MAX_HBM_SHARE


def preset_student(config: mlc.ConfigDict) -> student_lib.Student:
  """Returns the config's student with the vocabulary of its preset."""
  student = student_lib.find_preset(config.student)
  student = student_lib.build_preset(config.student, student.vocab_size, config.vocab_multiple)
  settings = program_lib.TrainSettings.from_config(config.train, config.attention)
  return dataclasses.replace(student, lora=settings.lora)


def _make_train_mesh(config: mlc.ConfigDict, topology: arithmetic.Topology) -> jax.sharding.Mesh:
  """Returns the config's mesh over a topology; each slice holds at least one replica."""
  sizes = {**config.mesh.to_dict(), 'slices': topology.num_slices}
  if sizes['data'] != -1:
    sizes['data'] = max(sizes['data'], topology.num_slices)
  return partitioning.make_mesh(**sizes, devices=arithmetic.describe_devices(topology))


def plan_train_step(
    config: mlc.ConfigDict, topology: arithmetic.Topology, remat: str, rows: int
) -> Candidate:
  """Compiles the training step of a config.

  Raises:
    UserError: the batch cannot be cut into micro-batches of this many rows a chip.
  """
  mesh, student = _make_train_mesh(config, topology), preset_student(config)
  train, max_len = config.train, config.data.max_len
  with jax.set_mesh(mesh):
    micro_rows = rows * partitioning.count_batch_parts()
    if train.batch_size % micro_rows:
      raise errors.UserError(
          f'train.batch_size={train.batch_size} rows cannot be cut into micro-batches of'
          f' {micro_rows}: {rows} a chip on {topology.name}; change --rows, the batch size, or'
          ' config.mesh (tp or cp in place of fsdp).'
      )
    accumulate = train.batch_size // micro_rows
    settings = program_lib.TrainSettings.from_config(train, config.attention)
    settings = dataclasses.replace(settings, remat=remat)
    program = program_lib.choose_program(settings, student)
    dtype = program_lib.DTYPES[settings.dtype]
    state = programs.describe_train_state(student, program, dtype)
    batch = programs.describe_batch(batching.lay_out_row([], max_len), accumulate, micro_rows)
    max_chunks = -(-max_len // train.loss_chunk_len)
    needs = programs.measure_train_step(state, program.step, batch, max_chunks)
  bound = None
  if needs.is_compiled:
    bound = arithmetic.bound_train_step(
        topology,
        mesh,
        student,
        flops=needs.flops,
        argument_bytes=needs.arguments,
        accumulate=accumulate,
        num_tokens=train.batch_size * max_len,
        row_len=max_len,
    )
  return Candidate(topology.name, 'train', remat, rows, accumulate, needs, bound)


def plan_decode_chunk(config: mlc.ConfigDict, topology: arithmetic.Topology) -> Candidate:
  """Compiles a chunk of decoding in the last stage, with all slots at their end."""
  settings = config.sample
  mesh = partitioning.make_mesh(
      data=-1,
      fsdp=1,
      tp=settings.tp,
      slices=topology.num_slices,
      devices=arithmetic.describe_devices(topology),
  )
  # Adapters are merged into the weights before sampling.
  student = dataclasses.replace(preset_student(config), lora=None)
  with jax.set_mesh(mesh):
    params = programs.describe_decode_params(student, settings.dtype)
    stage = lanes.plan_stages(
        student,
        lengths=settings.stages,
        longest_prompt=_PROMPT_LEN,
        max_new_tokens=settings.max_new_tokens,
        num_slots=settings.num_slots,
        dtype=settings.dtype,
        free_bytes=topology.chip.hbm_bytes - programs.count_device_bytes(params),
    )[-1]
    method = methods.make_method(
        settings.temperature, settings.top_p, settings.top_k, settings.min_p
    )
    needs = programs.measure_decode_chunk(
        student, params, method, stage, settings.chunk_len, jnp.dtype(settings.dtype)
    )
  bound = None
  if needs.is_compiled:
    bound = arithmetic.bound_decode_chunk(
        topology,
        mesh,
        flops=needs.flops,
        argument_bytes=needs.arguments,
        num_slots=stage.num_slots,
        chunk_len=settings.chunk_len,
    )
  return Candidate(topology.name, 'decode', '', stage.num_slots, 1, needs, bound)


def recommend_candidate(candidates: Sequence[Candidate]) -> Candidate | None:
  """Returns the fastest that fits; among equally fast ones, the one with the lowest peak."""
  fitting = [
      (round(candidate.bound.seconds, 2), candidate.needs.peak, candidate)
      for candidate in candidates
      if candidate.fits and candidate.bound
  ]
  return min(fitting, key=lambda entry: entry[:2], default=(0, 0, None))[2]


def format_table(candidates: Sequence[Candidate]) -> str:
  """Returns the candidates as a Markdown table."""
  body = [_HEADER, ['---'] * len(_HEADER), *map(_format_cells, candidates)]
  return '\n'.join(f'| {" | ".join(row)} |' for row in body)


def _format_cells(candidate: Candidate) -> list[str]:
  needs, bound = candidate.needs, candidate.bound
  to_gb = lambda num_bytes: f'{num_bytes / 1e9:.1f}'
  share = f'{candidate.share_of_hbm:.0%}{"" if candidate.fits else ", does not fit"}'
  cells = [candidate.topology, candidate.program, candidate.remat]
  cells += [f'{candidate.rows} x {candidate.accumulate}']
  if bound is None:  # The compiler refused it, and named the peak alone.
    return [*cells, '', '', to_gb(needs.peak), share, *[''] * 6]
  cells += [to_gb(needs.arguments), to_gb(needs.temporaries), to_gb(needs.peak), share]
  cells += [f'{bound.flops / 1e12:,.1f}', to_gb(bound.hbm_bytes)]
  mfu = '' if bound.mfu is None else f'{bound.mfu:.0%}'
  cells += [f'{bound.seconds:,.3f}', bound.limited_by, mfu]
  return [*cells, f'{bound.tokens_per_second:,.0f}']


def _format_recommendation(
    config: mlc.ConfigDict, candidate: Candidate | None, topology: str
) -> str:
  if candidate is None:
    return (
        f'{topology}: nothing fits; take more chips, --remat full, --rows 1, or cut rows along cp'
        ' or heads along tp (config.mesh).'
    )
  assert candidate.bound is not None
  batch_size, seconds = config.train.batch_size, candidate.bound.seconds
  # The size of a named subset is known only where the shards are.
  num_traces = config.num_traces if config.num_traces >= 0 else 1000
  hours = seconds * num_traces * config.train.epochs / (batch_size * 3600)
  return (
      f'{topology}: --config.train.remat={candidate.remat}'
      f' --config.train.accumulate={candidate.accumulate}'
      f'  ({candidate.needs.peak / 1e9:.1f} GB a chip, at least {seconds:.1f} s a step of'
      f' {batch_size} rows; {num_traces:,} traces of a full row each, {hours:.1f} h at least)'
  )


def plan(
    config: mlc.ConfigDict,
    topologies: Sequence[str],
    remats: Sequence[str] = (),
    rows: Sequence[int] = (1,),
    with_decode: bool = False,
    output: str = '',
) -> list[Candidate]:
  """Compiles every candidate; prints the table and the recommendations."""
  parsed = [arithmetic.parse_topology(name) for name in topologies]
  cases = list(itertools.product(parsed, remats or (config.train.remat,), rows))
  candidates = []
  with metrics.progress(len(cases) + len(parsed) * with_decode, 'program', 'plan') as progress:
    for topology, remat, num_rows in cases:
      candidates.append(plan_train_step(config, topology, remat, num_rows))
      progress.update()
    for topology in parsed * with_decode:
      candidates.append(plan_decode_chunk(config, topology))
      progress.update()
  print(format_table(candidates), end='\n\n')
  for topology in parsed:
    own = [c for c in candidates if c.topology == topology.name and c.program == 'train']
    print(_format_recommendation(config, recommend_candidate(own), topology.name))
  if output:
    json_rows = [_as_json(candidate) for candidate in candidates]
    jsonl.write_atomically(output, json.dumps(json_rows, indent=1) + '\n')
  return candidates


def _as_json(candidate: Candidate) -> dict[str, Any]:
  row = dataclasses.asdict(candidate)
  return {**row, 'share_of_hbm': candidate.share_of_hbm, 'fits': candidate.fits}


def main() -> None:
  """Reads the flags; see the module's docstring."""

  def verb(config: mlc.ConfigDict) -> None:
    num_rows = [int(number) for number in flags.FLAGS.rows]
    topologies, remats = flags.FLAGS.topology, flags.FLAGS.remat
    plan(config, topologies, remats, num_rows, flags.FLAGS.decode, flags.FLAGS.output)

  # Nothing runs here: the compiler need not look for a TPU, report that there is none, or be the
  # only process that uses it.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5p-8')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  jax.config.update('jax_platforms', 'cpu')
  entry.run(verb, needs_workdir=False)


if __name__ == '__main__':
  main()
