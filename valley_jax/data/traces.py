"""Readers of traces: `FORMAT:PATH` to `records.Trace`."""

from collections.abc import Callable
from collections.abc import Iterator
import pathlib
from typing import Any

import msgspec

from valley_jax import records

Quarantine = list[dict[str, Any]]


class _UnusableError(Exception):
  """Why a well-formed row cannot become a trace."""


class _Ocr2Row(msgspec.Struct):
  """The columns of OpenCodeReasoning-2 (2507.09075) that a trace needs."""

  id: str
  question_id: str
  question: str  # Always "-": see `Questions`.
  r1_generation: str
  judgement: str  # right or wrong
  dataset: str
  split: str
  index: str
  difficulty: str = ''


class _Question(msgspec.Struct, rename={'statement': 'question'}):
  """TACO and APPS."""

  statement: str | None


class _Description(msgspec.Struct, rename={'statement': 'description'}):
  """CodeContests."""

  statement: str | None


class _Codeforces(msgspec.Struct):
  """open-r1/codeforces keeps the parts of a statement apart."""

  description: str | None = None
  input_format: str | None = None
  output_format: str | None = None
  examples: list[dict[str, str]] | None = None
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
      parts.append(('Input', example.get('input')))
      parts.append(('Output', example.get('output')))
    parts.append(('Note', self.note))
    return '\n\n'.join(x for part in parts if part[1] for x in part if x)


_ORIGINALS = {
    'taco': _Question,
    'apps': _Question,
    'code_contests': _Description,
    'open-r1/codeforces': _Codeforces,
}


class Questions:
  """Statements of OCR-2 rows, from local copies of the original sets.

  `<directory>/<dataset>/<split>.jsonl`, row `int(index)`; the dataset's name
  as OCR-2 writes it, with `/` replaced by `_`. A local copy with a bad row is
  refused as a whole: skipping the row would shift all behind it.
  """

  def __init__(self, directory: str):
    self._directory = pathlib.Path(directory) if directory else None
    self._statements: dict[tuple[str, str], list[str]] = {}

  def look_up(self, dataset: str, split: str, index: str) -> str:
    """Returns the statement, or raises what is missing."""
    if self._directory is None:
      raise _UnusableError(
          'question is "-", and config.questions names no directory'
      )
    if dataset not in _ORIGINALS:
      raise _UnusableError(
          f'dataset {dataset!r} is none of {", ".join(_ORIGINALS)}'
      )
    key = dataset, split
    if key not in self._statements:
      folder = self._directory / dataset.replace('/', '_')
      path = folder / f'{split}.jsonl'
      if not path.is_file():
        raise _UnusableError(f'there is no local copy {path}')
      rows = records.read_rows(path, _ORIGINALS[dataset])
      # Without the tests, which are gigabytes.
      self._statements[key] = [row.statement or '' for row in rows]
    statements = self._statements[key]
    if not index.isdecimal() or int(index) >= len(statements):
      raise _UnusableError(
          f'index {index!r} is none of the {len(statements):,} rows of'
          f' {dataset} {split}'
      )
    return statements[int(index)]


def _ocr2_trace(row: _Ocr2Row, questions: Questions) -> records.Trace:
  question = row.question
  if question == '-':
    question = questions.look_up(row.dataset, row.split, row.index)
  return records.Trace(
      trace_id=row.id,
      problem_id=row.question_id,
      question=question,
      response=row.r1_generation.strip(),
      teacher='DeepSeek-R1',
      difficulty=row.difficulty,
      source=row.dataset,
      is_correct={'right': True, 'wrong': False}.get(row.judgement),
  )


def _own_trace(
    row: records.Trace, unused_questions: Questions
) -> records.Trace:
  return row


def _check(trace: records.Trace) -> None:
  for name in ('trace_id', 'problem_id'):
    if not getattr(trace, name):
      raise _UnusableError(f'its {name} is empty')
  for name in ('question', 'response'):
    if '\0' in getattr(trace, name):
      raise _UnusableError(f'its {name} contains a NUL byte')


_Reader = Callable[[Any, Questions], records.Trace]
_FORMATS: dict[str, tuple[type, _Reader]] = {
    'jsonl': (records.Trace, _own_trace),
    'ocr2': (_Ocr2Row, _ocr2_trace),
}


def split_source(source: str) -> tuple[str, pathlib.Path]:
  """Returns format and path of `FORMAT:PATH`.

  Raises:
    ValueError: an unknown format, or a file that does not exist.
  """
  name, colon, path = source.partition(':')
  if not colon or name not in _FORMATS:
    raise ValueError(
        f'Traces {source!r}: want FORMAT:PATH with FORMAT one of'
        f' {", ".join(_FORMATS)}.'
    )
  if not pathlib.Path(path).is_file():
    raise ValueError(f'Traces {source!r}: there is no file {path}.')
  return name, pathlib.Path(path)


def read(
    source: str, questions: str, quarantine: Quarantine
) -> Iterator[records.Trace]:
  """Yields the traces of `FORMAT:PATH`; bad rows go to `quarantine`.

  Args:
    source: `jsonl:PATH` (our own records) or `ocr2:PATH`.
    questions: Directory of local copies for rows whose question is "-".
    quarantine: Receives {file, line, reason, row} for each bad row.

  Raises:
    ValueError: an unknown format, or a file that does not exist.
    records.BadRowError: a bad row in a local copy.
  """
  name, path = split_source(source)
  row_type, to_trace = _FORMATS[name]
  copies = Questions(questions)
  for line, row in records.read_numbered_rows(path, row_type, quarantine):
    try:
      trace = to_trace(row, copies)
      _check(trace)
    except _UnusableError as e:
      text = records.to_json(row)[:1000].decode('utf-8', 'replace')
      quarantine.append(
          {'file': str(path), 'line': line, 'reason': str(e), 'row': text}
      )
    else:
      yield trace
