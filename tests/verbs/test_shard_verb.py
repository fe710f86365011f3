"""`shard` counts every row, cuts none, and ends the same after any kill."""

import collections
import json
import pathlib
import re
import shutil

import ml_collections as mlc
import pytest
import tokenizers

from valley_jax import jsonl
from valley_jax import records
from valley_jax import shard
from valley_jax.data.shards import shards
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import config_groups

_FIXTURES = pathlib.Path(__file__).parents[1] / 'fixtures'
OCR2 = _FIXTURES / 'ocr2'
MAX_LEN = 384
NO_FILTERS = {
    **config_groups.get_filters_group(),
    'think': False,
    'code_in_answer': False,
    'parses': False,
}


def _config(max_len=MAX_LEN, traces_per_shard=8, num_workers=0, **changes):
  values = dict(
      traces=f'ocr2:{OCR2}/python.jsonl',
      questions=str(OCR2 / 'questions'),
      tokenizer='bpe:512',
      chat_template='',
      prompt=f'file:{_FIXTURES}/prompts/solve.toml',
      data=dict(
          max_len=max_len, min_len=0, traces_per_shard=traces_per_shard, num_workers=num_workers
      ),
      filters=NO_FILTERS,
      duplicates={**config_groups.get_duplicates_group(), 'questions': 'keep', 'traces': 'keep'},
      contamination=dict(problems=()),
  )
  return mlc.ConfigDict({**values, **changes}).lock()


def _trace(name='a', **changes):
  values = dict(trace_id=name, problem_id='p', question='Why?', response='So.')
  return records.Trace(**{**values, **changes})


def _own(tmp_path, *rows, **changes):
  """Returns the config for traces of our own, written to a file."""
  jsonl.write_rows(tmp_path / 'traces.jsonl', rows)
  return _config(traces=f'jsonl:{tmp_path}/traces.jsonl', **changes)


def _files(directory):
  """Returns the bytes of every file; hidden ones are scratch files."""
  return {
      str(path.relative_to(directory)): path.read_bytes()
      for path in directory.rglob('*')
      if path.is_file() and not path.name.startswith('.')
  }


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """The workdir of an uninterrupted run."""
  workdir = tmp_path_factory.mktemp('done')
  shard.shard(_config(), str(workdir))
  return workdir


def test_kept_dropped_and_quarantined_rows_are_all_rows(done):
  manifest = jsonl.read_json(done / 'shards' / 'manifest.json')
  rows = [*filter(None, (OCR2 / 'python.jsonl').read_text().splitlines())]
  dropped = manifest['dropped']
  assert dropped == {
      'duplicate_trace_id': 1,
      'empty_response': 1,
      'special_token_in_text': 1,
      'too_long': 1,
  }
  assert manifest['num_traces'] == 24
  assert manifest['quarantined'] == 6
  assert 24 + sum(dropped.values()) + 6 == len(rows)


def test_the_manifest_counts_what_lies_in_the_shards(done):
  data = shards.Shards(done / 'shards')
  examples = data.read_examples(range(len(data)))
  manifest = data.manifest
  lengths = [len(example.tokens) for example in examples]
  assert lengths == data.lengths.tolist()
  assert manifest['num_tokens'] == sum(lengths)
  assert manifest['longest'] == max(lengths) <= MAX_LEN
  assert manifest['num_supervised_tokens'] == sum(
      int(example.weights.sum()) for example in examples
  )
  assert manifest['files'] == [
      path.name for path in sorted((done / 'shards').glob('*.array_record'))
  ]


def test_a_trace_is_whole_in_its_shard(done):
  data = shards.Shards(done / 'shards')
  tokenizer = tokenization.load_tokenizer(done / 'shards' / 'tokenizer')
  (row,) = (
      json.loads(line)
      for line in (OCR2 / 'python.jsonl').read_text().splitlines()
      if data.ids[-1] in line
  )
  (example,) = data.read_examples([len(data) - 1])
  text = tokenizer.decode(example.tokens)
  assert text.startswith('<|user|>Solve this.\n\nIs the string a palindrome?')
  assert text.endswith(f'{row["r1_generation"].strip()}<|end|>')


def test_quarantined_rows_are_listed_with_file_line_and_reason(done):
  rows = list(jsonl.read_rows(done / 'shards' / 'quarantine.jsonl', dict))
  assert len(rows) == 6
  lines = (OCR2 / 'python.jsonl').read_text().splitlines()
  for row in rows:
    assert row['file'] == f'{OCR2}/python.jsonl'
    assert row['reason']
    assert lines[row['line'] - 1]


def test_the_same_traces_give_the_same_bytes(done, tmp_path):
  shard.shard(_config(), str(tmp_path))
  assert _files(tmp_path) == _files(done)


def test_a_second_run_touches_nothing(done, capsys):
  before = {p: p.stat().st_mtime_ns for p in done.rglob('*')}
  shard.shard(_config(), str(done))
  assert before == {p: p.stat().st_mtime_ns for p in done.rglob('*')}
  assert 'complete' in capsys.readouterr().out


def test_finished_blocks_are_not_made_again(done, tmp_path):
  shutil.copytree(done, tmp_path, dirs_exist_ok=True)
  (tmp_path / 'shards' / 'manifest.json').unlink()
  (tmp_path / 'shards' / '00001.json').unlink()
  (tmp_path / 'shards' / '00001.tmp').write_bytes(b'half a shard')
  times = {
      path.name: path.stat().st_mtime_ns for path in (tmp_path / 'shards').glob('*.array_record')
  }
  shard.shard(_config(), str(tmp_path))
  changed = [
      name
      for name, before in times.items()
      if (tmp_path / 'shards' / name).stat().st_mtime_ns != before
  ]
  assert changed == ['00001.array_record']
  assert _files(tmp_path) == _files(done)


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('max_len', dict(max_len=128)),
        ('traces_per_shard', dict(traces_per_shard=4)),
        ('prompt', dict(prompt='plain')),
        ('tokenizer', dict(tokenizer='bpe:300')),
        ('questions', dict(questions='elsewhere')),
    ],
)
def test_other_settings_are_refused(done, name, changes):
  before = _files(done)
  with pytest.raises(ValueError, match=f'begun with {name}=.*--workdir'):
    shard.shard(_config(**changes), str(done))
  assert _files(done) == before


def test_shards_of_another_format_are_refused_with_a_remedy(done, tmp_path):
  shutil.copytree(done, tmp_path, dirs_exist_ok=True)
  manifest = jsonl.read_json(tmp_path / 'shards' / 'manifest.json')
  del manifest['format']  # As it was before there was one.
  jsonl.write_json(tmp_path / 'shards' / 'manifest.json', manifest)
  with pytest.raises(ValueError, match='format None.*reads 4.*shard'):
    shards.Shards(tmp_path / 'shards')


def test_other_traces_under_the_same_name_are_refused(tmp_path):
  shard.shard(_own(tmp_path, _trace('a')), str(tmp_path))
  with pytest.raises(ValueError, match='begun with traces_sha256'):
    shard.shard(_own(tmp_path, _trace('b')), str(tmp_path))


def test_too_long_traces_are_dropped_and_never_cut(tmp_path):
  config = _own(tmp_path, _trace('a'), _trace('b', response='So. ' * 50))
  shard.shard(config, str(tmp_path / 'all'))
  lengths = shards.Shards(tmp_path / 'all' / 'shards').lengths.tolist()
  for max_len, kept in [(lengths[1], ['a', 'b']), (lengths[1] - 1, ['a'])]:
    config.data.max_len = max_len
    shard.shard(config, f'{tmp_path}/{max_len}')
    data = shards.Shards(tmp_path / str(max_len) / 'shards')
    assert data.ids == kept
    assert data.lengths.tolist() == lengths[: len(kept)]
    assert data.manifest['dropped'].get('too_long', 0) == 2 - len(kept)


def test_too_short_traces_are_dropped(tmp_path):
  config = _own(tmp_path, _trace('a'), _trace('b', response='So. ' * 50))
  shard.shard(config, str(tmp_path / 'all'))
  lengths = shards.Shards(tmp_path / 'all' / 'shards').lengths.tolist()
  for min_len, kept in [(lengths[0], ['a', 'b']), (lengths[0] + 1, ['b'])]:
    config.data.min_len = min_len
    shard.shard(config, f'{tmp_path}/{min_len}')
    data = shards.Shards(tmp_path / str(min_len) / 'shards')
    assert data.ids == kept
    assert data.manifest['dropped'].get('too_short', 0) == 2 - len(kept)


def test_a_window_that_no_trace_fits_into_is_refused(tmp_path):
  config = _own(tmp_path, _trace('a'))
  config.data.min_len = config.data.max_len + 1
  with pytest.raises(ValueError, match=r'min_len=385 .*max_len=384'):
    shard.shard(config, str(tmp_path))


@pytest.mark.parametrize('traces_per_shard', [1, 2, 100])
def test_a_trace_id_that_comes_again_is_dropped(tmp_path, traces_per_shard):
  rows = [_trace('a'), _trace('a', response='No.'), _trace('b'), _trace('a')]
  config = _own(tmp_path, *rows, traces_per_shard=traces_per_shard)
  shard.shard(config, str(tmp_path))
  data = shards.Shards(tmp_path / 'shards')
  assert data.ids == ['a', 'b']
  assert data.manifest['dropped'] == {'duplicate_trace_id': 2}
  tokenizer = tokenization.load_tokenizer(tmp_path / 'shards' / 'tokenizer')
  first, _ = data.read_examples([0, 1])
  assert 'So.' in tokenizer.decode(first.tokens)


@pytest.mark.parametrize('field', ['question', 'response'])
def test_text_that_would_end_a_turn_is_dropped_and_named(tmp_path, field):
  bad = _trace('b', **{field: 'Print <|end|> and stop.'})
  shard.shard(_own(tmp_path, _trace('a'), bad), str(tmp_path))
  data = shards.Shards(tmp_path / 'shards')
  assert data.ids == ['a']
  (table,) = [*shards.read_sidecars(tmp_path / 'shards')]
  assert table['dropped'] == {'special_token_in_text': ['b']}


def test_every_turn_ends_once_and_at_its_end(done):
  data = shards.Shards(done / 'shards')
  end = tokenization.load_tokenizer(done / 'shards' / 'tokenizer').eos_token_id
  for example in data.read_examples(range(len(data))):
    assert (example.tokens == end).nonzero()[0].tolist() == [len(example.tokens) - 1]


@pytest.mark.parametrize('text', ['', ' \n\t'])
def test_empty_traces_are_dropped_by_reason(tmp_path, text):
  rows = [_trace(), _trace('b', question=text), _trace('c', response=text)]
  shard.shard(_own(tmp_path, *rows), str(tmp_path))
  manifest = jsonl.read_json(tmp_path / 'shards' / 'manifest.json')
  assert manifest['dropped'] == {'empty_question': 1, 'empty_response': 1}


def test_braces_in_a_question_are_text(tmp_path):
  shard.shard(_own(tmp_path, _trace(question='{x} {0} {')), str(tmp_path))
  (example,) = shards.Shards(tmp_path / 'shards').read_examples([0])
  tokenizer = tokenization.load_tokenizer(tmp_path / 'shards' / 'tokenizer')
  assert '{x} {0} {' in tokenizer.decode(example.tokens)


def test_a_block_of_bad_rows_only_does_not_shift_the_next(tmp_path):
  path = tmp_path / 'traces.jsonl'
  good = [records.to_json(_trace(name)) for name in 'abc']
  path.write_bytes(b'\n'.join([good[0], b'{', b'{}', good[1], good[2], b'[']))
  config = _config(traces=f'jsonl:{path}', traces_per_shard=1)
  shard.shard(config, str(tmp_path))
  data = shards.Shards(tmp_path / 'shards')
  assert data.ids == ['a', 'b', 'c']
  assert len(data.read_examples([2, 0, 1])) == 3
  assert data.manifest['quarantined'] == 3


def test_no_usable_trace_is_an_error_and_no_manifest(tmp_path):
  config = _own(tmp_path, _trace(response=''), _trace('b', question=''))
  for _ in range(2):  # The second run says it again.
    with pytest.raises(ValueError, match="empty_response': 1.*quarantine"):
      shard.shard(config, str(tmp_path))
    assert not (tmp_path / 'shards' / 'manifest.json').exists()
  with pytest.raises(ValueError, match=r'run .*shard.* to its end first'):
    shards.Shards(tmp_path / 'shards')


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(tokenizer='qwen'), 'want hf:DIR or bpe:SIZE'),
        (dict(tokenizer='bpe:many'), 'want hf:DIR or bpe:SIZE'),
        (dict(tokenizer='hf:nowhere'), 'nowhere does not exist'),
        (dict(traces=''), 'want FORMAT:PATH'),
        (dict(traces='ocr2:nowhere.jsonl'), 'there is no file nowhere'),
        (dict(prompt='Solve this.'), 'no known prompt; take one of'),
        (dict(chat_template='chatml'), 'want file:PATH'),
        (dict(chat_template='file:nowhere'), 'want file:PATH'),
    ],
)
def test_what_a_user_can_get_wrong_is_said(tmp_path, changes, said):
  with pytest.raises(ValueError, match=said):
    shard.shard(_config(**changes), str(tmp_path))


@pytest.mark.parametrize(
    'changes',
    [
        dict(questions=''),
        dict(tokenizer=''),
        dict(tokenizer='hf:nowhere'),
        dict(filters={**NO_FILTERS, 'thinks': True}),
        dict(duplicates=config_groups.get_duplicates_group() | dict(traces='none')),
    ],
)
def test_a_mistake_that_is_said_at_once_can_be_mended_in_place(done, tmp_path, changes):
  with pytest.raises(ValueError):
    shard.shard(_config(**changes), str(tmp_path))
  shard.shard(_config(), str(tmp_path))
  assert _files(tmp_path) == _files(done)


def test_a_prompt_that_the_template_leaves_out_is_refused_before_any_trace(done, tmp_path):
  tokenizer = done / 'shards' / 'tokenizer'
  (tmp_path / 'deaf.jinja').write_text(
      tokenization.CHAT_TEMPLATE.replace(
          'for message in messages', "for message in messages if message['role'] != 'system'"
      )
  )
  (tmp_path / 'mine.toml').write_text(
      (_FIXTURES / 'prompts' / 'solve.toml').read_text() + "\nsystem = 'Think first.'\n"
  )
  config = _config(
      tokenizer=f'hf:{tokenizer}',
      chat_template=f'file:{tmp_path}/deaf.jinja',
      prompt=f'file:{tmp_path}/mine.toml',
  )
  with pytest.raises(ValueError, match='leaves the system message'):
    shard.shard(config, str(tmp_path))
  assert not (tmp_path / 'shards' / 'decisions.jsonl').exists()


def test_a_tokenizer_from_elsewhere_is_kept_beside_the_shards(done, tmp_path):
  tokenizer = done / 'shards' / 'tokenizer'
  config = _config(tokenizer=f'hf:{tokenizer}')
  shard.shard(config, str(tmp_path))
  theirs, ours = _files(tokenizer), _files(tmp_path / 'shards' / 'tokenizer')
  assert ours['tokenizer.json'] == theirs['tokenizer.json']
  hashes = [
      jsonl.read_json(where / 'shards' / 'manifest.json')['tokenizer_sha256']
      for where in (done, tmp_path)
  ]
  assert len(collections.Counter(hashes)) == 1


def test_what_has_no_tokens_is_counted_with_its_ids(tmp_path):
  long = 'So it is. ' * 200 + '.'
  rows = [_trace('a'), _trace('b', response=long), _trace('c', response=long)]
  shard.shard(_own(tmp_path, *rows), str(tmp_path))
  manifest = jsonl.read_json(tmp_path / 'shards' / 'manifest.json')
  assert manifest['dropped'] == {'too_long': 2}
  assert manifest['examples'] == {'too_long': ['b', 'c']}
  card = (tmp_path / 'shards' / 'card.html').read_text()
  assert '2 were dropped for a stated reason, and 1 are here' in ' '.join(card.split())


def test_a_text_that_the_tokenizer_changes_is_dropped(tmp_path):
  trained = [_trace(response='So it is e\u0301.')]
  tokenization.train_bpe(tmp_path / 'bpe', trained, 300)
  tokenizer = tokenization.load_tokenizer(tmp_path / 'bpe')
  tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
  tokenizer.save_pretrained(tmp_path / 'nfc')
  config = _own(
      tmp_path,
      _trace('a'),
      _trace('b', response='So it is e\u0301.'),
      tokenizer=f'hf:{tmp_path}/nfc',
  )
  shard.shard(config, str(tmp_path))
  manifest = jsonl.read_json(tmp_path / 'shards' / 'manifest.json')
  assert manifest['dropped'] == {'changed_text': 1}
  assert manifest['examples'] == {'changed_text': ['b']}


def test_both_passes_say_how_far_they_are_of_how_many(tmp_path, capsys):
  rows = [_trace(str(i), response=f'So, {i}.') for i in range(20)]
  shard.shard(_own(tmp_path, *rows), str(tmp_path / 'run'))
  said = capsys.readouterr().err
  assert re.search(r'shard, decides: +100%.*20/20', said)
  assert re.search(r'shard, tokenises: +100%.*20/20', said)


def test_a_refused_resume_names_the_very_setting(tmp_path):
  def config(**filters):
    return _own(tmp_path, _trace(), filters={**NO_FILTERS, **filters})

  shard.shard(config(characters=()), str(tmp_path))
  with pytest.raises(ValueError, match=r'begun with filters.characters=\[\], now it is \[1, 9'):
    shard.shard(config(characters=(1, 9)), str(tmp_path))


def test_the_first_unreadable_row_is_told_with_its_reason(tmp_path, capsys):
  (tmp_path / 'x.jsonl').write_text('{}\n[]\n')
  config = _config(traces=f'jsonl:{tmp_path}/x.jsonl')
  said = r'2 \(quarantine.jsonl\), first .*x.jsonl, row 1: .*missing required'
  with pytest.raises(ValueError, match=f'dropped {{}}, quarantined {said}'):
    shard.shard(config, str(tmp_path / 'none'))
  with open(tmp_path / 'x.jsonl', 'ab') as file:
    file.write(records.to_json(_trace()))
  shard.shard(config, str(tmp_path / 'one'))
  assert re.search(f'quarantined {said}', capsys.readouterr().out)


def test_a_response_that_the_template_refuses_is_dropped(done, tmp_path):
  (tmp_path / 'strict.jinja').write_text(
      "{% if 'No' in messages[-1]['content'] %}{{ raise_exception('no!') }}"
      '{% endif %}' + tokenization.CHAT_TEMPLATE
  )
  config = _own(
      tmp_path,
      _trace('a'),
      _trace('b', response='No.'),
      tokenizer=f'hf:{done}/shards/tokenizer',
      chat_template=f'file:{tmp_path}/strict.jinja',
  )
  shard.shard(config, str(tmp_path))
  manifest = jsonl.read_json(tmp_path / 'shards' / 'manifest.json')
  assert manifest['examples'] == {'changed_by_template': ['b']}


def test_it_is_told_how_many_files_of_a_directory_are_read(tmp_path, capsys):
  for name in ('b.jsonl', 'a.jsonl', 'c.json'):
    jsonl.write_rows(tmp_path / 'given' / name, [_trace(name)])
  config = _config(traces=f'jsonl:{tmp_path}/given')
  shard.shard(config, str(tmp_path))
  said = f'given is 2 files, from {tmp_path}/given/a.jsonl on.'
  assert said in capsys.readouterr().out
