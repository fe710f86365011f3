"""The program of a completion is the one that its author offers."""

import pytest

from valley_jax import programs
from valley_jax import records
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
  assert programs.extract_program(text) == 'print(1)\n'


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
  assert programs.extract_program(text) is None


def test_fences_inside_a_longer_fence_belong_to_the_program():
  text = '````python\ns = """\n```\n"""\n````\n'
  assert programs.extract_program(text) == 's = """\n```\n"""\n'


def test_an_empty_block_is_an_empty_program():
  assert programs.extract_program('```python\n```') == ''


CPP = '```cpp\nint main() {}\n```\n'


@pytest.mark.parametrize('declared', ['cpp', 'C++', 'c++17', 'cc', ''])
@pytest.mark.parametrize('language', ['cpp', 'cpp17', 'cpp20'])
def test_a_program_in_cpp_is_the_last_block_in_cpp(declared, language):
  text = f'<think>{CPP}</think>{CPP.replace("cpp", declared)}{BLOCK}'
  if not declared:
    text = text.removesuffix(BLOCK)
  assert programs.extract_program(text, language) == 'int main() {}\n'


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
  response = f'<think>{CPP}{BLOCK}</think>{answer}'
  trace = records.Trace(trace_id='t', problem_id='p', question='?', response=response)
  assert programs.extract_from_trace(trace)[0] == language


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
  assert programs.split_thinking(text) == parts


def test_every_language_of_a_row_is_one_that_the_judge_runs():
  assert set(records.LANGUAGES) == set(languages.LANGUAGES)


@pytest.mark.parametrize(
    ('name', 'language'),
    [('pypy3', 'python'), ('cc', 'cpp17'), ('CXX', 'cpp17'), ('C++20', 'cpp20'), ('c', 'c')],
)
def test_a_code_block_and_the_judge_know_a_language_by_the_same_names(name, language):
  assert programs.find_declared_language(f'```{name}\nx\n```') == language
  assert languages.parse_language_name(name) == language


def test_a_block_ends_at_a_fence_that_is_as_long_or_longer():
  assert programs.extract_program('```python\nprint(1)\n`````\n') == 'print(1)\n'
  inner = '```\nprint(1)\n```\n'
  assert programs.extract_program(f'````python\n{inner}````\n') == inner
