"""Tokenises traces into shards.

    python -m valley_jax.shard --config configs/valley.py --workdir RUN \\
        --config.traces=ocr2:python.jsonl --config.questions=QUESTIONS \\
        --config.tokenizer=hf:Qwen2.5-7B-Instruct

Reads   config.traces      FORMAT:PATH or [FORMAT:PATH,...], as
                           valley_jax/data/sources/traces.py says
        config.questions   local copies of the sets of OCR-1 and OCR-2 rows
                           whose question is "-"
                           (valley_jax/data/sources/questions.py)
        config.tokenizer   hf:DIR, or bpe:SIZE to train one on the traces
        config.chat_template  '', the tokenizer's own, or file:PATH of Jinja
        config.prompt      the words in which a question is put: ocr,
                           livecodebench, plain, or file:PATH of your own
                           (valley_jax/data/prompts.py)
Writes  RUN/shards/*.array_record  tokens and loss weights, 1 shard a block
        RUN/shards/manifest.json   counts, drops by reason, hashes
        RUN/shards/quarantine.jsonl  rows that could not be read, with reasons
        RUN/shards/tokenizer/      the tokenizer, for train and sample

Every drop is counted and every bad row kept; traces longer than
config.data.max_len tokens are dropped, never cut. Run twice, the second run
does nothing; killed, the next run goes on at the first unfinished block.
"""

import collections
from collections.abc import Iterator
import hashlib
import itertools
import pathlib
import shutil
from typing import Any

import ml_collections as mlc

from valley_jax import entry
from valley_jax import metrics
from valley_jax import records
from valley_jax.data import prompts
from valley_jax.data import shards
from valley_jax.data import tokenization
from valley_jax.data.sources import traces


def _chat_template(config: mlc.ConfigDict) -> str:
  """Returns the text of config.chat_template; '' is the tokenizer's own."""
  if not config.chat_template:
    return ''
  kind, _, path = config.chat_template.partition(':')
  if kind != 'file' or not pathlib.Path(path).is_file():
    raise ValueError(
        f'config.chat_template={config.chat_template!r}: want file:PATH of a'
        " Jinja chat template that exists, or '' for the tokenizer's own."
    )
  return pathlib.Path(path).read_text()


def _tokenizer(
    config: mlc.ConfigDict, chat_template: str, directory: pathlib.Path
) -> tokenization.Tokenizer:
  """Puts the tokenizer beside the shards, and loads it from there."""
  kind, _, what = config.tokenizer.partition(':')
  target = directory / 'tokenizer'
  if not target.exists():
    if kind == 'bpe' and what.isdecimal():
      rows = traces.read(config.traces, config.questions, [])
      template = chat_template or tokenization.CHAT_TEMPLATE
      tokenization.train_bpe(target, rows, int(what), chat_template=template)
    elif kind == 'hf':
      scratch = directory / 'tokenizer.tmp'
      shutil.rmtree(scratch, ignore_errors=True)
      tokenization.load(what, chat_template).save_pretrained(scratch)
      scratch.rename(target)
    else:
      raise ValueError(
          f'config.tokenizer={config.tokenizer!r}: want hf:DIR or bpe:SIZE.'
      )
  return tokenization.load(target)


def _blocks(
    config: mlc.ConfigDict,
) -> Iterator[tuple[list[records.Trace], list[dict[str, Any]]]]:
  """Yields blocks of traces, each with the bad rows met on the way."""
  quarantine: list[dict[str, Any]] = []
  rows = traces.read(config.traces, config.questions, quarantine)
  while True:
    block = list(itertools.islice(rows, config.data.traces_per_shard))
    bad, quarantine[:] = list(quarantine), []
    if not block and not bad:
      return
    yield block, bad


def _settings(
    config: mlc.ConfigDict, prompt: prompts.Prompt, chat_template: str
) -> dict[str, Any]:
  """What the shards depend on, besides the tokenizer's files."""
  sources = traces.several(config.traces)
  settings = {
      'traces': list(sources),
      'traces_sha256': [traces.digest(source) for source in sources],
      'prompt': prompt.name,
      'prompt_text_sha256': prompts.sha256(prompt),
      'max_len': config.data.max_len,
      'traces_per_shard': config.data.traces_per_shard,
      'format': shards.FORMAT,
      'tokenizer': config.tokenizer,
  }
  if any(map(traces.looks_up, sources)):  # Others carry their questions.
    settings['questions'] = config.questions
  if chat_template:
    encoded = chat_template.encode()
    settings['chat_template_sha256'] = hashlib.sha256(encoded).hexdigest()
  return settings


def _manifest(
    directory: pathlib.Path,
    settings: dict[str, Any],
    tokenizer: tokenization.Tokenizer,
    prompt: prompts.Prompt,
) -> dict[str, Any]:
  tables = shards.sidecars(directory)
  dropped: collections.Counter[str] = collections.Counter()
  for table in tables:
    dropped.update({k: len(ids) for k, ids in table['dropped'].items()})
  lengths = [n for table in tables for n in table['lengths']]
  template_sha256 = tokenization.template_hash(tokenizer)
  return {
      **settings,
      'num_traces': len(lengths),
      'num_tokens': sum(lengths),
      'num_supervised_tokens': sum(n for t in tables for n in t['supervised']),
      'longest': max(lengths, default=0),
      'dropped': dict(sorted(dropped.items())),
      'quarantined': sum(len(t['quarantine']) for t in tables),
      'prompt_sha256': prompts.sha256(prompt, template_sha256),
      'template_sha256': template_sha256,
      'tokenizer_sha256': tokenization.tokenizer_hash(tokenizer),
      'vocab_size': len(tokenizer),
      'files': [f'{i:05d}.array_record' for i in range(len(tables))],
  }


def shard(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/shards from config.traces; see the module's docstring."""
  directory = pathlib.Path(workdir) / 'shards'
  prompt, chat_template = prompts.load(config.prompt), _chat_template(config)
  settings = _settings(config, prompt, chat_template)
  directory.mkdir(parents=True, exist_ok=True)
  records.claim(directory / 'settings.json', settings)
  if (directory / 'manifest.json').exists():
    print(f'shard: {directory} is complete.')
    return
  tokenizer = _tokenizer(config, chat_template, directory)
  # Said at once, not by dropping every trace.
  tokenization.encode_prompt(tokenizer, prompts.ask(prompt, ''), prompt.system)
  seen: set[str] = set()
  bar = metrics.progress(0, 'trace', 'shard')
  for number, (block, bad) in enumerate(_blocks(config)):
    if (directory / f'{number:05d}.json').exists():
      seen.update(trace.trace_id for trace in block)
    else:
      shards.write_block(
          directory,
          number,
          block,
          tokenizer=tokenizer,
          prompt=prompt,
          max_len=config.data.max_len,
          seen=seen,
          quarantine=bad,
      )
    bar.update(len(block))
  bar.close()
  bad_rows = [b for t in shards.sidecars(directory) for b in t['quarantine']]
  records.write_rows(directory / 'quarantine.jsonl', bad_rows)
  manifest = _manifest(directory, settings, tokenizer, prompt)
  if not manifest['num_traces']:
    raise ValueError(
        f'None of the traces of {config.traces} can be used: dropped'
        f' {manifest["dropped"]}, quarantined {manifest["quarantined"]}; the'
        f' reasons are in {directory}/quarantine.jsonl. Mend them, delete'
        f' {directory} and run shard again.'
    )
  # Last: the manifest says that all the rest is there.
  records.write_json(directory / 'manifest.json', manifest)
  print(
      f'shard: {manifest["num_traces"]:,} traces,'
      f' {manifest["num_tokens"]:,} tokens, dropped {manifest["dropped"]},'
      f' quarantined {manifest["quarantined"]} (quarantine.jsonl).'
  )


if __name__ == '__main__':
  entry.run(shard)
