"""Readers of traces: `FORMAT:PATH` to `records.Trace`."""

from collections.abc import Iterator
import pathlib
from typing import Any

from valley_jax import records

Quarantine = list[dict[str, Any]]


def _read_jsonl(
    path: str, unused_questions: str, quarantine: Quarantine
) -> Iterator[records.Trace]:
  return records.read_rows(path, records.Trace, quarantine)


# Where the question of an OCR-2 row stands, by the row's `dataset`: folder in
# the directory of local copies, and the columns that make up the statement.
_QUESTION_COLUMNS = {
    'taco': ('question',),
    'apps': ('question',),
    'code_contests': ('description',),
    'open-r1/codeforces': (
        'description',
        'input_format',
        'output_format',
        'examples',
        'note',
    ),
}


class Questions:
  """Statements of OCR-2 rows, from local copies of the original sets.

  `<directory>/<dataset>/<split>.jsonl`, row `int(index)`; the dataset's name
  as OCR-2 writes it, with `/` replaced by `_`.
  """

  def __init__(self, directory: str):
    self._directory = pathlib.Path(directory) if directory else None
    self._tables: dict[tuple[str, str], list[dict[str, Any]]] = {}

  def look_up(self, dataset: str, split: str, index: str) -> str:
    """Returns the statement; a `KeyError` says what is missing."""
    if self._directory is None:
      raise KeyError('question is "-", and config.questions names no directory')
    if dataset not in _QUESTION_COLUMNS:
      raise KeyError(f'dataset {dataset!r} is none of {[*_QUESTION_COLUMNS]}')
    key = dataset, split
    if key not in self._tables:
      name = dataset.replace('/', '_')
      path = self._directory / name / f'{split}.jsonl'
      if not path.exists():
        raise KeyError(f'no local copy {path}')
      self._tables[key] = list(records.read_rows(path, dict))
    rows = self._tables[key]
    if not index.isdigit() or int(index) >= len(rows):
      raise KeyError(
          f'index {index!r} is not a row of {key} ({len(rows)} rows)'
      )
    row = rows[int(index)]
    columns = _QUESTION_COLUMNS[dataset]
    return '\n\n'.join(str(row[c]) for c in columns if row.get(c))


def _ocr2_trace(row: dict[str, Any], questions: Questions) -> records.Trace:
  question = row['question']
  if question == '-':
    question = questions.look_up(row['dataset'], row['split'], row['index'])
  for name in ('id', 'question_id', 'r1_generation', 'judgement'):
    if not isinstance(row[name], str) or not row[name]:
      raise ValueError(f'field {name!r} is {row[name]!r}; want some text')
  return records.Trace(
      trace_id=row['id'],
      problem_id=row['question_id'],
      question=question,
      response=row['r1_generation'].strip(),
      teacher='DeepSeek-R1',
      difficulty=row.get('difficulty', ''),
      source=row['dataset'],
      is_correct={'right': True, 'wrong': False}.get(row['judgement']),
  )


def _read_ocr2(
    path: str, questions_directory: str, quarantine: Quarantine
) -> Iterator[records.Trace]:
  """OpenCodeReasoning-2 (2507.09075), its columns as they are downloaded."""
  questions = Questions(questions_directory)
  rows = records.read_rows(path, dict, quarantine)
  for number, row in enumerate(rows, start=1):
    try:
      yield _ocr2_trace(row, questions)
    except (KeyError, ValueError) as e:
      reason = f'missing {e}' if isinstance(e, KeyError) else str(e)
      quarantine.append(
          {
              'file': path,
              'line': number,
              'reason': reason.replace('"', ''),
              'row': str(row.get('id', row))[:1000],
          }
      )


_FORMATS = {'jsonl': _read_jsonl, 'ocr2': _read_ocr2}


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
  """
  name, colon, path = source.partition(':')
  if not colon or name not in _FORMATS:
    raise ValueError(
        f'Traces {source!r}: want FORMAT:PATH with FORMAT one of'
        f' {", ".join(_FORMATS)}.'
    )
  if not pathlib.Path(path).exists():
    raise ValueError(f'Traces {source!r}: there is no file {path}.')
  return _FORMATS[name](path, questions, quarantine)
