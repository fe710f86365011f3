"""Where samples lie while they are drawn, so that none is lost or doubled.

    completions.jsonl        in the end: all, in the problems' order
    samples/done-00000.jsonl     appended by process 0 as samples end
    samples/grown-00000.jsonl    those that went on in longer slots, so far
    samples/live-00000.jsonl     what was in its slots at the last flush, so far

A run that goes on reads all of these, whoever wrote them; so the number of
processes may change. completions.jsonl replaces the others in one rename, and
then they are removed; what is found in both is one sample.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import pathlib
import shutil

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.sampling import request as request_lib

Key = tuple[str, int]


def _partial(sample: request_lib.Sample) -> records.PartialCompletion:
  return records.PartialCompletion(
      problem_id=sample.request.problem_id,
      sample_index=sample.request.sample_index,
      tokens=tuple(sample.tokens),
      log_prob=sample.log_prob,
      log_prob_tempered=sample.log_prob_tempered,
  )


def _read_once(path: pathlib.Path) -> dict[Key, records.Completion]:
  """Returns the samples of a file, if it is there.

  Raises:
    ValueError: it has one twice.
  """
  found: dict[Key, records.Completion] = {}
  if path.exists():
    for row in jsonl.read_rows(path, records.Completion):
      if found.setdefault(key := records.sample_key(row), row) is not row:
        raise errors.UserError(
            f'{path}: sample {key} occurs twice; take another --workdir, or' ' remove that file.'
        )
  return found


class Files(contextlib.ExitStack):
  """The files of one run; a context in which one process draws."""

  def __init__(self, workdir: pathlib.Path, process: int = 0):
    """Opens nothing yet.

    Args:
      workdir: Of the run.
      process: Which of its processes this is.
    """
    super().__init__()
    self.completions = workdir / 'completions.jsonl'
    self._directory = workdir / 'samples'
    self._process = process

  def _path(self, kind: str) -> pathlib.Path:
    return self._directory / f'{kind}-{self._process:05d}.jsonl'

  def repair(self) -> None:
    """Cuts off lines that a kill has torn; while nobody writes."""
    for path in (self.completions, *self._directory.glob('*.jsonl')):
      jsonl.repair_torn_tail(path)

  def read(self) -> list[records.Completion]:
    """Returns the samples that have ended, each once.

    Raises:
      ValueError: one sample stands there twice, differently.
    """
    found: dict[Key, records.Completion] = {}
    paths = sorted(self._directory.glob('done-*.jsonl'))
    for path in (self.completions, *paths):
      rows = _read_once(path)
      for key in found.keys() & rows.keys():
        if found[key] != rows[key]:
          raise errors.UserError(
              f'{path}: sample {key} occurs twice, differently; take another'
              ' --workdir, or remove that file.'
          )
      found |= rows
    return list(found.values())

  def read_begun(self, is_exact: bool) -> dict[Key, records.PartialCompletion]:
    """Returns how far samples had come.

    Args:
      is_exact: Only what was written at the end of a stage: what goes on from
        there has the bits of a run without interruption.
    """
    kinds = ('grown',) if is_exact else ('grown', 'live')
    found: dict[Key, records.PartialCompletion] = {}
    for kind in kinds:
      for path in sorted(self._directory.glob(f'{kind}-*.jsonl')):
        for row in jsonl.read_rows(path, records.PartialCompletion):
          key = records.sample_key(row)
          if key not in found or len(found[key].tokens) < len(row.tokens):
            found[key] = row
    return found

  def __enter__(self) -> 'Files':
    appender = lambda kind: jsonl.Appender(self._path(kind))
    self._done = self.enter_context(appender('done'))
    self._grown = self.enter_context(appender('grown'))
    return self

  def append(self, row: records.Completion) -> None:
    """Writes a sample that has ended; after return it survives a kill."""
    self._done.append(row)

  def append_grown(self, sample: request_lib.Sample) -> None:
    """Writes a sample that has outgrown its stage."""
    self._grown.append(_partial(sample))

  def write_live(self, samples: Iterable[request_lib.Sample]) -> None:
    """Writes what is in the slots, in place of what was there before."""
    jsonl.write_rows(self._path('live'), map(_partial, samples))

  def put_together(
      self, rows: Sequence[records.Completion], order: dict[Key, int]
  ) -> list[records.Completion]:
    """Makes completions.jsonl of all samples; removes what it was made of."""
    ordered = sorted(rows, key=lambda row: order[records.sample_key(row)])
    is_there = self.completions.exists()
    if not is_there or ordered != list(jsonl.read_rows(self.completions, records.Completion)):
      jsonl.write_rows(self.completions, ordered)
    if self._directory.exists():
      shutil.rmtree(self._directory)
    return ordered
