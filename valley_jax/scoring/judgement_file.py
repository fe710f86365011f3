"""Keeps judgements.jsonl: one row per sample, in the order of the samples.

A killed run leaves the first rows, and the next run appends the rest. If the rows in the file are
not the first ones (a program has changed, an internal error is to be retried, the order differs),
the file is rebuilt as judgements.jsonl.next from the old rows that are still valid and new ones,
and replaces the old file once it is complete:

    progress = survey_file(path, samples)          # Reads both once.
    for sample, row in progress.remaining(samples):
      ...                                          # Append to progress.output.
    progress.finish()

Memory: one bit per sample, and 8 bytes per sample during a rebuild.
"""

import array
import collections
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import itertools
import os
import pathlib
from typing import BinaryIO, NamedTuple

import msgspec

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records

# Bits and offsets are stored at the position of the sample index, so one huge index would allocate
# the memory of all smaller ones.
_MAX_SAMPLES = 1 << 20
_decode_judgement = msgspec.json.Decoder(records.Judgement).decode


class Sample(NamedTuple):
  """A sample that needs a row."""

  problem_id: str
  sample_index: int
  digest: str  # What the verdict depends on; see `completeness.py`.
  submission: records.Submission | None = None  # None: the completion has no program.


def rebuild_path(path: pathlib.Path) -> pathlib.Path:
  """Returns where the file is rebuilt; it exists only during a rebuild."""
  return path.with_name(f'{path.name}.next')


def check_finished(path: pathlib.Path) -> None:
  """Refuses to read the file during a rebuild."""
  if rebuild_path(path).exists():
    raise errors.UserError(
        f'{path} is being rebuilt, and the rebuild has not ended; run `execute` to the end first.'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
  """What an earlier run has left for this one.

  Attributes:
    path: The file.
    num_samples: Number of rows that the complete file has.
    num_kept: Number of leading rows that are in `output` already.
    verdicts: Counts of the verdicts of these.
    index: Offsets of old rows that may still be valid; None if the rest is appended.
  """

  path: pathlib.Path
  num_samples: int
  num_kept: int = 0
  verdicts: collections.Counter[records.Verdict]
  index: '_OffsetIndex | None' = None

  @property
  def output(self) -> pathlib.Path:
    """The file that the remaining rows are appended to."""
    return self.path if self.index is None else rebuild_path(self.path)

  def remaining(
      self, samples: Iterable[Sample]
  ) -> Iterator[tuple[Sample, records.Judgement | None]]:
    """Yields the samples that `output` lacks, in order, each with its old row if still valid."""
    missing = itertools.islice(samples, self.num_kept, None)
    if self.index is None:
      yield from ((sample, None) for sample in missing)
      return
    with open(self.path, 'rb') as file:
      for sample in missing:
        yield sample, self.index.find_row(file, sample)

  def finish(self) -> None:
    """Replaces the old file by the rebuilt one, if there was a rebuild."""
    if self.index is not None:
      with open(self.output, 'rb') as file:
        os.fsync(file.fileno())
      os.replace(self.output, self.path)


def survey_file(path: pathlib.Path, samples: Iterable[Sample]) -> Progress:
  """Compares the samples with the rows that earlier runs have written.

  Raises:
    UserError: a sample occurs twice or has an index out of range, or a row is of a sample that is
      not to be judged.
  """
  known = _SampleSet()
  verdicts: collections.Counter[records.Verdict] = collections.Counter()
  num_samples = num_kept = 0
  rows = _read_judgements(path)
  row = next(rows, None)
  for sample in samples:
    known.add(sample.problem_id, sample.sample_index)
    # After the first row that is not valid, no more rows are read.
    if row is not None and num_kept == num_samples and _is_valid(row, sample):
      verdicts[row.verdict] += 1
      num_kept += 1
      row = next(rows, None)
    num_samples += 1
  if row is None and not rebuild_path(path).exists():
    return Progress(path=path, num_samples=num_samples, num_kept=num_kept, verdicts=verdicts)
  for file in (path, rebuild_path(path)):
    _refuse_unknown_samples(file, known)
  return Progress(
      path=path,
      num_samples=num_samples,
      verdicts=collections.Counter(),
      index=_prepare_rebuild(path),
  )


def _prepare_rebuild(path: pathlib.Path) -> '_OffsetIndex':
  """Collects all rows in the old file and removes an unfinished rebuild.

  Rows that a killed rebuild has judged are appended to the old file (the last row of a sample
  counts) before the unfinished file is removed, so no kill loses a verdict.
  """
  index = _OffsetIndex()
  unfinished = rebuild_path(path)
  with jsonl.Appender(path) as appender, open(path, 'rb') as file:
    end = 0
    for line in file:
      if line.strip():
        index.add(_decode_judgement(line), end)
      end += len(line)
    for row in _read_judgements(unfinished):
      sample = Sample(*records.sample_key(row), row.digest)
      if _is_final(row) and index.find_row(file, sample) is None:
        appender.append(row)
        index.add(row, end)
        end += len(records.to_json(row)) + 1
  unfinished.unlink(missing_ok=True)
  return index


def _read_judgements(path: pathlib.Path) -> Iterator[records.Judgement]:
  jsonl.repair_torn_tail(path)
  if path.exists():
    yield from jsonl.read_rows(path, records.Judgement)


def _is_final(row: records.Judgement) -> bool:
  return row.verdict is not records.Verdict.INTERNAL_ERROR


def _is_valid(row: records.Judgement, sample: Sample) -> bool:
  """Returns whether a row is a final verdict on exactly this sample."""
  return (
      row.digest == sample.digest
      and row.sample_index == sample.sample_index
      and row.problem_id == sample.problem_id
      and _is_final(row)
  )


def _refuse_unknown_samples(path: pathlib.Path, known: '_SampleSet') -> None:
  unknown = (row for row in _read_judgements(path) if records.sample_key(row) not in known)
  if first := next(unknown, None):
    raise errors.UserError(
        f'{path} judges {1 + sum(1 for _ in unknown):,} samples that are not to be judged, such as'
        f' {records.sample_key(first)}; use another workdir, or remove the file.'
    )


class _SampleSet:
  """A set of samples, one bit each."""

  def __init__(self):
    self._bits: dict[str, bytearray] = {}

  def add(self, problem_id: str, index: int) -> None:
    """Adds a sample; an error if it is in the set already."""
    if not 0 <= index < _MAX_SAMPLES:
      raise errors.UserError(
          f'Sample index {index:,} of problem {problem_id!r} is not in 0..{_MAX_SAMPLES - 1:,};'
          ' number the programs of a problem from 0.'
      )
    if (problem_id, index) in self:
      raise errors.UserError(
          f'Sample {(problem_id, index)} occurs twice; give each program of a problem a'
          ' `sample_index` of its own.'
      )
    bits = self._bits.setdefault(problem_id, bytearray())
    bits.extend(bytes(max(0, index // 8 + 1 - len(bits))))
    bits[index // 8] |= 1 << index % 8

  def __contains__(self, key: tuple[str, int]) -> bool:
    problem_id, index = key
    bits = self._bits.get(problem_id, b'')
    return 0 <= index < 8 * len(bits) and bool(bits[index // 8] >> index % 8 & 1)


class _OffsetIndex:
  """Where the last final row of each sample begins in a file."""

  def __init__(self):
    self._offsets: dict[str, array.array] = {}

  def add(self, row: records.Judgement, offset: int) -> None:
    """Stores a row's offset, unless the row is an internal error."""
    if not _is_final(row):
      return
    offsets = self._offsets.setdefault(row.problem_id, array.array('q'))
    num_missing = row.sample_index + 1 - len(offsets)
    offsets.extend(itertools.repeat(-1, num_missing))
    offsets[row.sample_index] = offset

  def find_row(self, file: BinaryIO, sample: Sample) -> records.Judgement | None:
    """Returns the sample's row if it is still valid."""
    offsets = self._offsets.get(sample.problem_id, ())
    if sample.sample_index >= len(offsets) or offsets[sample.sample_index] < 0:
      return None
    file.seek(offsets[sample.sample_index])
    row = _decode_judgement(file.readline())
    return row if _is_valid(row, sample) else None
