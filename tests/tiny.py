"""Students, parameters, batches and a world small enough to be looked at."""

import contextlib
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections as mlc
import numpy as np

from configs import valley
from valley_jax import jsonl
from valley_jax import records
from valley_jax import shard
from valley_jax.models import cache as cache_lib
from valley_jax.models import parameters
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import lanes as lanes_lib
from valley_jax.sampling import methods

# What the families differ in, one at a time.
VARIANTS = {
    'llama3': {},
    'qwen2': {'qkv_bias': True},
    'qwen3': {'qk_norm': True},
    'tied': {'tied_head': True, 'qkv_bias': True},
}


def student(**changes: Any) -> student_lib.Student:
  """Two layers; every size differs where it may, and 8 devices divide it."""
  sizes = {
      'vocab_size': 40,
      'num_layers': 2,
      'embed_dim': 16,
      'num_heads': 6,
      'num_kv_heads': 2,
      'head_dim': 8,
      'mlp_dim': 32,
  }
  return student_lib.Student(**{**sizes, **changes})


def mesh(**sizes: int) -> contextlib.AbstractContextManager:
  """As many of the devices as the sizes make; without sizes one."""
  sizes = {'data': 1, 'fsdp': 1, 'tp': 1, 'cp': 1, **sizes}
  devices = jax.devices()[: int(np.prod(list(sizes.values())))]
  return jax.set_mesh(partitioning.make_mesh(**sizes, devices=devices))


@functools.cache
def params(student: student_lib.Student, seed: int = 0) -> Any:
  """Parameters on the host, scales and biases random too; do not write."""
  rng = np.random.default_rng(seed)
  with mesh():
    shapes = parameters.abstract_params(student)

  def draw(path, leaf):
    x = rng.normal(size=leaf.shape).astype(np.float32)
    return 1 + 0.3 * x if 'scale' in str(path[-1]) else 0.3 * x

  return jax.tree_util.tree_map_with_path(draw, shapes)


def engine(student: student_lib.Student, params: Any = None, **changes: Any) -> engine_lib.Engine:
  """An engine on the current mesh, greedy and without an end token."""
  s: dict[str, Any] = {
      'method': methods.Greedy(),
      'seed': 0,
      'end_token': -1,  # No token.
      'max_new_tokens': 12,
      'stages': (lanes_lib.Stage(128, 8),),
      'chunk_len': 5,
      'prefill_tokens': 512,
      'dtype': jnp.float32,
      'stops': None,
      **changes,
  }
  params = put_params(student) if params is None else params
  of_engine = ('end_token', 'max_new_tokens', 'stops')
  rest = {name: s.pop(name) for name in of_engine}
  stages = s.pop('stages')
  settings = lanes_lib.DecodeSettings(
      student=student, params=cache_lib.unstack_layers(student, params, s['dtype']), **s
  )
  return engine_lib.Engine(settings, stages, **rest)


def put_params(student: student_lib.Student, host_params: Any = None) -> Any:
  """Lays parameters, by default those of `params`, out over the current mesh."""
  host_params = params(student) if host_params is None else host_params
  mesh = jax.sharding.get_mesh()
  return jax.tree.map(
      lambda x, declared: jax.device_put(x, jax.NamedSharding(mesh, declared.spec)),
      host_params,
      parameters.describe_parameters(student),
  )


def batch(*shape: int, vocab_size: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
  """Random rows [..., B, L] of two segments and padding; weights 0 and 1.

  The second half of each segment is the answer.
  """
  rng = np.random.default_rng(seed)
  length = shape[-1]
  first = length // 2 + 1
  at = np.arange(length)
  segments = np.where(at < first, 1, np.where(at < length - 1, 2, 0))
  positions = np.where(at < first, at, np.where(segments == 2, at - first, 0))
  weights = rng.random(shape) < 0.6
  return {
      'inputs': rng.integers(0, vocab_size, shape, dtype=np.int32),
      'targets': rng.integers(0, vocab_size, shape, dtype=np.int32),
      'positions': np.broadcast_to(positions, shape).astype(np.int32),
      'segments': np.broadcast_to(segments, shape).astype(np.int32),
      'weights': (weights & (segments > 0)).astype(np.float32),
      'answers': np.broadcast_to(positions >= length // 4, shape).astype(np.int32),
  }


def config(workdir: pathlib.Path, **changes: Any) -> mlc.ConfigDict:
  """The mini study's config on twelve traces; `train={...}` merges."""
  c = valley.get_config('mini').unlock()
  c.traces = f'jsonl:{workdir}/traces.jsonl'
  c.problems = f'jsonl:{workdir}/problems.jsonl'
  c.shards = f'{workdir}/shards'
  c.tokenizer = 'bpe:300'
  c.num_traces = 10
  c.data.update(max_len=64, pack='none')
  c.train.update(batch_size=8, loss_chunk_len=64)
  c.sample.update(max_new_tokens=16, num_slots=8, prefill_tokens=512)
  c.update(changes)
  return c.lock()


def link_world(tiny_world: pathlib.Path, workdir: pathlib.Path) -> None:
  """Makes the files of `tiny_world` those of another world, which may have more of them."""
  for path in tiny_world.iterdir():
    (workdir / path.name).symlink_to(path)


def write_world(workdir: pathlib.Path, response: str = '') -> None:
  """Writes traces, all with this response if any, problems and shards."""
  jsonl.write_rows(
      workdir / 'traces.jsonl',
      [
          records.Trace(
              trace_id=f't{i}',
              problem_id=f'p{i}',
              question=f'Add {i} and {i}.',
              response=response or f'<think>It is {2 * i}.</think>print({2 * i})',
          )
          for i in range(12)
      ],
  )
  jsonl.write_rows(
      workdir / 'problems.jsonl',
      [
          records.Problem(
              problem_id=f'p{i}',
              statement=f'Add {i} and {i}.' + ' Please.' * i,
              tests=(records.TestCase(input='', expected=str(2 * i)),),
          )
          for i in range(6)
      ],
  )
  shard.shard(config(workdir), str(workdir))
