"""Four families' chat templates teach what a student is asked for.

What it is asked are the template's own tokens; what it learns is the trace, to
the byte, and how a turn ends.
"""

import hypothesis
from hypothesis import strategies as st
import pytest

from tests import families
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization

QUESTION = 'Add 1 and 2.\n\nInput\n 3'
THOUGHT = '<think>\nWe add 10  and 20.\n\n  Yes.\n</think>\n\n'
ANSWER = '```python\nprint(1 , 2)\n```'
RESPONSE = THOUGHT + ANSWER
# Where thinking and its surroundings stand as no template would put them.
ODD = [
    '<think>We add.</think>print(3)',
    '<think>\n\n We add.\n\n\n</think>\n\n\n\nprint(3)\n',
    '<think>\n</think>print(3)',
    '<think>a</think>b<think>c</think>',
    '<think>a</think>b<think>c</think>d',
    '<think>\nWe do not end',
    ' <think>\n\tWe\r\nadd</think>\tprint(3) \n',
]
# What R1's later template asks for, and no other: thinking is begun.
PLAIN = ['print(3)', '\n\nprint(3)\n', '  x']

# All of Unicode but lone surrogates, and what merges across boundaries.
texts = st.text(st.characters(exclude_categories=['Cs']), min_size=1)
texts |= st.text('\n \tab1<', min_size=1)


@pytest.fixture(scope='module')
def load(tmp_path_factory):
  directory = tmp_path_factory.mktemp('families')
  made = {name: families.write(directory / name, name) for name in families.FAMILIES}
  return lambda name: tokenization.load_tokenizer(made[name])


every_family = pytest.mark.parametrize('family', families.FAMILIES)


def _theirs(tokenizer, response='', system=None):
  """The tokens of transformers; of the prompt, if there is no response."""
  messages = [{'role': 'user', 'content': QUESTION}]
  if system is not None:
    messages.insert(0, {'role': 'system', 'content': system})
  if response:
    messages.append({'role': 'assistant', 'content': response})
  return tokenizer.apply_chat_template(
      messages,
      add_generation_prompt=not response,
      return_dict=False,
      date_string='26 Jul 2024',  # The default of Llama 3.1.
  )


def _encode(tokenizer, response, system=None):
  (example,) = families.encode_traces(tokenizer, [(QUESTION, response)], system)
  return example


@every_family
@pytest.mark.parametrize('system', [None, '', 'Be brief.'])
def test_a_student_is_asked_as_transformers_asks(load, family, system):
  tokenizer = load(family)
  theirs = _theirs(tokenizer, system=system)
  assert tokenization.encode_prompt(tokenizer, QUESTION, system) == theirs
  example = _encode(tokenizer, RESPONSE, system)
  assert example.num_prompt_tokens == len(theirs)
  assert example.tokens[: len(theirs)].tolist() == theirs


@pytest.mark.parametrize(
    ('family', 'responses'),
    [
        ('qwen2_5', [RESPONSE, ANSWER, *ODD[:6]]),
        ('qwen2_5_base', [RESPONSE, ANSWER, *ODD[:6]]),
        ('qwen3', [RESPONSE]),
        ('llama3_1', [RESPONSE, ANSWER, ODD[0], *ODD[2:6]]),
        ('llama3_1_base', [RESPONSE, ANSWER]),
        ('llama3_2', [RESPONSE, ANSWER]),
        ('r1_first', [ANSWER, ODD[5]]),
    ],
)
def test_what_a_template_keeps_are_the_tokens_of_transformers(load, family, responses):
  tokenizer = load(family)
  for response in responses:
    theirs = _theirs(tokenizer, response)
    ours = _encode(tokenizer, response).tokens
    assert ours.tolist() == theirs[: len(ours)], response
    # Behind the end token some have the line's end.
    assert tokenizer.decode(theirs[len(ours) :]).strip() == ''


@pytest.mark.parametrize(
    ('family', 'response'),
    [
        (family, response)
        for family in families.FAMILIES
        for response in (RESPONSE, *ODD, *PLAIN)
        if family != 'r1' or response not in PLAIN  # Refused: see below.
    ],
)
def test_a_response_is_taught_to_the_byte_with_its_end(load, family, response):
  tokenizer = load(family)
  example = _encode(tokenizer, response)
  taught = example.tokens[example.weights == 1]
  # Behind a prompt that opens it, without <think> and the line's end.
  begun = '<think>\n' if family == 'r1' else ''
  left = response.lstrip().removeprefix('<think>').removeprefix('\n')
  expected = left if begun else response
  assert tokenizer.decode(taught) == expected + tokenizer.eos_token
  assert taught[-1] == tokenizer.eos_token_id
  assert example.weights.tolist() == sorted(example.weights)
  if begun:
    prompt = tokenizer.decode(example.tokens[: example.num_prompt_tokens])
    assert prompt.endswith('<｜Assistant｜><think>\n')


@every_family
@pytest.mark.parametrize(
    ('response', 'answer'),
    [
        (RESPONSE, ANSWER),
        ('<think>a</think>b<think>c</think>d', 'd'),
        ('<think>We do not end', None),
        ('<think>a</think>b<think>c', None),
    ],
)
def test_the_answer_begins_behind_the_thinking(load, family, response, answer):
  tokenizer = load(family)
  example = _encode(tokenizer, response)
  found = tokenizer.decode(example.tokens[example.answer_start :])
  # A token that is `>` and the lines' ends begins ahead of the answer.
  expected = '' if answer is None else answer + tokenizer.eos_token
  assert found.lstrip() == expected


@every_family
@hypothesis.given(question=texts, response=texts)
def test_the_prompt_of_sampling_begins_the_tokens_of_training(load, family, question, response):
  tokenizer = load(family)
  response = f'<think>{response}</think>'
  (example,) = families.encode_traces(tokenizer, [(question, response)])
  prompt = tokenization.encode_prompt(tokenizer, question)
  assert example.num_prompt_tokens == len(prompt)
  assert example.tokens[: len(prompt)].tolist() == prompt


@pytest.mark.parametrize(
    ('family', 'response'),
    [
        # "\n" of the prompt and "\n" of the response are one token together.
        ('qwen2_5', '\n\nprint(3)'),
        ('llama3_1', '\nprint(3)\n'),
        ('r1', '<think>\n\nSo.\n</think>\n\nprint(3)'),
    ],
)
def test_no_merge_spans_prompt_and_response(load, family, response):
  tokenizer = load(family)
  turn = templates.render_turn(tokenizer, QUESTION, response)
  prompt = tokenization.encode_prompt(tokenizer, QUESTION)
  whole = tokenizer(turn.text, add_special_tokens=False)['input_ids']
  assert whole[: len(prompt)] != prompt  # Else this test tests nothing.
  example = _encode(tokenizer, response)
  assert example.tokens[: len(prompt)].tolist() == prompt
  tokenization.check_example(tokenizer, example, turn)
  answer = tokenizer.decode(example.tokens[example.answer_start :])
  assert answer.strip() == f'print(3){tokenizer.eos_token}'.strip() or (
      answer.endswith('print(3)\n' + tokenizer.eos_token)
  )


@every_family
def test_a_text_begins_once(load, family):
  tokenizer = load(family)
  example = _encode(tokenizer, RESPONSE)
  begins = int((example.tokens == tokenizer.bos_token_id).sum())
  assert begins == (tokenizer.bos_token is not None)
  prompt = tokenization.encode_prompt(tokenizer, QUESTION)
  assert prompt.count(tokenizer.bos_token_id) == begins


@pytest.mark.parametrize(
    ('family', 'named', 'end'),
    [
        ('qwen2_5', '<|im_end|>', '<|im_end|>'),
        ('qwen2_5_base', '<|endoftext|>', '<|im_end|>'),
        ('llama3_1', '<|eot_id|>', '<|eot_id|>'),
        ('llama3_1_base', '<|end_of_text|>', '<|eot_id|>'),
        ('r1', '<｜end▁of▁sentence｜>', '<｜end▁of▁sentence｜>'),
    ],
)
def test_a_turn_ends_by_the_token_of_the_template(load, tmp_path, family, named, end):
  assert families.FAMILIES[family]['eos'] == named
  tokenizer = load(family)
  assert tokenizer.eos_token == end
  tokenizer.save_pretrained(tmp_path)
  again = tokenization.load_tokenizer(tmp_path)
  assert again.eos_token_id == _encode(again, RESPONSE).tokens[-1]
  assert tokenization.hash_tokenizer(again) == tokenization.hash_tokenizer(tokenizer)


def test_stripping_takes_nothing_from_what_is_taught(load):
  tokenizer = load('llama3_1')
  response = ' So. <think>\nWe add.\n</think>\nprint(3) \n'
  example = _encode(tokenizer, response)
  taught = tokenizer.decode(example.tokens[example.weights == 1])
  assert taught == response + '<|eot_id|>'


@pytest.mark.parametrize('response', PLAIN)
def test_a_begun_thinking_is_not_left_open(load, response):
  with pytest.raises(ValueError, match='has no thinking; take responses'):
    _encode(load('r1'), response)


def test_a_response_that_goes_on_with_a_begun_thinking_is_taken_as_it_is(load):
  tokenizer = load('r1')
  example = _encode(tokenizer, 'We add.\n</think>\n\nprint(3)')
  whole = _encode(tokenizer, '<think>\nWe add.\n</think>\n\nprint(3)')
  assert example.tokens.tolist() == whole.tokens.tolist()
  assert example.answer_start == whole.answer_start


def test_the_date_is_the_same_every_day(load):
  shown = templates.render_prompt(load('llama3_2'), QUESTION)
  assert 'Today Date: 26 Jul 2024\n' in shown
  assert shown == templates.render_prompt(load('llama3_1'), QUESTION)


@pytest.mark.parametrize(
    ('family', 'text'),
    [
        ('r1', '<｜User｜>'),  # Not special to the tokenizer, but to the turns.
        ('r1', '<｜Assistant｜>'),
        ('qwen3', '<|im_start|>'),
        ('llama3_1', '<|eot_id|>'),
    ],
)
def test_a_question_cannot_begin_a_turn_of_its_own(load, family, text):
  with pytest.raises(ValueError, match='control token'):
    tokenization.encode_prompt(load(family), f'Add {text} 1.')


@every_family
def test_a_question_may_speak_of_thinking(load, family):
  assert not {*templates.THINK_TAGS} & {*templates.list_control_texts(load(family))}
  tokenization.encode_prompt(load(family), 'What is <think>?')
