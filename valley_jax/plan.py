"""plan: compiles a run's steps for TPUs that are not there; says what fits.

  python -m valley_jax.plan --config configs/valley.py:student=qwen2_5_7b \\
    --topology v5p:2x2x2,v6e:4x4 --remat full,attention --rows 1,2

Needs the extra `tpu` (the compiler; no TPU). For each topology (v4, v5e, v5p or
v6e, `2*v6e:4x4` for two slices), remat policy and number of rows that a chip
takes at a time, it compiles the very step that `train` would run, and prints of
each chip

  arguments     parameters, optimiser state and batch, GB
  temporaries   activations, gradients, gathered parameters, GB
  peak          what is in HBM at most, and the share of HBM that this is
  TFLOP         products that it computes, recomputed ones included
  HBM           GB that must pass through HBM at least
  axes          GB that it receives in collectives, by mesh axis
  bound         the step's time if it did the slowest of these at full speed and
                all else meanwhile; and the MFU and tokens/s that this allows

and recommends, for each topology, the fastest that leaves 4 % of HBM free.
`--decode` compiles a chunk of `sample`, too, for prompts of up to 1,024 tokens.
`--output FILE` keeps all figures as JSON. A bound is a bound: a real step takes
longer.

A 7B student at 32k tokens takes a minute or two a line on two cores.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import json
import os
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax.data.batches import packing
from valley_jax.models import lora
from valley_jax.models import student as student_lib
from valley_jax.planning import bounds
from valley_jax.planning import chips
from valley_jax.planning import programs
from valley_jax.runtime import entry
from valley_jax.runtime import metrics
from valley_jax.runtime import partitioning
from valley_jax.sampling import methods
from valley_jax.sampling import stages
from valley_jax.training import recipe

_PROMPT_LEN = 1024  # Tokens of the longest problem, for the decode's cache.


@dataclasses.dataclass(frozen=True)
class Line:
  """One candidate, and what it needs; bytes, seconds."""

  topology: str
  program: str  # train or decode
  remat: str
  rows: int  # Of a micro-batch on one chip; slots, for decode.
  accumulate: int
  needs: programs.Needs
  bound: bounds.Bound | None  # None: it was not compiled.

  @property
  def share_of_hbm(self) -> float:
    return self.needs.peak / chips.parse(self.topology).chip.hbm_bytes

  @property
  def fits(self) -> bool:
    return self.bound is not None and self.share_of_hbm <= 0.96


def student_of(config: mlc.ConfigDict) -> student_lib.Student:
  """Returns the student with the vocabulary of its preset."""
  student = student_lib.preset(config.student)
  student = student_lib.of(config.student, student.vocab_size, config.vocab_multiple)
  return dataclasses.replace(student, lora=lora.of(config.train))


def _mesh(config: mlc.ConfigDict, topology: chips.Topology) -> jax.sharding.Mesh:
  """Returns the config's mesh over a topology; each slice is a copy or more."""
  sizes = {**config.mesh.to_dict(), 'slices': topology.num_slices}
  if sizes['data'] != -1:
    sizes['data'] = max(sizes['data'], topology.num_slices)
  return partitioning.make_mesh(**sizes, devices=programs.devices(topology))


def plan_train(config: mlc.ConfigDict, topology: chips.Topology, remat: str, rows: int) -> Line:
  """Compiles the training step of a config.

  Raises:
    ValueError: the batch cannot be cut into so many rows a chip.
  """
  mesh, student = _mesh(config, topology), student_of(config)
  with jax.set_mesh(mesh):
    micro = rows * partitioning.num_batch_devices()
    if config.train.batch_size % micro:
      raise errors.UserError(
          f'train.batch_size={config.train.batch_size} rows cannot be cut into'
          f' micro-batches of {micro}: {rows} a chip on {topology.name}; change'
          ' --rows, the batch size, or config.mesh (tp or cp in place of fsdp).'
      )
    accumulate = config.train.batch_size // micro
    fields = {**config.train.to_dict(), 'remat': remat}
    made = recipe.of(fields, config.attention, student)
    row = packing.row([], config.data.max_len)
    needs = programs.train_needs(
        programs.abstract_state(
            student,
            made.tx,
            recipe.DTYPES[config.train.dtype],
            recipe.DTYPES[config.train.param_dtype],
        ),
        made.step,
        programs.abstract_batch(row, accumulate, micro),
        -(-config.data.max_len // config.train.loss_chunk_len),
    )
    bound = bounds.of_train(
        topology,
        mesh,
        student,
        needs,
        accumulate=accumulate,
        num_tokens=config.train.batch_size * config.data.max_len,
        row_len=config.data.max_len,
    )
  return Line(topology.name, 'train', remat, rows, accumulate, needs, bound)


def plan_decode(config: mlc.ConfigDict, topology: chips.Topology) -> Line:
  """Compiles a chunk of decoding of the last stage, all slots at its end."""
  s = config.sample
  mesh = partitioning.make_mesh(
      data=-1, fsdp=1, tp=s.tp, slices=topology.num_slices, devices=programs.devices(topology)
  )
  student = dataclasses.replace(student_of(config), lora=None)  # Merged.
  with jax.set_mesh(mesh):
    params = programs.decode_params(student, s.dtype)
    stage = stages.plan(
        student,
        lengths=s.stages,
        longest_prompt=_PROMPT_LEN,
        max_new_tokens=s.max_new_tokens,
        num_slots=s.num_slots,
        dtype=s.dtype,
        free=topology.chip.hbm_bytes - programs.bytes_a_device(params),
    )[-1]
    method = methods.of(s.temperature, s.top_p, s.top_k, s.min_p)
    needs = programs.decode_needs(student, params, method, stage, s.chunk_len, jnp.dtype(s.dtype))
    bound = bounds.of_decode(topology, mesh, needs, stage.num_slots, s.chunk_len)
  return Line(topology.name, 'decode', '', stage.num_slots, 1, needs, bound)


def recommend(lines: Sequence[Line]) -> Line | None:
  """Returns the fastest line that fits; of equals the one that needs least."""
  fitting = [
      (round(line.bound.seconds, 2), line.needs.peak, line)
      for line in lines
      if line.fits and line.bound
  ]
  return min(fitting, key=lambda entry: entry[:2], default=(0, 0, None))[2]


def table(lines: Sequence[Line]) -> str:
  """Returns the lines as a Markdown table."""
  header = ['topology', 'program', 'remat', 'rows x accumulate', 'arguments']
  header += ['temporaries', 'peak, GB', 'of HBM', 'TFLOP', 'HBM, GB', 'axes, GB']
  header += ['bound, s', 'by', 'MFU bound', 'tokens/s/chip']
  body = [header, ['---'] * len(header), *map(_cells, lines)]
  return '\n'.join(f'| {" | ".join(row)} |' for row in body)


def _cells(line: Line) -> list[str]:
  needs, bound = line.needs, line.bound
  gb = lambda x: f'{x / 1e9:.1f}'
  cells = [line.topology, line.program, line.remat]
  cells += [f'{line.rows} x {line.accumulate}']
  if bound is None:  # The compiler gave up; it told the sum alone.
    no = f'{line.share_of_hbm:.0%}, does not fit'
    return [*cells, '', '', gb(needs.peak), no, *[''] * 7]
  share = f'{line.share_of_hbm:.0%}{"" if line.fits else ", does not fit"}'
  cells += [gb(needs.arguments), gb(needs.temporaries), gb(needs.peak), share]
  axes = '; '.join(
      f'{"+".join(axes)} {gb(amount)}' for axes, amount in sorted(needs.received.items())
  )
  cells += [f'{bound.flops / 1e12:,.1f}', gb(bound.hbm_bytes), axes or '0']
  mfu = '' if bound.mfu is None else f'{bound.mfu:.0%}'
  cells += [f'{bound.seconds:,.3f}', bound.limited_by, mfu]
  return [*cells, f'{bound.tokens_per_second:,.0f}']


def _say(config: mlc.ConfigDict, line: Line | None, topology: str) -> str:
  if line is None:
    return (
        f'{topology}: nothing fits; take more chips, --remat full, --rows 1, or'
        ' cut rows along cp or heads along tp (config.mesh).'
    )
  assert line.bound is not None
  # How many a named subset has is known where the shards are.
  num_traces = config.num_traces if config.num_traces >= 0 else 1000
  hours = line.bound.seconds * num_traces * config.train.epochs / (config.train.batch_size * 3600)
  return (
      f'{topology}: --config.train.remat={line.remat}'
      f' --config.train.accumulate={line.accumulate}'
      f'  ({line.needs.peak / 1e9:.1f} GB a chip, at least'
      f' {line.bound.seconds:.1f} s a step of {config.train.batch_size} rows;'
      f' {num_traces:,} traces of a full row each, {hours:.1f} h at'
      ' least)'
  )


def plan(
    config: mlc.ConfigDict,
    topologies: Sequence[str],
    remats: Sequence[str] = (),
    rows: Sequence[int] = (1,),
    with_decode: bool = False,
    output: str = '',
) -> list[Line]:
  """Compiles every candidate; prints the table and the recommendations."""
  remats = remats or (config.train.remat,)
  parsed = [chips.parse(name) for name in topologies]
  cases = list(itertools.product(parsed, remats, rows))
  lines = []
  total = len(cases) + len(parsed) * with_decode
  with metrics.progress(total, 'program', 'plan') as progress:
    for topology, remat, number in cases:
      lines.append(plan_train(config, topology, remat, number))
      progress.update()
    for topology in parsed * with_decode:
      lines.append(plan_decode(config, topology))
      progress.update()
  print(table(lines), end='\n\n')
  for topology in parsed:
    own = [line for line in lines if line.topology == topology.name and line.program == 'train']
    print(_say(config, recommend(own), topology.name))
  if output:
    rows_of = [_as_json(line) for line in lines]
    jsonl.write_atomically(output, json.dumps(rows_of, indent=1) + '\n')
  return lines


def _as_json(line: Line) -> dict[str, Any]:
  row = dataclasses.asdict(line)
  received = line.needs.received.items()
  row['needs']['received'] = {'+'.join(axes): n for axes, n in received}
  return {**row, 'share_of_hbm': line.share_of_hbm, 'fits': line.fits}


def main() -> None:
  """Reads the flags; see the module's docstring."""
  topology = flags.DEFINE_list('topology', None, 'KIND:SHAPE,…', required=True)
  remat = flags.DEFINE_list('remat', [], "Policies; default: the config's.")
  rows = flags.DEFINE_list('rows', ['1'], 'Rows a chip takes at a time.')
  decode = flags.DEFINE_bool('decode', False, 'Compile a chunk of sample, too.')
  output = flags.DEFINE_string('output', '', 'A JSON file for all figures.')

  def verb(config: mlc.ConfigDict) -> None:
    plan(
        config,
        topology.value,
        remat.value,
        [int(number) for number in rows.value],
        decode.value,
        output.value,
    )

  # Nothing runs here: the compiler need not look for a TPU, nor say that there
  # is none, nor be alone.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5p-8')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  jax.config.update('jax_platforms', 'cpu')
  entry.run(verb, needs_workdir=False)


if __name__ == '__main__':
  main()
