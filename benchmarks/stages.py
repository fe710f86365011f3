"""Which stages the sampler should have: a simulation of engines on chips.

    python benchmarks/stages.py                      7B, 8B; H200, v6e, v5p
    python benchmarks/stages.py --mean 12000 --output DIR

A decoding step reads the weights once and the keys and values of every live
sample, so its time is

    max((W + sum of lengths x kv) / (efficiency x bandwidth), FLOPs / peak)

and tokens/s is how many samples are live, over that. What differs between
engines is how many samples fit the memory, and what they read:

    static    batches as large as fit at full length; each runs until its
              longest sample ends, and reads whole slots
    refill    slots of full length, refilled; each reads what is live of it
    staged    slots of a stage's length, refilled; a sample that outgrows them
              is prefilled again in the next stage's, once all are there
    paged     a sample takes what it has written, no more, and enters if its
              whole length will fit: no engine can know that, so this is the
              ideal that the others are measured by

Lengths are lognormal, cut off at --cap. Nothing runs on a chip.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib

import machine
import numpy as np

from valley_jax import jsonl
from valley_jax.models import student as student_lib
from valley_jax.training import flops

_CHUNK = 64  # Tokens between two looks of the host.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """Bytes, bytes/s and FLOP/s, as their makers state them."""

  memory: float
  bandwidth: float
  peak: float


CHIPS = {
    'H200': Chip(memory=141e9, bandwidth=4.8e12, peak=989e12),
    'v5p': Chip(memory=95e9, bandwidth=2.76e12, peak=459e12),
    'v6e x4': Chip(memory=4 * 32e9, bandwidth=4 * 1.64e12, peak=4 * 918e12),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """A chip with a student's bfloat16 weights on it."""

  chip: Chip
  weights: float  # Bytes.
  kv: float  # Bytes of keys and values a token.
  flops: float  # A token, without attention.
  efficiency: float  # Share of the bandwidth that is reached.

  @property
  def room(self) -> float:
    """Tokens whose keys and values fit beside the weights."""
    return (0.9 * self.chip.memory - self.weights) / self.kv

  def step(self, num_samples: int, num_tokens: float) -> float:
    """Returns the seconds of a step that reads so many tokens' keys."""
    read = self.weights + num_tokens * self.kv
    compute = num_samples * self.flops / (0.5 * self.chip.peak)
    return max(read / (self.efficiency * self.chip.bandwidth), compute)

  def prefill(self, num_tokens: float) -> float:
    """Returns the seconds that it takes to read so many tokens anew."""
    return num_tokens * self.flops / (0.5 * self.chip.peak)


def of(student: student_lib.Student, chip: Chip, efficiency: float) -> Machine:
  """Returns the machine of a student on a chip."""
  s = student
  matrices = flops.count_matrix_params(s)
  embedding = 0 if s.tied_head else s.vocab_size * s.embed_dim
  return Machine(
      chip=chip,
      weights=2 * (matrices + embedding),
      kv=2 * 2 * s.num_layers * s.num_kv_heads * s.head_dim,
      flops=2 * matrices,
      efficiency=efficiency,
  )


def static(m: Machine, lengths: np.ndarray, cap: int) -> float:
  """Returns the seconds that all samples take."""
  size = max(1, int(m.room // cap))
  batches = (lengths[i : i + size] for i in range(0, len(lengths), size))
  return sum(b.max() * m.step(len(b), len(b) * cap) for b in batches)


def _slots(m: Machine, size: int, begin: np.ndarray, end: np.ndarray) -> float:
  """Returns the seconds of slots that take samples from `begin` to `end`."""
  at, seconds = min(size, len(begin)), 0.0
  now, last = begin[:at].astype(float), end[:at]
  while now.size:
    seconds += _CHUNK * m.step(now.size, now.sum() + now.size * _CHUNK / 2)
    now = now + _CHUNK
    live = now < last
    free = int(np.sum(~live))
    now = np.append(now[live], begin[at : at + free])
    last = np.append(last[live], end[at : at + free])
    at += free
  return seconds


def staged(m: Machine, lengths: np.ndarray, stages: tuple[int, ...]) -> float:
  """Returns the seconds of all stages, one after another."""
  seconds, before, left = 0.0, 0, lengths
  for stage in stages:
    left = left[left > before]
    seconds += m.prefill(before * len(left))
    size = max(1, int(m.room // stage))
    begin = np.full(len(left), before)
    seconds += _slots(m, size, begin, np.minimum(left, stage))
    before = stage
  return seconds


def paged(m: Machine, lengths: np.ndarray) -> float:
  """Returns the seconds where memory is shared as by an oracle."""
  at, seconds = 0, 0.0
  now, last = np.zeros(0), np.zeros(0)
  while at < len(lengths) or now.size:
    # The most that the live will ever hold together, were none to enter.
    while at < len(lengths):
      entering = np.append(last, lengths[at]), np.append(now, 0.0)
      if now.size and _highest(*entering) > m.room:
        break
      last, now = entering
      at += 1
    seconds += _CHUNK * m.step(now.size, now.sum() + now.size * _CHUNK / 2)
    now = now + _CHUNK
    live = now < last
    now, last = now[live], last[live]
  return seconds


def _highest(last: np.ndarray, now: np.ndarray) -> float:
  """Returns the most tokens that samples hold together until all have ended."""
  order = np.argsort(last - now)
  left, held = (last - now)[order], now[order]
  behind = np.cumsum(held[::-1])[::-1]  # Tokens of samples that have not ended yet.
  count = np.arange(len(left), 0, -1)
  return float(np.max(behind + count * left))


def candidates(cap: int) -> list[tuple[int, ...]]:
  """Returns sets of one to four stages, the last as long as a sample may be."""
  sizes = [n for n in (2048, 4096, 8192, 12_288, 16_384, 24_576) if n < cap]
  return [(*chosen, cap) for number in range(4) for chosen in itertools.combinations(sizes, number)]


def draw(mean: float, cap: int, number: int, seed: int) -> np.ndarray:
  """Returns lengths, lognormal with a sigma of .8, of about this mean."""
  rng = np.random.default_rng(seed)
  drawn = rng.lognormal(np.log(mean) - 0.8**2 / 2, 0.8, number)
  return np.clip(drawn, 256, cap)


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--students', nargs='+', default=['qwen2_5_7b', 'llama3_1_8b'])
  add('--mean', type=float, nargs='+', default=[8000, 12_000], help='tokens')
  add('--cap', type=int, default=32_768, help='tokens of the longest')
  add('--number', type=int, default=4000, help='of samples')
  add('--efficiency', type=float, default=0.6, help='of the bandwidth')
  add('--output', help='a directory for stages.md, stages.json')
  args = parser.parse_args()
  rows, figures = [], []
  for name, chip_name, mean in itertools.product(args.students, CHIPS, args.mean):
    m = of(student_lib.find_preset(name), CHIPS[chip_name], args.efficiency)
    lengths = draw(mean, args.cap, args.number, seed=0)
    ideal = paged(m, lengths)
    found = {s: staged(m, lengths, s) for s in candidates(args.cap)}
    best = min(found, key=lambda s: found[s])
    usual = (8192, 16_384, args.cap)
    case = {
        'student': name, 'chip': chip_name, 'mean': float(lengths.mean()),
        'room': m.room, 'tokens_per_second': float(lengths.sum() / ideal),
        'static': ideal / static(m, lengths, args.cap),
        'refill': ideal / found[(args.cap,)],
        'usual': ideal / found.get(usual, np.inf),
        'best': ideal / found[best], 'stages': best,
    }  # fmt: skip
    figures.append(case)
    share = lambda key, case=case: f'{case[key]:.0%}'
    rows.append([
        name, chip_name, f'{case["mean"]:,.0f}', f'{m.room / 1e3:,.0f}k',
        f'{case["tokens_per_second"]:,.0f}', share('static'), share('refill'),
        share('usual'), share('best'), ' → '.join(f'{n:,}' for n in best),
    ])  # fmt: skip
  head = ['student', 'chip', 'mean tokens', 'room, tokens', 'ideal tokens/s']
  head += ['static', 'refill', '8k → 16k → cap', 'best', 'its stages']
  text = machine.format_table(head, rows)
  if args.output:
    path = pathlib.Path(args.output)
    title = '# Stages of slots\n\nShares of an ideal paged engine, by'
    title += ' `benchmarks/stages.py`: a simulation, nothing ran on a chip.'
    title += f' {args.number:,} samples of at most {args.cap:,} tokens,'
    title += f' {args.efficiency:.0%} of the bandwidth.\n\n'
    jsonl.write_atomically(path / 'stages.md', f'{title}{text}\n')
    said = json.dumps({'args': vars(args), 'cases': figures}, indent=1)
    jsonl.write_atomically(path / 'stages.json', said + '\n')
  print(text)


if __name__ == '__main__':
  main()
