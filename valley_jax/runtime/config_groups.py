"""Groups of config fields that studies share and seldom change, as fresh dicts.

A config in `configs/` takes its groups from here and sets what its study decides:

    c.sample = config_groups.get_sample_group()
    c.sample.temperature = 0.0

`convert_group` turns a group into frozen settings, checked against their annotations. Limits are in
the types, with a description that the error message ends with:

    Share = Annotated[float, msgspec.Meta(ge=0, le=1, description='a number from 0 to 1')]
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import ml_collections as mlc
import msgspec

from valley_jax import errors


def get_path_fields() -> dict[str, Any]:
  """Where things are; an empty directory means the workdir's own."""
  return dict(
      traces='',  # FORMAT:PATH, or [FORMAT:PATH,...]; data/sources/traces.py.
      questions='',  # Local copies, for OCR rows whose question is "-".
      problems='',  # FORMAT:PATH, such as humaneval:PATH or jsonl:PATH.
      tokenizer='',  # hf:DIR, or bpe:SIZE to train one on the traces.
      chat_template='',  # file:PATH of a Jinja template; '': the tokenizer's own.
      shards='',  # Default <workdir>/shards.
      init='',  # hf:DIR to start from, checkpoint:DIR for another run's parameters, or random.
      curated='',  # Manifests of the subsets' `ids`. Default <workdir>/curated.
      checkpoint='',  # What to sample from. Default <workdir>/checkpoints.
      submissions='',  # Programs to judge instead of completions.
      teacher='',  # Name of the teacher that `teach` writes; '': the served model's name.
  )


def get_data_group() -> dict[str, Any]:
  """How traces become shards and batches."""
  return dict(
      max_len=32_768,  # Tokens of a row; longer traces are dropped.
      min_len=0,  # Tokens; shorter traces are dropped.
      pack='best_fit',  # Or none.
      traces_per_shard=2048,
      num_workers=0,  # Processes that filter and tokenise; 0: this process.
  )


def get_filters_group() -> dict[str, Any]:
  """Which traces are fit to learn from: OpenCodeReasoning's filters.

  0, False and () turn a filter off; valley_jax/data/cleaning/filters.py says what each refuses.
  """
  return dict(
      think=True,  # Exactly one <think>…</think>, ahead of the answer.
      code_in_answer=True,  # The answer has a program, as scoring takes it.
      no_code_in_think=False,  # The thought has no code fence.
      parses=True,  # The program parses.
      characters=(),  # (min, max) of the response; for tokens see `data`.
      loop_characters=0,  # Refuses this many characters of one repeated phrase; such as 2000.
      languages=(),  # Languages of programs: python, c, cpp17, cpp20.
      judgement=(),  # Label of the program: right, wrong, unknown.
      pass_rate=(),  # (min, max) share of tests passed.
      licenses=(),  # Only these, such as cc-by-4.0.
      sources=(),  # Only questions of these sets, such as taco.
      not_splits=(),  # No questions of these splits; 13 % of OCR-2 are of test splits.
  )


def get_duplicates_group() -> dict[str, Any]:
  """Which near-equal questions and traces are merged; the first one stays.

  valley_jax/data/cleaning/duplicates.py explains the method, MinHash.
  """
  return dict(
      questions='merge',  # Equal questions of two problem ids: merge into the first, drop or keep.
      traces='near',  # Which traces are refused: near or exact duplicates; keep: none.
      question_similarity=0.8,  # Jaccard similarity of their runs of words; an estimate.
      trace_similarity=0.8,
      question_words=3,  # Words of a run.
      trace_words=5,
      question_min_words=10,  # Shorter questions are compared whole,
      trace_min_words=50,  # and shorter traces within their question.
      num_hashes=128,  # Hashes of a text, a byte each; more: better estimates.
      bands=16,  # Some 20 bytes each; more: fewer duplicates are missed.
      seed=1,  # Seed of the hashes.
  )


def get_contamination_group() -> dict[str, Any]:
  """How questions that are problems of an evaluation are recognised."""
  return dict(
      problems=(),  # FORMAT:PATH of each evaluation; (): nothing is looked for.
      n=13,  # Words of a run.
      threshold=0.5,  # Share of the runs of the text that has fewer; 0: off.
      min_words=8,  # The question must contain a shorter problem and nothing else.
      aligned=0.8,  # Share of words in order, with other variables; 0: off.
      aligned_min_words=16,  # Without the phrases that many problems share.
      model='',  # Directory of an embedding model; '': off.
      cosine=0.7,  # Cosine of embeddings, as in OpenCodeReasoning.
  )


def get_mesh_group() -> dict[str, Any]:
  """How the devices are arranged."""
  return dict(
      data=1,  # Copies of the parameters.
      fsdp=-1,  # Parts of parameters and of batches; -1: all other devices.
      tp=1,  # Parts of heads and MLP columns.
      cp=1,  # Parts of a row's positions.
      slices=1,  # Slices that a slow network joins; data is a multiple.
  )


def get_train_group() -> dict[str, Any]:
  """How a student is trained."""
  return dict(
      batch_size=128,  # Packed rows.
      accumulate=1,  # Parts of a batch whose gradients are added.
      epochs=5,
      steps_of=0,  # Take as many steps as this many traces would; 0: as many as there are.
      learning_rate=8e-5,
      schedule='cosine',  # Or linear, constant, wsd.
      warmup_fraction=0.10,
      final_fraction=0.10,  # Last learning rate, as a share of the peak.
      decay_fraction=0.10,  # wsd: share of the steps, at the end.
      optimizer='adamw',  # Or adafactor, muon.
      b1=0.9,
      b2=0.95,
      muon_beta=0.95,  # For matrices; b1 and b2 are for the rest.
      adafactor_decay=0.8,  # Second moment: 1 - step^-.8; it has no b2.
      weight_decay=0.0,
      clip_norm=1.0,
      mu_dtype='float32',  # Moments between steps; bfloat16 takes half.
      nu_dtype='float32',
      param_dtype='float32',  # Or bfloat16, with stochastic rounding.
      lora_rank=0,  # 0: all parameters are trained; else only LoRA's A and B.
      lora_alpha=32.0,  # A B is scaled by alpha / rank.
      lora_matrices=('q', 'k', 'v', 'out', 'gate', 'up', 'down'),
      dtype='bfloat16',  # Compute.
      remat='full',  # Or none, attention, qkv, offload: models/transformer.py.
      loss_chunk_len=1024,
      z_loss=0.0,  # E.g. 1e-4 (PaLM); reported losses are without it.
      checkpoint_every=100,  # Steps.
      keep=1,  # This many of the latest checkpoints stay,
      keep_every=0,  # and those of steps that this divides; 0: no others.
  )


def get_watch_group() -> dict[str, Any]:
  """What a run measures of its student; it changes the student in one way alone, `held_out`."""
  return dict(
      held_out=64,  # Traces for a validation loss; a named subset trains without them; 0: none.
      held_out_every=100,  # Steps; and at the end.
      prompts=16,  # Problems that are sampled as training goes on; 0: none.
      prompts_every=100,
      num_samples=1,  # Samples of each problem.
      max_new_tokens=8192,
      judge=False,  # Judge the samples' programs, as `execute` does.
      copy_params=True,  # Sample fast from a copy; False: slower, in little memory.
      profile='',  # START:STOP, steps to trace into <workdir>/profile.
  )


def get_sample_group() -> dict[str, Any]:
  """How completions are sampled: OpenCodeReasoning's decoding."""
  return dict(
      num_samples=4,
      max_new_tokens=32_768,
      temperature=0.6,  # 0: greedy.
      top_p=0.95,  # Applied after top_k; 1: off.
      top_k=0,  # This many of the likeliest tokens; 0: all.
      min_p=0.0,  # At least this times the likeliest token's probability; 0: off.
      stop=(),  # Strings that end a sample and stay in it, such as '\n```\n';
      stop_after='',  # only after this string, such as '</think>'.
      loop_tokens=0,  # Ends a sample whose last tokens, this many, are a loop; 0: never.
      dtype='bfloat16',
      tp=1,  # Parts of the heads; the other devices share the slots.
      stages=(8192, 16_384),  # Positions of a slot, ahead of the longest stage.
      num_slots=0,  # Slots of the first stage; 0: as many as fit the memory.
      chunk_len=64,  # Steps on the device between two looks of the host.
      prefill_tokens=8192,  # Tokens of one call, padding included.
      resume='exact',  # From the last stage; or fast: from the last flush.
      flush_seconds=60.0,  # Between two flushes of the samples that are under way.
      # The address of a server that samples instead, such as http://HOST:8000/v1. The fields below
      # are the server's; see sampling/remote.py.
      server='',
      model='',  # Its name on the server; '': the only one.
      seeded=True,  # Send a seed with each request, if the server accepts seeds.
      concurrency=64,  # Requests under way at a time.
      timeout_seconds=3600.0,  # Limit for a whole sample.
      retries=8,  # Retries of one request before the run ends.
  )


def get_judge_fields() -> dict[str, Any]:
  """How programs are judged and scored; these fields are not in a group."""
  return dict(
      cpu_seconds=10.0,  # For problems that state no limit.
      multipliers=dict(python=1.0, cpp17=1.0, cpp20=1.0),  # Factors of the CPU limit.
      profile='strict',  # Or lcb_compat, LiveCodeBench's grader.
      all_tests=False,  # False: stop at the first test that fails.
      tier='',  # The isolation that must hold: T0, T1, T2; '': the strongest.
      waivers=(),  # Names of isolation checks that may fail; recorded in scores.json.
      num_workers=0,  # 0: one a core.
      ray='',  # 'local' or a cluster's address: judge by Ray.
      cache='',  # A directory for verdicts and binaries; '': no cache.
      ks=(1,),  # Every k of pass@k.
      num_bootstrap=10_000,
  )


def get_mini_world_group() -> dict[str, Any]:
  """The embedded world: its problems, traces and base student."""
  return dict(
      num_base=12_000,  # Problems of the base student's own training.
      num_train=4_096,  # Traces; the sizes are subsets of them.
      num_problems=256,  # Problems of the evaluation.
      num_judged=256,  # Programs of each teacher to label by execution.
      vocab_size=640,
      epochs=1,  # Epochs of the base student.
      learning_rate=3e-3,
      seed=0,
  )


def use_mini_student(c: mlc.ConfigDict) -> None:
  """Sets the student of the embedded world and what sampling and judging it take on two cores."""
  c.student = 'mini'
  c.prompt = 'plain'
  c.sample.update(
      num_samples=1,
      max_new_tokens=160,
      temperature=0.0,
      top_p=1.0,
      dtype='float32',  # bfloat16 is slower than float32 on CPUs.
      num_slots=64,
      chunk_len=8,
      prefill_tokens=1024,
  )
  c.cpu_seconds = 2.0


Settings = TypeVar('Settings')


def convert_group(group: Mapping[str, Any], name: str, settings_type: type[Settings]) -> Settings:
  """Returns `config.<name>` as a frozen dataclass.

  Args:
    group: The config group.
    name: The group's name, for messages.
    settings_type: A dataclass whose fields are those of the group; those with a default may be
      left out.

  Raises:
    UserError: a field that is unknown or missing, or a value that its type does not allow.
  """
  hints = get_type_hints(settings_type, include_extras=True)
  fields = {field.name: field for field in dataclasses.fields(settings_type)}  # pyright: ignore
  required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
  for field in sorted({*group} ^ {*fields}):
    if field not in fields or field in required:
      problem = 'is missing' if field in fields else 'is unknown'
      raise errors.UserError(
          f'config.{name}.{field} {problem}; its fields are {", ".join(fields)}.'
      )
  values = {}
  for field, value in group.items():
    try:
      values[field] = msgspec.convert(value, hints[field])
    except msgspec.ValidationError as e:
      wanted = _describe_type(hints[field]) or str(e)
      raise errors.UserError(f'config.{name}.{field}={value!r}: want {wanted}.') from e
  return settings_type(**values)


def _describe_type(hint: Any) -> str:
  """Returns what values of a type are, in words; '' if that is not known."""
  for argument in get_args(hint):
    if isinstance(argument, msgspec.Meta) and argument.description:
      return argument.description
  if get_origin(hint) is Literal:
    return f'one of {", ".join(map(str, get_args(hint)))}'
  return 'True or False' if hint is bool else ''
