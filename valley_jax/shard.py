"""Tokenises traces into shards.

    python -m valley_jax.shard --config configs/valley.py --workdir RUN \\
        --config.traces=ocr2:python.jsonl --config.questions=QUESTIONS \\
        --config.tokenizer=hf:Qwen2.5-7B-Instruct
    python -m valley_jax.shard inspect RUN --row 3

Reads   config.traces      FORMAT:PATH or [FORMAT:PATH,...], as
                           valley_jax/data/sources/traces.py says
        config.questions   local copies of the sets of OCR-1 and OCR-2 rows
                           whose question is "-"
                           (valley_jax/data/sources/ocr.py)
        config.filters     which traces are fit; data/cleaning/filters.py
        config.contamination  evaluations whose problems nobody shall have seen
        config.duplicates  traces, and questions, that were there before
        config.tokenizer   hf:DIR, or bpe:SIZE to train one on the traces
        config.chat_template  '', the tokenizer's own, or file:PATH of Jinja
        config.prompt      the words in which a question is put: ocr,
                           livecodebench, plain, or file:PATH of your own
                           (valley_jax/data/tokens/prompts.py)
Writes  RUN/shards/*.array_record  tokens and loss weights, 1 shard a block
        RUN/shards/*.json          ids, labels and lengths of each shard
        RUN/shards/decisions.jsonl what was decided about each trace, and why
        RUN/shards/contaminated.jsonl  questions of an evaluation, and texts
                                       of both that match
        RUN/shards/quarantine.jsonl  rows that could not be read, with reasons
        RUN/shards/manifest.json   sources, counts, drops by reason, hashes
        RUN/shards/card.html       the same to look at: the data card
        RUN/shards/tokenizer/      the tokenizer, for train and sample

The sources are read twice: first it is decided which traces are kept, then
these are tokenised. Every drop is counted and every bad row kept; traces longer
than config.data.max_len tokens, or shorter than config.data.min_len, are
dropped, never cut. Run twice, the second run does nothing; killed, the next run
goes on at the first unfinished block, and ends with the same bytes.

config.data.num_workers processes filter and sketch, then tokenise, each a block
of config.data.traces_per_shard; 0: this one. The bytes do not depend on it.

`inspect` prints rows as they are trained on, in colours: the prompt grey, the
thinking blue, the answer green, below their ids, labels and lengths.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Iterator
import functools
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
from valley_jax.data.cleaning import cleaner as cleaner_lib
from valley_jax.data.cleaning import contamination
from valley_jax.data.cleaning import decisions
from valley_jax.data.cleaning import duplicates
from valley_jax.data.cleaning import filters
from valley_jax.data.formats import problems
from valley_jax.data.shards import building
from valley_jax.data.shards import inspection
from valley_jax.data.shards import shards
from valley_jax.data.sources import rows
from valley_jax.data.sources import traces
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import locks
from valley_jax.runtime import metrics


def _read(questions: str, source: str, quarantine: rows.Quarantine) -> Iterator[records.Trace]:
  """Yields the traces of one source."""
  return traces.read_traces(source, questions, quarantine)


Statements = list[tuple[str, str]]  # Problem ids and statements.


def _evaluation(config: mlc.ConfigDict) -> Statements:
  """Returns the problems of config.contamination.problems."""
  return [
      (problem.problem_id, problem.statement)
      for source in config.contamination.problems
      for problem in problems.read_problems(source)
  ]


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


def _chat_template(config: mlc.ConfigDict) -> str:
  """Returns the text of config.chat_template; '' is the tokenizer's own."""
  if not config.chat_template:
    return ''
  kind, _, path = config.chat_template.partition(':')
  if kind != 'file' or not pathlib.Path(path).is_file():
    raise errors.UserError(
        f'config.chat_template={config.chat_template!r}: want file:PATH of a'
        " Jinja chat template that exists, or '' for the tokenizer's own."
    )
  return pathlib.Path(path).read_text()


def _copy_tokenizer(config: mlc.ConfigDict, chat_template: str, directory: pathlib.Path) -> None:
  """Puts a tokenizer that is there already beside the shards."""
  kind, _, what = config.tokenizer.partition(':')
  if kind == 'hf' and not directory.exists():
    scratch = directory.with_name('tokenizer.tmp')
    shutil.rmtree(scratch, ignore_errors=True)
    tokenization.load_tokenizer(what, chat_template).save_pretrained(scratch)
    scratch.rename(directory)
  elif kind != 'hf' and not (kind == 'bpe' and what.isdecimal()):
    raise errors.UserError(f'config.tokenizer={config.tokenizer!r}: want hf:DIR or bpe:SIZE.')


def _tokenizer(directory: pathlib.Path, prompt: prompts.Prompt) -> tokenization.Tokenizer:
  """Returns that of the shards; raises ValueError if it cannot ask so."""
  tokenizer = tokenization.load_tokenizer(directory / 'tokenizer')
  tokenization.encode_prompt(tokenizer, prompts.render_question(prompt, ''), prompt.system)
  return tokenizer


def _settings(
    config: mlc.ConfigDict,
    sources: list[str],
    evaluation: Statements,
    prompt: prompts.Prompt,
    chat_template: str,
) -> dict[str, Any]:
  """What the shards depend on, besides the tokenizer's files."""
  settings = {
      'traces': sources,
      'traces_sha256': [traces.hash_source(source) for source in sources],
      'prompt': prompt.name,
      'prompt_text_sha256': prompts.hash_prompt(prompt),
      'max_len': config.data.max_len,
      'traces_per_shard': config.data.traces_per_shard,
      'format': shards.FORMAT,
      'tokenizer': config.tokenizer,
      **{
          name: json.loads(config[name].to_json())
          for name in ('filters', 'duplicates', 'contamination')
      },
      'evaluation_sha256': hashlib.sha256(json.dumps(evaluation).encode()).hexdigest(),
  }
  if any(map(traces.needs_questions, sources)):  # Others carry their questions.
    settings['questions'] = config.questions
  if config.data.min_len:
    settings['min_len'] = config.data.min_len
  if chat_template:
    encoded = chat_template.encode()
    settings['chat_template_sha256'] = hashlib.sha256(encoded).hexdigest()
  return settings


def _quarantined(directory: pathlib.Path) -> str:
  """Returns how many rows could not be read, and why the first could not."""
  number, first = 0, None
  for row in jsonl.read_rows(directory / 'quarantine.jsonl', dict):
    number, first = number + 1, first or row
  if first is None:
    return '0'
  where = f'{first["file"]}, row {first["line"]:,}'
  return f'{number:,} (quarantine.jsonl), first {where}: {first["reason"]}'


def _begin_anew(directory: pathlib.Path) -> None:
  """Forgets what nothing depends on yet: settings may still be mended."""
  for name in ('settings.json', 'versions.json'):
    (directory / name).unlink(missing_ok=True)
  shutil.rmtree(directory / 'tokenizer', ignore_errors=True)


def _versions() -> dict[str, str]:
  """What the bytes of a shard may depend on, besides the settings."""
  names = ('valley_jax', 'tokenizers', 'transformers', 'numpy')
  found = {name: importlib.metadata.version(name) for name in names}
  return {**found, 'python': platform.python_version()}


def shard(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/shards from config.traces; see the module's docstring."""
  directory = pathlib.Path(workdir) / 'shards'
  if config.data.min_len > config.data.max_len:
    raise errors.UserError(
        f'data.min_len={config.data.min_len:,} is over data.max_len='
        f'{config.data.max_len:,}: no trace would be left; lower it.'
    )
  prompt, chat_template = prompts.load_prompt(config.prompt), _chat_template(config)
  sources = list(traces.parse_sources(config.traces))
  for source in sources:  # Hashing them may take minutes.
    names = traces.list_files(source)
    print(f'shard: {source} is {len(names):,} files, from {names[0]} on.')
  evaluation = _evaluation(config)
  settings = _settings(config, sources, evaluation, prompt, chat_template)
  directory.mkdir(parents=True, exist_ok=True)
  if not (directory / 'decisions.jsonl').exists():
    _begin_anew(directory)
  locks.claim_directory(directory / 'settings.json', settings)
  if (directory / 'manifest.json').exists():
    print(f'shard: {directory} is complete.')
    return
  # Once it is complete, any version may read it.
  locks.claim_directory(directory / 'versions.json', _versions())
  _copy_tokenizer(config, chat_template, directory / 'tokenizer')
  if (directory / 'tokenizer').exists():
    _tokenizer(directory, prompt)  # What is wrong with it is said at once.
  read = functools.partial(_read, config.questions)
  num_rows, num_workers = traces.estimate_num_rows(sources), config.data.num_workers
  with metrics.progress(num_rows, 'row', 'shard, decides') as bar:
    cleaner = cleaner_lib.Cleaner(
        filters.Settings.from_config(config.filters),
        duplicates.Settings.from_config(config.duplicates),
        _build_contamination(config, evaluation),
    )
    decisions.write_decisions(
        directory, sources, read, cleaner.decide_trace, cleaner.look, bar.update, num_workers
    )
  cleaner_lib.write_contaminated(directory)
  if not (directory / 'tokenizer').exists():
    tokenization.train_bpe(
        directory / 'tokenizer',
        decisions.read_kept_traces(directory, read),
        int(config.tokenizer.removeprefix('bpe:')),
        chat_template=chat_template or tokenization.CHAT_TEMPLATE,
    )
  tokenizer = _tokenizer(directory, prompt)
  blocks = building.BlockSettings(
      directory=directory,
      prompt=prompt,
      max_len=config.data.max_len,
      traces_per_shard=config.data.traces_per_shard,
      num_workers=num_workers,
      min_len=config.data.min_len,
  )
  num_kept = decisions.count_decisions(directory, sources).num_kept
  with metrics.progress(num_kept, 'trace', 'shard, tokenises') as bar:
    building.write_blocks(blocks, decisions.read_kept_traces(directory, read), bar.update)
  manifest = building.build_manifest(directory, sources, settings, tokenizer, prompt)
  if not manifest['num_traces']:
    raise errors.UserError(
        f'None of the traces of {config.traces} can be used: dropped'
        f' {manifest["dropped"]}, quarantined {_quarantined(directory)}. The'
        f' reasons are in {directory}/decisions.jsonl and quarantine.jsonl:'
        f' mend them, delete {directory} and run shard again.'
    )
  card = data_card.render_data_card(manifest, shards.read_table(directory))
  jsonl.write_atomically(directory / 'card.html', card)
  # Last: the manifest says that all the rest is there.
  jsonl.write_json(directory / 'manifest.json', manifest)
  print(
      f'shard: {manifest["num_traces"]:,} traces,'
      f' {manifest["num_tokens"]:,} tokens, dropped {manifest["dropped"]},'
      f' quarantined {_quarantined(directory)}.'
  )


if __name__ == '__main__':
  if sys.argv[1:2] == ['inspect']:
    inspection.print_rows(sys.argv[2:])
  else:
    entry.run(shard)
