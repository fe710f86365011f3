"""How full the rows are, and what planning them costs.

    python benchmarks/pack.py            about a minute on two cores
    python benchmarks/pack.py --quick    a tenth of the traces

Lengths are lognormal, as those of thinking traces are, cut off at the row's
32,768 tokens (longer traces are dropped). On the same lengths, in one run:

    ours          batching.pack_best_fit: best fit decreasing over all traces, ahead
    grain best    Grain's streaming best fit, as the loader meets the traces
    grain first   Grain's streaming first fit

"bound" is the fill of the fewest rows that any packer could use: it counts the
tokens, and the traces of more than half a row, no two of which share one.
Memory is what the process holds at most beyond what it held before. Grain's
packers run on a sample, as they also lay the rows out; ours plans them all.
"""

import argparse
import itertools
import json
import pathlib
import time
import tracemalloc

import grain
import machine
import numpy as np

from valley_jax import jsonl
from valley_jax.data import batching

ROW_LEN = 32_768
# name: (mean and deviation of the logarithm of the length)
LENGTHS = {
    'OCR-2-like, median 6k': (8.7, 0.8),
    'long, median 8k': (9.0, 0.8),
    'longer, median 12k': (9.4, 0.6),
}
_BINS = 64  # Rows that a streaming packer keeps open.


def draw(name: str, number: int, seed: int = 0) -> np.ndarray:
  """Returns so many lengths in tokens, those over a row left out."""
  mean, deviation = LENGTHS[name]
  rng = np.random.default_rng(seed)
  drawn = rng.lognormal(mean, deviation, 2 * number).astype(np.int64)
  return drawn[(drawn >= 16) & (drawn <= ROW_LEN)][:number]


def bound(lengths: np.ndarray) -> float:
  """Returns the fill that no packer can surpass."""
  rows = max(-(-lengths.sum() // ROW_LEN), (lengths > ROW_LEN // 2).sum())
  return float(lengths.sum() / (rows * ROW_LEN))


def plan(lengths: np.ndarray) -> dict[str, float]:
  """Plans all rows; checks that each trace lies in one."""
  start = time.perf_counter()
  rows = batching.pack_best_fit(lengths, ROW_LEN)
  seconds = time.perf_counter() - start
  members = np.fromiter(itertools.chain.from_iterable(rows), np.int64)
  assert np.array_equal(np.sort(members), np.arange(len(lengths)))
  assert all(lengths[row].sum() <= ROW_LEN for row in rows[:: len(rows) // 99])
  return {
      'seconds': seconds,
      'fill': batching.measure_fill(lengths, rows, ROW_LEN),
      'rows': len(rows),
  }


def peak_mib(lengths: np.ndarray) -> float:
  tracemalloc.start()
  batching.pack_best_fit(lengths, ROW_LEN)
  peak = tracemalloc.get_traced_memory()[1] / 2**20
  tracemalloc.stop()
  return peak


def stream(packer, lengths: np.ndarray) -> dict[str, float]:
  """Packs with one of Grain's packers: one int8 a token, the cheapest."""
  texts = grain.MapDataset.source(lengths).map(lambda n: {'tokens': np.ones(n, np.int8)})
  start = time.perf_counter()
  packed = packer(
      texts.seed(0).shuffle().to_iter_dataset(grain.ReadOptions(num_threads=0)),
      length_struct={'tokens': ROW_LEN},
      num_packing_bins=_BINS,
  )
  fills = [np.count_nonzero(row['tokens']) for row in packed]
  seconds = time.perf_counter() - start
  assert sum(fills) == lengths.sum()
  return {'seconds': seconds, 'fill': sum(fills) / (len(fills) * ROW_LEN), 'rows': len(fills)}


def measure(name: str, number: int, num_streamed: int) -> dict:
  lengths = draw(name, number)
  some = lengths[:num_streamed]
  return {
      'lengths': name,
      'traces': len(lengths),
      'bound': bound(lengths),
      'ours': {**plan(lengths), 'peak_mib': peak_mib(lengths)},
      'streamed': len(some),
      'ours, same sample': plan(some),
      'grain best': stream(grain.experimental.BestFitPackIterDataset, some),
      'grain first': stream(grain.experimental.FirstFitPackIterDataset, some),
  }


def _table(results: list[dict]) -> str:
  header = ['lengths', 'traces', 'bound', 'ours', 'seconds', 'peak MiB']
  header += ['traces streamed', 'ours', 'grain best fit', 'grain first fit']
  rows = []
  for r in results:
    ours = r['ours']
    cells = [r['lengths'], f'{r["traces"]:,}', f'{r["bound"]:.2%}']
    cells += [f'{ours["fill"]:.2%}', f'{ours["seconds"]:.1f}']
    cells += [f'{ours["peak_mib"]:.0f}', f'{r["streamed"]:,}']
    for way in ('ours, same sample', 'grain best', 'grain first'):
      cells.append(f'{r[way]["fill"]:.2%}')
    rows.append(cells)
  return machine.format_table(header, rows)


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='a tenth of it')
  parser.add_argument('--output', help='a directory for pack.md, pack.json')
  arguments = parser.parse_args()
  number = 100_000 if arguments.quick else 1_000_000
  where = machine.describe_machine('numpy', 'grain')
  results = [measure(name, number, number // 50) for name in LENGTHS]
  table = _table(results)
  figures = json.dumps({'row_len': ROW_LEN, 'cases': results, **where})
  if arguments.output:
    path = pathlib.Path(arguments.output)
    title = '# How full the rows are\n\nBy `python benchmarks/pack.py'
    title += ' --quick' * arguments.quick
    title += f'`, rows of {ROW_LEN:,} tokens; all figures are in pack.json.\n\n'
    jsonl.write_atomically(path / 'pack.md', f'{title}{table}\n')
    jsonl.write_atomically(path / 'pack.json', figures + '\n')
  print(table, figures, sep='\n\n')


if __name__ == '__main__':
  main()
