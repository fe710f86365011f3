"""Reads traces: `read_traces(['ocr2:python-*.parquet', 's1k:DIR'], ...)`.

    jsonl            our own rows, `records.Trace`
    mini             the directory of an embedded world: its training traces
    ocr1 ocr2        OpenCodeReasoning 1 and 2; a question "-" is looked up (ocr.py)
    openr1           Mixture-of-Thoughts, OpenR1-Math: `messages`, teacher R1 (columns.py)
    codeforces_cots  codeforces-cots: `messages` and the parts of a statement
    chat             other rows with `messages`
    s1k s1k_gemini   s1K and s1K-1.1: by R1 where it wrote them, and by Gemini (columns.py)
    table            columns named as you like: `table/prompt=COLUMN/response=COLUMN` (columns.py)
    math             question, trace and answer, the same

A source is FORMAT:PATH. PATH is a file, a glob, or a directory; local, or at any address that
fsspec knows (gs://, s3://, ...); .parquet or JSONL, also .gz or .zst. Files are read in the order
of their names, so that the traces always come in the same order.

Ids are the rows' own where the set gives its traces ids (jsonl, mini, ocr2, a table with an id
column); ocr1's are the row's id and a hash of the output. All others are a hash of the trace's
texts, so that they depend on neither place nor order, and the same trace in two rows has one id.

Other column names need no code: see `table`. To add a format with one trace a row, write beside the
others in this folder

    class MyRow(msgspec.Struct): ...                     the columns that are read
    def build_my_trace(row: MyRow) -> records.Trace: ...  or raise rows.UnusableRowError(reason)

name both in `_FORMATS`, and give `tests/source_rows.py` and `tests/data/sources/test_formats.py` a
row and its trace. For several traces a row, change the loop of `read_traces`; for another kind of
file, `rows.read_rows`. Sources are read twice, so the order must not change.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import os
from typing import Any

from valley_jax import errors
from valley_jax import records
from valley_jax.data.sources import columns
from valley_jax.data.sources import files
from valley_jax.data.sources import ocr
from valley_jax.data.sources import rows

MAX_CHARS = 4_000_000  # Question and response together: a million tokens.
_MAX_LABEL_CHARS = 1000
_TEXTS = ('question', 'response')
_LABELS = tuple(
    name
    for name, value in records.Trace.__annotations__.items()
    if value is str and name not in _TEXTS
)


@dataclasses.dataclass(frozen=True)
class _Format:
  """A row type, and the function that makes a trace of a row."""

  row_type: Any
  build_trace: Callable[..., records.Trace]
  needs_questions: bool = False  # build_trace takes the local copies, too.


_FORMATS: dict[str, _Format] = {
    'chat': _Format(columns.ChatRow, columns.build_chat_trace),
    'codeforces_cots': _Format(columns.CodeforcesCotsRow, columns.build_codeforces_cots_trace),
    'jsonl': _Format(records.Trace, lambda row: row),
    'mini': _Format(records.Trace, lambda row: row),
    'ocr1': _Format(ocr.Ocr1Row, ocr.build_ocr1_trace, needs_questions=True),
    'ocr2': _Format(ocr.Ocr2Row, ocr.build_ocr2_trace, needs_questions=True),
    'openr1': _Format(
        columns.ChatRow, functools.partial(columns.build_chat_trace, teacher='DeepSeek-R1')
    ),
    's1k': _Format(columns.S1kRow, columns.build_s1k_trace),
    's1k_gemini': _Format(
        columns.S1kRow, functools.partial(columns.build_s1k_trace, teacher=columns.GEMINI)
    ),
}
# Formats whose columns may be named by the user, with their defaults.
_TABLES = {'math': columns.MATH, 'table': {}}


def parse_sources(sources: str | Sequence[str]) -> tuple[str, ...]:
  """Returns the sources of config.traces.

  Args:
    sources: FORMAT:PATH, several of them, or the text of a flag, [A,B].

  Raises:
    UserError: a source is named twice.
  """
  if not isinstance(sources, str):
    parsed = tuple(sources)
  elif sources.startswith('[') and sources.endswith(']'):
    parts = (part.strip().strip('\'"') for part in sources[1:-1].split(','))
    parsed = tuple(filter(None, parts))
  else:
    parsed = (sources,)
  twice = next((x for x in parsed if parsed.count(x) > 1), '')
  if twice:
    raise errors.UserError(f'config.traces names {twice} twice; name it once.')
  return parsed


def split_source(source: str) -> tuple[str, str]:
  """Returns format and path of `FORMAT:PATH`.

  Raises:
    UserError: an unknown format, or no file there.
  """
  spec, _, path = source.partition(':')
  _open_source(source)  # Raises what is wrong with it.
  return spec.partition('/')[0], path


def needs_questions(source: str) -> bool:
  """Whether rows of this source may need local copies of their questions."""
  return _open_source(source)[0].needs_questions


def hash_source(source: str) -> str:
  """Returns the SHA-256 of a source's bytes: `sha256sum` of its file.

  The hash of several files is that of their hashes, one a line, in the order of their names. A
  remote source is read as a whole.
  """
  return files.hash_files(list_files(source))


def list_files(source: str) -> list[str]:
  """Returns the files of a source, in the order in which they are read."""
  return _open_source(source)[1]


def estimate_num_rows(sources: str | Sequence[str]) -> int:
  """Returns about how many rows the sources have, for a progress bar.

  0 if only unpacking or fetching one of them would tell.
  """
  names = [name for source in parse_sources(sources) for name in list_files(source)]
  numbers = [rows.estimate_num_rows(name) for name in names]
  return 0 if None in numbers else sum(filter(None, numbers))


def _find_format(spec: str) -> _Format | None:
  name, *fields = spec.split('/')
  if name in _TABLES:
    parts = [field.partition('=') for field in fields]
    given = {field: column for field, _, column in parts}
    row_type = columns.build_table_row_type(_TABLES[name] | given)
    return _Format(row_type, columns.build_table_trace)
  return _FORMATS.get(spec)


def _open_source(source: str) -> tuple[_Format, list[str]]:
  """Returns the format of `FORMAT:PATH`, and its files, at least one."""
  spec, colon, path = source.partition(':')
  # The directory of a mini world holds other rows, too.
  if spec == 'mini' and not path.endswith('.jsonl'):
    path = os.path.join(path, 'train_traces.jsonl')
  try:
    trace_format, names = _find_format(spec), files.find_files(path)
  except ValueError as e:
    raise errors.UserError(f'Traces {source!r}: {e}.') from e
  if not colon or trace_format is None:
    raise errors.UserError(
        f'Traces {source!r}: want FORMAT:PATH with FORMAT one of'
        f' {", ".join(sorted({*_FORMATS, *_TABLES}))}.'
    )
  if not names:
    raise errors.UserError(
        f'Traces {source!r}: there is no file {path}; give a file, a glob (** searches'
        ' subdirectories), or a directory of files that end in'
        f' {", ".join(files.SUFFIXES)}.'
    )
  return trace_format, names


def read_traces(
    sources: str | Sequence[str], questions: str, quarantine: rows.Quarantine
) -> Iterator[records.Trace]:
  """Yields the traces of all sources in order; bad rows go to `quarantine`.

  Args:
    sources: FORMAT:PATH each.
    questions: Directory of local copies, for rows whose question is "-".
    quarantine: Receives {file, line, reason, row} for each bad row and for each damaged file;
      they may be as many as the rows.

  Raises:
    UserError: an unknown format, or a file or a directory of questions that does not exist.
    records.BadRowError: a bad row in a local copy.
  """
  # All of them first: a mistake in the last must not come to light after hours.
  opened = [_open_source(source) for source in parse_sources(sources)]
  if not opened:
    raise errors.UserError('config.traces names no source; want FORMAT:PATH.')
  copies = ocr.QuestionCopies(questions)
  for trace_format, names in opened:
    build_trace = trace_format.build_trace
    if trace_format.needs_questions:
      build_trace = functools.partial(build_trace, copies=copies)
    for name in names:
      for line, row in rows.read_rows(name, trace_format.row_type, quarantine):
        try:
          trace = build_trace(row)
          _check_trace(trace)
        except rows.UnusableRowError as e:
          rows.quarantine_row(quarantine, name, line, str(e), row)
        else:
          yield trace


def _check_trace(trace: records.Trace) -> None:
  """Refuses what no later step could use: no id, NUL bytes, texts without end."""
  for name in ('trace_id', 'problem_id'):
    if not getattr(trace, name):
      raise rows.UnusableRowError(f'its {name} is empty')
  for name in (*_TEXTS, *_LABELS):
    text = getattr(trace, name)
    if '\0' in text:
      raise rows.UnusableRowError(f'its {name} contains a NUL byte')
    limit = MAX_CHARS if name in _TEXTS else _MAX_LABEL_CHARS
    if len(text) > limit:
      raise rows.UnusableRowError(f'its {name} has {len(text):,} characters, over {limit:,}')
