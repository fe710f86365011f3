"""Attention in plain JAX, a block of queries against a block of keys at a time.

Online softmax (Milakov and Gimelshein, 1805.02867) forward, and scores computed again in the
backward pass, as FlashAttention does (Dao et al., 2205.14135): memory grows with the length, not
with its square. Pairs of blocks in which no query sees any key are skipped at run time, so that
packed rows cost what their segments cost.

Letters as in `transformer.py`, for one row at a time; l and m are the positions of one block, n its
queries, G for each of l, and C blocks are scanned over. Heads lead and n are side by side, so that
all products are of matrices: XLA would write others anew on a CPU. `rows` and `columns` are the
positions and segments, a pair, of queries and of keys.
"""

import jax
from jax import ad_checkpoint
import jax.numpy as jnp

BLOCK_LEN = 256  # Positions of queries, and of keys, of a pair of blocks.
_MASKED = -1e30

Rows = tuple[jax.Array, jax.Array]


def _cut_positions(x: jax.Array) -> jax.Array:
  """Cuts positions into blocks, evenly: L… -> Cl…."""
  size = max(n for n in range(1, BLOCK_LEN + 1) if x.shape[0] % n == 0)
  return x.reshape(-1, size, *x.shape[1:])


def _cut_queries(x_LKGH: jax.Array) -> jax.Array:
  """Returns x_CKnH."""
  x_CKlGH = jnp.swapaxes(_cut_positions(x_LKGH), 1, 2)
  c, k, size, g, h = x_CKlGH.shape
  return x_CKlGH.reshape(c, k, size * g, h)


def _join_queries(x_CKnH: jax.Array, like_LKGH: jax.Array) -> jax.Array:
  """Undoes `_cut_queries`; returns the shape and the dtype of `like`."""
  c, k, _, h = x_CKnH.shape
  x_CKlGH = x_CKnH.reshape(c, k, -1, like_LKGH.shape[2], h)
  x_LKGH = jnp.swapaxes(x_CKlGH, 1, 2).reshape(like_LKGH.shape)
  return x_LKGH.astype(like_LKGH.dtype)


def _cut_keys(x_MKH: jax.Array) -> jax.Array:
  """Returns x_CKmH."""
  return jnp.swapaxes(_cut_positions(x_MKH), 1, 2)


def _join_keys(x_CKmH: jax.Array, like_MKH: jax.Array) -> jax.Array:
  """Undoes `_cut_keys`; returns the shape and the dtype of `like`."""
  x_MKH = jnp.swapaxes(x_CKmH, 1, 2).reshape(like_MKH.shape)
  return x_MKH.astype(like_MKH.dtype)


def _build_mask(rows: Rows, columns: Rows) -> jax.Array:
  """Returns mask_lm, as `attention.build_causal_mask` does."""
  (position_l, segment_l), (position_m, segment_m) = rows, columns
  same_lm = segment_l[:, None] == segment_m[None, :]
  return same_lm & (position_l[:, None] >= position_m[None, :])


def _multiply_in_float32(subscripts: str, *operands: jax.Array) -> jax.Array:
  return jnp.einsum(subscripts, *operands, preferred_element_type=jnp.float32)


def _compute_scores(q_KnH, k_KmH, mask_lm) -> jax.Array:
  scores_Knm = _multiply_in_float32('KnH,KmH->Knm', q_KnH, k_KmH)
  mask_nm = jnp.repeat(mask_lm, q_KnH.shape[1] // mask_lm.shape[0], axis=0)
  return jnp.where(mask_nm, scores_Knm, _MASKED)


def _attend_row(q_LKGH, k_MKH, v_MKH, rows, columns):
  """Returns y_LKGH and lse_CKn, the log of each softmax's sum; float32."""
  keys = _cut_keys(k_MKH), _cut_keys(v_MKH), jax.tree.map(_cut_positions, columns)

  def attend_queries(xs):
    q_KnH, rows = xs

    def add_keys(carry, xs):
      k_KmH, v_KmH, columns = xs
      mask_lm = _build_mask(rows, columns)

      def add(top_Kn, sum_Kn, y_KnH):
        scores_Knm = _compute_scores(q_KnH, k_KmH, mask_lm)
        new_Kn = jnp.maximum(top_Kn, scores_Knm.max(axis=-1))
        weights_Knm = jnp.exp(scores_Knm - new_Kn[..., None])
        old_Kn = jnp.exp(top_Kn - new_Kn)
        sum_Kn = sum_Kn * old_Kn + weights_Knm.sum(axis=-1)
        weights_Knm = weights_Knm.astype(v_KmH.dtype)
        y_KnH = y_KnH * old_Kn[..., None]
        y_KnH += _multiply_in_float32('Knm,KmH->KnH', weights_Knm, v_KmH)
        return new_Kn, sum_Kn, y_KnH

      skip = lambda *carry: carry
      return jax.lax.cond(mask_lm.any(), add, skip, *carry), None

    zeros_KnH = jnp.zeros(q_KnH.shape, jnp.float32)
    zeros_Kn = zeros_KnH[..., 0]
    carry = zeros_Kn + _MASKED, zeros_Kn, zeros_KnH
    (top_Kn, sum_Kn, y_KnH), _ = jax.lax.scan(add_keys, carry, keys)
    return y_KnH / sum_Kn[..., None], top_Kn + jnp.log(sum_Kn)

  queries = _cut_queries(q_LKGH), jax.tree.map(_cut_positions, rows)
  y_CKnH, lse_CKn = jax.lax.map(attend_queries, queries)
  return _join_queries(y_CKnH, q_LKGH), lse_CKn


def _differentiate_row(residuals, dy_LKGH):
  """Returns the gradients of queries, keys and values."""
  q_LKGH, k_MKH, v_MKH, rows, columns, y_LKGH, lse_CKn = residuals
  dy_CKnH = _cut_queries(dy_LKGH)
  mean_CKn = _multiply_in_float32('CKnH,CKnH->CKn', dy_CKnH, _cut_queries(y_LKGH))
  rows = jax.tree.map(_cut_positions, rows)
  queries = _cut_queries(q_LKGH), dy_CKnH, lse_CKn, mean_CKn, rows

  def sum_over_queries(dq_CKnH, xs):
    k_KmH, v_KmH, columns = xs

    def add_queries(carry, xs):
      (q_KnH, dy_KnH, lse_Kn, mean_Kn, rows), dq_KnH = xs
      mask_lm = _build_mask(rows, columns)

      def add(dk_KmH, dv_KmH, dq_KnH):
        scores_Knm = _compute_scores(q_KnH, k_KmH, mask_lm)
        weights_Knm = jnp.exp(scores_Knm - lse_Kn[..., None])
        low_Knm = weights_Knm.astype(dy_KnH.dtype)
        dv_KmH += _multiply_in_float32('Knm,KnH->KmH', low_Knm, dy_KnH)
        d_Knm = _multiply_in_float32('KnH,KmH->Knm', dy_KnH, v_KmH)
        d_Knm = weights_Knm * (d_Knm - mean_Kn[..., None])
        d_Knm = d_Knm.astype(q_KnH.dtype)
        dk_KmH += _multiply_in_float32('Knm,KnH->KmH', d_Knm, q_KnH)
        dq_KnH += _multiply_in_float32('Knm,KmH->KnH', d_Knm, k_KmH)
        return dk_KmH, dv_KmH, dq_KnH

      skip = lambda *grads: grads
      *carry, dq_KnH = jax.lax.cond(mask_lm.any(), add, skip, *carry, dq_KnH)
      return tuple(carry), dq_KnH

    zeros_KmH = jnp.zeros(k_KmH.shape, jnp.float32)
    grads, dq_CKnH = jax.lax.scan(add_queries, (zeros_KmH, zeros_KmH), (queries, dq_CKnH))
    return dq_CKnH, grads

  keys = _cut_keys(k_MKH), _cut_keys(v_MKH), jax.tree.map(_cut_positions, columns)
  zeros_CKnH = jnp.zeros(dy_CKnH.shape, jnp.float32)
  dq_CKnH, (dk_CKmH, dv_CKmH) = jax.lax.scan(sum_over_queries, zeros_CKnH, keys)
  return (_join_queries(dq_CKnH, q_LKGH), _join_keys(dk_CKmH, k_MKH), _join_keys(dv_CKmH, v_MKH))


@jax.custom_vjp
def _attend_rows(q_BLKGH, k_BMKH, v_BMKH, rows, columns):
  return _attend_rows_forward(q_BLKGH, k_BMKH, v_BMKH, rows, columns)[0]


def _attend_rows_forward(*args):
  # Row by row: each skips its own pairs of blocks without any visible key.
  outputs = jax.lax.map(lambda row: _attend_row(*row), args)
  # Both: with the output alone, the backward pass would compute it all again.
  y_BLKGH, lse = ad_checkpoint.checkpoint_name(outputs, 'attention')
  return y_BLKGH, (*args, y_BLKGH, lse)


def _attend_rows_backward(residuals, dy_BLKGH):
  grads = jax.lax.map(lambda row: _differentiate_row(*row), (residuals, dy_BLKGH))
  return *grads, None, None


_attend_rows.defvjp(_attend_rows_forward, _attend_rows_backward)


def attend_by_blocks(
    q_BLKGH: jax.Array, k_BMKH: jax.Array, v_BMKH: jax.Array, rows: Rows, columns: Rows
) -> jax.Array:
  """Returns y_BLKGH of arrays on one device.

  Args:
    q_BLKGH: Queries, not scaled.
    k_BMKH: Keys.
    v_BMKH: Values.
    rows: positions_BL and segments_BL of the queries.
    columns: positions_BM and segments_BM of the keys; every query sees one.
  """
  q_BLKGH = q_BLKGH * (q_BLKGH.shape[-1] ** -0.5)
  return _attend_rows(q_BLKGH, k_BMKH, v_BMKH, rows, columns)
