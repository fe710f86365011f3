"""The program of a completion is the one that its author offers."""

import pytest

from valley_jax import programs
from valley_jax.execution import languages

BLOCK = '```python\nprint(1)\n```\n'


@pytest.mark.parametrize(
    'text',
    [
        BLOCK,
        BLOCK.rstrip(),
        f'<think>```python\nprint(2)\n```</think>\nSo:\n{BLOCK}',
        f'thinking, opened by the prompt</think>{BLOCK}',
        f'First ```x``` inline.\n```\nprint(0)\n```\nBetter:\n{BLOCK}',
        BLOCK.replace('python', ''),
        BLOCK.replace('python', 'Python3'),
        BLOCK.replace('\n', '\r\n'),
        f'{BLOCK}It prints:\n```text\n1\n```\n',
        f'<think>a</think>b<think>c</think>\n{BLOCK}',
        '````python\nprint(1)\n````',
        '~~~python\nprint(1)\n~~~',
    ],
)
def test_it_is_the_last_block_of_the_answer(text):
  assert programs.extract(text) == 'print(1)\n'


@pytest.mark.parametrize(
    'text',
    [
        '',
        'print(1)',
        f'<think>{BLOCK}',
        f'<think>{BLOCK}</think>',
        f'<think>a</think>{BLOCK}<think>on and on',
        '```python\nprint(1)',
        f'{BLOCK}Wait:\n```python\nprint(',
        '```cpp\nint main() {}\n```',
    ],
)
def test_there_may_be_none(text):
  assert programs.extract(text) is None


def test_fences_inside_a_longer_fence_belong_to_the_program():
  text = '````python\ns = """\n```\n"""\n````\n'
  assert programs.extract(text) == 's = """\n```\n"""\n'


def test_an_empty_block_is_an_empty_program():
  assert programs.extract('```python\n```') == ''


CPP = '```cpp\nint main() {}\n```\n'


@pytest.mark.parametrize('declared', ['cpp', 'C++', 'c++17', 'cc', ''])
@pytest.mark.parametrize('language', ['cpp', 'cpp17', 'cpp20'])
def test_a_program_in_cpp_is_the_last_block_in_cpp(declared, language):
  text = f'<think>{CPP}</think>{CPP.replace("cpp", declared)}{BLOCK}'
  if not declared:
    text = text.removesuffix(BLOCK)
  assert programs.extract(text, language) == 'int main() {}\n'


@pytest.mark.parametrize(
    ('answer', 'language'),
    [
        (CPP, 'cpp17'),
        (f'{CPP}It prints:\n```\n1\n```', 'cpp17'),
        (BLOCK, 'python'),
        ('```\nprint(1)\n```', 'python'),
        ('```text\n1\n```', 'python'),
        ('', 'python'),
    ],
)
def test_a_trace_is_in_the_language_that_its_blocks_declare(answer, language):
  assert programs.language_of(f'<think>{CPP}{BLOCK}</think>{answer}') == language


@pytest.mark.parametrize(
    ('text', 'parts'),
    [
        ('<think>a</think>b', ('a', 'b')),
        ('a</think>b', ('a', 'b')),
        ('b', ('', 'b')),
        ('<think>a', ('a', None)),
    ],
)
def test_thought_and_answer_are_told_apart(text, parts):
  assert programs.split(text) == parts


def test_every_language_of_a_block_is_one_that_the_judge_knows():
  assert set(programs.LANGUAGES) == set(languages.LANGUAGES)
  assert set(programs._LANGUAGES.values()) == set(programs.LANGUAGES)
  for name, meant in programs._LANGUAGES.items():
    if name in languages._OTHER_NAMES:
      assert languages.canonical(name) == meant


def test_a_block_ends_at_a_fence_that_is_as_long_or_longer():
  assert programs.extract('```python\nprint(1)\n`````\n') == 'print(1)\n'
  inner = '```\nprint(1)\n```\n'
  assert programs.extract(f'````python\n{inner}````\n') == inner
