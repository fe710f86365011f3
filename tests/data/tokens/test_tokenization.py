"""Text becomes the tokens of the chat template, with the response marked."""

import dataclasses
import unicodedata

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import tokenizers

from tests import families
from valley_jax import records
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization

RESPONSE = '<think>\nWe add.\n</think>\n\n```python\nprint(1 , 2)\n```'
# The format that Qwen2.5 publishes, with its default system turn.
CHATML = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are"
    " a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
    '{%- for message in messages %}'
    "{{- '<|im_start|>' + message.role + '\\n' + message.content +"
    " '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    '{%- endif %}'
)
# The format of Llama 3, which trims every turn.
LLAMA3 = (
    '{{- bos_token }}{%- for message in messages %}'
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    '{%- if add_generation_prompt %}'
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
# No control token between prompt and response, and the prompt ends in a space.
PLAIN = (
    "Q: {{ messages[0]['content'] }} A: "
    "{% if not add_generation_prompt %}{{ messages[1]['content'] }}<|end|>"
    '{% endif %}'
)
TEMPLATES = {
    'ours': dict(template=tokenization.CHAT_TEMPLATE),
    'chatml': dict(
        template=CHATML,
        eos='<|im_end|>',
        special=['<|endoftext|>', '<|im_start|>'],
        pad='<|endoftext|>',
    ),
    'llama3': dict(
        template=LLAMA3,
        eos='<|eot_id|>',
        special=['<|start_header_id|>', '<|end_header_id|>'],
        bos='<|begin_of_text|>',
    ),
}

# Any text that JSON can carry: all of Unicode but lone surrogates.
texts = st.text(st.characters(exclude_categories=['Cs']), min_size=1)


def _traces():
  return [
      records.Trace(
          trace_id=str(i),
          problem_id='p',
          question=f'Is {i} a number? Say yes, two words.',
          response=f'<think>\nIt is {i}, yes yes.\n</think>\nprint({i})',
      )
      for i in range(40)
  ]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  directory = tmp_path_factory.mktemp('bpe') / 'tokenizer'
  tokenization.train_bpe(directory, _traces(), 400)
  return directory


@pytest.fixture(scope='module')
def ours(trained):
  return tokenization.load_tokenizer(trained)


@pytest.fixture
def made(trained, tmp_path):
  """Makes tokenizers of other families, saved and loaded as users do."""

  def make(template, eos='<|end|>', special=(), bos=None, pad=None):
    tokenizer = tokenization.load_tokenizer(trained)
    named = {'eos_token': eos, 'additional_special_tokens': list(special)}
    tokenizer.add_special_tokens(named | ({'bos_token': bos} if bos else {}))
    tokenizer.pad_token = pad
    if bos:  # As Llama's does: every text gets one, unless told otherwise.
      tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
          single=f'{bos} $A', special_tokens=[(bos, tokenizer.bos_token_id)]
      )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path / 'other')
    return tokenization.load_tokenizer(tmp_path / 'other')

  return make


every_family = pytest.mark.parametrize('family', TEMPLATES)


@every_family
def test_tokens_are_those_of_apply_chat_template(made, family):
  tokenizer = made(**TEMPLATES[family])
  turns = [('Add 1 and 2.', RESPONSE), ('Yes?\n\nInput\n 3 ', 'yes')]
  for turn, example in zip(turns, families.encode_traces(tokenizer, turns)):
    messages = [{'role': 'user', 'content': turn[0]}, {'role': 'assistant', 'content': turn[1]}]
    theirs = tokenizer.apply_chat_template(messages, return_dict=False)
    n = len(example.tokens)
    assert example.tokens.tolist() == theirs[:n]
    # Behind the end token only ChatML has something: the line's end.
    assert tokenizer.decode(theirs[n:]).strip() == ''


@every_family
def test_a_prompt_is_what_apply_chat_template_puts_before_the_student(made, family):
  tokenizer = made(**TEMPLATES[family])
  theirs = tokenizer.apply_chat_template(
      [{'role': 'user', 'content': 'Add 1 and 2.'}], add_generation_prompt=True, return_dict=False
  )
  assert tokenization.encode_prompt(tokenizer, 'Add 1 and 2.') == theirs
  (example,) = families.encode_traces(tokenizer, [('Add 1 and 2.', RESPONSE)])
  assert example.num_prompt_tokens == len(theirs)
  assert example.tokens[: len(theirs)].tolist() == theirs


@every_family
def test_response_and_end_token_are_supervised_and_nothing_else(made, family):
  tokenizer = made(**TEMPLATES[family])
  (example,) = families.encode_traces(tokenizer, [('Add 1 and 2.', RESPONSE)])
  supervised = example.tokens[example.weights == 1]
  assert tokenizer.decode(supervised) == RESPONSE + tokenizer.eos_token
  assert supervised[-1] == tokenizer.eos_token_id
  assert example.weights.tolist() == sorted(example.weights)
  assert example.tokens.dtype == np.int32 and example.weights.dtype == np.uint8


@hypothesis.given(question=texts, response=texts)
def test_any_text_comes_back_from_its_tokens(ours, question, response):
  (example,) = families.encode_traces(ours, [(question, response)])
  n = example.num_prompt_tokens
  assert ours.decode(example.tokens[n:]) == f'{response}<|end|>'
  assert ours.decode(example.tokens[:n]) == f'<|user|>{question}<|assistant|>'


@every_family
@pytest.mark.parametrize(
    'response, answer',
    [
        ('<think>So it is 3.</think>\nprint(3)', '\nprint(3){end}'),
        ('<think>a</think>b<think>c</think>', '{end}'),  # As `scoring` has it.
        ('print(3)', 'print(3){end}'),
        ('<think>So it is', ''),
        ('<think>a</think>b<think>c', ''),
    ],
)
def test_the_answer_begins_behind_the_thinking(made, family, response, answer):
  tokenizer = made(**TEMPLATES[family])
  (example,) = families.encode_traces(tokenizer, [('Add 1 and 2.', response)])
  found = tokenizer.decode(example.tokens[example.answer_start :])
  assert found == answer.format(end=tokenizer.eos_token)


@pytest.mark.parametrize(
    'text',
    [
        'naïve – 日本語',
        '\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f',  # Emoji.
        'a\r\nb\r\n',
        'e\u0301\u2028\ufeff',
        '\t \t',
        "x , y n't .",
    ],
)
def test_text_of_several_tokens_a_character_comes_back(ours, text):
  (example,) = families.encode_traces(ours, [(text, text)])
  supervised = example.tokens[example.weights == 1]
  assert ours.decode(supervised) == f'{text}<|end|>'


def test_a_tokenizer_that_normalises_still_finds_the_response(trained):
  tokenizer = tokenization.load_tokenizer(trained)
  tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
  text = 'e\u0301' * 9  # Half as many characters in NFC.
  (example,) = families.encode_traces(tokenizer, [(text, text)])
  supervised = tokenizer.decode(example.tokens[example.weights == 1])
  assert supervised == unicodedata.normalize('NFC', text) + '<|end|>'


@pytest.mark.parametrize('trim_offsets', [False, True])
def test_a_token_that_would_span_prompt_and_response_is_taken_apart(made, trim_offsets):
  tokenizer = made(PLAIN)
  tokenizer.backend_tokenizer.post_processor = tokenizers.processors.ByteLevel(
      trim_offsets=trim_offsets
  )
  whole = tokenizer('Q: Add A: yes yes', add_special_tokens=False)['input_ids']
  (example,) = families.encode_traces(tokenizer, [('Add', 'yes yes')])
  n = example.num_prompt_tokens
  prompt = tokenization.encode_prompt(tokenizer, 'Add')
  assert prompt != whole[: len(prompt)]  # Else this test tests nothing.
  assert example.tokens[:n].tolist() == prompt
  assert tokenizer.decode(example.tokens[n:]) == 'yes yes<|end|>'


def test_pad_is_none_of_the_tokens_that_occur(ours):
  turns = [(t.question, t.response) for t in _traces()]
  used = {int(i) for example in families.encode_traces(ours, turns) for i in example.tokens}
  assert ours.pad_token_id not in used


def test_the_end_token_is_supervised_even_where_it_is_also_the_pad(made):
  tokenizer = made(tokenization.CHAT_TEMPLATE, pad='<|end|>')
  assert tokenizer.pad_token_id == tokenizer.eos_token_id
  (example,) = families.encode_traces(tokenizer, [('Add', 'yes')])
  assert example.tokens[-1] == tokenizer.eos_token_id
  assert example.weights[-1] == 1


@pytest.mark.parametrize(
    'content',
    [
        "message['content'] | replace('1', 'one')",
        "message['content'] + '\\n'",
        "('Answer: ' if message['role'] == 'assistant' else '')" " + message['content']",
        "message['content'].split('</think>')[0] + '</think>'",
    ],
    ids=['changes', 'adds', 'begins otherwise', 'has no answer'],
)
def test_a_template_that_changes_the_response_is_refused(made, content):
  template = tokenization.CHAT_TEMPLATE.replace("message['content']", content)
  with pytest.raises(ValueError, match='does not keep'):
    families.encode_traces(made(template), [('Add', RESPONSE)])


def test_a_template_that_ends_turns_with_no_control_token_is_refused(made):
  template = tokenization.CHAT_TEMPLATE.replace('<|end|>', '(end)')
  with pytest.raises(ValueError, match=r'does not keep .*<\|end\|>'):
    families.encode_traces(made(template), [('Add', RESPONSE)])


def test_a_template_with_the_day_it_is_is_refused(made):
  template = "{{ strftime_now('%d %b %Y') }}" + tokenization.CHAT_TEMPLATE
  with pytest.raises(ValueError, match='shows the current date.*chat_template='):
    made(template)


def test_a_tokenizer_without_a_template_is_refused(made):
  with pytest.raises(ValueError, match='no chat template; take the instruct'):
    made(template=None)


def test_a_tokenizer_without_an_end_token_is_refused(trained, tmp_path):
  tokenizer = tokenization.load_tokenizer(trained)
  tokenizer.eos_token = None
  tokenizer.save_pretrained(tmp_path)
  with pytest.raises(ValueError, match='names no eos_token'):
    tokenization.load_tokenizer(tmp_path)


def test_a_missing_directory_is_never_looked_for_on_a_hub():
  with pytest.raises(ValueError, match='Qwen/Qwen2.5-7B.* does not exist'):
    tokenization.load_tokenizer('Qwen/Qwen2.5-7B')


def test_think_tags_are_ordinary_text(ours):
  assert '<think>' not in ours.get_added_vocab()
  ids = ours('<think>', add_special_tokens=False)['input_ids']
  assert ours.decode(ids, skip_special_tokens=True) == '<think>'


def test_phrases_become_one_token_and_come_back(tmp_path):
  phrases = ['no one would merge this', '<think>\n']
  tokenization.train_bpe(tmp_path / 't', _traces(), 300, phrases)
  tokenizer = tokenization.load_tokenizer(tmp_path / 't')
  text = 'x no one would merge this, <think>\nyes'
  (example,) = families.encode_traces(tokenizer, [('Add', text)])
  supervised = example.tokens[example.weights == 1]
  assert tokenizer.decode(supervised) == f'{text}<|end|>'
  for phrase in phrases:
    (token,) = tokenizer.encode(phrase)
    assert token in supervised
    assert phrase not in templates.list_control_texts(tokenizer)


def test_the_same_traces_give_the_same_files(trained, tmp_path):
  tokenization.train_bpe(tmp_path / 't', _traces(), 400)
  found = {path.name: path.read_bytes() for path in trained.iterdir()}
  assert found == {path.name: path.read_bytes() for path in (tmp_path / 't').iterdir()}
  assert [*tmp_path.iterdir()] == [tmp_path / 't']


def test_a_tokenizer_that_is_there_is_left_alone(tmp_path):
  tokenization.train_bpe(tmp_path / 't', _traces(), 400)
  before = (tmp_path / 't' / 'tokenizer.json').read_bytes()
  tokenization.train_bpe(tmp_path / 't', _traces(), 300)
  assert (tmp_path / 't' / 'tokenizer.json').read_bytes() == before


def test_the_hashes_tell_vocabularies_and_templates_apart(ours, made):
  other = made(PLAIN)
  assert tokenization.hash_tokenizer(other) == tokenization.hash_tokenizer(ours)
  assert tokenization.hash_chat_template(other) != tokenization.hash_chat_template(ours)
  longer = made(tokenization.CHAT_TEMPLATE, special=['<|more|>'])
  assert tokenization.hash_tokenizer(longer) != tokenization.hash_tokenizer(ours)


@every_family
def test_special_texts_are_those_that_would_become_control_tokens(made, family):
  tokenizer = made(**TEMPLATES[family])
  found = templates.list_control_texts(tokenizer)
  assert tokenizer.eos_token in found
  for text in found:
    (example,) = families.encode_traces(tokenizer, [(f'a{text}b', 'yes')])
    assert tokenizer.convert_tokens_to_ids(text) in example.tokens


def test_a_question_with_a_control_token_is_no_prompt(ours):
  with pytest.raises(ValueError, match='control token'):
    tokenization.encode_prompt(ours, 'What is <|end|>?')


# --- What would teach something else. -----------------------------------------


@pytest.fixture
def encoded(made):
  """A tokenizer, an example that has no fault, and its turn."""
  tokenizer = made(**TEMPLATES['llama3'])
  tokenizer.pad_token = '<|pad|>'
  turn = templates.render_turn(tokenizer, 'Add 1 and 2.', RESPONSE)
  (example,) = tokenization.encode_turns(tokenizer, [turn])
  return tokenizer, example, turn


def _changed(tokenizer, example, name):
  """Returns an example with the fault of this name."""
  tokens, weights = example.tokens.copy(), example.weights.copy()
  n = example.num_prompt_tokens
  if name == 'no_weights':
    weights[:] = 0
  elif name == 'holes':
    weights[n + 1] = 0
  elif name == 'no_end':
    tokens, weights = tokens[:-1], weights[:-1]
  elif name == 'end_within':
    tokens[-2] = tokenizer.eos_token_id
  elif name == 'pad_within':
    tokens[-2] = tokenizer.pad_token_id
  elif name == 'bos_twice':
    tokens[1] = tokenizer.bos_token_id
  else:
    tokens[-2] += 1
  return dataclasses.replace(example, tokens=tokens, weights=weights)


@every_family
def test_what_is_encoded_has_no_fault(made, family):
  tokenizer = made(**TEMPLATES[family])
  turns = [
      templates.render_turn(tokenizer, *turn)
      for turn in [('Add 1.', RESPONSE), ('Yes?', 'yes'), ('?', '日本\n')]
  ]
  examples = tokenization.encode_turns(tokenizer, turns)
  for example, turn in zip(examples, turns):
    tokenization.check_example(tokenizer, example, turn)


@pytest.mark.parametrize('name', tokenization.FAULTS)
def test_a_fault_is_named_with_its_remedy(encoded, name):
  tokenizer, example, turn = encoded
  bad = _changed(tokenizer, example, name)
  assert tokenization.find_fault(tokenizer, bad, turn) == name
  message = f'An example has the fault {name}: .*(;|:) .*begins .*We add'
  with pytest.raises(ValueError, match=message):
    tokenization.check_example(tokenizer, bad, turn)


def test_the_end_token_hidden_as_padding_is_a_fault(made):
  """As collators do that mask every pad token, where pad is the end token."""
  tokenizer = made(tokenization.CHAT_TEMPLATE, pad='<|end|>')
  turn = templates.render_turn(tokenizer, 'Add', 'yes')
  (example,) = tokenization.encode_turns(tokenizer, [turn])
  assert tokenization.find_fault(tokenizer, example, turn) == ''
  example.weights[example.tokens == tokenizer.pad_token_id] = 0
  assert tokenization.find_fault(tokenizer, example, turn) == 'no_end'


@pytest.mark.parametrize('decodes', [False, True])
def test_a_response_that_is_normalised_is_a_fault(trained, decodes):
  tokenizer = tokenization.load_tokenizer(trained)
  tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
  for text, expected in [('e\u0301', 'changed_text'), ('\xe9', '')]:
    turn = templates.render_turn(tokenizer, 'Add', text)
    (example,) = tokenization.encode_turns(tokenizer, [turn])
    found = tokenization.find_fault(tokenizer, example, turn, decodes=decodes)
    assert found == expected
