"""What the forward pass of a layer keeps for the backward pass.

    none        everything
    full        the layer's input; the rest is computed again
    attention   also what attention found, so that it does not run again
    qkv         also queries, keys and values
    offload     as full, and the inputs wait in the host's memory

From top to bottom as the names stand in `POLICIES`. One 32k row of
Qwen2.5-7B on each of 8 v5p chips takes 39 GB of a chip with full, 46 with
attention, 53 with qkv.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import ad_checkpoint

from valley_jax import errors

_policies = jax.checkpoint_policies

# Names of what is kept; None keeps everything. A kernel names its output and
# its softmax's sums 'attention': with the output alone it would run again.
POLICIES = {
    'none': None,
    'full': _policies.nothing_saveable,
    'attention': _policies.save_only_these_names('attention'),
    'qkv': _policies.save_only_these_names('attention', 'qkv'),
    'offload': _policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=['layer_input'],
        offload_src='device',
        offload_dst='pinned_host',
    ),
}


def name(tree: Any, what: str) -> Any:
  """Names arrays, so that a policy can say whether they are kept."""
  return ad_checkpoint.checkpoint_name(tree, what)


def checkpoint(layer: Callable[..., Any], remat: str) -> Callable[..., Any]:
  """Returns the layer, keeping what the choice says.

  Raises:
    ValueError: the choice is unknown.
  """
  if remat not in POLICIES:
    raise errors.UserError(f'config.train.remat={remat!r}: want one of {", ".join(POLICIES)}.')
  if remat == 'none':
    return layer
  return jax.checkpoint(layer, policy=POLICIES[remat])
