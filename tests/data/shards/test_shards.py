"""Shards say of each token what it is of, and of each trace what is known."""

import numpy as np
import pytest

from valley_jax import jsonl
from valley_jax import records
from valley_jax.analysis import data_card
from valley_jax.data.shards import building
from valley_jax.data.shards import inspection
from valley_jax.data.shards import shards
from valley_jax.data.tokens import encoding
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import metrics

_TRACES = [
    records.Trace(
        trace_id='a',
        problem_id='p',
        question='Why?',
        response='<think>Hm.</think>So.',
        difficulty='hard',
        is_correct=True,
        pass_rate=1.0,
        language='python',
        source='taco',
        teacher='R1',
    ),
    records.Trace(
        trace_id='b',
        problem_id='q',
        question='\x1b[31mHow?',
        response='So.',
        is_correct=False,
        pass_rate=0.25,
    ),
    records.Trace(trace_id='c', problem_id='p', question='Why?', response='<think>Hm.'),
]


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  """Shards of three traces in two blocks."""
  path = tmp_path_factory.mktemp('run') / 'shards'
  path.mkdir()
  tokenization.train_bpe(path / 'tokenizer', _TRACES, 300)
  encoder = encoding.TurnEncoder(tokenization.load_tokenizer(path / 'tokenizer'))
  settings = building.BlockSettings(
      directory=path, prompt=prompts.load_prompt('plain'), max_len=100, traces_per_shard=2
  )
  for number, traces in enumerate((_TRACES[:2], _TRACES[2:])):
    building.write_block(settings, number, traces, encoder)
  jsonl.write_json(path / 'manifest.json', {'format': shards.FORMAT})
  return path


def _texts(directory, row):
  """Returns the text of each kind of tokens of a row."""
  (example,) = shards.Shards(directory).read_examples([row])
  tokenizer = tokenization.load_tokenizer(directory / 'tokenizer')
  kinds = shards.classify_tokens(example)
  return [tokenizer.decode(example.tokens[kinds == k]) for k in shards.TokenKind]


@pytest.mark.parametrize(
    ('row', 'prompt', 'think', 'answer'),
    [
        (0, 'Why?', '<think>Hm.</think>', 'So.<|end|>'),
        (1, '\x1b[31mHow?', '', 'So.<|end|>'),
        (2, 'Why?', '<think>Hm.<|end|>', ''),
    ],
)
def test_kinds_are_prompt_thinking_and_answer(directory, row, prompt, think, answer):
  assert _texts(directory, row) == [f'<|user|>{prompt}<|assistant|>', think, answer]


def test_kinds_are_a_byte_a_token(directory):
  (example,) = shards.Shards(directory).read_examples([0])
  assert shards.classify_tokens(example).dtype == np.uint8
  assert (shards.classify_tokens(example) > 0).tolist() == (example.weights > 0).tolist()


def test_the_table_has_the_labels_of_every_trace_in_order(directory):
  data = shards.Shards(directory)
  table = data.read_table()
  assert table.ids == data.ids == ['a', 'b', 'c']
  assert table.problem_ids == ['p', 'q', 'p']
  assert table.num_tokens.tolist() == data.lengths.tolist()
  assert table.is_correct == [True, False, None]
  assert table.pass_rate == [1.0, 0.25, None]
  assert table.difficulty == ['hard', '', '']
  assert table.language == ['python', '', '']
  assert table.source == ['taco', '', '']
  assert table.teacher == ['R1', '', '']
  assert table.num_supervised.tolist() == [
      int(example.weights.sum()) for example in data.read_examples(range(3))
  ]


def test_inspect_colours_prompt_thinking_and_answer(directory):
  (example,) = shards.Shards(directory).read_examples([0])
  tokenizer = tokenization.load_tokenizer(directory / 'tokenizer')
  assert inspection.format_example(example, tokenizer, True) == (
      '\x1b[90m<|user|>Why?<|assistant|>\x1b[0m'
      '\x1b[34m<think>Hm.</think>\x1b[0m'
      '\x1b[32mSo.<|end|>\x1b[0m'
  )


def test_inspect_without_colours_has_headings_and_no_escape(directory, capsys):
  inspection.print_rows([str(directory.parent), '--row', 'a', '1'])
  said = capsys.readouterr().out
  assert '\x1b' not in said
  assert 'row 0: a of problem p' in said
  assert 'difficulty hard' in said
  assert '--- answer, ' in said
  assert r'\x1b[31mHow?' in said


@pytest.mark.parametrize('row', ['3', 'd', '-1'])
def test_inspect_says_which_rows_there_are(directory, capsys, row):
  with pytest.raises(SystemExit):
    inspection.print_rows([str(directory), f'--row={row}'])
  assert 'has rows 0 to 2, and no trace of this id' in capsys.readouterr().err


def test_lengths_are_counted_up_to_each_power_of_two():
  lengths = np.array([1, 2, 3, 4, 5, 8, 9, 17])
  counts = {1: 1, 2: 1, 4: 2, 8: 2, 16: 1, 32: 1}
  assert metrics.count_by_power_of_two(lengths) == counts
  assert metrics.count_by_power_of_two([2, 9]) == {2: 1, 4: 0, 8: 0, 16: 1}
  assert metrics.count_by_power_of_two([]) == {}


def _manifest(**changes):
  return {
      'num_traces': 3,
      'num_read': 5,
      'quarantined': 1,
      'dropped': {'too_long': 2},
      'examples': {'too_long': ['<b>x', 'y']},
      'num_tokens': 100,
      'num_supervised_tokens': 60,
      'longest': 40,
      'max_len': 64,
      'sources': [{'source': 'jsonl:x', 'sha256': 'abc', 'read': 5}],
      'prompt': 'plain',
      'tokenizer': 'hf:x',
      'versions': {'numpy': '2'},
      **dict.fromkeys(
          ('prompt_sha256', 'template_sha256', 'tokenizer_sha256', 'ids_sha256'), 'def'
      ),
      **changes,
  }


def test_the_card_tells_counts_reasons_and_examples(directory):
  page = data_card.render_data_card(_manifest(), shards.read_table(directory))
  texts = 'too long', '&lt;b&gt;x', 'jsonl:x', 'incorrect', 'taco', '1.5 traces'
  for text in texts:
    assert text in page
  assert '<b>x' not in page
  assert 'http' not in page.replace('http://www.w3.org', '')


def test_the_card_leaves_out_what_no_trace_tells(tmp_path, directory):
  sidecar = jsonl.read_json(directory / '00001.json')
  jsonl.write_json(tmp_path / '00000.json', sidecar)  # Without labels.
  page = data_card.render_data_card(_manifest(), shards.read_table(tmp_path))
  assert 'id="lengths"' in page
  assert 'id="difficulty"' not in page
  assert page == data_card.render_data_card(_manifest(), shards.read_table(tmp_path))
