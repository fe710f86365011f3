"""Training speed, beside transformers and torch on the same traces.

    python benchmarks/train.py                     a small student on the CPU
    python benchmarks/train.py --student qwen2_5_1_5b --row_len 8192 \\
        --rows 2 --dtype bfloat16 --remat full     on a GPU, where there is one

Needs torch (extra `parity`). Both sides begin with the same weights, which
torch writes and we read, take the same AdamW steps on the same traces in the
same precision, and must come to the same losses. In one run, in turn:

    ours            rows packed by our plan, segments honoured
    torch, padded   a batch of traces padded to its longest (SDPA)
    torch, packed   our rows, with positions that restart (SDPA)

The measure is useful tokens a second: those of traces, not of padding. All
threads run on the cores named by --cores. On a CPU torch asks the kernel for
most of its memory anew, at every step, and takes twice as long for it; here
the C library keeps what it has, for both sides (MALLOC_MMAP_THRESHOLD_).
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import jax
import machine
import numpy as np
import torch
import transformers

from valley_jax import jsonl
from valley_jax.data import batching
from valley_jax.data.tokens import tokenization
from valley_jax.models import hf_config
from valley_jax.models import pretrained
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning
from valley_jax.training import flops
from valley_jax.training import optimizer
from valley_jax.training import program as program_lib

_LEARNING_RATE = 1e-3


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--student', default='', help='a preset; default: a small Qwen2')
  add('--row_len', type=int, default=1024, help='tokens of a row')
  add('--rows', type=int, default=8, help='packed rows of a step')
  add('--median', type=float, default=0.25, help='of a trace, in rows')
  add('--steps', type=int, default=2, help='of a round, after one to warm up')
  add('--rounds', type=int, default=5)
  add('--dtype', default='float32', help='of the computation')
  add('--attention', default='auto', help='ours: see config.attention')
  add('--remat', default='none', help='ours: see config.train.remat')
  add('--cores', type=int, default=2, help='to run on')
  add('--output', help='a directory for train.md, train.json')
  return parser.parse_args()


DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
Step = collections.namedtuple('Step', 'rows traces num_tokens squared_lengths')


def make_student(args: argparse.Namespace) -> student_lib.Student:
  if args.student:
    return student_lib.find_preset(args.student)
  return student_lib.Student(
      vocab_size=8192,
      num_layers=6,
      embed_dim=384,
      num_heads=6,
      num_kv_heads=2,
      head_dim=64,
      mlp_dim=1024,
      rope_theta=1e6,
      qkv_bias=True,
      tied_head=True,
  )


def make_steps(args: argparse.Namespace, vocab_size: int) -> list[Step]:
  """Returns the traces of each step, and the rows that they are packed into."""
  rng = np.random.default_rng(0)
  steps = []
  for _ in range(args.steps + 1):
    budget, lengths = args.rows * args.row_len, []
    while sum(lengths) < 0.97 * budget:
      drawn = rng.lognormal(np.log(args.median * args.row_len), 0.6)
      lengths.append(int(np.clip(drawn, 16, args.row_len)))
      if len(batching.pack_best_fit(lengths, args.row_len)) > args.rows:
        lengths.pop()
        break
    traces = []
    for n in lengths:
      tokens = rng.integers(0, vocab_size, n + 1).astype(np.int32)
      weights = (np.arange(n + 1) > n // 8).astype(np.uint8)
      traces.append(tokenization.Example(tokens, weights, n))
    members = batching.pack_best_fit(lengths, args.row_len)
    members += [[]] * (args.rows - len(members))
    rows = [batching.lay_out_row([traces[i] for i in m], args.row_len) for m in members]
    batch = {k: np.stack([row[k] for row in rows])[None] for k in rows[0]}
    squares = sum(n * n for n in lengths)
    steps.append(Step(batch, traces, sum(lengths), squares))
  return steps


class Ours:
  """Our training step, from the weights of a directory."""

  def __init__(self, directory: str, args: argparse.Namespace):
    adamw = optimizer.AdamW(b1=0.9, b2=0.95, weight_decay=0.0, clip_norm=1.0)
    self._mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    student = pretrained.read_student(directory)
    with jax.set_mesh(self._mesh):
      params = pretrained.load_params(directory, student)
      program = program_lib.build_program(
          student=student,
          dtype=args.dtype,
          param_dtype='float32',
          attention=args.attention,
          remat=args.remat,
          loss_chunk_len=256,
          z_loss=0.0,
          optimizer=adamw,
      )
      self._step = program.step
      self._state = program.init_state(params)

  def run(self, steps: list[Step]) -> list[float]:
    losses = []
    with jax.set_mesh(self._mesh):
      for step in steps:
        batch = partitioning.put_batch(step.rows)
        self._state, values = self._step(self._state, batch, _LEARNING_RATE)
        losses.append(values['loss'])
      return [float(x) for x in losses]  # Waits for the last.


class Torch:
  """The same step of transformers' model, in eager torch."""

  def __init__(self, directory: str, args: argparse.Namespace, is_packed: bool):
    self._is_packed = is_packed
    self._dtype = getattr(torch, args.dtype)
    self._model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation='sdpa', dtype=torch.float32
    ).to(DEVICE)
    if args.remat != 'none':
      self._model.gradient_checkpointing_enable()
    self._model.train()
    self._adam = torch.optim.AdamW(
        self._model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0
    )

  def _loss(self, step: Step) -> torch.Tensor:
    put = lambda x: torch.as_tensor(x, device=DEVICE)
    if self._is_packed:
      rows = {name: x[0] for name, x in step.rows.items()}
      # Restarting positions and no mask: transformers cuts at the restarts.
      more = {'position_ids': put(rows['positions'].astype(np.int64))}
    else:
      rows = _padded(step.traces)
      more = {'attention_mask': put(rows['is_token'])}
    inputs = put(rows['inputs'].astype(np.int64))
    targets = put(rows['targets'].astype(np.int64))
    weights = put(rows['weights'])
    exact = self._dtype is torch.float32
    with contextlib.nullcontext() if exact else torch.autocast(DEVICE, self._dtype):
      logits = self._model(input_ids=inputs, use_cache=False, **more).logits
    loss = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction='none'
    )
    return (loss * weights.flatten()).sum() / weights.sum()

  def run(self, steps: list[Step]) -> list[float]:
    losses = []
    for step in steps:
      loss = self._loss(step)
      self._adam.zero_grad(set_to_none=True)
      loss.backward()
      torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
      self._adam.step()
      losses.append(loss.detach())
    return [float(x) for x in losses]


def _padded(traces: list[tokenization.Example]) -> dict[str, np.ndarray]:
  """Returns a trace a row, all as long as the longest."""
  length = max(len(trace.tokens) for trace in traces) - 1
  rows = [batching.lay_out_row([trace], length) for trace in traces]
  batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  return {**batch, 'is_token': (batch['segments'] > 0).astype(np.int64)}


def write_checkpoint(student: student_lib.Student, directory: str) -> None:
  """Writes random weights as a transformers checkpoint."""
  fields = hf_config.build_student_config(student)
  config = transformers.AutoConfig.for_model(**fields)
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(config)
  model.save_pretrained(directory)


def measure(args: argparse.Namespace, steps: list[Step], directory: str):
  """Returns by way the losses and the tokens/s of each round."""
  ways: dict[str, Any] = {
      'ours': lambda: Ours(directory, args),
      'torch, padded': lambda: Torch(directory, args, is_packed=False),
      'torch, packed': lambda: Torch(directory, args, is_packed=True),
  }
  # A large student fits a device once: then the ways run one after another.
  together = not args.student
  made = {name: make() for name, make in ways.items()} if together else {}
  losses = collections.defaultdict(list)
  rates = collections.defaultdict(list)
  num_tokens = sum(step.num_tokens for step in steps[1:])

  def one_round(name: str, way: Any) -> None:
    # Compiles; later it finds memory as the one before it has left it.
    losses[name] += way.run(steps[:1])
    start = time.perf_counter()
    losses[name] += way.run(steps[1:])
    rates[name].append(num_tokens / (time.perf_counter() - start))

  if together:
    for _ in range(args.rounds):
      for name, way in made.items():
        one_round(name, way)
  else:
    for name in sorted(ways, reverse=True):  # JAX gives no memory back.
      way = ways[name]()
      for _ in range(args.rounds):
        one_round(name, way)
      del way
      if torch.cuda.is_available():
        torch.cuda.empty_cache()
  return dict(losses), dict(rates)


def check(losses: dict[str, list[float]], dtype: str) -> float:
  """All ways come to the same losses; returns how far they are apart."""
  ours = np.asarray(losses['ours'])
  apart = max(float(np.max(np.abs(np.asarray(other) - ours))) for other in losses.values())
  limit = 2e-3 if dtype == 'float32' else 5e-2
  if apart > limit:
    raise SystemExit(f'The losses are {apart} apart, over {limit}: {losses}')
  return apart


def keep_memory() -> None:
  """Begins again with a C library that gives no memory back to the kernel."""
  names = 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_'
  if not all(name in os.environ for name in names):
    os.environ.update(dict.fromkeys(names, str(2**34)))
    # JAX takes only the GPU memory that it needs, because torch has to fit beside it.
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
    os.execv(sys.executable, [sys.executable, *sys.argv])


def main(args: argparse.Namespace) -> None:
  # Before JAX and torch start the threads that compute.
  cores = sorted(os.sched_getaffinity(0))[: args.cores]
  os.sched_setaffinity(0, cores)
  torch.set_num_threads(len(cores))
  where = machine.describe_machine('jax', 'torch', 'transformers', 'numpy')
  where['device'] = jax.devices()[0].device_kind
  student = make_student(args)
  steps = make_steps(args, student.vocab_size)
  with tempfile.TemporaryDirectory() as directory:
    write_checkpoint(student, directory)
    losses, rates = measure(args, steps, directory)
  apart = check(losses, args.dtype)
  timed = steps[1:]
  num_flops = flops.count_step_flops(
      student, sum(s.num_tokens for s in timed), sum(s.squared_lengths for s in timed)
  ) / sum(s.num_tokens for s in timed)
  peak = flops.find_peak_flops(where['device'])
  rows = []
  for name, values in rates.items():
    ratios = np.asarray(rates['ours']) / np.asarray(values)
    gigaflops = np.median(values) * num_flops / 1e9
    mfu = f'{gigaflops * 1e9 / peak:.1%}' if peak else 'unknown'
    rows.append([name, machine.format_spread(values, 0), f'{gigaflops:,.0f}', mfu,
                 f'{np.median(ratios):.2f}'])  # fmt: skip
  head = ['way', 'useful tokens/s', 'model GFLOP/s', 'MFU', 'ours / it']
  fill = np.mean([np.mean(s.rows['segments'] > 0) for s in timed])
  padded = np.mean([np.mean(_padded(s.traces)['is_token']) for s in timed])
  text = machine.format_table(head, rows) + (
      f'\n\nRows are {fill:.1%} full packed, {padded:.1%} padded; losses at'
      f' most {apart:.1g} apart, from {losses["ours"][0]:.3f} to'
      f' {losses["ours"][-1]:.3f}.'
  )
  figures = json.dumps({
      'args': vars(args), 'tokens_per_second': rates, 'losses_apart': apart,
      'fill_packed': fill, 'fill_padded': padded,
      'model_flops_per_token': num_flops, **where,
  })  # fmt: skip
  if args.output:
    path = pathlib.Path(args.output)
    title = '# Training speed\n\nMedian (least–most) of'
    title += f' {args.rounds} rounds by `benchmarks/train.py`, {args.dtype},'
    title += f' on {where["device"]}; all is in train.json.\n\n'
    jsonl.write_atomically(path / 'train.md', f'{title}{text}\n')
    jsonl.write_atomically(path / 'train.json', figures + '\n')
  print(text, figures, sep='\n\n')


if __name__ == '__main__':
  parsed = parse()
  keep_memory()
  main(parsed)
