"""From a run's config to an engine."""

from typing import Any

import ml_collections as mlc

from valley_jax.models import cache
from valley_jax.models import student as student_lib
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.sampling import stages as stages_lib
from valley_jax.sampling import stops as stops_lib


def engine(
    config: mlc.ConfigDict,
    student: student_lib.Student,
    params: Any,
    tokenizer: Any,
    *,
    longest_prompt: int,
    give_up: bool = False,
) -> engine_lib.Engine:
  """Returns an engine on the current mesh.

  Args:
    config: Of the run; `sample` says how.
    student: Sizes.
    params: As they are trained, laid out over the mesh.
    tokenizer: Of the student.
    longest_prompt: Tokens.
    give_up: Delete `params` on the way, so that memory holds them once.

  Raises:
    ValueError: as `methods`, `stages` and `stops` say.
  """
  s = config.sample
  method = methods.of(s.temperature, s.top_p, s.top_k, s.min_p)
  settings = lanes.Settings(
      student=student,
      params=cache.unstack(params, s.dtype, give_up),
      method=method,
      seed=config.seed,
      chunk_len=s.chunk_len,
      prefill_tokens=s.prefill_tokens,
      dtype=s.dtype,
  )
  stages = stages_lib.plan(
      student,
      lengths=s.stages,
      longest_prompt=longest_prompt,
      max_new_tokens=s.max_new_tokens,
      num_slots=s.num_slots,
      dtype=s.dtype,
      free=stages_lib.free_bytes(),
  )
  return engine_lib.Engine(
      settings,
      stages,
      end_token=tokenizer.eos_token_id,
      max_new_tokens=s.max_new_tokens,
      stops=stops_lib.Stops(
          decode=lambda tokens: str(tokenizer.decode(tokens)),
          strings=tuple(s.stop),
          after=s.stop_after,
          loop_tokens=s.loop_tokens,
      ),
  )
