"""Statements of rows whose question is "-", from local copies of the sets."""

import os
import re
from typing import Any

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.sources import files
from valley_jax.data.sources import rows


class _Question(msgspec.Struct, rename={'statement': 'question'}):
  """TACO and APPS."""

  statement: str | None


class _Description(msgspec.Struct, rename={'statement': 'description'}):
  """CodeContests."""

  statement: str | None


class Example(msgspec.Struct):
  """Of a statement of Codeforces."""

  input: str | None = None
  output: str | None = None


class Codeforces(msgspec.Struct):
  """open-r1/codeforces keeps the parts of a statement apart."""

  description: str | None = None
  input_format: str | None = None
  output_format: str | None = None
  examples: list[Example] | None = None
  note: str | None = None

  @property
  def statement(self) -> str:
    """The parts under the headings that OpenCodeReasoning-2 gives them."""
    if not self.description:
      return ''
    parts = [('', self.description)]
    parts += [('Input', self.input_format), ('Output', self.output_format)]
    if self.examples:
      parts.append(('', 'Examples'))
    for example in self.examples or []:
      parts.append(('Input', example.input))
      parts.append(('Output', example.output))
    parts.append(('Note', self.note))
    return '\n\n'.join(x for part in parts if part[1] for x in part if x)


_ORIGINALS = {
    'taco': _Question,
    'apps': _Question,
    'code_contests': _Description,
    'open-r1/codeforces': Codeforces,
}


class Questions:
  """Statements by set, split and row; only they are kept in memory.

  In `<directory>/<dataset>`, the set's name as OpenCodeReasoning writes it but
  with `/` replaced by `_`, a split is a file `<split>` with one of
  `files.SUFFIXES`, several `<split>-*` by name (train-00000-of-00039.parquet,
  ...), or a directory `<split>` of files. A copy with a bad row is refused as a
  whole: skipping the row would shift all behind it.
  """

  def __init__(self, directory: str):
    self._directory = directory.rstrip('/')
    self._statements: dict[tuple[str, str], list[str] | None] = {}

  def look_up(self, dataset: str, split: str, index: str) -> str:
    """Returns the statement.

    Raises:
      ValueError: there is no directory of copies, and so no statement at all.
      rows.UnusableError: what is missing in it.
      records.BadRowError: a copy that has a bad row.
    """
    if not _is_directory(self._directory):
      raise errors.UserError(
          f'config.questions={self._directory!r} is no directory, and a row of'
          f' {dataset} has the question "-"; name the one of the local copies,'
          ' as valley_jax/data/sources/questions.py tells.'
      )
    if dataset not in _ORIGINALS:
      raise rows.UnusableError(f'dataset {dataset!r} is none of {", ".join(_ORIGINALS)}')
    folder = f'{self._directory}/{dataset.replace("/", "_")}'
    key = dataset, split
    if key not in self._statements:
      found = _files_of(folder, split)
      self._statements[key] = _statements(found, dataset) if found else None
    statements = self._statements[key]
    if statements is None:
      raise rows.UnusableError(
          f'there is no local copy {folder}/{split!r}; its files end in'
          f' {", ".join(files.SUFFIXES)}'
      )
    # Python refuses to read numbers of over 4,300 digits.
    is_number = index.isdecimal() and len(index) < 20
    if not is_number or int(index) >= len(statements):
      raise rows.UnusableError(
          f'index {index!r} is none of the {len(statements):,} rows of' f' {dataset} {split}'
      )
    statement = statements[int(index)]
    if not statement.strip():
      raise rows.UnusableError(f'row {index} of {dataset} {split} has no statement')
    return statement


def _is_directory(name: str) -> bool:
  return '://' in name or os.path.isdir(name)


def _files_of(folder: str, split: str) -> list[str]:
  if not re.fullmatch(r'\w+', split, re.ASCII):
    return []
  there = {name.rpartition('/')[2]: name for name in files.find(folder)}
  for suffix in files.SUFFIXES:
    if f'{split}{suffix}' in there:
      return [there[f'{split}{suffix}']]
  parts = [file for name, file in there.items() if name.startswith(f'{split}-')]
  return parts or files.find(f'{folder}/{split}')


def _statements(found: list[str], dataset: str) -> list[str]:
  """Returns the statements without the tests, which are gigabytes."""
  statements: list[str] = []
  bad: list[dict[str, Any]] = []
  for file in found:
    # Without a limit: some rows hold a hundred megabytes of tests.
    for _, row in rows.read(file, _ORIGINALS[dataset], bad, max_bytes=None):
      statements.append(row.statement or '')
      if bad:
        break
    if bad:
      raise records.BadRowError(
          f'{file}, line {bad[0]["line"]}: {bad[0]["reason"]}. Mend this row or'
          ' fetch the file again; rows are found by their number.'
      )
  return statements
