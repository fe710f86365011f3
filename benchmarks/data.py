"""Whether a step ever waits for data, and what a million traces cost.

    python benchmarks/data.py           two minutes on two cores
    python benchmarks/data.py --quick   a tenth of the traces

Wait: shards of traces of lognormal length, median 6,000 tokens, are read as
`train` reads them (two threads, four batches ahead), by a loop that does
nothing for the time of a step, which is given. For each packing: how long a
batch takes to load, alone; how long steps waited for theirs; and how many
waited for over a millisecond, the first left out.

Memory: a million traces, so short that only what is kept of each matters (the
rows of batches are shorter likewise): what the process holds after opening the
shards, after the plan, and at most while batches are drawn, beyond its imports.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from typing import Any

import grain
import machine
import numpy as np

from valley_jax import jsonl
from valley_jax import records
from valley_jax.data import batching
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.subsets import drawing
from valley_jax.data.tokens import tokenization

_PER_SHARD = 2048


def write(directory: pathlib.Path, number: int, median: int, row_len: int) -> None:
  """Writes shards of traces of random tokens."""
  rng = np.random.default_rng(0)
  lengths = rng.lognormal(np.log(median), 0.8, number).astype(int)
  lengths = np.clip(lengths, 4, row_len)

  def rows(start):
    for i in range(start, min(start + _PER_SHARD, number)):
      tokens = rng.integers(0, 150_000, lengths[i], dtype=np.int32)
      weights = np.ones(len(tokens), np.uint8)
      weights[: len(tokens) // 8] = 0
      trace = records.Trace(
          trace_id=f'{i:08x}-{i % 977:04x}',
          problem_id=f'{i // 16:08x}',
          question='',
          response='',
          difficulty='hard',
          teacher='DeepSeek-R1',
      )
      yield trace, tokenization.Example(tokens, weights, len(tokens) // 2)

  for n in range(-(-number // _PER_SHARD)):
    shards_lib.write_shard(directory, n, rows(n * _PER_SHARD), {})
  manifest = {'format': shards_lib.FORMAT}
  jsonl.write_json(directory / 'manifest.json', manifest)


def _batches(shards, rows, row_len: int, pack: str, batch_size: int):
  plan = batching.plan_epoch(shards, rows, row_len, pack)
  batches = batching.make_batches(
      shards, plan, batch_size=batch_size, accumulate=1, num_epochs=1, seed=0
  )
  return batches, plan


def wait(shards, pack: str, batch_size: int, step_seconds: float, num_steps: int) -> dict[str, Any]:
  rows = drawing.draw_nested(shards.ids, len(shards), seed=0)
  batches, plan = _batches(shards, rows, 32_768, pack, batch_size)
  loading = []
  for i in range(min(8, len(batches))):
    start = time.perf_counter()
    batches[i]
    loading.append(time.perf_counter() - start)
  ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
  iterator = iter(batches.to_iter_dataset(ahead))
  waits = []
  for _ in range(min(num_steps, len(batches))):
    start = time.perf_counter()
    next(iterator)
    waits.append(time.perf_counter() - start)
    time.sleep(step_seconds)
  return {
      'pack': pack,
      'fill': plan.fill,
      'loading_seconds': statistics.median(loading),
      'steps': len(waits),
      'first_wait_seconds': waits[0],
      'median_wait_seconds': statistics.median(waits[1:]),
      'longest_wait_seconds': max(waits[1:]),
      'num_waited': sum(w > 1e-3 for w in waits[1:]),
  }


def _resident_mib(field: str = 'VmRSS') -> float:
  status = pathlib.Path('/proc/self/status').read_text()
  return int(status.partition(f'{field}:')[2].split()[0]) / 1024


def memory(directory: pathlib.Path) -> dict[str, float]:
  before = _resident_mib()
  start = time.perf_counter()
  shards = shards_lib.Shards(directory)
  opened, opening = _resident_mib(), time.perf_counter() - start
  rows = drawing.draw_nested(shards.ids, len(shards), seed=0)
  start = time.perf_counter()
  batches, plan = _batches(shards, rows, 128, 'best_fit', 64)
  planned, planning = _resident_mib(), time.perf_counter() - start
  ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
  for i, _ in enumerate(batches.to_iter_dataset(ahead)):
    if i == 2000:
      break
  return {
      'traces': len(shards),
      'rows': len(plan.rows),
      'opening_seconds': opening,
      'planning_seconds': planning,
      'opened_mib': opened - before,
      'planned_mib': planned - before,
      'peak_mib': _resident_mib('VmHWM') - before,
  }


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='a tenth of it')
  parser.add_argument('--step_seconds', type=float, default=0.25)
  parser.add_argument('--batch_size', type=int, default=8, help='of this host')
  parser.add_argument('--scratch', help='a directory with space')
  parser.add_argument('--output', help='a directory for data.md, data.json')
  arguments = parser.parse_args()
  part = 10 if arguments.quick else 1
  where = machine.describe_machine('grain', 'array_record', 'numpy')
  with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
    many, long = pathlib.Path(scratch, 'many'), pathlib.Path(scratch, 'long')
    for path in (many, long):
      path.mkdir()
    write(many, 1_000_000 // part, 24, 128)
    held = memory(many)  # Ahead of the rest, for the process to be small.
    write(long, 4_000 // part, 6_000, 32_768)
    shards = shards_lib.Shards(long)
    waits = [
        wait(shards, pack, arguments.batch_size, arguments.step_seconds, 100 // part)
        for pack in batching.PACKS
    ]
  header = ['pack', 'fill', 'loading a batch, ms', 'steps', 'median wait, ms']
  header += ['longest wait, ms', 'steps that waited > 1 ms']
  rows = [
      [w['pack'], f'{w["fill"]:.1%}', f'{1e3 * w["loading_seconds"]:.1f}']
      + [w['steps'], f'{1e3 * w["median_wait_seconds"]:.2f}']
      + [f'{1e3 * w["longest_wait_seconds"]:.2f}', w['num_waited']]
      for w in waits
  ]
  tables = machine.format_table(header, rows) + '\n\n'
  tables += machine.format_table(
      ['traces', 'opening, s', 'planning, s', 'MiB open', 'planned', 'peak'],
      [
          [f'{held["traces"]:,}', f'{held["opening_seconds"]:.1f}']
          + [f'{held["planning_seconds"]:.1f}']
          + [f'{held[k]:,.0f}' for k in ('opened_mib', 'planned_mib', 'peak_mib')]
      ],
  )
  figures = json.dumps(
      {
          'step_seconds': arguments.step_seconds,
          'batch_size': arguments.batch_size,
          'waits': waits,
          'memory': held,
          **where,
      }
  )
  if arguments.output:
    path = pathlib.Path(arguments.output)
    title = '# Whether a step waits for data\n\nBy `python benchmarks/data.py'
    title += ' --quick' * arguments.quick
    title += f'`, steps of {arguments.step_seconds} s and batches of'
    title += f' {arguments.batch_size} rows of 32,768 tokens; all figures are'
    title += ' in data.json.\n\n'
    jsonl.write_atomically(path / 'data.md', f'{title}{tables}\n')
    jsonl.write_atomically(path / 'data.json', figures + '\n')
  print(tables, figures, sep='\n\n')


if __name__ == '__main__':
  main()
