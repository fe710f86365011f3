"""From a run's config to what draws samples: an engine, or a server."""

from typing import Any

import jax
import ml_collections as mlc

from valley_jax.models import cache
from valley_jax.models import student as student_lib
from valley_jax.runtime import partitioning
from valley_jax.sampling import dialects
from valley_jax.sampling import engine as engine_lib
from valley_jax.sampling import lanes
from valley_jax.sampling import methods
from valley_jax.sampling import remote
from valley_jax.sampling import stages as stages_lib
from valley_jax.sampling import stops as stops_lib


def mesh(tp: int) -> jax.sharding.Mesh:
  """Returns the mesh of one process: slots on `data`, heads on `tp`."""
  return partitioning.make_mesh(data=-1, fsdp=1, tp=tp, devices=jax.local_devices())


def _method(s: mlc.ConfigDict) -> methods.Method:
  return methods.of(s.temperature, s.top_p, s.top_k, s.min_p)


def _stops(s: mlc.ConfigDict, tokenizer: Any) -> stops_lib.Stops:
  return stops_lib.Stops(
      decode=lambda tokens: str(tokenizer.decode(tokens)),
      strings=tuple(s.stop),
      after=s.stop_after,
      loop_tokens=s.loop_tokens,
  )


def engine(
    config: mlc.ConfigDict,
    student: student_lib.Student,
    params: Any,
    tokenizer: Any,
    *,
    longest_prompt: int,
    give_up: bool = False,
    copy: bool = True,
) -> engine_lib.Engine:
  """Returns an engine on the current mesh.

  Args:
    config: Of the run; `sample` says how.
    student: Sizes.
    params: As they are trained, laid out over the mesh.
    tokenizer: Of the student.
    longest_prompt: Tokens.
    give_up: Delete `params` on the way, so that memory holds them once.
    copy: Decode with a copy that is laid out for it; or with `params` as they
      are, which is slower and takes the memory of a layer or two.

  Raises:
    ValueError: as `methods`, `stages` and `stops` say.
  """
  s = config.sample
  if copy:
    params = cache.unstack_layers(student, params, s.dtype, give_up)
  settings = lanes.Settings(
      student=student,
      params=params,
      method=_method(s),
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
      stops=_stops(s, tokenizer),
  )


def server(config: mlc.ConfigDict, tokenizer: Any, api_key: str) -> remote.Server:
  """Returns the server that samples instead of an engine.

  Args:
    config: Of the run; `sample` says where it is and how it is asked.
    tokenizer: Of what is served.
    api_key: Sent as a bearer token; '' sends none.
  """
  s = config.sample
  encode = lambda text, **extra: tokenizer(text, **extra)['input_ids']
  asked = dialects.Asked(
      method=_method(s),
      seed=config.seed,
      end_token=tokenizer.eos_token_id,
      max_new_tokens=s.max_new_tokens,
      encode=lambda text: encode(text, add_special_tokens=False),
      decode=lambda tokens: str(tokenizer.decode(tokens)),
      encode_prompt=encode,
      stops=_stops(s, tokenizer),
  )
  return remote.Server(
      s.server,
      asked,
      model=s.model,
      dialect=s.dialect,
      seeded=s.seeded,
      concurrency=s.concurrency,
      timeout_seconds=s.timeout_seconds,
      retries=s.retries,
      api_key=api_key,
  )
