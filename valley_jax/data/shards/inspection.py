"""Rows of shards, to be looked at in a terminal: `shard inspect`."""

import argparse
from collections.abc import Sequence
import os
import pathlib
import sys

from valley_jax import errors
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.shards import table as table_lib
from valley_jax.data.tokens import tokenization

_COLORS = {
    shards_lib.Kind.PROMPT: '\x1b[90m',  # Grey: the student is not to learn it.
    shards_lib.Kind.THINK: '\x1b[34m',
    shards_lib.Kind.ANSWER: '\x1b[32m',
}
_END = '\x1b[0m'


def show(example: tokenization.Example, tokenizer: tokenization.Tokenizer, colored: bool) -> str:
  """Returns the text of an example, each part of it marked.

  With colours a part is told by its own; without them by a line ahead of it,
  such as `--- think, 120 tokens`. Control characters of the text, which could
  move the cursor or change colours, are shown as escapes.
  """
  kinds = shards_lib.kinds(example)
  parts = []
  for kind in shards_lib.Kind:
    tokens = example.tokens[kinds == kind]
    if not len(tokens):
      continue
    text = _printable(str(tokenizer.decode(tokens)))
    if colored:
      parts.append(f'{_COLORS[kind]}{text}{_END}')
    else:
      parts.append(f'--- {kind.name.lower()}, {len(tokens):,} tokens\n{text}\n')
  return ''.join(parts)


def _printable(text: str) -> str:
  return ''.join(
      char if char.isprintable() or char in '\n\t' else repr(char)[1:-1] for char in text
  )


def describe(table: table_lib.Table, row: int) -> str:
  """Returns what the table says of a row, on one line."""
  words = [f'row {row}: {table.ids[row]} of problem {table.problem_ids[row]}']
  words.append(f'{table.num_tokens[row]:,} tokens')
  words.append(f'{table.num_supervised[row]:,} supervised')
  labels = ('difficulty', 'source', 'language', 'teacher')
  words += [f'{name} {getattr(table, name)[row]}' for name in labels if getattr(table, name)[row]]
  for name in ('is_correct', 'pass_rate'):
    if getattr(table, name)[row] is not None:
      words.append(f'{name} {getattr(table, name)[row]}')
  return _printable(', '.join(words))


def _find(shards: shards_lib.Shards, row: str) -> int:
  """Returns the row of a number, or of a trace's id.

  Raises:
    ValueError: there is none.
  """
  if row in shards.ids:
    return shards.ids.index(row)
  if row.isdecimal() and int(row) < len(shards):
    return int(row)
  raise errors.UserError(
      f'--row {row}: {shards.directory} has rows 0 to {len(shards) - 1:,}, and'
      ' no trace of this id; decisions.jsonl says why one was refused, and'
      ' `dropped` of 00000.json and its like which had no tokens to be kept.'
  )


def main(arguments: Sequence[str]) -> None:
  """Prints rows; see `--help`."""
  parser = argparse.ArgumentParser(
      prog='python -m valley_jax.shard inspect',
      description='Prints rows of shards as a student reads them: the prompt'
      ' grey, the thinking blue, the answer green; without colours, where'
      ' NO_COLOR is set or nobody looks, under headings.',
  )
  parser.add_argument('workdir', help='where `shard` wrote; or its shards/')
  parser.add_argument('--row', nargs='+', default=['0'], help='numbers from 0, or ids of traces')
  parsed = parser.parse_args(arguments)
  directory = pathlib.Path(parsed.workdir)
  if (directory / 'shards').exists():
    directory /= 'shards'
  try:
    shards = shards_lib.Shards(directory)
    rows = [_find(shards, row) for row in parsed.row]
  except ValueError as e:
    parser.error(str(e))
  table, tokenizer = shards.read_table(), tokenization.load_tokenizer(directory / 'tokenizer')
  # https://no-color.org
  colored = sys.stdout.isatty() and not os.environ.get('NO_COLOR')
  for row, example in zip(rows, shards.read_examples(rows), strict=True):
    print(describe(table, row))
    print(show(example, tokenizer, colored))
