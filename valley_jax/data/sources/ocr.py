"""OpenCodeReasoning 1 (2504.01943) and 2 (2507.09075), and the questions that they leave out.

Rows whose question is "-" name a row of TACO, APPS, CodeContests or open-r1/codeforces instead.
`QuestionCopies` looks it up in local copies of these sets.
"""

import math
import os
import re

import msgspec

from valley_jax import errors
from valley_jax import programs
from valley_jax import records
from valley_jax.data.sources import files
from valley_jax.data.sources import rows

_TEACHER = 'DeepSeek-R1'


class Ocr1Row(msgspec.Struct):
  """The columns of OCR-1, without `solution`, which repeats the program of the output.

  Rows of its split_1 have `index`, and their input is "-".
  """

  id: str  # Id of the question, which has many rows.
  input: str
  output: str
  dataset: str
  source: str | None = None  # The platform.
  license: str | None = None
  split: str | None = None
  difficulty: str | None = None
  index: str | None = None


class Ocr2Row(msgspec.Struct):
  """The columns of OCR-2, all of them strings, without `qwq_critique` and `source`.

  The splits `python` and `cpp` have the same columns.
  """

  id: str
  question_id: str
  question: str  # Always "-".
  r1_generation: str
  dataset: str
  split: str
  index: str
  judgement: str | None = None  # right or wrong
  pass_rate: str | None = None  # "-1": could not be tested.
  solution: str | None = None  # The code block of the answer.
  license: str | None = None
  difficulty: str | None = None


class _QuestionRow(msgspec.Struct, rename={'statement': 'question'}):
  """TACO and APPS."""

  statement: str | None


class _DescriptionRow(msgspec.Struct, rename={'statement': 'description'}):
  """CodeContests."""

  statement: str | None


class CodeforcesExample(msgspec.Struct):
  """An example of a statement of Codeforces."""

  input: str | None = None
  output: str | None = None


class CodeforcesStatement(msgspec.Struct):
  """The parts of a statement, which open-r1/codeforces and codeforces-cots keep apart."""

  description: str | None = None
  input_format: str | None = None
  output_format: str | None = None
  examples: list[CodeforcesExample] | None = None
  note: str | None = None

  @property
  def statement(self) -> str:
    """The parts, put together as OpenCodeReasoning-2 does; '' without a description.

    Traces and problems share this one spelling, so that a trace is recognised as being about a
    problem, and a student is asked as it was trained.
    """
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


_COPY_ROWS = {
    'taco': _QuestionRow,
    'apps': _QuestionRow,
    'code_contests': _DescriptionRow,
    'open-r1/codeforces': CodeforcesStatement,
}


class QuestionCopies:
  """Statements by set, split and row, read from local copies; only they stay in memory.

  In `<directory>/<dataset>`, where `/` in the name of the set is replaced by `_`, a split is one
  of: a file `<split>` with one of `files.SUFFIXES`; several files `<split>-*`, in the order of
  their names (train-00000-of-00039.parquet, ...); a directory `<split>` of files. A copy with a
  bad row is refused as a whole, because skipping the row would shift all rows after it.
  """

  def __init__(self, directory: str):
    self._directory = directory.rstrip('/')
    self._statements: dict[tuple[str, str], list[str] | None] = {}

  def look_up(self, dataset: str, split: str, index: str) -> str:
    """Returns the statement.

    Raises:
      UserError: there is no directory of copies.
      rows.UnusableRowError: the copies do not have this statement.
      records.BadRowError: the copy has a bad row.
    """
    if not _is_directory(self._directory):
      raise errors.UserError(
          f'config.questions={self._directory!r} is no directory, and a row of {dataset} has the'
          ' question "-"; name the directory of the local copies, as'
          ' valley_jax/data/sources/ocr.py describes.'
      )
    if dataset not in _COPY_ROWS:
      raise rows.UnusableRowError(f'dataset {dataset!r} is none of {", ".join(_COPY_ROWS)}')
    folder = f'{self._directory}/{dataset.replace("/", "_")}'
    key = dataset, split
    if key not in self._statements:
      names = _find_split_files(folder, split)
      self._statements[key] = _read_statements(names, dataset) if names else None
    statements = self._statements[key]
    if statements is None:
      raise rows.UnusableRowError(
          f'there is no local copy {folder}/{split!r}; its files end in'
          f' {", ".join(files.SUFFIXES)}'
      )
    # Python refuses to parse numbers of over 4,300 digits.
    is_number = index.isdecimal() and len(index) < 20
    if not is_number or int(index) >= len(statements):
      raise rows.UnusableRowError(
          f'index {index!r} is none of the {len(statements):,} rows of {dataset} {split}'
      )
    statement = statements[int(index)]
    if not statement.strip():
      raise rows.UnusableRowError(f'row {index} of {dataset} {split} has no statement')
    return statement


def _is_directory(name: str) -> bool:
  return '://' in name or os.path.isdir(name)


def _find_split_files(folder: str, split: str) -> list[str]:
  if not re.fullmatch(r'\w+', split, re.ASCII):  # A row must not climb out of the folder.
    return []
  by_name = {name.rpartition('/')[2]: name for name in files.find_files(folder)}
  for suffix in files.SUFFIXES:
    if f'{split}{suffix}' in by_name:
      return [by_name[f'{split}{suffix}']]
  # Sorted by find_files, so that the rows of several files keep their numbers.
  parts = [file for name, file in by_name.items() if name.startswith(f'{split}-')]
  return parts or files.find_files(f'{folder}/{split}')


def _read_statements(names: list[str], dataset: str) -> list[str]:
  """Returns the statements without the tests, which are gigabytes."""
  strict = rows.StrictQuarantine(
      'Mend this row or fetch the file again; rows are found by their number.'
  )
  # No limit of bytes: some rows hold a hundred megabytes of tests.
  return [
      row.statement or ''
      for name in names
      for _, row in rows.read_rows(name, _COPY_ROWS[dataset], strict, max_bytes=None)
  ]


def build_ocr1_trace(row: Ocr1Row, copies: QuestionCopies) -> records.Trace:
  """Returns the trace; its id is the row's with a hash of the output."""
  question = row.input
  if question == '-':
    question = copies.look_up(row.dataset, row.split or '', row.index or '')
  return records.Trace(
      # An empty id stays empty, so that it is refused.
      trace_id=row.id and f'{row.id}-{rows.hash_texts(row.output)}',
      problem_id=row.id,
      question=question,
      response=row.output.strip(),
      teacher=_TEACHER,
      difficulty=row.difficulty or '',
      source=row.dataset,
      split=row.split or '',
      license=row.license or '',
      language='python',  # All of them.
  )


def _parse_pass_rate(text: str) -> float | None:
  try:
    rate = float(text.strip() or -1)
  except ValueError:
    rate = math.nan  # Fails both comparisons below.
  if rate != -1 and not 0 <= rate <= 1:
    raise rows.UnusableRowError(f'pass_rate {text!r} is neither -1 nor from 0 to 1')
  return None if rate == -1 else rate


def build_ocr2_trace(row: Ocr2Row, copies: QuestionCopies) -> records.Trace:
  """Returns the trace with the row's own id."""
  question = row.question
  if question == '-':
    question = copies.look_up(row.dataset, row.split, row.index)
  judgement = (row.judgement or '').strip().lower()
  # `solution` is a code block of one language; the answer may have blocks of output, too.
  language = programs.find_declared_language(row.solution or '')
  return records.Trace(
      trace_id=row.id,
      problem_id=row.question_id,
      question=question,
      response=row.r1_generation.strip(),
      teacher=_TEACHER,
      difficulty=row.difficulty or '',
      source=row.dataset,
      is_correct={'right': True, 'wrong': False}.get(judgement),
      split=row.split,
      license=row.license or '',
      language=language or programs.find_declared_language(row.r1_generation),
      pass_rate=_parse_pass_rate(row.pass_rate or ''),
  )
