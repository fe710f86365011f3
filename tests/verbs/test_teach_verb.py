"""A teacher's samples become traces: all that ended, and no other."""

import pytest

from tests import engine_server
from tests import forked
from tests import tiny
from valley_jax import convert
from valley_jax import jsonl
from valley_jax import records
from valley_jax import shard
from valley_jax import teach
from valley_jax import train
from valley_jax.data.shards import shards
from valley_jax.data.sources import traces
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization

# As R1's: thinking is begun for who answers.
TEMPLATE = tokenization.CHAT_TEMPLATE.replace("'<|assistant|>' }}", "'<|assistant|><think>\\n' }}")
_FILES = ('traces.jsonl', 'truncated.jsonl', 'teacher.json')
_TEST = records.TestCase(input='')
PROBLEMS = [
    records.Problem(
        problem_id='set/1',
        statement='Add 1 and 1.',
        tests=(_TEST,),
        difficulty='easy',
        source='taco',
    ),
    records.Problem(problem_id='set/2', statement='Add {2}.', tests=(_TEST,)),
    records.Problem(
        problem_id='f',
        statement='Finish f.',
        tests=(_TEST,),
        mode=records.Mode.FUNCTION,
        entry_point='f',
        stub='def f():',
    ),
]


def _config(world, **changes):
  config = tiny.config(
      world,
      num_traces=0,
      prompt='ocr',
      problems=f'jsonl:{world}/asked.jsonl',
      shards=f'{world}/mine/shards',
      checkpoint=f'{world}/student/checkpoints',
      chat_template=f'file:{world}/template.jinja',
      teacher='tiny-teacher',
      data={'max_len': 512},
  ).unlock()
  # Some of the 12 samples have one of the letters.
  letters = ('e', 'a')
  config.sample.update(num_samples=4, temperature=1.0, stop=letters)
  config.update(changes)
  return config.lock()


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """A world, and a teacher that knows nothing."""
  path = tmp_path_factory.mktemp('world')
  tiny.write_world(path)
  jsonl.write_rows(path / 'asked.jsonl', PROBLEMS)
  (path / 'template.jinja').write_text(TEMPLATE)
  shard.shard(_config(path), str(path / 'mine'))
  train.train(_config(path), str(path / 'student'))
  return path


@pytest.fixture(scope='module')
def whole(world):
  """The workdir of an uninterrupted run; leave it as it is."""
  teach.teach(_config(world), str(world / 'whole'))
  return world / 'whole'


def _completions(workdir):
  path = workdir / 'completions.jsonl'
  return list(jsonl.read_rows(path, records.Completion))


def _traces(workdir):
  """As `shard` reads them."""
  bad = []
  found = list(traces.read_traces(f'jsonl:{workdir}/traces.jsonl', '', bad))
  assert not bad
  return found


def _truncated(workdir):
  return list(jsonl.read_rows(workdir / 'truncated.jsonl', dict))


def _bytes(workdir):
  return [(workdir / name).read_bytes() for name in _FILES]


def test_a_sample_is_a_trace_exactly_if_it_ended(whole):
  rows = _completions(whole)
  assert len(rows) == 12
  is_cut = [row.finish_reason is records.FinishReason.LENGTH for row in rows]
  assert any(is_cut) and not all(is_cut)  # Else this test tests nothing.
  texts = [row.text for row in rows]
  ended = [text for text, cut in zip(texts, is_cut) if not cut]
  cut_off = [text for text, cut in zip(texts, is_cut) if cut]
  assert [trace.response for trace in _traces(whole)] == ended
  assert [row['response'] for row in _truncated(whole)] == cut_off
  for row in _truncated(whole):
    assert (row['reason'], row['num_tokens']) == ('length', 16)


def test_every_sample_has_an_id_of_its_own(whole):
  ids = [trace.trace_id for trace in _traces(whole)]
  ids += [row['trace_id'] for row in _truncated(whole)]
  assert len(set(ids)) == 12
  assert {i.rpartition('-')[0] for i in ids} == {
      f'tiny-teacher/{p.problem_id}/{n}' for p in PROBLEMS for n in range(4)
  }


def test_a_trace_says_what_was_asked_and_how_it_was_drawn(world, whole):
  prompt_sha256 = _completions(whole)[0].prompt_sha256
  questions = {
      'set/1': 'Add 1 and 1.',
      'set/2': 'Add {2}.',
      'f': 'Finish f.\n\n```python\ndef f():\n```',
  }
  for trace in _traces(whole):
    assert trace.question == questions[trace.problem_id]
    assert trace.prompt_sha256 == prompt_sha256
    assert trace.teacher == 'tiny-teacher'
    for said in (
        *('temperature=1.0', 'top_p=1.0', 'max_new_tokens=16', 'seed=0'),
        'stop=["e", "a"]',
    ):
      assert said in trace.method
    is_first = trace.problem_id == 'set/1'
    assert (trace.difficulty, trace.source) == (('easy', 'taco') if is_first else ('', ''))


def test_the_counts_are_kept(whole):
  found = jsonl.read_json(whole / 'teacher.json')
  assert found['num_problems'] == 3
  assert found['num_traces'] == len(_traces(whole))
  assert found['num_truncated'] == len(_truncated(whole))
  assert sum(found['finish_reasons'].values()) == 12


def test_the_traces_can_be_learnt_from(world, whole, tmp_path):
  config = _config(
      world, traces=f'jsonl:{whole}/traces.jsonl', tokenizer=f'hf:{world}/mine/shards/tokenizer'
  )
  shard.shard(config, str(tmp_path))
  data = shards.Shards(tmp_path / 'shards')
  tokenizer = tokenization.load_tokenizer(tmp_path / 'shards/tokenizer')
  # This teacher says whatever it likes, control tokens too.
  special = templates.list_control_texts(tokenizer)
  fit = [trace for trace in _traces(whole) if not any(text in trace.response for text in special)]
  assert data.ids == [trace.trace_id for trace in fit] != []
  for trace, example in zip(fit, data.read_examples(range(len(data))), strict=True):
    text = str(tokenizer.decode(example.tokens))
    assert text.endswith(f'{trace.question}<|assistant|>{trace.response}<|end|>')


def test_the_second_run_changes_nothing(world, whole):
  paths = [whole / name for name in _FILES[:2]]
  before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]
  teach.teach(_config(world), str(whole))
  assert before == [(p.stat().st_ino, p.stat().st_mtime_ns) for p in paths]


def test_more_traces_a_question_keep_those_that_are_there(world, whole, tmp_path):
  config = _config(world).unlock()
  config.sample.num_samples = 3
  teach.teach(config.lock(), str(tmp_path))
  fewer = {trace.trace_id for trace in _traces(tmp_path)}
  assert fewer < {trace.trace_id for trace in _traces(whole)}
  teach.teach(_config(world), str(tmp_path))
  assert _bytes(tmp_path) == _bytes(whole)


def test_another_seed_shares_no_id(world, whole, tmp_path):
  teach.teach(_config(world, seed=1), str(tmp_path))
  ids = {trace.trace_id for trace in _traces(whole)}
  assert ids.isdisjoint(trace.trace_id for trace in _traces(tmp_path))


def _start_teach(world, workdir, kill_at=forked.NEVER):
  config = _config(world).to_json()
  return forked.start_verb('teach', config, workdir, kill_at, world / 'compiled')


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_and_run_again_gives_the_same_files(world, whole, tmp_path):
  # Ahead of completions.jsonl; while traces are written; between two renames.
  for kill_at in (8, 11, 13):
    killed = _start_teach(world, tmp_path, kill_at)
    assert killed.wait() == -9, killed.read_output()
    assert not (tmp_path / 'teacher.json').exists()
  resumed = _start_teach(world, tmp_path)
  assert resumed.wait() == 0, resumed.read_output()
  assert _bytes(tmp_path) == _bytes(whole)
  assert not [path for path in tmp_path.iterdir() if path.suffix == '.tmp']


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_server_teaches_under_its_name(world, tmp_path):
  convert.export(world / 'student', world / 'hf', 'float32')
  config = _config(world, teacher='', prompt='plain').unlock()
  config.shards = f'hf:{world}/hf'
  jsonl.write_rows(tmp_path / 'short.jsonl', PROBLEMS[:2])
  config.problems = f'jsonl:{tmp_path}/short.jsonl'
  with engine_server.running(world / 'hf') as (url, _):
    config.sample.server = url
    teach.teach(config.lock(), str(tmp_path))
  found = _traces(tmp_path)
  assert len(found) + len(_truncated(tmp_path)) == 8
  for trace in found:
    assert trace.trace_id.startswith(f'tiny/{trace.problem_id}/')
    assert trace.teacher == 'tiny'
    assert trace.response.startswith('<think>\n')
    assert 'seeded=true' in trace.method


def test_a_local_teacher_without_a_name_is_refused(world, tmp_path):
  with pytest.raises(ValueError, match='config.teacher is empty; name'):
    teach.teach(_config(world, teacher=''), str(tmp_path))
  assert not [*tmp_path.iterdir()]


def test_a_teacher_that_never_ends_has_no_traces(world, tmp_path):
  config = _config(world).unlock()
  config.sample.update(stop=(), max_new_tokens=1, num_samples=1)
  with pytest.raises(ValueError, match='None of the 3 samples.*max_new_tokens'):
    teach.teach(config.lock(), str(tmp_path))
  assert not (tmp_path / 'teacher.json').exists()
  assert len(_truncated(tmp_path)) == 3
