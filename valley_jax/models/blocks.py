"""Attention in plain JAX, a block of queries against a block of keys at a time.

Online softmax (Milakov and Gimelshein, 1805.02867) forward, and scores made
again in the backward pass, as FlashAttention does (Dao et al., 2205.14135):
memory grows with the length, not with its square. Pairs of blocks in which no
query sees any key are skipped at run time, so that packed rows cost what their
segments cost.

Letters as in `transformer.py`; l and m are the positions of one block, and C
blocks are scanned over. `rows` and `columns` are the positions and segments,
a pair, of queries and of keys.
"""

from typing import Any

import jax
from jax import ad_checkpoint
import jax.numpy as jnp

BLOCK_LEN = 256  # Queries, and keys, of a pair of blocks.
_MASKED = -1e30

Rows = tuple[jax.Array, jax.Array]


def _cut(tree: Any) -> Any:
  """Cuts positions into blocks, evenly: BL… -> CBl…."""

  def cut(x: jax.Array) -> jax.Array:
    b, length = x.shape[:2]
    size = max(n for n in range(1, BLOCK_LEN + 1) if length % n == 0)
    x = x.reshape(b, length // size, size, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)

  return jax.tree.map(cut, tree)


def _join(x: jax.Array) -> jax.Array:
  """Undoes `_cut`."""
  x = jnp.moveaxis(x, 0, 1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])


def _mask(rows: Rows, columns: Rows) -> jax.Array:
  """Returns mask_Blm, as `attention.causal_mask` does."""
  (position_Bl, segment_Bl), (position_Bm, segment_Bm) = rows, columns
  same_Blm = segment_Bl[:, :, None] == segment_Bm[:, None, :]
  return same_Blm & (position_Bl[:, :, None] >= position_Bm[:, None, :])


def _product(subscripts: str, *operands: jax.Array) -> jax.Array:
  return jnp.einsum(subscripts, *operands, preferred_element_type=jnp.float32)


def _scores(q_BlKGH, k_BmKH, mask_Blm) -> jax.Array:
  scores_BlKGm = _product('BlKGH,BmKH->BlKGm', q_BlKGH, k_BmKH)
  return jnp.where(mask_Blm[:, :, None, None], scores_BlKGm, _MASKED)


def _forward(q_BLKGH, k_BMKH, v_BMKH, rows, columns):
  """Returns y_BLKGH and lse_BLKG, the log of each softmax's sum; float32."""
  keys = _cut((k_BMKH, v_BMKH, columns))

  def of_queries(xs):
    q_BlKGH, rows = xs

    def add_keys(carry, xs):
      k_BmKH, v_BmKH, columns = xs
      mask_Blm = _mask(rows, columns)

      def add(top_BlKG, sum_BlKG, y_BlKGH):
        scores_BlKGm = _scores(q_BlKGH, k_BmKH, mask_Blm)
        new_BlKG = jnp.maximum(top_BlKG, scores_BlKGm.max(axis=-1))
        weights_BlKGm = jnp.exp(scores_BlKGm - new_BlKG[..., None])
        old_BlKG = jnp.exp(top_BlKG - new_BlKG)
        sum_BlKG = sum_BlKG * old_BlKG + weights_BlKGm.sum(axis=-1)
        weights_BlKGm = weights_BlKGm.astype(v_BmKH.dtype)
        y_BlKGH = y_BlKGH * old_BlKG[..., None]
        y_BlKGH += _product('BlKGm,BmKH->BlKGH', weights_BlKGm, v_BmKH)
        return new_BlKG, sum_BlKG, y_BlKGH

      skip = lambda *carry: carry
      return jax.lax.cond(mask_Blm.any(), add, skip, *carry), None

    zeros_BlKGH = jnp.zeros(q_BlKGH.shape, jnp.float32)
    zeros_BlKG = zeros_BlKGH[..., 0]
    carry = zeros_BlKG + _MASKED, zeros_BlKG, zeros_BlKGH
    (top_BlKG, sum_BlKG, y_BlKGH), _ = jax.lax.scan(add_keys, carry, keys)
    y_BlKGH /= sum_BlKG[..., None]
    return y_BlKGH.astype(q_BlKGH.dtype), top_BlKG + jnp.log(sum_BlKG)

  y, lse = jax.lax.map(of_queries, _cut((q_BLKGH, rows)))
  return _join(y), _join(lse)


def _backward(residuals, dy_BLKGH):
  """Returns the gradients of queries, keys and values."""
  q_BLKGH, k_BMKH, v_BMKH, rows, columns, y_BLKGH, lse_BLKG = residuals
  mean_BLKG = _product('BLKGH,BLKGH->BLKG', dy_BLKGH, y_BLKGH)
  queries = _cut((q_BLKGH, dy_BLKGH, lse_BLKG, mean_BLKG, rows))

  def of_keys(dq_CBlKGH, xs):
    k_BmKH, v_BmKH, columns = xs

    def add_queries(carry, xs):
      (q_BlKGH, dy_BlKGH, lse_BlKG, mean_BlKG, rows), dq_BlKGH = xs
      mask_Blm = _mask(rows, columns)

      def add(dk_BmKH, dv_BmKH, dq_BlKGH):
        scores_BlKGm = _scores(q_BlKGH, k_BmKH, mask_Blm)
        weights_BlKGm = jnp.exp(scores_BlKGm - lse_BlKG[..., None])
        low = weights_BlKGm.astype(dy_BlKGH.dtype)
        dv_BmKH += _product('BlKGm,BlKGH->BmKH', low, dy_BlKGH)
        d_BlKGm = _product('BlKGH,BmKH->BlKGm', dy_BlKGH, v_BmKH)
        d_BlKGm = weights_BlKGm * (d_BlKGm - mean_BlKG[..., None])
        d_BlKGm = d_BlKGm.astype(q_BlKGH.dtype)
        dk_BmKH += _product('BlKGm,BlKGH->BmKH', d_BlKGm, q_BlKGH)
        dq_BlKGH += _product('BlKGm,BmKH->BlKGH', d_BlKGm, k_BmKH)
        return dk_BmKH, dv_BmKH, dq_BlKGH

      skip = lambda *grads: grads
      *carry, dq_BlKGH = jax.lax.cond(
          mask_Blm.any(), add, skip, *carry, dq_BlKGH
      )
      return tuple(carry), dq_BlKGH

    zeros_BmKH = jnp.zeros(k_BmKH.shape, jnp.float32)
    grads, dq_CBlKGH = jax.lax.scan(
        add_queries, (zeros_BmKH, zeros_BmKH), (queries, dq_CBlKGH)
    )
    return dq_CBlKGH, grads

  zeros = jnp.zeros(queries[0].shape, jnp.float32)
  dq, (dk, dv) = jax.lax.scan(of_keys, zeros, _cut((k_BMKH, v_BMKH, columns)))
  dq, dk, dv = map(_join, (dq, dk, dv))
  grads = (dq, q_BLKGH), (dk, k_BMKH), (dv, v_BMKH)
  return *(grad.astype(x.dtype) for grad, x in grads), None, None


@jax.custom_vjp
def _attend(q_BLKGH, k_BMKH, v_BMKH, rows, columns):
  return _forward(q_BLKGH, k_BMKH, v_BMKH, rows, columns)[0]


def _attend_forward(q_BLKGH, k_BMKH, v_BMKH, rows, columns):
  found = _forward(q_BLKGH, k_BMKH, v_BMKH, rows, columns)
  # Both: with the output alone, the backward pass would make it all again.
  y_BLKGH, lse_BLKG = ad_checkpoint.checkpoint_name(found, 'attention')
  residuals = q_BLKGH, k_BMKH, v_BMKH, rows, columns, y_BLKGH, lse_BLKG
  return y_BLKGH, residuals


_attend.defvjp(_attend_forward, _backward)


def attend(
    q_BLKGH: jax.Array,
    k_BMKH: jax.Array,
    v_BMKH: jax.Array,
    rows: Rows,
    columns: Rows,
) -> jax.Array:
  """Returns y_BLKGH of arrays that lie on one device.

  Args:
    q_BLKGH: Queries, not scaled.
    k_BMKH: Keys.
    v_BMKH: Values.
    rows: positions_BL and segments_BL of the queries.
    columns: positions_BM and segments_BM of the keys; every query sees one.
  """
  q_BLKGH = q_BLKGH * (q_BLKGH.shape[-1] ** -0.5)
  return _attend(q_BLKGH, k_BMKH, v_BMKH, rows, columns)
