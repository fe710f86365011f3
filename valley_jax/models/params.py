"""From a student's description to parameters, and back to a module.

Parameters travel as a plain nested dict of arrays ({'embed_VD': …, 'blocks':
{'q_DKGH': …}}), so that optimisers, checkpoints and tests see no Flax types.
"""

import functools
from typing import Any

from flax import nnx
import jax

from valley_jax.models import lora
from valley_jax.models import student as student_lib
from valley_jax.models import transformer
from valley_jax.runtime import partitioning


@functools.lru_cache(maxsize=8)
def _template(student: student_lib.Student, module: Any):
  """Returns a module's structure; lists how its parameters are named."""
  abstract = jax.eval_shape(lambda: module(student, nnx.Rngs(0)))
  return nnx.split(abstract)


def _bind(student: student_lib.Student, module: Any, params: Any) -> Any:
  graph, state = _template(student, module)
  paths = nnx.to_flat_state(state)
  leaves = []
  for path, variable in paths:
    leaf = functools.reduce(lambda tree, name: tree[name], path, params)
    leaves.append((path, variable.replace(leaf)))
  return nnx.merge(graph, nnx.from_flat_state(leaves))


def bind(student: student_lib.Student, params: Any) -> transformer.Transformer:
  """Returns the module that computes with these parameters."""
  return _bind(student, transformer.Transformer, params)


def bind_block(student: student_lib.Student, params: Any) -> transformer.Block:
  """Returns the module of one layer that computes with these parameters."""
  return _bind(student, transformer.Block, params)


def bind_ends(student: student_lib.Student, params: Any) -> transformer.Transformer:
  """Returns a module with what is before and behind the layers, and none."""
  _, state = _template(student, transformer.Transformer)
  blocks = nnx.to_pure_dict(state)['blocks']
  return bind(student, {**params, 'blocks': blocks})


def _init(student: student_lib.Student, key: jax.Array) -> Any:
  module = transformer.Transformer(student, nnx.Rngs(params=key))
  return partitioning.shard_params(nnx.to_pure_dict(nnx.state(module)))


@functools.cache
def _compiled_init() -> Any:
  """Returns the compiled `_init`.

  On CPU, LLVM's full optimisation of the random bits takes longer than a small
  student takes to train; the bits are the same without.
  """
  options = {'xla_backend_optimization_level': 1}
  is_cpu = jax.default_backend() == 'cpu'
  return jax.jit(_init, static_argnums=0, compiler_options=options if is_cpu else None)


def init(student: student_lib.Student, key: jax.Array) -> Any:
  """Returns random parameters (float32), laid out over the current mesh."""
  return _compiled_init()(student, key)


@functools.partial(jax.jit, static_argnums=0)
def init_added(student: student_lib.Student, key: jax.Array) -> Any:
  """Returns what LoRA adds to the parameters, as it begins; nothing else."""
  added, _ = lora.split(_init(student, key))
  return added


def abstract(student: student_lib.Student) -> Any:
  """Returns shapes, dtypes and shardings on the current mesh, no arrays."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  mesh = jax.sharding.get_mesh()

  def place(leaf):
    sharding = jax.sharding.NamedSharding(mesh, leaf.sharding.spec)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(place, _compiled_init().eval_shape(student, key))


def count(params: Any) -> int:
  """Returns the number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
