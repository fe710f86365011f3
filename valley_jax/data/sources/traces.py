"""Reads traces: `read(['ocr2:python-*.parquet', 's1k:DIR'], ...)`.

    jsonl            our own rows, `records.Trace`
    mini             the directory of an embedded world: its training traces
    ocr1 ocr2        OpenCodeReasoning 1 and 2; a question "-" is looked up
    openr1           Mixture-of-Thoughts, OpenR1-Math: `messages`, teacher R1
    codeforces_cots  codeforces-cots: `messages` and the parts of a statement
    chat             other rows with `messages`
    s1k s1k_gemini   s1K and s1K-1.1: by R1 where it wrote them, and by Gemini
    table            prompt and response, in columns named as you like
    math             question, trace and answer, the same

A source is FORMAT:PATH. PATH is a file, a glob, or a directory; local, or at
any address that fsspec knows (gs://, s3://, ...); .parquet or JSONL, also .gz
or .zst. Files are read by name, so that the traces come in the same order
whenever they are read.

Ids are the rows' own where the set has some for its traces: jsonl, mini, ocr2,
table. All others are a hash of the trace's texts, so that they depend on
neither place nor order, and the same trace in two rows has one id.
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
from valley_jax.data.sources import chat
from valley_jax.data.sources import files
from valley_jax.data.sources import ocr
from valley_jax.data.sources import questions as questions_lib
from valley_jax.data.sources import rows
from valley_jax.data.sources import s1k
from valley_jax.data.sources import table

MAX_CHARS = 4_000_000  # Of question and response: a million tokens.
_MAX_LABEL_CHARS = 1000
_TEXTS = ('question', 'response')
_LABELS = tuple(
    name
    for name, value in records.Trace.__annotations__.items()
    if value is str and name not in _TEXTS
)


@dataclasses.dataclass(frozen=True)
class _Format:
  """A row type, and what makes a trace of a row."""

  row: Any
  to_trace: Callable[..., records.Trace]
  looks_up: bool = False  # to_trace takes the local copies too.


_FORMATS: dict[str, _Format] = {
    'chat': _Format(chat.Row, chat.trace),
    'codeforces_cots': _Format(chat.CodeforcesRow, chat.codeforces_trace),
    'jsonl': _Format(records.Trace, lambda row: row),
    'mini': _Format(records.Trace, lambda row: row),
    'ocr1': _Format(ocr.Row1, ocr.trace1, looks_up=True),
    'ocr2': _Format(ocr.Row2, ocr.trace2, looks_up=True),
    'openr1': _Format(chat.Row, functools.partial(chat.trace, teacher='DeepSeek-R1')),
    's1k': _Format(s1k.Row, s1k.trace),
    's1k_gemini': _Format(s1k.Row, functools.partial(s1k.trace, teacher=s1k.GEMINI)),
}
_TABLES = {'math': table.MATH, 'table': {}}


def several(sources: str | Sequence[str]) -> tuple[str, ...]:
  """Returns the sources of config.traces.

  Args:
    sources: FORMAT:PATH, several of them, or as a flag has them, [A,B].

  Raises:
    ValueError: one stands there twice.
  """
  if not isinstance(sources, str):
    found = tuple(sources)
  elif sources.startswith('[') and sources.endswith(']'):
    parts = (part.strip().strip('\'"') for part in sources[1:-1].split(','))
    found = tuple(filter(None, parts))
  else:
    found = (sources,)
  twice = next((x for x in found if found.count(x) > 1), '')
  if twice:
    raise errors.UserError(f'config.traces names {twice} twice; name it once.')
  return found


def split(source: str) -> tuple[str, str]:
  """Returns format and path of `FORMAT:PATH`.

  Raises:
    ValueError: an unknown format, or no file there.
  """
  spec, _, path = source.partition(':')
  _open(source)
  return spec.partition('/')[0], path


def looks_up(source: str) -> bool:
  """Whether rows of this source may need local copies of their questions."""
  return _open(source)[0].looks_up


def digest(source: str) -> str:
  """Returns the sha256 of a source's bytes: `sha256sum` of its file.

  Of several files it is the hash of their hashes, a line each, by name. A
  remote source is read as a whole.
  """
  return files.sha256(file_names(source))


def file_names(source: str) -> list[str]:
  """Returns the files of a source, in the order in which they are read."""
  return _open(source)[1]


def num_rows(sources: str | Sequence[str]) -> int:
  """Returns about how many rows sources have, to tell how long they will take.

  0 if that cannot be told but by unpacking all of one, or fetching it.
  """
  found = [file for source in several(sources) for file in file_names(source)]
  numbers = [rows.count(file) for file in found]
  return 0 if None in numbers else sum(filter(None, numbers))


def _format(spec: str) -> _Format | None:
  name, *fields = spec.split('/')
  if name in _TABLES:
    parts = [field.partition('=') for field in fields]
    given = {field: column for field, _, column in parts}
    return _Format(table.row_type(_TABLES[name] | given), table.trace)
  return _FORMATS.get(spec)


def _open(source: str) -> tuple[_Format, list[str]]:
  """Returns how to read `FORMAT:PATH`, and its files, at least one."""
  spec, colon, path = source.partition(':')
  if spec == 'mini' and not path.endswith('.jsonl'):
    path = os.path.join(path, 'train_traces.jsonl')
  try:
    made, found = _format(spec), files.find(path)
  except ValueError as e:
    raise errors.UserError(f'Traces {source!r}: {e}.') from e
  if not colon or made is None:
    raise errors.UserError(
        f'Traces {source!r}: want FORMAT:PATH with FORMAT one of'
        f' {", ".join(sorted({*_FORMATS, *_TABLES}))}.'
    )
  if not found:
    raise errors.UserError(
        f'Traces {source!r}: there is no file {path}; give a file, a glob (**'
        ' looks into subdirectories), or a directory of files that end in'
        f' {", ".join(files.SUFFIXES)}.'
    )
  return made, found


def read(
    sources: str | Sequence[str], questions: str, quarantine: rows.Quarantine
) -> Iterator[records.Trace]:
  """Yields the traces of all sources in order; bad rows go to `quarantine`.

  Args:
    sources: FORMAT:PATH each.
    questions: Directory of local copies for rows whose question is "-".
    quarantine: Receives {file, line, reason, row} for each bad row, and for
      each file that is damaged; they may be as many as the rows.

  Raises:
    ValueError: an unknown format, or a file or a directory of questions that
      does not exist.
    records.BadRowError: a bad row in a local copy.
  """
  opened = [_open(source) for source in several(sources)]
  if not opened:
    raise errors.UserError('config.traces names no source; want FORMAT:PATH.')
  copies = questions_lib.Questions(questions)
  for made, found in opened:
    to_trace = made.to_trace
    if made.looks_up:
      to_trace = functools.partial(to_trace, copies=copies)
    for file in found:
      for line, row in rows.read(file, made.row, quarantine):
        try:
          trace = to_trace(row)
          _check(trace)
        except rows.UnusableError as e:
          rows.refuse(quarantine, file, line, str(e), row)
        else:
          yield trace


def _check(trace: records.Trace) -> None:
  """Refuses what no step behind could use, or could not bear."""
  for name in ('trace_id', 'problem_id'):
    if not getattr(trace, name):
      raise rows.UnusableError(f'its {name} is empty')
  for name in (*_TEXTS, *_LABELS):
    text = getattr(trace, name)
    if '\0' in text:
      raise rows.UnusableError(f'its {name} contains a NUL byte')
    limit = MAX_CHARS if name in _TEXTS else _MAX_LABEL_CHARS
    if len(text) > limit:
      raise rows.UnusableError(f'its {name} has {len(text):,} characters, over {limit:,}')
