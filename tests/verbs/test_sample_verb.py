"""sample writes the same bytes, however often it is killed on its way."""

import shutil

import pytest

from tests import marks
from tests import tiny
from valley_jax import jsonl
from valley_jax import records
from valley_jax import sample


def _config(world, **changes):
  config = tiny.config(world, num_traces=0).unlock()
  config.checkpoint = f'{world}/student/checkpoints'
  # More samples than slots.
  config.sample.update(num_samples=3, temperature=1.0, chunk_len=4)
  config.update(changes)
  return config.lock()


@pytest.fixture(scope='module')
def world(tiny_student, tmp_path_factory):
  """A world and a student that knows nothing."""
  path = tmp_path_factory.mktemp('world')
  tiny.link_world(tiny_student.parent, path)
  return path


@pytest.fixture(scope='module')
def whole(world):
  """The workdir of an uninterrupted run; leave it as it is."""
  sample.sample(_config(world), str(world / 'whole'))
  return world / 'whole'


def _rows(workdir):
  return list(jsonl.read_rows(workdir / 'completions.jsonl', records.Completion))


def test_every_sample_of_every_problem_is_there_in_order(whole):
  assert [records.sample_key(row) for row in _rows(whole)] == [
      (f'p{i}', index) for i in range(6) for index in range(3)
  ]


def test_a_row_holds_what_was_drawn(whole):
  rows = _rows(whole)
  assert len({row.tokens for row in rows}) > 15  # Samples differ.
  for row in rows:
    is_whole = len(row.tokens) == 16
    reason = records.FinishReason.LENGTH if is_whole else (
        records.FinishReason.EOS
    )  # fmt: skip
    assert row.finish_reason is reason
    assert row.log_prob < 0
    assert row.num_prompt_tokens > 5
    assert isinstance(row.text, str)


def test_the_second_run_does_nothing(world, whole):
  path = whole / 'completions.jsonl'
  before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
  sample.sample(_config(world), str(whole))
  stat = path.stat()
  assert before == (path.read_bytes(), stat.st_mtime_ns, stat.st_ino)


def _lines(whole):
  return (whole / 'completions.jsonl').read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize('torn', [0, 25])
def test_missing_samples_are_drawn_and_a_torn_line_mended(world, whole, tmp_path, torn):
  lines = _lines(whole)
  path = tmp_path / 'completions.jsonl'
  # As a kill leaves it: in the order of finishing, the last line torn.
  path.write_bytes(b''.join([*lines[9:3:-1], lines[1], lines[0][:torn]]))
  sample.sample(_config(world), str(tmp_path))
  assert path.read_bytes() == (whole / 'completions.jsonl').read_bytes()


def test_a_file_out_of_order_is_put_in_order(world, whole, tmp_path):
  path = tmp_path / 'completions.jsonl'
  path.write_bytes(b''.join(reversed(_lines(whole))))
  sample.sample(_config(world), str(tmp_path))
  assert path.read_bytes() == (whole / 'completions.jsonl').read_bytes()


def test_more_samples_keep_those_that_are_there(world, whole, tmp_path):
  config = _config(world).unlock()
  config.sample.num_samples = 1
  sample.sample(config.lock(), str(tmp_path))
  assert _rows(tmp_path) == _rows(whole)[::3]
  sample.sample(_config(world), str(tmp_path))
  assert _rows(tmp_path) == _rows(whole)


def test_samples_of_other_problems_are_refused(world, whole, tmp_path):
  lines = _lines(whole)
  path = tmp_path / 'completions.jsonl'
  path.write_bytes(b''.join(lines).replace(b'"p5"', b'"q5"'))
  before = path.read_bytes()
  with pytest.raises(ValueError, match=r"\('q5', 0\) is not .*--workdir"):
    sample.sample(_config(world), str(tmp_path))
  assert path.read_bytes() == before


def test_one_sample_twice_is_refused(world, whole, tmp_path):
  lines = _lines(whole)
  (tmp_path / 'completions.jsonl').write_bytes(b''.join([*lines, lines[4]]))
  with pytest.raises(ValueError, match=r"\('p1', 1\) occurs twice"):
    sample.sample(_config(world), str(tmp_path))


def test_samples_of_other_prompts_are_refused(world, whole, tmp_path):
  path = tmp_path / 'completions.jsonl'
  path.write_bytes(b''.join(_lines(whole)[:4]))
  config = _config(world, prompt='ocr')
  said = "trained with prompt_sha256=.*'plain'.*sampled with .*'ocr'"
  with pytest.raises(ValueError, match=f'{said}.*config.prompt'):
    sample.sample(config, str(tmp_path))


def test_samples_of_other_statements_are_refused(world, whole, tmp_path):
  path = tmp_path / 'completions.jsonl'
  path.write_bytes(b''.join(_lines(whole)[:4]))
  problems = (world / 'problems.jsonl').read_text()
  problems = problems.replace('Add', 'Please tell the sum of')
  (tmp_path / 'problems.jsonl').write_text(problems)
  config = _config(world, problems=f'jsonl:{tmp_path}/problems.jsonl')
  with pytest.raises(ValueError, match='a prompt of .*--workdir'):
    sample.sample(config, str(tmp_path))


@pytest.mark.parametrize('name, value', [('seed', 7), ('sample.temperature', 0.5)])
def test_samples_drawn_otherwise_are_refused(world, whole, tmp_path, name, value):
  shutil.copytree(whole, tmp_path / 'run')
  config = _config(world).unlock()
  config.update_from_flattened_dict({name: value})
  with pytest.raises(ValueError, match=f'begun with {name}='):
    sample.sample(config.lock(), str(tmp_path / 'run'))


def test_samples_of_another_length_are_refused(world, whole, tmp_path):
  path = tmp_path / 'completions.jsonl'
  path.write_bytes(b''.join(_lines(whole)[:4]))
  config = _config(world).unlock()
  config.sample.max_new_tokens = 17
  with pytest.raises(ValueError, match='ends at 16 tokens, not at 17'):
    sample.sample(config.lock(), str(tmp_path))


def test_the_seed_makes_the_samples(world, whole, tmp_path):
  sample.sample(_config(world, seed=1), str(tmp_path))
  pairs = zip(_rows(tmp_path), _rows(whole), strict=True)
  assert sum(a.tokens == b.tokens for a, b in pairs) < 3


def _with_sample(world, **changes):
  config = _config(world).unlock()
  config.sample.update(changes)
  return config.lock()


def test_a_stop_string_ends_a_sample_and_stays(world, whole, tmp_path):
  [first, *_] = _rows(whole)
  stop = first.text[2:5]
  config = _with_sample(world, stop=(stop,))
  sample.sample(config, str(tmp_path))
  rows = _rows(tmp_path)
  assert any(row.finish_reason is records.FinishReason.STOP for row in rows)
  for row, other in zip(rows, _rows(whole), strict=True):
    is_stopped = row.finish_reason is records.FinishReason.STOP
    assert is_stopped == (stop in other.text) == (stop in row.text)
    assert row.tokens == other.tokens[: len(row.tokens)]
  sample.sample(config, str(tmp_path))  # Goes on with its own.
  with pytest.raises(ValueError, match='sample.stop'):
    sample.sample(_with_sample(world, stop=('x',)), str(tmp_path))


@pytest.mark.parametrize('filters', marks.long_but_first([{'top_k': 1}, {'min_p': 1.0}]), ids=str)
def test_filters_that_leave_the_likeliest_are_greedy(world, tmp_path, filters):
  found = []
  for i, changes in enumerate([{'temperature': 0.0}, filters]):
    sample.sample(_with_sample(world, **changes), str(tmp_path / str(i)))
    found.append([row.tokens for row in _rows(tmp_path / str(i))])
  assert found[0] == found[1]


def test_no_student_is_an_error_with_its_remedy(world, tmp_path):
  config = _config(world, checkpoint='/nowhere')
  with pytest.raises(ValueError, match='/nowhere holds no checkpoint.*train'):
    sample.sample(config, str(tmp_path))


# Killed, in programs of eight devices as here.
