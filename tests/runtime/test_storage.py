"""Files that a run writes reach its bucket, and come back from there."""

import fsspec
from fsspec.implementations import memory
import pytest

from valley_jax.runtime import storage


class _Bucket(memory.MemoryFileSystem):
  """A bucket of this process, where there is no network."""

  protocol = 'gcs'
  store = {}
  pseudo_dirs = ['']

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).removeprefix('gs://'))


@pytest.fixture(autouse=True)
def bucket():
  fsspec.register_implementation('gcs', _Bucket, clobber=True)
  _Bucket.store.clear()
  return _Bucket.store


def test_a_path_in_a_bucket_stays_there():
  assert str(storage.absolute_path('gs://b/run')) == 'gs://b/run'
  assert str(storage.absolute_path('/run')) == '/run'


def test_files_are_uploaded_as_they_change_and_a_resumed_run_has_them(bucket):
  with storage.RunFiles('gs://b/run') as files:
    path = files.directory / 'metrics.jsonl'
    path.write_text('{"step": 1}\n')
    (files.directory / 'tensorboard').mkdir()
    (files.directory / 'tensorboard/events').write_text('e')
    files.upload()
    assert bucket['/b/run/metrics.jsonl'].getvalue() == b'{"step": 1}\n'
    assert bucket['/b/run/tensorboard/events'].getvalue() == b'e'
    path.write_text('{"step": 1}\n{"step": 2}\n')
  assert not path.exists()
  with storage.RunFiles('gs://b/run') as files:
    rows = (files.directory / 'metrics.jsonl').read_text()
    assert rows == '{"step": 1}\n{"step": 2}\n'


def test_processes_that_do_not_write_leave_the_bucket_alone(bucket):
  with storage.RunFiles('gs://b/run') as files:
    (files.directory / 'metrics.jsonl').write_text('old')
  with storage.RunFiles('gs://b/run', is_writer=False):
    bucket['/b/run/metrics.jsonl'].seek(0)
    bucket['/b/run/metrics.jsonl'].write(b'new')
  assert bucket['/b/run/metrics.jsonl'].getvalue() == b'new'


def test_a_local_workdir_is_used_as_it_is(tmp_path):
  with storage.RunFiles(tmp_path) as files:
    assert files.directory == tmp_path
    files.upload()
  assert tmp_path.exists()
