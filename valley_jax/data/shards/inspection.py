"""`shard inspect`: prints rows of shards as a student reads them."""

import argparse
from collections.abc import Sequence
import os
import pathlib
import sys

from valley_jax import errors
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.tokens import tokenization

_COLORS = {
    shards_lib.TokenKind.PROMPT: '\x1b[90m',  # Grey: the student does not learn it.
    shards_lib.TokenKind.THINK: '\x1b[34m',
    shards_lib.TokenKind.ANSWER: '\x1b[32m',
}
_END = '\x1b[0m'


def format_example(
    example: tokenization.Example, tokenizer: tokenization.Tokenizer, is_colored: bool
) -> str:
  """Returns the text of an example, each part of it marked.

  With colours each part has its own; without them a line such as `--- think, 120 tokens` precedes
  it. Control characters of the text, which could move the cursor or change colours, are escaped.
  """
  kinds = shards_lib.classify_tokens(example)
  parts = []
  for kind in shards_lib.TokenKind:
    tokens = example.tokens[kinds == kind]
    if not len(tokens):
      continue
    text = _escape_controls(str(tokenizer.decode(tokens)))
    if is_colored:
      parts.append(f'{_COLORS[kind]}{text}{_END}')
    else:
      parts.append(f'--- {kind.name.lower()}, {len(tokens):,} tokens\n{text}\n')
  return ''.join(parts)


def _escape_controls(text: str) -> str:
  return ''.join(
      char if char.isprintable() or char in '\n\t' else repr(char)[1:-1] for char in text
  )


def _describe_row(table: shards_lib.TraceTable, row: int) -> str:
  """Returns what the table has of a row, on one line."""
  words = [f'row {row}: {table.ids[row]} of problem {table.problem_ids[row]}']
  words.append(f'{table.num_tokens[row]:,} tokens')
  words.append(f'{table.num_supervised[row]:,} supervised')
  labels = ('difficulty', 'source', 'language', 'teacher')
  words += [f'{name} {getattr(table, name)[row]}' for name in labels if getattr(table, name)[row]]
  for name in ('is_correct', 'pass_rate'):
    if getattr(table, name)[row] is not None:
      words.append(f'{name} {getattr(table, name)[row]}')
  return _escape_controls(', '.join(words))


def _find_row(shards: shards_lib.Shards, row: str) -> int:
  """Returns the row of a trace's id, or of a number."""
  if row in shards.ids:
    return shards.ids.index(row)
  if row.isdecimal() and int(row) < len(shards):
    return int(row)
  raise errors.UserError(
      f'--row {row}: {shards.directory} has rows 0 to {len(shards) - 1:,}, and no trace of this id;'
      ' decisions.jsonl says why a trace was refused, and `dropped` in 00000.json and the like'
      ' which traces were dropped when they were tokenised.'
  )


def print_rows(arguments: Sequence[str]) -> None:
  """Prints the rows that the command line names."""
  parser = argparse.ArgumentParser(
      prog='python -m valley_jax.shard inspect',
      description='Prints rows of shards as a student reads them: the prompt grey, the thinking'
      ' blue, the answer green. Where NO_COLOR is set or the output is no terminal, headings'
      ' replace the colours.',
  )
  parser.add_argument('workdir', help='the workdir of `shard`, or its shards/')
  parser.add_argument('--row', nargs='+', default=['0'], help='numbers from 0, or ids of traces')
  parsed = parser.parse_args(arguments)
  directory = pathlib.Path(parsed.workdir)
  if (directory / 'shards').exists():
    directory /= 'shards'
  try:
    shards = shards_lib.Shards(directory)
    rows = [_find_row(shards, row) for row in parsed.row]
  except errors.UserError as e:
    parser.error(str(e))
  table = shards.read_table()
  tokenizer = tokenization.load_tokenizer(directory / 'tokenizer')
  # https://no-color.org
  is_colored = sys.stdout.isatty() and not os.environ.get('NO_COLOR')
  for row, example in zip(rows, shards.read_examples(rows), strict=True):
    print(_describe_row(table, row))
    print(format_example(example, tokenizer, is_colored))
