"""Each filter refuses what it names, and nothing else."""

import dataclasses
import importlib.util
import pathlib
import pickle

import hypothesis
from hypothesis import strategies as st
import pytest

from valley_jax import records
from valley_jax.data.cleaning import filters

CONFIG = pathlib.Path(__file__).parents[3] / 'configs' / 'valley.py'
PYTHON = '```python\nfor i in range(3):\n  pass\n```'
CPP = '```cpp\nint main() { return 0; }\n```'
GOOD = f'<think>\nI pass over it.\n</think>\n\nSo:\n\n{PYTHON}\n'


def _make_trace(response=GOOD, **fields) -> records.Trace:
  return records.Trace(trace_id='t', problem_id='p', question='Why?', response=response, **fields)


def _build_filters(**settings):
  return filters.build_filters(filters.Settings.from_config(settings))


def _is_kept(trace, **settings) -> bool:
  refused = filters.find_refusal(trace, _build_filters(**settings))
  assert refused in ('', *settings)
  return not refused


def _load_filters_group(arg: str):
  spec = importlib.util.spec_from_file_location('valley', CONFIG)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg).filters.to_dict()


def test_the_papers_filters_keep_a_good_trace_that_says_pass():
  made = _build_filters(**_load_filters_group(''))
  assert [f.name for f in made] == ['think', 'code_in_answer', 'parses']
  assert filters.find_refusal(_make_trace(), made) == ''


def test_a_config_has_every_filter_and_mini_has_all_of_them_off():
  assert set(_load_filters_group('')) == {
      field.name for field in dataclasses.fields(filters.Settings)
  }
  assert _build_filters(**_load_filters_group('mini')) == ()


def test_the_first_filter_that_refuses_gives_its_name():
  made = _build_filters(parses=True, think=True, code_in_answer=True)
  assert filters.find_refusal(_make_trace('x'), made) == 'think'
  assert filters.find_refusal(_make_trace('<think>a</think>x'), made) == 'code_in_answer'


@pytest.mark.parametrize(
    ('response', 'kept'),
    [
        ('<think>a</think>b', True),
        ('\n<think>\na\n</think>', True),
        ('<think>if a < b or c > d</think>b', True),
        ('b', False),
        ('<think>a', False),
        ('a</think>b', False),
        ('Well. <think>a</think>b', False),
        ('<think></think>b', False),
        ('<think> \n</think>b', False),
        ('</think>a<think>b', False),
        ('<think>a</think>b</think>', False),
        ('<think>a<think>b</think>c', False),
        ('<think>a</think>b<think>c</think>', False),
        ('<Think>a</Think>b', False),
    ],
)
def test_one_thought_comes_first_and_ends_once(response, kept):
  assert _is_kept(_make_trace(response), think=True) is kept


@pytest.mark.parametrize(
    ('response', 'kept'),
    [
        (GOOD, True),
        (PYTHON, True),
        (f'<think>a</think>{CPP}', True),
        (f'<think>{PYTHON}</think>So.', False),
        (f'<think>{PYTHON}', False),
        ('<think>a</think>```python\nprint(', False),
        ('<think>a</think>print(1)', False),
    ],
)
def test_the_answer_has_a_program(response, kept):
  assert _is_kept(_make_trace(response), code_in_answer=True) is kept


@pytest.mark.parametrize(
    ('thought', 'kept'),
    [
        ('I use `sum`, or ```sum```.', True),
        (f'So:\n{PYTHON}\nGood.', False),
        ('So:\n~~~\nx', False),
    ],
)
def test_a_thought_has_no_code(thought, kept):
  response = f'<think>{thought}</think>{PYTHON}'
  assert _is_kept(_make_trace(response), no_code_in_think=True) is kept


@pytest.mark.parametrize(
    ('source', 'kept'),
    [
        ('pass', True),
        ("import re\nre.split('\\d', '1')", True),  # It warns.
        ('return 1', True),  # The grammar has it.
        ('print 1', False),
        ('if x:\nprint(1)', False),
        ('x = (', False),
        ('a\0b', False),
        ('x = "\ud800"', False),
        ('', False),
        ('(' * 50_000, False),
        ('-' * 50_000 + '1', False),
        ('x' + '.x' * 60_000, False),
        ('9' * 5000, False),
        (f'x = "{"x" * (1 << 17)}"', False),  # Too long.
    ],
    ids=lambda x: repr(x)[:20],
)
@pytest.mark.filterwarnings('error')
def test_a_program_in_python_parses(source, kept):
  response = f'```python\n{source}\n```'
  assert _is_kept(_make_trace(response), parses=True) is kept


MACROS = (
    '#define rep(i, n) for (int i = 0; i < (n); ++i)\n'
    '#define TT template<class T>\n#define YES cout << 1;\n'
    'TT void f(T x) { int y = x; }\n'
    'int main() { rep(i, n) rep(j, n) { cin >> x; } rep(i, n) cout << i;'
    ' if (a) YES else f(1); }\n'
)


@pytest.mark.parametrize(
    ('source', 'kept'),
    [
        ('#include <bits/stdc++.h>\nint main() { std::cout << 1; }', True),
        ('int main() { for (auto& [a, b] : v) std::cin >> a >> b; }', True),
        ('auto f = [&]<class T>(T x) -> int { return x <=> 0; };', True),
        ('int main() { auto s = R"(a"b{)"; long long m = 1\'000; }', True),
        ('#ifdef LOCAL\n#define dbg(x) x\n#endif\nint main() {}', True),
        (MACROS, True),
        (MACROS.replace('rep(i, n) cout', '{ cout'), False),
        (MACROS.rstrip().removesuffix('}'), False),
        (MACROS + '}', False),
        ('int main() { if (a) { std::cout << 1; }', False),
        ('int main() { int x = 1 cout << x; }', False),
        ('int main() { ... }', False),
        ('int main() { int n; for (int i = 0; i <', False),
        ('Sort the numbers and print them.', False),
        ('n = int(input())\nprint(n)', False),
        ('int x = "\ud800\0";', False),
        ('', False),
        ('{' * 100_000, False),
    ],
    ids=lambda x: repr(x)[:40],
)
def test_a_program_in_cpp_parses(source, kept):
  response = f'```cpp\n{source}\n```'
  assert _is_kept(_make_trace(response), parses=True) is kept


def test_a_language_without_a_parser_does_not_parse():
  trace = _make_trace('```java\nclass A {}\n```', language='java')
  assert _is_kept(trace, code_in_answer=True)
  assert not _is_kept(trace, parses=True)


@pytest.mark.parametrize(
    ('response', 'kept'), [('a' * 2, False), ('a' * 3, True), ('é' * 5, False)]
)
def test_a_length_is_in_characters(response, kept):
  assert _is_kept(_make_trace(response), characters=(3, 4)) is kept


@pytest.mark.parametrize(
    ('response', 'kept'),
    [
        ('a' * 100, False),
        ('So: ' + 'wait, ' * 17 + 'done', False),
        ('wait, ' * 16, True),  # 96 characters.
        (f'{"x" * 25}{"y" * 25}' * 3, True),  # Three times.
        (''.join(f'{i}. wait\n' for i in range(99)), True),
    ],
    ids=lambda x: repr(x)[:20],
)
def test_a_loop_is_one_phrase_four_times_or_more(response, kept):
  assert _is_kept(_make_trace(response), loop_characters=100) is kept


@hypothesis.example('aab', 10, 'aab')  # Three times, not four.
@hypothesis.given(st.text('ab', max_size=40), st.integers(8, 20), st.text('ab', max_size=9))
def test_loops_are_found_wherever_they_are(text, length, phrase):
  text = f'{text}{phrase * (length // max(1, len(phrase)))}{text}'
  assert filters.has_loop(text, length) == any(
      text[i + p : i + length] == text[i : i + length - p]
      for i in range(len(text) - length + 1)
      for p in range(1, length // 4 + 1)
  )


@pytest.mark.parametrize(
    ('trace', 'settings', 'kept'),
    [
        (_make_trace(), {'languages': ('python',)}, True),
        (_make_trace(), {'languages': ('cpp17', 'cpp20')}, False),
        (_make_trace(CPP), {'languages': ('C++',)}, True),
        (_make_trace(CPP, language='cpp20'), {'languages': ('cpp20',)}, True),
        (_make_trace('none'), {'languages': ('python',)}, False),
        (_make_trace(is_correct=True), {'judgement': ('right',)}, True),
        (_make_trace(is_correct=False), {'judgement': ('right',)}, False),
        (_make_trace(is_correct=False), {'judgement': ('wrong',)}, True),
        (_make_trace(), {'judgement': ('right',)}, False),
        (_make_trace(), {'judgement': ('right', 'unknown')}, True),
        (_make_trace(pass_rate=0.5), {'pass_rate': (0.5, 1)}, True),
        (_make_trace(pass_rate=0.4), {'pass_rate': (0.5, 1)}, False),
        (_make_trace(), {'pass_rate': (0, 1)}, False),
        (_make_trace(license='Apache-2.0'), {'licenses': ['apache-2.0']}, True),
        (_make_trace(license='mit-0'), {'licenses': ('mit',)}, False),
        (_make_trace(), {'licenses': ('mit',)}, False),
        (_make_trace(source='taco'), {'sources': ('TACO',)}, True),
        (_make_trace(source='apps'), {'sources': ('taco',)}, False),
        (_make_trace(split='test'), {'not_splits': ('test', 'valid')}, False),
        (_make_trace(split='latest'), {'not_splits': ('test',)}, True),
        (_make_trace(), {'not_splits': ('test',)}, True),
    ],
)  # fmt: skip
def test_a_label_is_compared_as_a_whole(trace, settings, kept):
  assert _is_kept(trace, **settings) is kept


@pytest.mark.parametrize(
    ('settings', 'remedy'),
    [
        ({'thinks': True}, 'filters.thinks is unknown; its fields are .*parses'),
        ({'think': 'yes'}, "filters.think='yes': want True or False"),
        ({'characters': 100}, r'characters=100: want \(min, max\)'),
        ({'characters': (5, 3)}, r'want \(min, max\) with 0 <= min'),
        ({'characters': ('a', 'b')}, r'want \(min, max\)'),
        ({'pass_rate': (0, 100)}, 'min <= max <= 1'),
        ({'loop_characters': 9}, 'want 64 characters or more'),
        ({'loop_characters': True}, 'want 64 characters or more'),
        ({'languages': 'python'}, "want names, as in .*'a', 'b'"),
        ({'languages': ('rust',)}, 'want some of python, c, cpp17, cpp20'),
        ({'judgement': ('true',)}, 'want some of right, wrong, unknown'),
        ({'licenses': (1,)}, 'want names'),
        ({'sources': ('taco', '')}, 'want names'),
    ],
)
def test_a_setting_that_says_nothing_is_refused(settings, remedy):
  with pytest.raises(ValueError, match=remedy):
    _build_filters(**settings)


ALL = {
    'think': True,
    'code_in_answer': True,
    'no_code_in_think': True,
    'parses': True,
    'characters': (0, 10**9),
    'loop_characters': 64,
    'languages': ('python', 'cpp20'),
    'judgement': ('right',),
    'pass_rate': (0, 1),
    'licenses': ('mit',),
    'sources': ('taco',),
    'not_splits': ('test',),
}
pieces = st.sampled_from(
    ['<think>', '</think>', '```python\n', '```cpp\n', '```', '~~~', '\n', '(']
)
anything = st.text() | st.characters(categories=['Cs', 'Cc', 'Cf'])
texts = st.lists(pieces | anything).map(''.join)


@hypothesis.given(texts, texts, texts)
def test_no_filter_falls_over_any_text(response, word, language):
  trace = _make_trace(response, source=word, split=word, license=word, language=language)
  made = _build_filters(**ALL)
  assert {f.name for f in made} == set(ALL)
  assert all(f.keeps(trace) in (True, False) for f in made)


@hypothesis.given(texts, st.sampled_from([*records.LANGUAGES, 'x']))
def test_no_program_is_too_strange_to_be_parsed(source, language):
  assert filters.does_program_parse(source, language) in (True, False)


def test_filters_travel_to_other_processes():
  made = pickle.loads(pickle.dumps(_build_filters(**ALL)))
  assert filters.find_refusal(_make_trace(), made) == 'sources'
