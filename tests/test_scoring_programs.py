"""The program of a completion is the one that its author offers."""

import pytest

from valley_jax.scoring import programs

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
