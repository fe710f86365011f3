"""Sampling speed, beside transformers on the same requests.

    taskset -c 0 python benchmarks/sample.py            a small Qwen2, one core
    python benchmarks/sample.py --student qwen2_5_7b --dtype bfloat16 \\
        --requests 512 --slots 128 --medians 4096     on a GPU

Needs torch (extra `parity`). All have the same weights, which torch writes and
we read, and the same requests: prompts and completions of unequal, lognormal
lengths; each completion ends at its own length. In one run, in turn:

    ours          the engine
    static        transformers' `generate`: batches as large as our slots, each
                  until its longest has ended
    continuous    transformers' continuous batching (paged, SDPA)

Greedy; at float32 all must draw the same tokens (elsewhere ties may fall
otherwise). The measure is useful tokens a second: those that were asked for. On
a CPU also by the second that the process had of it, where others want it too.
Nobody knows the lengths before: requests are taken in the order in which they
come. Each median is measured by itself, since what a context costs differs.

A second table is ours alone: the cost of a token as contexts grow, and as slots
do. Figures of the memory's bandwidth: a step reads the weights and the live
keys and values once.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np
import torch
import transformers

from valley_jax import jsonl
from valley_jax.models import cache
from valley_jax.models import hf_config
from valley_jax.models import pretrained
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
_CAP = 4  # Medians that the longest completion has.


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--student', default='', help='a preset; default: a small Qwen2')
  add('--requests', type=int, default=48)
  add('--slots', type=int, default=16, help='samples on their way at a time')
  add('--prompt', type=int, default=48, help='median tokens of a prompt')
  add(
      '--medians',
      type=int,
      nargs='*',
      default=[96, 256, 512],
      help='tokens of a completion; the longest has four times as many',
  )
  add('--sigma', type=float, default=0.8, help='of the lognormal lengths')
  add('--chunk', type=int, default=8, help='ours: sample.chunk_len')
  add('--prefill', type=int, default=64, help='ours: sample.prefill_tokens')
  add('--dtype', default='float32')
  add('--rounds', type=int, default=3)
  add('--lengths', type=int, nargs='*', default=[1024, 4096, 16_384])
  add('--widths', type=int, nargs='*', default=[1, 4, 16, 64])
  add('--ways', nargs='+', default=['ours', 'static', 'continuous'])
  add('--output', help='a directory for sample.md, sample.json')
  return parser.parse_args()


def make_student(args: argparse.Namespace) -> student_lib.Student:
  if args.student:
    return student_lib.find_preset(args.student)
  return student_lib.Student(
      vocab_size=32_768,
      num_layers=8,
      embed_dim=512,
      num_heads=8,
      num_kv_heads=2,
      head_dim=64,
      mlp_dim=1408,
      rope_theta=1e6,
      qkv_bias=True,
      tied_head=True,
  )


def make_requests(
    args: argparse.Namespace, vocab_size: int, median: int
) -> list[samples_lib.Request]:
  """Returns prompts, each with the length at which its completion ends."""
  rng = np.random.default_rng(0)
  draw = lambda median, low, high: np.clip(
      rng.lognormal(np.log(median), args.sigma, args.requests), low, high
  ).astype(int)
  prompts = draw(args.prompt, 4, 4 * args.prompt)
  completions = draw(median, 4, _CAP * median)
  return [
      samples_lib.Request(f'p{i}', 0, tuple(rng.integers(0, vocab_size, n).tolist()), int(m))
      for i, (n, m) in enumerate(zip(prompts, completions, strict=True))
  ]


class Ours:
  """Our engine, from the weights of a directory."""

  def __init__(self, directory: str, args: argparse.Namespace):
    self._args = args
    self._mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    self.student = pretrained.read_student(directory)
    with jax.set_mesh(self._mesh):
      params = pretrained.load_params(directory, self.student)
      self._params = cache.unstack_layers(self.student, params, args.dtype, give_up=True)
    self.settings = lanes.DecodeSettings(
        student=self.student,
        params=self._params,
        method=methods.Greedy(),
        seed=0,
        chunk_len=args.chunk,
        prefill_tokens=args.prefill,
        dtype=jnp.dtype(args.dtype),
    )

  def run(self, requests: list[samples_lib.Request], cap: int) -> dict[str, list[int]]:
    args = self._args
    with jax.set_mesh(self._mesh):
      steps = lanes.plan_stages(
          self.student,
          lengths=(),
          longest_prompt=max(len(r.prompt) for r in requests),
          max_new_tokens=cap,
          num_slots=args.slots,
          dtype=args.dtype,
      )
      engine = engine_lib.Engine(self.settings, steps, end_token=-1, max_new_tokens=cap)
      return {s.request.problem_id: s.tokens for s in engine.draw_samples(requests)}

  def seconds_a_step(self, length: int, num_slots: int) -> float:
    """Returns what a step takes with all slots filled to a length."""
    with jax.set_mesh(self._mesh):
      width = lanes.compute_lane_width(num_slots)
      firsts = range(0, num_slots, width)
      all_lanes = [
          lanes.Lane(self.settings, length + 512, width, min(width, num_slots - first))
          for first in firsts
      ]
      prompt = tuple(range(length))
      for first, lane in zip(firsts, all_lanes, strict=True):
        lane.fill_slots(
            [
                samples_lib.Sample(samples_lib.Request('p', first + i, prompt))
                for i in range(lane.num_free)
            ]
        )
      times = []
      for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready([lane.start_chunk() for lane in all_lanes])
        times.append((time.perf_counter() - start) / self._args.chunk)
    return float(np.median(times[1:]))


class Theirs:
  """transformers' model and its two ways to sample."""

  def __init__(self, directory: str, args: argparse.Namespace):
    self._args = args
    self._load = (
        lambda: transformers.AutoModelForCausalLM.from_pretrained(
            directory, attn_implementation='sdpa', dtype=getattr(torch, args.dtype)
        )
        .to(DEVICE)
        .eval()
    )
    self._static_model, self._model = self._load(), self._load()

  @torch.no_grad()
  def static(self, requests: list[samples_lib.Request], cap: int) -> dict[str, list[int]]:
    del cap
    found = {}
    for first in range(0, len(requests), self._args.slots):
      batch = requests[first : first + self._args.slots]
      longest = max(len(r.prompt) for r in batch)
      pad = [longest - len(r.prompt) for r in batch]
      rows = [[0] * n + list(r.prompt) for n, r in zip(pad, batch)]
      mask = [[0] * n + [1] * len(r.prompt) for n, r in zip(pad, batch)]
      config = transformers.GenerationConfig(
          do_sample=False,
          max_new_tokens=max(r.max_new_tokens for r in batch),
          eos_token_id=None,
          pad_token_id=0,
      )
      drawn = self._static_model.generate(
          torch.tensor(rows, device=DEVICE),
          attention_mask=torch.tensor(mask, device=DEVICE),
          generation_config=config,
      )
      for request, row in zip(batch, drawn[:, longest:].tolist()):
        found[request.problem_id] = row[: request.max_new_tokens]
    return found

  def continuous(self, requests: list[samples_lib.Request], cap: int) -> dict[str, list[int]]:
    args = self._args
    page = 32 if DEVICE == 'cpu' else 256
    longest = max(len(r.prompt) for r in requests) + cap
    batching = transformers.generation.ContinuousBatchingConfig(
        page_size=page,
        num_blocks=args.slots * -(-longest // page) + args.slots,
        max_batch_tokens=max(args.slots, 256),
        max_requests_per_batch=args.slots,
        allow_block_sharing=False,
        use_cuda_graph=DEVICE == 'cuda',
        auto_switch_to_flash=False,
    )
    config = transformers.GenerationConfig(do_sample=False, max_new_tokens=cap, eos_token_id=-1)
    found = {}
    with self._model.continuous_batching_context_manager(
        generation_config=config,
        continuous_batching_config=batching,
        block=True,
        timeout=5,
        warmup=DEVICE == 'cuda',
    ) as manager:
      for r in requests:
        manager.add_request(
            list(r.prompt), request_id=r.problem_id, max_new_tokens=r.max_new_tokens
        )
      while len(found) < len(requests):
        if result := manager.get_result(timeout=1):
          if result.is_finished():
            assert not result.error, result.error
            found[result.request_id] = result.generated_tokens
        elif not manager.is_running():
          raise SystemExit('Continuous batching has ended by itself.')
    return found


def write_checkpoint(student: student_lib.Student, directory: str) -> None:
  """Writes random weights as a transformers checkpoint."""
  config = transformers.AutoConfig.for_model(**hf_config.build_student_config(student))
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(config)
  model.save_pretrained(directory)


def measure(
    ways: dict[str, Any], args: argparse.Namespace, vocab_size: int, median: int
) -> dict[str, Any]:
  """Returns useful tokens/s of each round, and how many samples equal ours."""
  requests, cap = make_requests(args, vocab_size, median), _CAP * median
  short = [dataclasses.replace(r, max_new_tokens=5) for r in requests]
  for way in ways.values():
    way(short, cap)  # It compiles.
  useful = sum(r.max_new_tokens or 0 for r in requests)
  drawn, rates = {}, {name: [] for name in ways}
  cpu_rates = {name: [] for name in ways}
  for _ in range(args.rounds):
    for name, way in ways.items():
      start, cpu_start = time.perf_counter(), time.process_time()
      drawn[name] = way(requests, cap)
      rates[name].append(useful / (time.perf_counter() - start))
      cpu_rates[name].append(useful / (time.process_time() - cpu_start))
      rate, cpu_rate = rates[name][-1], cpu_rates[name][-1]
      print(f'median {median}, {name}: {rate:.0f}, {cpu_rate:.0f}', flush=True)
  ours = drawn['ours']
  equal = {name: sum(ours[i] == found[i] for i in ours) for name, found in drawn.items()}
  return {
      'median': median, 'useful_tokens': useful, 'tokens_per_second': rates,
      'tokens_per_cpu_second': cpu_rates, 'equal': equal,
  }  # fmt: skip


def growth(ours: Ours, args: argparse.Namespace) -> list[dict[str, float | int]]:
  """Returns the cost of a token by the length of contexts, and by slots."""
  s, size = ours.student, jnp.dtype(args.dtype).itemsize
  weights = sum(x.nbytes for x in jax.tree.leaves(ours.settings.params))
  per_token = 2 * s.num_layers * s.num_kv_heads * s.head_dim * size
  cases = [(n, args.slots) for n in args.lengths]
  cases += [(1024, n) for n in args.widths if n != args.slots]
  rows = []
  for length, slots in cases:
    seconds = ours.seconds_a_step(length, slots)
    read = weights + slots * length * per_token
    rows.append({
        'length': length, 'slots': slots, 'ms_a_step': 1e3 * seconds,
        'ms_a_token': 1e3 * seconds / slots,
        'gb_per_second': read / seconds / 1e9,
    })  # fmt: skip
    print(rows[-1])
  return rows


def main(args: argparse.Namespace) -> None:
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  where = machine.describe_machine('jax', 'torch', 'transformers', 'numpy')
  where['device'] = jax.devices()[0].device_kind
  student = make_student(args)
  with tempfile.TemporaryDirectory() as directory:
    write_checkpoint(student, directory)
    ours = Ours(directory, args)
    theirs = Theirs(directory, args)
  ways = {
      'ours': ours.run, 'static': theirs.static,
      'continuous': theirs.continuous,
  }  # fmt: skip
  ways = {name: ways[name] for name in args.ways}
  speed = [measure(ways, args, student.vocab_size, n) for n in args.medians]
  rows = []
  for found in speed:
    mean = found['useful_tokens'] / args.requests
    rates, cpu_rates = (
        {name: np.asarray(values) for name, values in found[unit].items()}
        for unit in ('tokens_per_second', 'tokens_per_cpu_second')
    )
    rows += [
        [f'{mean:,.0f}', name, machine.format_spread(rates[name], 0),
         machine.format_spread(cpu_rates[name], 0),
         f'{found["equal"][name]} of {args.requests}',
         f'{np.median(rates["ours"] / rates[name]):.2f}',
         f'{np.median(cpu_rates["ours"] / cpu_rates[name]):.2f}']
        for name in rates
    ]  # fmt: skip
  head = ['tokens, mean', 'way', 'useful tokens/s', 'a CPU second']
  head += ['equal to ours', 'ours / it', 'by CPU seconds']
  text = machine.format_table(head, rows)
  cost = growth(ours, args)
  head = ['context, tokens', 'slots', 'ms a step', 'ms a token', 'GB/s']
  text += '\n\n' + machine.format_table(head, [
      [f'{c["length"]:,}', c['slots'], f'{c["ms_a_step"]:.1f}',
       f'{c["ms_a_token"]:.2f}', f'{c["gb_per_second"]:.1f}']
      for c in cost
  ])  # fmt: skip
  asked = {k: v for k, v in vars(args).items() if k != 'output'}
  figures = json.dumps({
      'args': asked, 'speed': speed, 'cost': cost, **where,
  })  # fmt: skip
  if args.output:
    path = pathlib.Path(args.output)
    title = '# Sampling speed\n\nMedian (least–most) of'
    title += f' {args.rounds} rounds by `benchmarks/sample.py`, {args.dtype},'
    title += f' {args.requests} requests, {args.slots} slots, on'
    title += f' {where["cores"]} core(s) of {where["device"]}; all is in'
    title += ' sample.json.\n\n'
    jsonl.write_atomically(path / 'sample.md', f'{title}{text}\n')
    jsonl.write_atomically(path / 'sample.json', figures + '\n')
  print(text, figures, sep='\n\n')
  equal = {n for found in speed for n in found['equal'].values()}
  if args.dtype == 'float32' and equal - {args.requests}:
    raise SystemExit('The greedy tokens are not the same.')


if __name__ == '__main__':
  main(parse())
