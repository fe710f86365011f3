"""What choosing the farthest traces of each question costs.

    python benchmarks/curate.py            half a minute on one core
    python benchmarks/curate.py --seconds 600

Of 1,000 questions with 16 traces each, 4 are chosen. A question's traces share
phrases, as those of one teacher do: each is drawn from 200 phrases of its
question, among words of its own, to lognormal lengths with the median of
OpenCodeReasoning-2's (24k characters, here 4 a token). The ways take turns on
whole questions for so many seconds, on one thread; times are CPU seconds, and
those of 1,000 questions are extrapolated from the mean where it says so.

    lazy           ours from the longest trace: what can no longer be the
                   farthest is not compared
    medoid         ours from the medoid, which needs all 120 distances
    full matrix    the peer: all distances by rapidfuzz's cdist, then greedy on
                   the matrix, from the longest trace
    plain Python   the textbook's two rows, for one pair, cut to 1,000 units

All ways that begin with the same trace are checked to choose the same ones.
"""

import argparse
import functools
import json
import pathlib
import statistics
import time

import machine
import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from valley_jax import jsonl
from valley_jax.data.subsets import curation

QUESTIONS, TRACES, CHOSEN = 1000, 16, 4
_MEDIAN_TOKENS, _DEVIATION = 6_000, 0.5
_CHARACTERS_A_TOKEN = 4


def draw(question: int) -> list[np.ndarray]:
  """Returns the tokens of a question's traces."""
  rng = np.random.default_rng(question)
  phrases = [rng.zipf(1.3, 12) % 50_000 for _ in range(200)]
  traces = []
  for _ in range(TRACES):
    n = int(rng.lognormal(np.log(_MEDIAN_TOKENS), _DEVIATION))
    parts, total = [], 0
    while total < n:
      own = rng.zipf(1.3, int(rng.integers(1, 24))) % 50_000
      parts += [phrases[rng.integers(len(phrases))], own]
      total += len(parts[-1]) + len(parts[-2])
    traces.append(np.concatenate(parts)[:n])
  return traces


@functools.cache
def _spelling() -> np.ndarray:
  """The characters of each token, of 64 different ones."""
  rng = np.random.default_rng(0)
  return rng.integers(48, 112, (50_000, _CHARACTERS_A_TOKEN))


def texts(question: int, unit: str) -> list[str]:
  drawn = draw(question)
  if unit == 'characters':
    drawn = [_spelling()[tokens].ravel() for tokens in drawn]
  return [curation.tokens_as_text(np.asarray(tokens)) for tokens in drawn]


def lazy(of_it: list[str]) -> list[int]:
  distances = curation.TextDistances(of_it)
  return curation.choose_farthest(distances, curation.find_longest(of_it), CHOSEN)


def medoid(of_it: list[str]) -> list[int]:
  distances = curation.TextDistances(of_it)
  return curation.choose_farthest(distances, curation.find_medoid(distances), CHOSEN)


def full_matrix(of_it: list[str]) -> list[int]:
  matrix = process.cdist(of_it, of_it, scorer=Levenshtein.normalized_distance, dtype=np.float64)
  chosen = [int(np.argmax([len(text) for text in of_it]))]
  while len(chosen) < CHOSEN:
    least = matrix[chosen].min(axis=0)
    least[chosen] = -1
    chosen.append(int(np.argmax(least)))
  return chosen


def plain(one: str, other: str) -> int:
  row = list(range(len(other) + 1))
  for i, x in enumerate(one, start=1):
    last, row[0] = row[0], i
    for j, y in enumerate(other, start=1):
      last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
  return row[-1]


WAYS = {'lazy': lazy, 'medoid': medoid, 'full matrix': full_matrix}


def measure(unit: str, seconds: float) -> dict:
  """Takes the ways in turn, question by question."""
  took: dict[str, list[float]] = {name: [] for name in WAYS}
  lengths = []
  end = time.perf_counter() + seconds
  for question in range(QUESTIONS):
    of_it = texts(question, unit)
    lengths += map(len, of_it)
    chosen = {}
    for name, way in WAYS.items():
      start = time.process_time()
      chosen[name] = way(of_it)
      took[name].append(time.process_time() - start)
    assert chosen['lazy'] == chosen['full matrix']
    if time.perf_counter() > end:
      break
  one, other = (text[:1000] for text in texts(0, unit)[:2])
  assert Levenshtein.distance(one, other) == plain(one, other)
  start = time.process_time()
  plain(one, other)
  seconds_plain = time.process_time() - start
  start = time.process_time()
  for _ in range(100):
    Levenshtein.distance(one, other)
  seconds_ours = (time.process_time() - start) / 100
  return {
      'unit': unit,
      'questions': len(took['lazy']),
      'median_length': statistics.median(lengths),
      'seconds_a_question': took,
      'seconds_a_pair_of_1000': {'plain Python': seconds_plain, 'rapidfuzz': seconds_ours},
  }


def _table(results: list[dict]) -> str:
  header = ['unit', 'median length', 'way', 'questions', 'CPU ms a question']
  header += ['1,000 questions, CPU s', 'to the full matrix']
  rows = []
  for r in results:
    peer = statistics.median(r['seconds_a_question']['full matrix'])
    for name, seconds in r['seconds_a_question'].items():
      middle = statistics.median(seconds)
      total = sum(seconds) / len(seconds) * QUESTIONS
      said = '' if len(seconds) == QUESTIONS else ' (extrapolated)'
      cells = [r['unit'], f'{r["median_length"]:,.0f}', name, len(seconds)]
      cells += [machine.format_spread([1e3 * x for x in seconds])]
      rows.append([*cells, f'{total:,.0f}{said}', f'{peer / middle:.1f}x'])
    pair = r['seconds_a_pair_of_1000']
    ratio = pair['plain Python'] / pair['rapidfuzz']
    cells = [r['unit'], '1,000', 'plain Python, a pair', 1]
    cells += [f'{1e3 * pair["plain Python"]:.0f} ms a pair', '']
    rows.append([*cells, f'rapidfuzz is {ratio:,.0f}x as fast'])
  return machine.format_table(header, rows)


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--seconds', type=float, default=12.0, help='a unit')
  parser.add_argument('--output', help='a directory for curate.md, curate.json')
  arguments = parser.parse_args()
  where = machine.describe_machine('rapidfuzz', 'numpy')
  units = ('tokens', 'characters')
  results = [measure(unit, arguments.seconds) for unit in units]
  table = _table(results)
  figures = json.dumps({'cases': results, **where})
  if arguments.output:
    path = pathlib.Path(arguments.output)
    title = '# What choosing the farthest traces costs\n\nBy `python'
    title += f' benchmarks/curate.py --seconds {arguments.seconds:g}`,'
    title += f' {TRACES} traces a question, {CHOSEN} chosen; all figures are'
    title += ' in curate.json.\n\n'
    jsonl.write_atomically(path / 'curate.md', f'{title}{table}\n')
    jsonl.write_atomically(path / 'curate.json', figures + '\n')
  print(table, figures, sep='\n\n')


if __name__ == '__main__':
  main()
