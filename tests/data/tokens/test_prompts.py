"""A prompt is data: what a student reads, and a hash of all that decides it."""

import json
import pathlib

import pytest

from tests import families
from tests import tiny
from valley_jax import jsonl
from valley_jax import records
from valley_jax import sample
from valley_jax import shard
from valley_jax import train
from valley_jax.data.shards import shards
from valley_jax.data.tokens import prompts
from valley_jax.data.tokens import templates
from valley_jax.data.tokens import tokenization

_DIRECTORY = pathlib.Path(prompts.__file__).parents[1] / 'prompts'
NAMES = [path.stem for path in sorted(_DIRECTORY.glob('*.toml'))]
TEXTS = {
    'name': 'mine',
    'source': 'me',
    'system': 'Be brief.',
    'stdin': 'Program: {question}',
    'function': 'Function: {question}',
    'starter_code': 'Finish: {question} {starter_code}',
}
# As Qwen2.5 has it: who says nothing gets a system message all the same.
DEFAULTING = (
    "{% if messages[0]['role'] != 'system' %}<|sys|>You are Qwen.{% endif %}"
    '{% for message in messages %}'
    "{% if message['role'] == 'system' %}<|sys|>{{ message['content'] }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endif %}"
    '{% endfor %}'
    '{% if add_generation_prompt %}<|assistant|>{% endif %}'
)
_REFUSING = "{{ raise_exception('no system role') }}"
_IGNORING = tokenization.CHAT_TEMPLATE.replace(
    '{% for message in messages %}', '{% for message in messages[1:] %}'
)


def _write(path, texts):
  # A JSON string is one of TOML, too.
  lines = (f'{name} = {json.dumps(text)}\n' for name, text in texts.items())
  path.write_text(''.join(lines))
  return f'file:{path}'


def _load(tmp_path, **changes):
  texts = {k: v for k, v in {**TEXTS, **changes}.items() if v is not None}
  return prompts.load_prompt(_write(tmp_path / 'mine.toml', texts))


def _problem(statement='Add one.', **changes):
  values = dict(tests=(records.TestCase(input='1'),), entry_point='f')
  return records.Problem(problem_id='p', statement=statement, **{**values, **changes})


FUNCTION = records.Mode.FUNCTION


@pytest.mark.parametrize('name', NAMES)
def test_a_prompt_is_known_by_the_name_of_its_file(name):
  prompt = prompts.load_prompt(name)
  assert prompt.name == name
  assert prompt.source.strip()


def test_plain_is_what_it_was_to_the_byte():
  plain = prompts.load_prompt('plain')
  head = (
      'Complete the following Python function. Think it through first, then'
      ' give the\nwhole function, with its imports, in one fenced code block.'
      '\n\n'
  )
  assert plain.system is None
  assert prompts.render_question(plain, 'Add.\n') == 'Add.\n'
  assert prompts.render_problem(plain, _problem('Add.\n')) == 'Add.\n'
  for mode in (FUNCTION, records.Mode.ASSERT):
    text = prompts.render_problem(plain, _problem('def f(x):\n', mode=mode))
    assert text == f'{head}def f(x):\n'
  problem = _problem('Add.', mode=FUNCTION, stub='def f(x):')
  assert prompts.render_problem(plain, problem) == (
      f'{head}Add.\n\nUse this starter code:\n\n```python\ndef f(x):\n```\n'
  )


def test_of_opencodereasoning_only_the_final_solution_is_fenced():
  ocr = prompts.load_prompt('ocr')
  assert ocr.system == ''
  text = prompts.render_question(ocr, 'Add.')
  assert 'You must use ```python for just the final solution' in text
  assert text.endswith('```python\n# Your code here\n```\n\nAdd.')


def test_livecodebench_shows_starter_code_in_a_section_of_its_own():
  prompt = prompts.load_prompt('livecodebench')
  assert prompt.system and prompt.system.startswith('You are an expert Python')
  stub = 'class Solution:\n    def f(self):\n        '
  function = prompts.render_problem(prompt, _problem(mode=FUNCTION, stub=stub))
  program = prompts.render_problem(prompt, _problem())
  assert 'starter code to write the solution to the problem' in function
  assert f'```python\n{stub}\n```\n\n### Answer: (use' in function
  assert 'Read the inputs from stdin' in program
  for text in (function, program):
    assert text.startswith('### Question:\nAdd one.\n\n### Format: ')
    assert text.endswith('### Answer: (use the provided format with'
                         ' backticks)\n\n')  # fmt: skip


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({}, 'Program: Add one.'),
        ({'stub': 'x = 1'}, 'Program: Add one.'),
        ({'mode': FUNCTION}, 'Function: Add one.'),
        ({'mode': records.Mode.ASSERT}, 'Function: Add one.'),
        ({'mode': FUNCTION, 'stub': 'def f'}, 'Finish: Add one. def f'),
        # What runs ahead of a submission is not shown.
        ({'mode': FUNCTION, 'starter_code': 'import os'}, 'Function: Add one.'),
        (
            {
                'mode': records.Mode.INTERACTIVE,
                'program': records.Program(
                    language='python', files={'a': ''}, protocol=records.Protocol.TESTLIB
                ),
            },
            'Program: Add one.',
        ),
    ],
)
def test_a_problem_is_put_as_it_is_to_be_answered(tmp_path, changes, text):
  assert prompts.render_problem(_load(tmp_path), _problem(**changes)) == text


def test_braces_of_a_problem_are_text(tmp_path):
  prompt = _load(tmp_path)
  statement = '{x} {0} {{ } {question} {starter_code} \\1'
  assert prompts.render_question(prompt, statement) == f'Program: {statement}'
  problem = _problem(statement, mode=FUNCTION, stub='{question}')
  text = prompts.render_problem(prompt, problem)
  assert text == f'Finish: {statement} {{question}}'


def test_other_braces_of_a_prompt_are_text(tmp_path):
  prompt = _load(tmp_path, stdin='int main() {} { x } {{{question}}}')
  assert prompts.render_question(prompt, 'Add.') == 'int main() {} { x } {{Add.}}'


@pytest.mark.parametrize('field', ['system', 'stdin', 'function'])
def test_the_hash_changes_with_every_text(tmp_path, field):
  other = _load(tmp_path, **{field: f'{TEXTS[field]}\n'})
  assert prompts.hash_prompt(other) != prompts.hash_prompt(_load(tmp_path))


def test_the_hash_tells_apart_who_has_which_text(tmp_path):
  found = [
      _load(tmp_path),
      _load(tmp_path, starter_code='{starter_code} {question}'),
      _load(tmp_path, stdin=TEXTS['function'], function=TEXTS['stdin']),
      _load(tmp_path, system=''),
      _load(tmp_path, system=None),
      *map(prompts.load_prompt, NAMES),
  ]
  hashes = {prompts.hash_prompt(prompt) for prompt in found}
  hashes |= {prompts.hash_prompt(prompt, 'a') for prompt in found}
  assert len(hashes) == 2 * len(found)
  assert {len(each) for each in hashes} == {64}


def test_the_hash_is_of_words_and_not_of_their_file(tmp_path):
  turned = dict(reversed([*TEXTS.items()]))
  spec = _write(tmp_path / 'turned.toml', turned | {'name': 'x', 'source': 'y'})
  lines = (tmp_path / 'turned.toml').read_text()
  (tmp_path / 'turned.toml').write_text(f'# A remark.\n\n{lines}', newline='\r\n')
  assert prompts.hash_prompt(prompts.load_prompt(spec)) == prompts.hash_prompt(_load(tmp_path))


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'stdin': 'Solve.'}, '`stdin` has no {question}; put it where'),
        ({'function': 'Solve.'}, '`function` has no {question}'),
        ({'starter_code': '{question}'}, '`starter_code` has no {starter_code}'),
        ({'stdin': '{question} {title}'}, '`stdin` has {title}.*Remove it'),
        ({'function': '{question} {starter_code}'}, 'known there: {question}'),
        ({'system': 'Of {question}'}, '`system` has {question}.*: none'),
        ({'sytsem': 'Hello.'}, 'unknown field `sytsem`.*ocr.toml'),
        ({'stdin': None}, 'required field `stdin`.*ocr.toml'),
        ({'name': ' '}, '`name` is empty; give it one'),
    ],
)
def test_a_bad_file_is_refused_with_field_and_remedy(tmp_path, changes, said):
  with pytest.raises(ValueError, match=rf'mine\.toml: .*{said}'):
    _load(tmp_path, **changes)


@pytest.mark.parametrize('data', [b'name =', b'\xff', b'name = 1'])
def test_a_file_that_is_no_prompt_at_all_is_named(tmp_path, data):
  (tmp_path / 'p.toml').write_bytes(data)
  with pytest.raises(ValueError, match=r'p\.toml: .*It is TOML'):
    prompts.load_prompt(f'file:{tmp_path}/p.toml')


@pytest.mark.parametrize('spec', ['', 'ocr2', '../prompts/ocr', 'ocr:', 'x:ocr'])
def test_an_unknown_prompt_names_those_that_are_known(spec):
  with pytest.raises(ValueError, match=', '.join(NAMES)):
    prompts.load_prompt(spec)


@pytest.mark.parametrize('path', ['', '/nowhere.toml'])
def test_a_prompt_file_that_is_not_there_is_said(path):
  with pytest.raises(ValueError, match='cannot be read.*config.prompt'):
    prompts.load_prompt(f'file:{path}')


# --- What the student reads. --------------------------------------------------


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  directory = tmp_path_factory.mktemp('bpe') / 'tokenizer'
  trace = records.Trace(trace_id='t', problem_id='p', question='Add.', response='Yes.')
  tokenization.train_bpe(directory, [trace], 300)
  return directory


@pytest.mark.parametrize(
    ('system', 'first'),
    [
        ('', '<|sys|><|user|>'),
        ('Be brief.', '<|sys|>Be brief.<|user|>'),
        (None, '<|sys|>You are Qwen.<|user|>'),
    ],
)
def test_an_empty_system_message_is_one_and_a_missing_one_is_none(trained, system, first):
  tokenizer = tokenization.load_tokenizer(trained, DEFAULTING)
  text = f'{first}Add.<|assistant|>'
  prompt = tokenization.encode_prompt(tokenizer, 'Add.', system)
  assert tokenizer.decode(prompt) == text
  (example,) = families.encode_traces(tokenizer, [('Add.', 'Yes.')], system)
  assert tokenizer.decode(example.tokens) == f'{text}Yes.<|end|>'
  assert example.tokens[: example.num_prompt_tokens].tolist() == prompt


@pytest.mark.parametrize(
    ('template', 'said'),
    [
        (_REFUSING, 'no system role.*without `system`'),
        (_IGNORING, "leaves the system message 'Be brief.' out"),
        ('{% if %}', 'cannot render the prompt.*Mend it'),
    ],
)
def test_a_template_that_loses_the_system_message_is_refused(trained, template, said):
  tokenizer = tokenization.load_tokenizer(trained, template)
  with pytest.raises(ValueError, match=said):
    templates.render_prompt(tokenizer, 'Add.', 'Be brief.')


def test_a_system_message_with_a_control_token_is_refused(trained):
  tokenizer = tokenization.load_tokenizer(trained)
  with pytest.raises(ValueError, match='system message contains'):
    tokenization.encode_prompt(tokenizer, 'Add.', 'Say <|end|>.')


# --- From shards to completions. ----------------------------------------------


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """A world whose shards have a prompt and a template of their own."""
  path = tmp_path_factory.mktemp('world')
  tiny.write_world(path)  # In shards/, with `plain`.
  spec = _write(path / 'mine.toml', TEXTS | {'system': ''})
  (path / 'template.jinja').write_text(DEFAULTING)
  config = tiny.config(path, prompt=spec, chat_template=f'file:{path}/template.jinja')
  shard.shard(config, str(path / 'mine'))
  return path


def _config(world, **changes):
  values = dict(
      num_traces=0,
      prompt=f'file:{world}/mine.toml',
      shards=f'{world}/mine/shards',
      checkpoint=f'{world}/student/checkpoints',
      sample={'num_samples': 1, 'max_new_tokens': 4},
  )
  return tiny.config(world, **{**values, **changes})


@pytest.fixture(scope='module')
def completed(world):
  train.train(_config(world), str(world / 'student'))
  sample.sample(_config(world), str(world / 'run'))
  return world / 'run'


def test_shards_hold_prompt_and_template(world):
  data = shards.Shards(world / 'mine/shards')
  tokenizer = tokenization.load_tokenizer(world / 'mine/shards/tokenizer')
  (example,) = data.read_examples([3])
  assert tokenizer.decode(example.tokens) == (
      '<|sys|><|user|>Program: Add 3 and 3.<|assistant|>' '<think>It is 6.</think>print(6)<|end|>'
  )


def test_the_manifest_names_prompt_and_hashes(world):
  prompt = prompts.load_prompt(f'file:{world}/mine.toml')
  tokenizer = tokenization.load_tokenizer(world / 'mine/shards/tokenizer')
  template = tokenization.hash_chat_template(tokenizer)
  manifest = jsonl.read_json(world / 'mine/shards/manifest.json')
  assert manifest['prompt'] == 'mine'
  assert manifest['prompt_text_sha256'] == prompts.hash_prompt(prompt)
  assert manifest['prompt_sha256'] == prompts.hash_prompt(prompt, template)
  assert manifest['template_sha256'] == template
  other = jsonl.read_json(world / 'shards/manifest.json')
  assert other['template_sha256'] != template


def test_another_chat_template_is_refused(world):
  config = tiny.config(world, prompt=f'file:{world}/mine.toml')
  with pytest.raises(ValueError, match='begun with chat_template_sha256='):
    shard.shard(config, str(world / 'mine'))


def test_a_template_without_a_place_for_the_system_message_makes_no_shards(world, tmp_path):
  spec = _write(tmp_path / 'p.toml', TEXTS)
  (tmp_path / 'template.jinja').write_text(_IGNORING)
  config = tiny.config(world, prompt=spec, chat_template=f'file:{tmp_path}/template.jinja')
  with pytest.raises(ValueError, match='leaves the system message'):
    shard.shard(config, str(tmp_path))


def test_every_completion_has_the_hash_of_its_words(world, completed):
  manifest = jsonl.read_json(world / 'mine/shards/manifest.json')
  rows = jsonl.read_rows(completed / 'completions.jsonl', records.Completion)
  assert [row.prompt_sha256 for row in rows] == [manifest['prompt_sha256']] * 6


def test_a_student_is_not_asked_in_other_words_than_in_training(world, completed, tmp_path):
  # Only what asks for functions is another; the training did not need it.
  texts = TEXTS | {'name': 'other', 'system': '', 'function': 'F: {question}'}
  config = _config(world, prompt=_write(tmp_path / 'p.toml', texts))
  said = "trained with prompt_sha256=.*'mine'.*sampled with .*'other'"
  with pytest.raises(ValueError, match=f'{said}.*config.prompt'):
    sample.sample(config, str(tmp_path))


def test_the_same_words_under_another_name_are_the_same(world, completed, tmp_path):
  texts = TEXTS | {'name': 'renamed', 'system': ''}
  config = _config(world, prompt=_write(tmp_path / 'p.toml', texts))
  sample.sample(config, str(tmp_path))
  assert (tmp_path / 'completions.jsonl').read_bytes() == (
      completed / 'completions.jsonl'
  ).read_bytes()


def test_completions_in_other_words_are_not_gone_on_with(world, completed, tmp_path):
  manifest = jsonl.read_json(world / 'mine/shards/manifest.json')
  text = (completed / 'completions.jsonl').read_text()
  other = text.replace(manifest['prompt_sha256'], '0' * 64)
  (tmp_path / 'completions.jsonl').write_text(other)
  with pytest.raises(ValueError, match="prompt_sha256='000.*--workdir"):
    sample.sample(_config(world), str(tmp_path))


def test_a_workdir_that_was_begun_with_another_prompt_is_refused(world, completed, tmp_path):
  settings = jsonl.read_json(completed / 'sampling.json')
  assert settings['prompt'] == 'mine'
  settings['prompt'] = 'plain'
  jsonl.write_json(tmp_path / 'sampling.json', settings)
  with pytest.raises(ValueError, match="begun with prompt='plain', .* 'mine'"):
    sample.sample(_config(world), str(tmp_path))
