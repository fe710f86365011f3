"""The fast way to tokens gives the tokens and weights of the plain one."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import tokenizers
import transformers

from valley_jax.data.tokens import encoding
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization

_QUESTION = 'Is naïve “x” 日本 odd?'
_RESPONSES = [
    '<think>Yes,  it\tis.</think>\n\nprint(1)',
    '<think>é😀é</think>😀 def f():\n    return 1',
    '<think>never ends',
    'no thinking',
    '<think></think>a</think>  b',
    'e\u0301 decomposed, as NFC does not leave it',
    ' leading and trailing '.strip(),
    '\u3000wide\u3000',
    'x' * 3000,
]
_AROUND = [
    'x.\né',
    'x.\r\n\né y',
    'x  é  y',
    'x \n é\n\n y',
    '1234é5678 90',
    'a\u2028 b',
    "é'll 'Sé",
    'x;\xa0\n y',
    'é' * 50 + ' a' * 50,
    '日本。\n\n語 </think>é<|end|> x',
]
_SPACED = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def _train(directory, normalizer=None, trim=False, template='', cut=None):
  """A tokenizer to which each word of the texts above is one token."""
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.pre_tokenizer = byte_level if cut is None else cut
  model.decoder = tokenizers.decoders.ByteLevel()
  if trim:  # As Llama's.
    model.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
  trainer = tokenizers.trainers.BpeTrainer(
      vocab_size=2000,
      special_tokens=['<|user|>', '<|assistant|>', '<|end|>'],
      initial_alphabet=byte_level.alphabet(),
      show_progress=False,
  )
  model.train_from_iterator([_QUESTION, *_RESPONSES, *_AROUND], trainer)
  model.normalizer = normalizer
  tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, eos_token='<|end|>')
  whole = ('</think>', 'odd?')
  tokenizer.add_tokens([transformers.AddedToken(text, normalized=False) for text in whole])
  tokenizer.chat_template = template or tokenization.CHAT_TEMPLATE
  tokenizer.save_pretrained(directory)
  return tokenization.load_tokenizer(directory)


def _split(pattern):
  """Cuts as Qwen and Llama 3 do, which say the pattern apart."""
  return tokenizers.pre_tokenizers.Sequence(
      [
          tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), behavior='isolated'),
          tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
      ]
  )


_QWEN, _LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
    for digits in (r'\p{N}', r'\p{N}{1,3}')
)
_KINDS = {
    'plain': {},
    'qwen': dict(normalizer=tokenizers.normalizers.NFC(), cut=_split(_QWEN)),
    'llama': dict(trim=True, cut=_split(_LLAMA)),
    'other': dict(cut=_split(r'\p{L}+|\s|[^\s\p{L}]')),
    'nfc': dict(normalizer=tokenizers.normalizers.NFC()),
    'trim': dict(trim=True),
    'space': dict(trim=True, template=_SPACED),
    'lower': dict(normalizer=tokenizers.normalizers.Lowercase()),
}


@pytest.fixture(scope='module')
def tokenizer_of(tmp_path_factory):
  directory = tmp_path_factory.mktemp('tokenizers')
  made = {kind: _train(directory / kind, **_KINDS[kind]) for kind in _KINDS}
  return made


def _assert_equal(tokenizer, turns, system=None):
  rendered = [templates.render_turn(tokenizer, *turn, system) for turn in turns]
  plain = tokenization.encode_turns(tokenizer, rendered)
  fast = list(encoding.TurnEncoder(tokenizer).encode_stream(rendered))
  for a, b in zip(plain, fast, strict=True):
    assert a.tokens.tolist() == b.tokens.tolist()
    assert a.weights.tolist() == b.weights.tolist()
    assert a.answer_start == b.answer_start
    assert a.tokens.dtype == b.tokens.dtype
    assert a.weights.dtype == b.weights.dtype


@pytest.mark.parametrize('kind', _KINDS)
@pytest.mark.parametrize('system', [None, '', 'Be brief.'])
def test_tokens_and_weights_are_those_of_the_plain_way(tokenizer_of, kind, system):
  turns = [(_QUESTION, response) for response in _RESPONSES]
  _assert_equal(tokenizer_of[kind], turns, system)


_TEXT = st.text(
    st.sampled_from("ab'S12 \n\r\t.,é😀日\u0301\xa0<>/") | st.characters(exclude_categories=['Cs'])
) | st.lists(
    st.sampled_from(
        [
            "I'll",
            "'RE",
            ' ',
            '  ',
            '\n',
            '\r\n',
            '\t',
            '12345',
            'ab',
            'é',
            '\x1c',
            '日本',
            '();',
            '.',
            '<|end',
            'odd?',
            '</think>',
            '\u2028',
        ]
    )
).map(
    ''.join
)


@given(question=_TEXT, thought=_TEXT, answer=_TEXT)
@pytest.mark.parametrize('kind', ['nfc', 'trim', 'qwen', 'llama'])
def test_any_text_has_the_tokens_of_the_plain_way(tokenizer_of, kind, question, thought, answer):
  response = f'<think>{thought}</think>{answer}'.strip()
  _assert_equal(tokenizer_of[kind], [(question, response)])


def test_a_tokenizer_that_is_not_of_bytes_goes_the_plain_way(tmp_path):
  model = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token='?'))
  model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  model.train_from_iterator(
      [_QUESTION, *_RESPONSES],
      tokenizers.trainers.WordLevelTrainer(
          special_tokens=['?', '<|user|>', '<|assistant|>', '<|end|>']
      ),
  )
  tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, eos_token='<|end|>')
  tokenizer.chat_template = tokenization.CHAT_TEMPLATE
  _assert_equal(tokenizer, [(_QUESTION, text) for text in _RESPONSES])


def test_many_texts_are_tokenised_in_order(tokenizer_of):
  texts = ['ab' * 100_000, 'c', 'de' * 300_000, 'f'] * 2
  tokenizer = tokenizer_of['plain']
  turns = [templates.render_turn(tokenizer, 'Why?', text) for text in texts]
  found = [
      tokenizer.decode(example.tokens[example.weights == 1])
      for example in encoding.TurnEncoder(tokenizer).encode_stream(turns)
  ]
  assert found == [f'{text}<|end|>' for text in texts]


@pytest.mark.parametrize('kind', _KINDS)
def test_common_tokenizers_have_a_memory_of_words(tokenizer_of, kind):
  is_made = encoding.build_word_encoder(tokenizer_of[kind]) is not None
  assert is_made == (kind not in ('lower', 'other'))


def test_added_tokens_with_rules_of_their_own_go_to_the_tokenizer(tmp_path):
  tokenizer = _train(tmp_path / 'tokenizer')
  tokenizer.add_tokens([transformers.AddedToken('So', rstrip=True)])
  assert encoding.build_word_encoder(tokenizer) is None
  _assert_equal(tokenizer, [(_QUESTION, 'So  it is.')])


def test_a_memory_that_is_full_begins_anew(tokenizer_of, monkeypatch):
  words = encoding.build_word_encoder(tokenizer_of['plain'])
  assert words is not None
  monkeypatch.setattr(encoding, '_MAX_WORDS', 3)
  text = 'So we say: (it is) = 12; so we say it is.'
  for _ in range(2):
    assert words.encode_text(text) == words.encode_by_library(text)
  assert len(words.word_ids) <= 3


@pytest.mark.parametrize('kind', ['plain', 'qwen', 'llama'])
@pytest.mark.parametrize('text', _AROUND)
def test_around_other_characters_the_tokenizer_cuts_itself(tokenizer_of, kind, text):
  words = encoding.build_word_encoder(tokenizer_of[kind])
  assert words is not None
  assert words.encode_text(text) == words.encode_by_library(text)


def test_no_text_makes_no_example(tokenizer_of):
  assert not list(encoding.TurnEncoder(tokenizer_of['plain']).encode_stream([]))


def test_truncation_of_a_downloaded_tokenizer_is_not_obeyed(tokenizer_of, tmp_path):
  tokenizer_of['plain'].save_pretrained(tmp_path)
  backend = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  backend.enable_truncation(8)
  backend.enable_padding(length=5000)
  backend.save(str(tmp_path / 'tokenizer.json'))
  tokenizer = tokenization.load_tokenizer(tmp_path)
  turn = templates.render_turn(tokenizer, 'Why?', 'x y z ' * 30 + '.')
  (example,) = encoding.TurnEncoder(tokenizer).encode_stream([turn])
  (plain,) = tokenization.encode_turns(tokenizer_of['plain'], [turn])
  assert np.array_equal(example.tokens, plain.tokens)
