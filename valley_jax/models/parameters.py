"""From a student's description to parameters, and back to a module.

Parameters travel as a plain nested dict of arrays ({'embed_VD': …, 'blocks': {'q_DKGH': …}}), so
that optimisers, checkpoints and tests see no Flax types. What each of them is, a tree of
declarations says (`declarations.py`).

Low-rank adaptation (Hu et al., 2106.09685) adds A and B to a layer's matrices: W + (alpha / rank) A
B, of which A and B learn. A begins random and B at zero, so that the student begins as it was.
Everything else is frozen: it has no gradient and no moments, and its matrices are kept in the
compute dtype. A run's parameters hold both, `q_lora_a_DR` and `q_lora_b_RKGH` beside `q_DKGH`. When
training is over they are merged, and what remains is an ordinary student.
"""

import functools
from typing import Any

from flax import nnx
from flax import traverse_util
import jax
import jax.numpy as jnp

from valley_jax.models import declarations as declarations_lib
from valley_jax.models import student as student_lib
from valley_jax.models import transformer
from valley_jax.runtime import partitioning


@functools.lru_cache(maxsize=8)
def _abstract_module(student: student_lib.Student, module: Any) -> Any:
  return jax.eval_shape(lambda: module(student, nnx.Rngs(0)))


@functools.lru_cache(maxsize=8)
def describe_parameters(student: student_lib.Student) -> Any:
  """Returns a tree like the student's parameters, of `declarations.Declaration`."""
  return declarations_lib.describe_module(_abstract_module(student, transformer.Transformer))


def _bind(student: student_lib.Student, module: Any, params: Any) -> Any:
  graph, state = nnx.split(_abstract_module(student, module))
  # `merge` counts leaves and compares no names: a tree of other parameters must fail here.
  return nnx.merge(graph, jax.tree.map(lambda _, x: x, nnx.to_pure_dict(state), params))


def bind_transformer(student: student_lib.Student, params: Any) -> transformer.Transformer:
  """Returns the module that computes with these parameters."""
  return _bind(student, transformer.Transformer, params)


def bind_block(student: student_lib.Student, params: Any) -> transformer.Block:
  """Returns the module of one layer that computes with these parameters."""
  return _bind(student, transformer.Block, params)


def bind_without_blocks(student: student_lib.Student, params: Any) -> transformer.Transformer:
  """Returns a module with embedding, final norm and head, without blocks."""
  abstract = nnx.to_pure_dict(nnx.state(_abstract_module(student, transformer.Transformer)))
  return bind_transformer(student, {**params, 'blocks': abstract['blocks']})


def _shard_params(student: student_lib.Student, params: Any) -> Any:
  """Lays every parameter out as it declares; for use inside `jax.jit`."""

  def shard(path, leaf, declaration):
    name = '/'.join(entry.key for entry in path)
    partitioning.check_divides(name, leaf.shape, declaration.spec)
    return jax.sharding.reshard(leaf, declaration.spec)

  return jax.tree_util.tree_map_with_path(shard, params, describe_parameters(student))


def _init_params(student: student_lib.Student, key: jax.Array) -> Any:
  module = transformer.Transformer(student, nnx.Rngs(params=key))
  return _shard_params(student, nnx.to_pure_dict(nnx.state(module)))


@functools.cache
def _compiled_init() -> Any:
  """Returns the compiled `_init_params`.

  On CPU, LLVM's full optimisation of the random bits takes longer than a small student takes to
  train; the bits are the same without.
  """
  options = {'xla_backend_optimization_level': 1}
  is_cpu = jax.default_backend() == 'cpu'
  return jax.jit(_init_params, static_argnums=0, compiler_options=options if is_cpu else None)


def init_params(student: student_lib.Student, key: jax.Array) -> Any:
  """Returns random parameters (float32), laid out over the current mesh."""
  return _compiled_init()(student, key)


@functools.partial(jax.jit, static_argnums=0)
def init_adapters(student: student_lib.Student, key: jax.Array) -> Any:
  """Returns the A and B of every adapted matrix at the start of a run, and nothing else."""
  return split_adapters(describe_parameters(student), _init_params(student, key))[0]


def abstract_params(student: student_lib.Student) -> Any:
  """Returns shapes, dtypes and shardings on the current mesh, no arrays."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  mesh = jax.sharding.get_mesh()

  # On the mesh itself: `eval_shape` knows its axes, not its devices.
  def place(leaf):
    sharding = jax.sharding.NamedSharding(mesh, leaf.sharding.spec)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(place, _compiled_init().eval_shape(student, key))


def count_params(params: Any) -> int:
  """Returns the number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def split_adapters(declarations: Any, params: Any) -> tuple[Any, Any]:
  """Returns the parameters that learn, and those that are frozen.

  All learn where none is an adapter.

  Args:
    declarations: The tree of `describe_parameters`.
    params: A tree like it.
  """
  flat: Any = traverse_util.flatten_dict(params)
  declared: Any = traverse_util.flatten_dict(declarations)
  learning = {path: x for path, x in flat.items() if declared[path].is_adapter}
  if not learning:
    return params, {}
  frozen = {path: x for path, x in flat.items() if path not in learning}
  return traverse_util.unflatten_dict(learning), traverse_util.unflatten_dict(frozen)


def join_adapters(learning: Any, frozen: Any) -> Any:
  """Undoes `split_adapters`."""
  if not frozen:
    return learning
  flat = traverse_util.flatten_dict(frozen) | traverse_util.flatten_dict(learning)
  return traverse_util.unflatten_dict(flat)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _merge_adapters(lora: student_lib.Lora, frozen: Any, learning: Any) -> Any:
  blocks = dict(frozen['blocks'])
  for name in lora.matrices:
    a, b = (learning['blocks'][part] for part in student_lib.adapter_names(name))
    ins, outs = student_lib.ADAPTABLE_MATRICES[name].split()
    matrix = student_lib.matrix_name(name)
    w = blocks[matrix]
    added = jnp.einsum(
        f'Y{ins}R,YR{outs}->Y{ins}{outs}',
        a.astype(jnp.float32),
        b.astype(jnp.float32),
        precision='highest',
        out_sharding=jax.typeof(w).sharding.spec,
    )
    blocks[matrix] = (w + lora.scale * added).astype(w.dtype)
  return {**frozen, 'blocks': blocks}


def merge_adapters(student: student_lib.Student, params: Any) -> Any:
  """Returns parameters without A and B, their products added to the matrices; donates.

  The sums are float32; the results have the dtype of the matrices.
  """
  if student.lora is None:
    return params
  learning, frozen = split_adapters(describe_parameters(student), params)
  return _merge_adapters(student.lora, frozen, learning)
