"""Causal attention within segments, and the choice of what computes it.

What is computed is always the same: a token attends to the tokens of its own segment that are not
after it, scores and softmax in float32. What computes it has a name (config.attention):

    dense    all scores at once: the reference, short rows, decoding
    blocks   plain JAX, a pair of blocks at a time: memory linear in length
    splash   the TPU kernel that comes with JAX
    flash    the GPU kernel (Triton) that comes with JAX
    auto     dense for short rows; else what suits the mesh's devices

An implementation that cannot compute a mask or a size raises an error; none ignores segments.
(cuDNN by `jax.nn.dot_product_attention` has no segments, and so is not here.) On a mesh of CPUs the
kernels are interpreted: slow, to be tested.

Letters as in `transformer.py`. Mesh axis `cp` cuts the positions of a row: queries stay where they
are, and keys and values of the whole row are gathered. The cut is into runs of neighbours, of which
the last attends to the most keys: with a causal kernel it works (2 cp - 1) / cp times the mean.
Cutting rows into 2 cp runs and giving every device an early and a late one would win that back; it
would have to be done to the batch. `flash` trades its queries for heads instead, and has nothing to
win.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import ad_checkpoint
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from valley_jax import errors
from valley_jax.models import attention_blocks
from valley_jax.models import attention_kernels
from valley_jax.runtime import partitioning

_MASKED = -1e30  # Finite, so that a row without any key gives no NaN.

# Positions of a device's part of a row up to which `auto` is `dense`.
_DENSE_UP_TO = 512


def build_causal_mask(
    positions_BL: jax.Array, segments_BL: jax.Array, positions_BM: jax.Array, segments_BM: jax.Array
) -> jax.Array:
  """Returns mask_BLM: attend within one's segment, and not to the future.

  Segment 0 is padding; a padded query attends to padding only, and its output is never used.
  """
  same_BLM = segments_BL[:, :, None] == segments_BM[:, None, :]
  past_BLM = positions_BL[:, :, None] >= positions_BM[:, None, :]
  return same_BLM & past_BLM


def attend_masked(
    q_BLKGH: jax.Array, k_BMKH: jax.Array, v_BMKH: jax.Array, mask_BLM: jax.Array
) -> jax.Array:
  """Returns y_BLKGH by all scores at once, under any mask."""
  cut = jax.typeof(q_BLKGH).sharding.spec[1]
  logits_BKGLM = jnp.einsum(
      'BLKGH,BMKH->BKGLM',
      q_BLKGH * (q_BLKGH.shape[-1] ** -0.5),
      k_BMKH,
      preferred_element_type=jnp.float32,
      out_sharding=P(partitioning.BATCH, 'tp', None, cut, None),
  )
  logits_BKGLM = jnp.where(mask_BLM[:, None, None], logits_BKGLM, _MASKED)
  weights_BKGLM = jax.nn.softmax(logits_BKGLM, axis=-1).astype(v_BMKH.dtype)
  return jnp.einsum(
      'BKGLM,BMKH->BLKGH',
      weights_BKGLM,
      v_BMKH,
      out_sharding=P(partitioning.BATCH, cut, 'tp', None, None),
  )


def _attend_dense(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL) -> jax.Array:
  whole = P(partitioning.BATCH, None)
  heads = P(partitioning.BATCH, None, 'tp', None)
  mask_BLM = build_causal_mask(
      positions_BL,
      segments_BL,
      jax.sharding.reshard(positions_BL, whole),
      jax.sharding.reshard(segments_BL, whole),
  )
  k_BMKH = jax.sharding.reshard(k_BLKH, heads)
  v_BMKH = jax.sharding.reshard(v_BLKH, heads)
  y_BLKGH = attend_masked(q_BLKGH, k_BMKH, v_BMKH, mask_BLM)
  return ad_checkpoint.checkpoint_name(y_BLKGH, 'attention')


def _gather_positions(x: jax.Array) -> jax.Array:
  """Gathers a device's positions to whole rows, inside of a shard_map."""
  return jax.lax.all_gather(x, 'cp', axis=1, tiled=True)


def _map_over_devices(attend_on_device: Callable[..., jax.Array], *others: Any):
  """Returns a function of q, k, v, positions, segments that runs on every device's part.

  Each has its rows, heads and positions; what else it takes is cut by `others`. The kernels know
  nothing of variance over devices: not checked.
  """
  queries = P(partitioning.BATCH, 'cp', 'tp', None, None)
  keys = P(partitioning.BATCH, 'cp', 'tp', None)
  rows = P(partitioning.BATCH, 'cp')
  return jax.shard_map(
      attend_on_device,
      in_specs=(queries, keys, keys, rows, rows, *others),
      out_specs=queries,
      check_vma=False,
  )


def _attend_by_blocks(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL) -> jax.Array:
  def attend_on_device(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL):
    rows = positions_BL, segments_BL
    columns = _gather_positions(positions_BL), _gather_positions(segments_BL)
    keys = _gather_positions(k_BLKH), _gather_positions(v_BLKH)
    return attention_blocks.attend_by_blocks(q_BLKGH, *keys, rows, columns)

  return _map_over_devices(attend_on_device)(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL)


def _attend_by_splash(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL) -> jax.Array:
  _, length, k, g, _ = q_BLKGH.shape
  mesh = jax.sharding.get_abstract_mesh()
  kernel, specs = attention_kernels.build_splash_kernel(
      length,
      num_heads=k * g // mesh.shape['tp'],
      cuts=mesh.shape['cp'],
      interpret=_is_interpreted('splash', 'tpu'),
  )

  def attend_on_device(q_BLKGH, k_BLKH, v_BLKH, _, segments_BL, kernel):
    return attention_kernels.attend_by_splash(
        kernel,
        q_BLKGH,
        _gather_positions(k_BLKH),
        _gather_positions(v_BLKH),
        segments_BL,
        _gather_positions(segments_BL),
    )

  return _map_over_devices(attend_on_device, specs)(
      q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL, kernel
  )


def _attend_by_flash(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL) -> jax.Array:
  _, length, k, g, h = q_BLKGH.shape
  mesh = jax.sharding.get_abstract_mesh()
  cuts = mesh.shape['cp']
  attention_kernels.check_flash_sizes(length, k * g // mesh.shape['tp'], h, cuts)
  interpret = _is_interpreted('flash', 'gpu')

  def attend_on_device(q_BLKGH, k_BLKH, v_BLKH, _, segments_BL):
    b, length, k, g, h = q_BLKGH.shape
    q_BLNH = q_BLKGH.reshape(b, length, k * g, h)
    # All heads of some queries for some heads of all queries, and back.
    q_BMNH = jax.lax.all_to_all(q_BLNH, 'cp', 2, 1, tiled=True)
    y_BMNH = attention_kernels.attend_by_flash(
        q_BMNH,
        attention_kernels.take_heads(_gather_positions(k_BLKH), g, cuts),
        attention_kernels.take_heads(_gather_positions(v_BLKH), g, cuts),
        _gather_positions(segments_BL),
        interpret,
    )
    y_BLNH = jax.lax.all_to_all(y_BMNH, 'cp', 1, 2, tiled=True)
    return y_BLNH.reshape(q_BLKGH.shape)

  return _map_over_devices(attend_on_device)(q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL)


IMPLEMENTATIONS = {
    'dense': _attend_dense,
    'blocks': _attend_by_blocks,
    'splash': _attend_by_splash,
    'flash': _attend_by_flash,
}


def find_platform() -> str:
  """Returns what the mesh's devices are.

  Not the default backend: a step is also compiled for devices that are not there.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()


def _is_interpreted(name: str, kernels_platform: str) -> bool:
  """Returns whether a kernel is interpreted: on CPU.

  Raises:
    UserError: the mesh is of another accelerator than the kernel is for.
  """
  platform = find_platform()
  if platform not in (kernels_platform, 'cpu'):
    raise errors.UserError(
        f'config.attention={name} is for {kernels_platform}, and the mesh is of {platform}; take'
        ' auto.'
    )
  return platform == 'cpu'


def choose_implementation(implementation: str, length: int) -> str:
  """Returns the name of what computes rows of this length on this mesh.

  Raises:
    UserError: the name is unknown.
  """
  if implementation in IMPLEMENTATIONS:
    return implementation
  if implementation != 'auto':
    raise errors.UserError(
        f'config.attention={implementation!r}: want auto or one of {", ".join(IMPLEMENTATIONS)}.'
    )
  if length <= _DENSE_UP_TO * partitioning.count_position_cuts():
    return 'dense'
  return {'tpu': 'splash', 'gpu': 'flash'}.get(find_platform(), 'blocks')


def attend_causally(
    q_BLKGH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    positions_BL: jax.Array,
    segments_BL: jax.Array,
    *,
    implementation: str = 'auto',
) -> jax.Array:
  """Returns y_BLKGH: causal softmax attention within segments.

  Args:
    q_BLKGH: Queries, not scaled.
    k_BLKH: Keys of the same positions.
    v_BLKH: Values.
    positions_BL: Positions, rising within each segment.
    segments_BL: Segments, each a run of neighbours; 0 is padding, whose output means nothing.
    implementation: A name, as in the module's docstring.

  Raises:
    UserError: the name is unknown, or what it names cannot do this.
  """
  name = choose_implementation(implementation, q_BLKGH.shape[1])
  return IMPLEMENTATIONS[name](q_BLKGH, k_BLKH, v_BLKH, positions_BL, segments_BL)
