"""Tokenises traces into shards.

    python -m valley_jax.shard --config configs/valley.py --workdir RUN \\
        --config.traces=ocr2:python.jsonl --config.questions=QUESTIONS \\
        --config.tokenizer=hf:Qwen2.5-7B-Instruct
    python -m valley_jax.shard inspect RUN --row 3

Reads   config.traces      FORMAT:PATH or [FORMAT:PATH,...]; valley_jax/data/sources/traces.py
        config.questions   local copies of the sets of the OCR-1 and OCR-2 rows whose question is
                           "-"; valley_jax/data/sources/ocr.py
        config.filters     which traces are fit to learn from; valley_jax/data/cleaning/filters.py
        config.contamination  evaluations whose problems must not be trained on
        config.duplicates  what to do with repeated traces and repeated questions
        config.tokenizer   hf:DIR, or bpe:SIZE to train one on the traces
        config.chat_template  '', the tokenizer's own, or file:PATH of Jinja
        config.prompt      the texts in which a question is put: ocr, livecodebench, plain, or
                           file:PATH of your own; valley_jax/data/tokens/prompts.py
Writes  RUN/shards/*.array_record  tokens and loss weights, 1 shard a block
        RUN/shards/*.json          ids, labels and lengths of each shard
        RUN/shards/decisions.jsonl what was decided about each trace, and why
        RUN/shards/contaminated.jsonl  questions of an evaluation, with the matching texts of both
        RUN/shards/quarantine.jsonl  rows that could not be read, with reasons
        RUN/shards/manifest.json   sources, counts, drops by reason, hashes
        RUN/shards/card.html       the data card: the same to look at
        RUN/shards/tokenizer/      the tokenizer, for train and sample

The sources are read twice: first to decide which traces are kept, then to tokenise these. Every
drop is counted and every bad row kept; traces longer than config.data.max_len tokens, or shorter
than config.data.min_len, are dropped, never cut. A second run on a finished workdir does nothing;
after a kill, the next run resumes at the first unfinished block, and ends with the same bytes.

config.data.num_workers processes filter and sketch, then tokenise, each a block of
config.data.traces_per_shard; 0: this process. The bytes do not depend on it.

`inspect` prints rows as they are trained on, in colours: the prompt grey, the thinking blue, the
answer green, after a line of their ids, labels and lengths.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Iterator
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import shutil
import sys
from typing import Any

import ml_collections as mlc

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.analysis import data_card
from valley_jax.data.cleaning import contamination
from valley_jax.data.cleaning import decisions
from valley_jax.data.cleaning import duplicates
from valley_jax.data.cleaning import filters
from valley_jax.data.problem_formats import problems
from valley_jax.data.shards import building
from valley_jax.data.shards import inspection
from valley_jax.data.shards import shards
from valley_jax.data.sources import rows
from valley_jax.data.sources import traces
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import metrics
from valley_jax.runtime import storage

Statements = list[tuple[str, str]]  # Problem ids and statements.


@dataclasses.dataclass(frozen=True)
class _Inputs:
  """What is read before the traces."""

  sources: list[str]  # FORMAT:PATH each.
  evaluation: Statements  # The problems of config.contamination.problems.
  prompt: prompts.Prompt
  chat_template: str  # Jinja; '' for the tokenizer's own.


def _read_inputs(config: mlc.ConfigDict) -> _Inputs:
  if config.data.min_len > config.data.max_len:
    raise errors.UserError(
        f'data.min_len={config.data.min_len:,} is over data.max_len={config.data.max_len:,}: no'
        ' trace would be left; lower it.'
    )
  prompt, chat_template = prompts.load_prompt(config.prompt), _read_chat_template(config)
  sources = list(traces.parse_sources(config.traces))
  for source in sources:  # Printed first, since hashing the files may take minutes.
    names = traces.list_files(source)
    print(f'shard: {source} is {len(names):,} files, from {names[0]} on.')
  evaluation = [
      (problem.problem_id, problem.statement)
      for source in config.contamination.problems
      for problem in problems.read_problems(source)
  ]
  return _Inputs(sources, evaluation, prompt, chat_template)


def _read_chat_template(config: mlc.ConfigDict) -> str:
  if not config.chat_template:
    return ''
  kind, _, path = config.chat_template.partition(':')
  if kind != 'file' or not pathlib.Path(path).is_file():
    raise errors.UserError(
        f'config.chat_template={config.chat_template!r}: want file:PATH of a Jinja chat template'
        " that exists, or '' for the tokenizer's own."
    )
  return pathlib.Path(path).read_text()


def _collect_settings(config: mlc.ConfigDict, inputs: _Inputs) -> dict[str, Any]:
  """Returns everything that the shards depend on, besides the tokenizer's files."""
  settings = {
      'traces': inputs.sources,
      'traces_sha256': [traces.hash_source(source) for source in inputs.sources],
      'prompt': inputs.prompt.name,
      'prompt_text_sha256': prompts.hash_prompt(inputs.prompt),
      'max_len': config.data.max_len,
      'traces_per_shard': config.data.traces_per_shard,
      'format': shards.FORMAT,
      'tokenizer': config.tokenizer,
      **{
          name: json.loads(config[name].to_json())
          for name in ('filters', 'duplicates', 'contamination')
      },
      'evaluation_sha256': hashlib.sha256(json.dumps(inputs.evaluation).encode()).hexdigest(),
  }
  # Only where they matter, so that shards made before these fields existed stay valid.
  if any(map(traces.needs_questions, inputs.sources)):
    settings['questions'] = config.questions
  if config.data.min_len:
    settings['min_len'] = config.data.min_len
  if inputs.chat_template:
    encoded = inputs.chat_template.encode()
    settings['chat_template_sha256'] = hashlib.sha256(encoded).hexdigest()
  return settings


def _collect_versions() -> dict[str, str]:
  """Returns what the bytes of a shard may depend on, besides the settings."""
  names = ('valley_jax', 'tokenizers', 'transformers', 'numpy')
  versions = {name: importlib.metadata.version(name) for name in names}
  return {**versions, 'python': platform.python_version()}


def _claim_directory(config: mlc.ConfigDict, inputs: _Inputs, directory: pathlib.Path) -> bool:
  """Writes or compares the settings of the shards; returns whether the shards are complete."""
  settings = _collect_settings(config, inputs)
  directory.mkdir(parents=True, exist_ok=True)
  if not (directory / 'decisions.jsonl').exists():
    # Nothing depends on the settings yet: they may still be corrected.
    for name in ('settings.json', 'versions.json'):
      (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / 'tokenizer', ignore_errors=True)
  storage.claim_directory(directory / 'settings.json', settings)
  if (directory / 'manifest.json').exists():
    return True
  # Complete shards may be read by any version; incomplete ones are continued by the same.
  storage.claim_directory(directory / 'versions.json', _collect_versions())
  return False


def _copy_tokenizer(config: mlc.ConfigDict, inputs: _Inputs, directory: pathlib.Path) -> None:
  """Copies a tokenizer hf:DIR to the shards, and checks that it can render the prompt."""
  kind, _, argument = config.tokenizer.partition(':')
  if kind == 'hf' and not directory.exists():
    scratch = directory.with_name('tokenizer.tmp')
    shutil.rmtree(scratch, ignore_errors=True)
    tokenization.load_tokenizer(argument, inputs.chat_template).save_pretrained(scratch)
    scratch.rename(directory)
  elif kind != 'hf' and not (kind == 'bpe' and argument.isdecimal()):
    raise errors.UserError(f'config.tokenizer={config.tokenizer!r}: want hf:DIR or bpe:SIZE.')
  if directory.exists():  # A faulty one is reported before traces are read.
    _load_tokenizer(directory, inputs.prompt)


def _load_tokenizer(directory: pathlib.Path, prompt: prompts.Prompt) -> tokenization.Tokenizer:
  """Returns the tokenizer of the shards, or raises a `UserError` if it cannot render the prompt."""
  tokenizer = tokenization.load_tokenizer(directory)
  tokenization.encode_prompt(tokenizer, prompts.render_question(prompt, ''), prompt.system)
  return tokenizer


def _build_contamination(
    config: mlc.ConfigDict, evaluation: Statements
) -> contamination.Contamination | None:
  if not evaluation:
    return None
  settings = contamination.Settings.from_config(config.contamination)
  embed = None
  if settings.model:
    from valley_jax.models import text_vectors  # Imports JAX, which nothing else here needs.

    embed = text_vectors.load_embedder(settings.model)
  return contamination.Contamination(evaluation, settings, embed)


def _decide_traces(
    config: mlc.ConfigDict, inputs: _Inputs, directory: pathlib.Path, read: decisions.Read
) -> None:
  """Writes what is decided about each trace: the first pass over the sources."""
  num_rows = traces.estimate_num_rows(inputs.sources)
  with metrics.progress(num_rows, 'row', 'shard, decides') as bar:
    cleaner = decisions.Cleaner(
        filters.Settings.from_config(config.filters),
        duplicates.Settings.from_config(config.duplicates),
        _build_contamination(config, inputs.evaluation),
    )
    decisions.write_decisions(
        directory,
        inputs.sources,
        read,
        cleaner.decide_trace,
        cleaner.look,
        bar.update,
        config.data.num_workers,
    )
  decisions.write_contaminated(directory)


def _tokenize_traces(
    config: mlc.ConfigDict, inputs: _Inputs, directory: pathlib.Path, read: decisions.Read
) -> None:
  """Writes the shards of the kept traces: the second pass over the sources."""
  settings = building.BlockSettings(
      directory=directory,
      prompt=inputs.prompt,
      max_len=config.data.max_len,
      traces_per_shard=config.data.traces_per_shard,
      num_workers=config.data.num_workers,
      min_len=config.data.min_len,
  )
  num_kept = decisions.count_decisions(directory, inputs.sources).num_kept
  with metrics.progress(num_kept, 'trace', 'shard, tokenises') as bar:
    building.write_blocks(settings, decisions.read_kept_traces(directory, read), bar.update)


def _describe_quarantine(directory: pathlib.Path) -> str:
  """Returns how many rows could not be read, and why the first could not."""
  number, first = 0, None
  for row in jsonl.read_rows(directory / 'quarantine.jsonl', dict):
    number, first = number + 1, first or row
  if first is None:
    return '0'
  where = f'{first["file"]}, row {first["line"]:,}'
  return f'{number:,} (quarantine.jsonl), first {where}: {first["reason"]}'


def shard(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/shards from config.traces; see the module's docstring."""
  directory = pathlib.Path(workdir) / 'shards'
  inputs = _read_inputs(config)
  if _claim_directory(config, inputs, directory):
    print(f'shard: {directory} is complete.')
    return
  _copy_tokenizer(config, inputs, directory / 'tokenizer')

  def read(source: str, quarantine: rows.Quarantine) -> Iterator[records.Trace]:
    return traces.read_traces(source, config.questions, quarantine)

  _decide_traces(config, inputs, directory, read)
  if not (directory / 'tokenizer').exists():
    tokenization.train_bpe(
        directory / 'tokenizer',
        decisions.read_kept_traces(directory, read),
        int(config.tokenizer.removeprefix('bpe:')),
        chat_template=inputs.chat_template or tokenization.CHAT_TEMPLATE,
    )
  tokenizer = _load_tokenizer(directory / 'tokenizer', inputs.prompt)
  _tokenize_traces(config, inputs, directory, read)
  settings = jsonl.read_json(directory / 'settings.json')
  manifest = building.build_manifest(directory, inputs.sources, settings, tokenizer, inputs.prompt)
  if not manifest['num_traces']:
    raise errors.UserError(
        f'None of the traces of {config.traces} can be used: dropped {manifest["dropped"]},'
        f' quarantined {_describe_quarantine(directory)}. The reasons are in'
        f' {directory}/decisions.jsonl and quarantine.jsonl: mend them, delete {directory} and run'
        ' shard again.'
    )
  card = data_card.render_data_card(manifest, shards.read_table(directory))
  jsonl.write_atomically(directory / 'card.html', card)
  # Last: the manifest says that everything else is there.
  jsonl.write_json(directory / 'manifest.json', manifest)
  print(
      f'shard: {manifest["num_traces"]:,} traces, {manifest["num_tokens"]:,} tokens, dropped'
      f' {manifest["dropped"]}, quarantined {_describe_quarantine(directory)}.'
  )


if __name__ == '__main__':
  if sys.argv[1:2] == ['inspect']:
    inspection.print_rows(sys.argv[2:])
  else:
    entry.run(shard)
