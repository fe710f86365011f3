"""Keeps judgements.jsonl: a row a sample, in the order of the samples.

A run that was killed leaves the first rows, and the next run appends the rest.
Where the rows are not the first ones (a program has changed, a failure of ours
is to be tried again, the order is another), the file is built anew as
judgements.jsonl.next, from the old rows that still stand and new ones, and
takes the old one's place when it is whole:

    standing = survey(path, samples)          # Once through both.
    for sample, row in standing.rest(samples):
      ...                                     # Append to standing.output.
    standing.finish()

In memory are a bit a sample, and 8 bytes a sample while a file is built anew.
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

# A sample's bit and its 8 bytes lie at the place that its index says.
_MAX_SAMPLES = 1 << 20
_decode = msgspec.json.Decoder(records.Judgement).decode


class Sample(NamedTuple):
  """One row to be; `digest` says of what (see `digests`)."""

  problem_id: str
  sample_index: int
  digest: str
  submission: records.Submission | None = None  # None: there is no program.


def next_path(path: pathlib.Path) -> pathlib.Path:
  """Returns where a file is built anew; there only while it is."""
  return path.with_name(f'{path.name}.next')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
  """What an earlier run has left for this one.

  Attributes:
    path: The file.
    num_samples: How many rows it is to have.
    num_kept: How many of them, the first ones, are in `output`.
    verdicts: Of these.
    index: Where other rows lie that may stand; None if the rest is appended.
  """

  path: pathlib.Path
  num_samples: int
  num_kept: int = 0
  verdicts: collections.Counter[records.Verdict]
  index: '_Index | None' = None

  @property
  def output(self) -> pathlib.Path:
    """Where the rest is to be appended."""
    return self.path if self.index is None else next_path(self.path)

  def rest(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, records.Judgement | None]]:
    """Yields what is not in `output`, in order, with a row that stands."""
    rest = itertools.islice(samples, self.num_kept, None)
    if self.index is None:
      yield from ((sample, None) for sample in rest)
      return
    with open(self.path, 'rb') as file:
      for sample in rest:
        yield sample, self.index.find(file, sample)

  def finish(self) -> None:
    """Puts a file that was built anew in its place."""
    if self.index is not None:
      with open(self.output, 'rb') as file:
        os.fsync(file.fileno())
      os.replace(self.output, self.path)


def survey(path: pathlib.Path, samples: Iterable[Sample]) -> Standing:
  """Reads the samples, and the rows beside them.

  Raises:
    ValueError: a sample that comes twice, or that has no place; rows of
      samples that are not to be judged.
  """
  marks = _Marks()
  verdicts: collections.Counter[records.Verdict] = collections.Counter()
  num_samples = num_kept = 0
  rows = _rows(path)
  row = next(rows, None)
  for sample in samples:
    marks.add(sample.problem_id, sample.sample_index)
    # The first row that does not stand is the last one to be looked at.
    if row is not None and num_kept == num_samples and _stands(row, sample):
      verdicts[row.verdict] += 1
      num_kept += 1
      row = next(rows, None)
    num_samples += 1
  if row is None and not next_path(path).exists():
    return Standing(path=path, num_samples=num_samples, num_kept=num_kept, verdicts=verdicts)
  for file in (path, next_path(path)):
    _refuse_strange(file, marks)
  return Standing(
      path=path, num_samples=num_samples, verdicts=collections.Counter(), index=_prepare(path)
  )


def _prepare(path: pathlib.Path) -> '_Index':
  """Makes the old file hold all that is known, and the next one absent.

  What a killed run has judged into the next file is appended to the old one,
  whose last row of a sample counts, before the next one goes.
  """
  index = _Index()
  begun = next_path(path)
  with jsonl.Appender(path) as appender, open(path, 'rb') as file:
    end = 0
    for line in file:
      if line.strip():
        index.add(_decode(line), end)
      end += len(line)
    for row in _rows(begun):
      sample = Sample(*records.sample_key(row), row.digest)
      if _is_final(row) and index.find(file, sample) is None:
        appender.append(row)
        index.add(row, end)
        end += len(records.to_json(row)) + 1
  begun.unlink(missing_ok=True)
  return index


def _rows(path: pathlib.Path) -> Iterator[records.Judgement]:
  jsonl.repair_torn_tail(path)
  if path.exists():
    yield from jsonl.read_rows(path, records.Judgement)


def _is_final(row: records.Judgement) -> bool:
  return row.verdict is not records.Verdict.INTERNAL_ERROR


def _stands(row: records.Judgement, sample: Sample) -> bool:
  """Says if a row is a final verdict on just this sample."""
  return (
      row.digest == sample.digest
      and row.sample_index == sample.sample_index
      and row.problem_id == sample.problem_id
      and _is_final(row)
  )


def _refuse_strange(path: pathlib.Path, marks: '_Marks') -> None:
  strange = (r for r in _rows(path) if records.sample_key(r) not in marks)
  if first := next(strange, None):
    raise errors.UserError(
        f'{path} judges {1 + sum(1 for _ in strange):,} samples that are not to'
        f' be judged, such as {records.sample_key(first)}; use another workdir, or'
        ' remove the file.'
    )


class _Marks:
  """A set of samples, in a bit each."""

  def __init__(self):
    self._bits: dict[str, bytearray] = {}

  def add(self, problem_id: str, index: int) -> None:
    """Adds a sample that must be a new one."""
    if not 0 <= index < _MAX_SAMPLES:
      raise errors.UserError(
          f'Sample index {index:,} of problem {problem_id!r} is not in'
          f' 0..{_MAX_SAMPLES - 1:,}; number the programs of a problem from 0.'
      )
    if (problem_id, index) in self:
      raise errors.UserError(
          f'Sample {(problem_id, index)} occurs twice; give each program of a'
          ' problem a `sample_index` of its own.'
      )
    bits = self._bits.setdefault(problem_id, bytearray())
    bits.extend(bytes(max(0, index // 8 + 1 - len(bits))))
    bits[index // 8] |= 1 << index % 8

  def __contains__(self, key: tuple[str, int]) -> bool:
    problem_id, index = key
    bits = self._bits.get(problem_id, b'')
    if not 0 <= index < 8 * len(bits):
      return False
    return bool(bits[index // 8] >> index % 8 & 1)


class _Index:
  """Where the last final row of each sample begins in a file."""

  def __init__(self):
    self._offsets: dict[str, array.array] = {}

  def add(self, row: records.Judgement, offset: int) -> None:
    """Keeps a row's place, unless the row is a failure of ours."""
    if not _is_final(row):
      return
    offsets = self._offsets.setdefault(row.problem_id, array.array('q'))
    missing = row.sample_index + 1 - len(offsets)
    offsets.extend(itertools.repeat(-1, missing))
    offsets[row.sample_index] = offset

  def find(self, file: BinaryIO, sample: Sample) -> records.Judgement | None:
    """Returns the sample's row if it stands."""
    offsets = self._offsets.get(sample.problem_id, ())
    if sample.sample_index >= len(offsets):
      return None
    offset = offsets[sample.sample_index]
    if offset < 0:
      return None
    file.seek(offset)
    row = _decode(file.readline())
    return row if _stands(row, sample) else None
