"""How fast traces become tokens, on one core, and in how much memory.

    python benchmarks/shard.py                 an hour; wants `datasets`
    python benchmarks/shard.py --sizes 400     a minute

Traces of OpenCodeReasoning-2's length profile (lognormal, median 24,000
characters), each cut out of the sources of Python's library, with a word that
occurs nowhere else every 200 characters. On the same file, with the same
tokenizer, one after another, each in a process of its own on one core, the
tokenizer without threads:

    shard            ours, from the file to shards: reading twice, tokens,
                     weights, ArrayRecord, manifest and data card
    shard, decides   the same, with near duplicates and loops looked for
    map              datasets.map, batched, to token ids and the same weights,
                     from character offsets
    map, ids         datasets.map to the token ids alone: no weights, so nothing
                     to train a student's answers on

The peer's time is that of `map` alone; loading the file into Arrow is told
beside it. Before all, the first traces' ids and weights are held against ours.
Memory is the most that the process had resident, imports included.
"""

import argparse
from collections.abc import Iterator
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import machine
import ml_collections as mlc
import numpy as np

from valley_jax import jsonl
from valley_jax import records
from valley_jax import shard
from valley_jax.data.shards import shards
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import config_groups

WAYS = ('shard', 'shard, decides', 'map', 'map, ids')
_MEDIAN, _DEVIATION = 24_000, 0.8  # Characters; of the logarithm.
_LONGEST = 400_000
_POOL = 12_000_000  # Characters that the traces are cut from.


def _pool() -> str:
  """Returns code and the English in it: Python's own library."""
  library = pathlib.Path(os.__file__).parent
  texts = [
      path.read_text('utf-8', 'replace')
      for path in sorted(library.rglob('*.py'))
      if 'site-packages' not in path.parts
  ]
  return ''.join(texts)[:_POOL]


def _traces(number: int, seed: int = 0) -> Iterator[records.Trace]:
  rng = np.random.default_rng(seed)
  pool = _pool()
  lengths = rng.lognormal(np.log(_MEDIAN), _DEVIATION, number).astype(int)
  lengths = np.clip(lengths, 200, _LONGEST)
  places = rng.integers(0, len(pool) - _LONGEST, (3, number))
  for i, (n, a, b, c) in enumerate(zip(lengths, *places)):
    fresh = (f' {word:x} ' for word in rng.integers(0, 2**40, n // 200 + 1))
    pieces = (pool[j : j + 200] for j in range(a, a + n, 200))
    thought = ''.join(map(''.join, zip(pieces, fresh)))
    answer = pool[b : b + min(n, 1500)]
    yield records.Trace(
        trace_id=f't{i}',
        problem_id=f'p{i // 16}',
        question=pool[c : c + 900].strip(),
        response=f'<think>\n{thought.strip()}\n</think>\n\n{answer.strip()}',
        difficulty=('easy', 'medium', 'hard')[i % 3],
        is_correct=i % 4 > 0,
    )


def _write(directory: pathlib.Path, sizes: list[int]) -> None:
  """Writes the tokenizer, and a file of traces for each size."""
  tokenization.train_bpe(directory / 'tokenizer', _traces(100, 1), 32_000)
  for size in sizes:
    with open(directory / f'{size}.jsonl', 'wb') as f:
      for trace in _traces(size):
        f.write(records.to_json(trace) + b'\n')


def _shard(directory: pathlib.Path, size: int, decides: bool) -> dict[str, Any]:
  filters = config_groups.get_filters_group()
  filters.update(think=decides, code_in_answer=False, parses=False)
  filters.update(loop_characters=2000 if decides else 0)
  duplicates = config_groups.get_duplicates_group()
  if not decides:
    duplicates.update(questions='keep', traces='keep')
  config = mlc.ConfigDict(
      dict(
          traces=f'jsonl:{directory}/{size}.jsonl',
          questions='',
          tokenizer=f'hf:{directory}/tokenizer',
          chat_template='',
          prompt='plain',
          data=dict(max_len=10**9, min_len=0, traces_per_shard=512, num_workers=0),
          filters=filters,
          duplicates=duplicates,
          contamination={'problems': ()},
      )
  ).lock()
  workdir = directory / f'shard{size}_{decides:d}'
  start = time.perf_counter()
  shard.shard(config, str(workdir))
  seconds = time.perf_counter() - start
  data = shards.Shards(workdir / 'shards')
  return {'seconds': seconds, 'tokens': data.manifest['num_tokens']}


def _map(directory: pathlib.Path, size: int, with_weights: bool):
  """Returns the peer's figures, and its dataset."""
  import datasets  # pyright: ignore  # Not in every environment.

  datasets.disable_progress_bars()
  tokenizer = tokenization.load_tokenizer(directory / 'tokenizer')

  def to_tokens(rows):
    turns = zip(rows['question'], rows['response'], strict=True)
    texts = [templates.render_turn(tokenizer, q, r).text for q, r in turns]
    if not with_weights:
      ids = tokenizer(texts, add_special_tokens=False)['input_ids']
      return {'input_ids': ids}
    found = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    weights = []
    for question, offsets in zip(rows['question'], found['offset_mapping']):
      prompt = templates.render_prompt(tokenizer, question)
      starts = np.asarray(offsets)[:, 0]
      weights.append((starts >= len(prompt)).astype(np.int8))
    return {'input_ids': found['input_ids'], 'weights': weights}

  start = time.perf_counter()
  loaded = datasets.load_dataset(
      'json',
      data_files=f'{directory}/{size}.jsonl',
      cache_dir=str(directory / 'cache'),
      split='train',
  )
  loading = time.perf_counter() - start
  start = time.perf_counter()
  done = loaded.map(to_tokens, batched=True, remove_columns=loaded.column_names)
  seconds = time.perf_counter() - start
  column = done.data.column('input_ids')
  tokens = sum(len(chunk.flatten()) for chunk in column.chunks)
  return {'seconds': seconds, 'tokens': tokens, 'loading': loading}, done


def _check(directory: pathlib.Path, size: int) -> None:
  """Refuses to compare what does not compute the same."""
  _shard(directory, size, False)
  _, theirs = _map(directory, size, True)
  ours = shards.Shards(directory / f'shard{size}_0' / 'shards')
  assert len(ours) == len(theirs) == size
  for row, example in zip(theirs, ours.read_examples(range(size))):
    assert row['input_ids'] == example.tokens.tolist()
    assert row['weights'] == example.weights.tolist()


def _one(directory: pathlib.Path, way: str, size: int) -> dict[str, Any]:
  """Runs one way in this process; returns its figures."""
  before = time.process_time()
  if way.startswith('shard'):
    figures = _shard(directory, size, way == 'shard, decides')
  else:
    figures, _ = _map(directory, size, way == 'map')
  # Not `ru_maxrss`, which a process has from the one that began it.
  status = pathlib.Path('/proc/self/status').read_text()
  peak = int(status.partition('VmHWM:')[2].split()[0]) / 1024
  cpu_seconds = time.process_time() - before
  return {**figures, 'cpu_seconds': cpu_seconds, 'peak_mib': peak}


def _run(*arguments: Any, core: int) -> dict[str, Any]:
  """Runs this file again, on one core; returns what it printed last."""
  done = subprocess.run(
      ['taskset', '-c', str(core), sys.executable, __file__] + ['--one', *map(str, arguments)],
      env={
          **os.environ,
          'TOKENIZERS_PARALLELISM': 'false',
          'HF_HUB_OFFLINE': '1',
          'OMP_NUM_THREADS': '1',
      },
      stdout=subprocess.PIPE,
      check=True,
      text=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def _table(results: list[dict[str, Any]]) -> str:
  header = ['traces', 'way', 'tokens', 'seconds', 'tokens/s', 'peak MiB']
  header += ['shard is faster by', 'loading, s']
  ours = {r['traces']: r for r in results if r['way'] == 'shard'}
  rows = []
  for r in results:
    ratio = r['seconds'] / ours[r['traces']]['seconds']
    cells = [f'{r["traces"]:,}', r['way'], f'{r["tokens"]:,}']
    cells += [f'{r["seconds"]:,.1f}', f'{r["tokens"] / r["seconds"]:,.0f}']
    cells += [f'{r["peak_mib"]:,.0f}', f'{ratio:.2f}']
    rows.append([*cells, f'{r["loading"]:,.1f}' if 'loading' in r else ''])
  return machine.format_table(header, rows)


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--sizes', type=int, nargs='+', default=[5_000, 50_000], help='traces')
  parser.add_argument('--ways', nargs='+', default=WAYS, choices=WAYS)
  parser.add_argument('--core', type=int, default=0, help='the one to run on')
  parser.add_argument('--scratch', help='a directory with 20 GB of space')
  parser.add_argument('--output', help='a directory for shard.md, shard.json')
  parser.add_argument('--one', nargs=3, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.one:
    directory, way, size = arguments.one
    print(json.dumps(_one(pathlib.Path(directory), way, int(size))))
    return
  sizes = arguments.sizes
  where = machine.describe_machine('tokenizers', 'transformers', 'datasets', 'numpy')
  results = []
  with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
    directory = pathlib.Path(scratch)
    _write(directory, [20, *sizes])
    _check(directory, 20)
    for size in sizes:
      for way in arguments.ways:
        figures = _run(directory, way, size, core=arguments.core)
        results.append({'traces': size, 'way': way, **figures})
        print(results[-1], file=sys.stderr, flush=True)
  table = _table(results)
  figures = json.dumps({'results': results, **where})
  if arguments.output:
    path = pathlib.Path(arguments.output)
    title = '# How fast traces become tokens\n\nBy `benchmarks/shard.py`, on'
    title += ' one core; all figures are in shard.json.\n\n'
    jsonl.write_atomically(path / 'shard.md', f'{title}{table}\n')
    jsonl.write_atomically(path / 'shard.json', figures + '\n')
  print(table, figures, sep='\n\n')


if __name__ == '__main__':
  main()
