"""C++ and C are compiled once and judged like any other program."""

import time

import pytest

from tests import judged
from valley_jax import records
from valley_jax.execution import languages

STD = '#include <bits/stdc++.h>\nusing namespace std;\n'
# What most cases include: iostream alone takes .5 s to compile.
C = '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n'
CIN = 'int main() { long long a, b; cin >> a >> b; cout << a + b << endl; }'
SCANF = 'int main() { int a, b; scanf("%d%d", &a, &b); printf("%d", a + b); '
ADD = C + SCANF + '}'
SMALL = judged.build_problem(limits=records.Limits(cpu_seconds=0.5, memory_mib=64, output_kib=64))
# A slow machine takes a second to fill the memory.
PATIENT = judged.build_problem(limits=records.Limits(cpu_seconds=5.0, memory_mib=64, output_kib=64))
DEEP = judged.build_problem(('1000000', '1000000'), limits=records.Limits(memory_mib=512))
# Each level needs the frame of the level above.
RECURSE = C + """
int f(int n, int* above) { int x = 1; return n ? *above + f(n - 1, &x) : 0; }
int main() { int n, one = 1; scanf("%d", &n); printf("%d", f(n, &one)); }"""


def _wrap_in_main(body: str) -> str:
  return f'{C}int main() {{ {body} }}'


# name: (verdict, source[, language, problem])
CASES = {
    'scanf': ('AC', ADD),
    'cin.tie': ('AC', STD + 'int main() { ios::sync_with_stdio(false);'
        ' cin.tie(nullptr); int a, b; cin >> a >> b;'
        ' cout << a + b << "\\n"; }'),
    'int128, pragmas': ('AC', '#pragma GCC optimize("O3,unroll-loops")\n'
        '#pragma GCC target("sse4.2")\n' + C + SCANF + '__int128 c = a;'
        ' c <<= 100; if ((int)(c >> 100) != a) abort(); }'),
    'judges define': ('AC', '#ifndef ONLINE_JUDGE\n#error\n#endif\n' + ADD),
    'C++17': ('AC', C + SCANF + 'struct P { int x, y; }; auto [x, y] = P{1, 2};'
        ' if constexpr (sizeof(int) == 4) if (x + y == 4) abort(); }'),
    'C++20': ('AC', C + '#include <concepts>\nint one(std::integral auto x)'
        f' {{ return x; }}\n{SCANF} if (one(a) != a) abort(); }}', 'cpp20'),
    'C++20 as C++17': ('CE', '#include <concepts>\n'
                       'int one(std::integral auto x) { return x; }' + ADD),
    'C': ('AC', f'{C}int main(void) {{ int new, class; '
          'scanf("%d%d", &new, &class); printf("%d\\n", new + class);'
          ' return 0; }', 'c'),
    'C with mathematics': ('AC', f'{C}#include <math.h>\n{SCANF}'
          ' if (sqrt((double)a * a) != a) abort(); return 0; }', 'c'),
    'C as C++': ('CE', _wrap_in_main('int new = 3;')),
    'C++ as C': ('CE', f'{C}template <int N> struct S {{}};\n{SCANF}}}', 'c'),
    'wrong': ('WA', _wrap_in_main('puts("4");')),
    'no syntax': ('CE', _wrap_in_main('return nothing')),
    'no main': ('CE', 'int x;'),
    'a loop': ('TLE', _wrap_in_main('for (volatile int i = 0; ; ) i = i;')),
    'memory touched': ('MLE', _wrap_in_main(
        'char* volatile p = (char*)malloc(1 << 28); memset(p, 1, 1 << 28);'
        ' printf("%d", 2 + p[9]);'), 'cpp17', PATIENT),
    'memory leaked': ('MLE', _wrap_in_main(
        'for (;;) { void* volatile p = malloc(1 << 20); memset(p, 1, 1 << 20);'
        ' }'), 'cpp17', PATIENT),
    'memory untouched': ('AC', f'static int unused[1 << 26];\n{ADD}'),
    'a segmentation fault': ('RE', _wrap_in_main('volatile int* p = 0; *p = 1;')),
    'an abort': ('RE', _wrap_in_main('abort();')),
    'right, non-zero exit': ('RE', f'{C}{SCANF}return 3; }}'),
    'an exception': ('RE', _wrap_in_main('throw "words";')),
    'division by zero': ('RE', _wrap_in_main('volatile int z = 0; return 100 / z;')),
    'a failed assert': ('RE',
                        '#include <cassert>\n' + _wrap_in_main('assert(1 == 2);')),
    'endless output': ('OLE', _wrap_in_main('for (;;) puts("x");')),
    'input to its end': ('AC', _wrap_in_main(
        'int x, sum = 0; while (scanf("%d", &x) == 1) sum += x;'
        ' printf("%d", sum);')),
    'a million levels': ('AC', RECURSE, 'cpp17', DEEP),
    'endless recursion': ('MLE',  # The stack is memory.
                          RECURSE.replace('n - 1', 'n + 1'), 'cpp17', DEEP),
    'text beyond ASCII': ('AC', f'// ä→\udc80\n{ADD}'),
    'a byte order mark': ('AC', f'\ufeff{ADD}'),
    'CRLF': ('AC', ADD.replace('\n', '\r\n')),
    'a missing include': ('CE', 'int main() { std::cout << 3; }'),
}  # fmt: skip


@pytest.fixture(scope='module')
def judgements():
  pairs = []
  for _, source, *rest in CASES.values():
    language, p = (*rest, *('cpp17', SMALL)[len(rest) :])
    pairs.append((p, records.Submission(
        problem_id='p', sample_index=0, source=source, language=language
    )))  # fmt: skip
  return dict(zip(CASES, judged.judge_submissions(pairs)))


@pytest.mark.parametrize('name', CASES)
def test_a_program_gets_the_verdict_it_earned(judgements, name):
  judgement = judgements[name]
  assert judgement.verdict.value == CASES[name][0], judgement


WORDS = {
    'no syntax': 'was not declared',
    'no main': 'main',
    'C++20 as C++17': 'integral',
    'a segmentation fault': 'signal 11',
    'an abort': 'signal 6',
    'an exception': 'terminate called',
    'division by zero': 'signal 8',
    'right, non-zero exit': 'exit status 3',
    'a failed assert': '1 == 2',
    'a missing include': 'cout',
}


@pytest.mark.parametrize('name', WORDS)
def test_the_message_says_what_compiler_and_program_said(judgements, name):
  assert WORDS[name] in judgements[name].message, judgements[name]


def _judge_cpp(*sources, **settings):
  pairs = ((judged.build_problem(), source) for source in sources)
  return judged.judge_pairs(*pairs, language='cpp17', **settings)


def test_what_fails_to_compile_does_so_with_the_header_too(tmp_path):
  misses = 'int main() { std::cout << 3; }'
  few = [f'int main() {{ return {i}; }}' for i in range(4)]
  rows = _judge_cpp(*few, STD + CIN, misses, cache_dir=str(tmp_path))
  assert any((tmp_path / 'headers').iterdir())  # It has been precompiled.
  assert [row.verdict.value for row in rows[4:]] == ['AC', 'CE']
  assert 'cout' in rows[-1].message


def test_a_second_run_compiles_nothing(tmp_path, monkeypatch):
  settings = {'cache_dir': str(tmp_path)}
  source = '#include <iostream>\nusing namespace std;\n' + CIN
  assert _judge_cpp(source, **settings)[0].verdict.value == 'AC'

  def refuse_to_compile(*unused):
    raise AssertionError('it compiles')

  monkeypatch.setattr(languages.Compilers, 'run_compiler', refuse_to_compile)
  # Another limit: another judgement of the same binary.
  row = _judge_cpp(source, cpu_seconds=1.5, **settings)[0]
  assert row.verdict.value == 'AC'


def test_the_cache_tells_standards_apart(tmp_path):
  p = judged.build_problem(('', '201703'))
  source = _wrap_in_main('printf("%ld", __cplusplus);')
  for language, verdict in (('cpp17', 'AC'), ('cpp20', 'WA')):
    settings = {'language': language, 'cache_dir': str(tmp_path)}
    assert judged.judge_verdict(p, source, **settings) == verdict


def test_compiling_that_passes_its_limits_is_stopped(monkeypatch):
  limits = records.replace(languages.COMPILER_LIMITS, cpu_seconds=1.0)
  monkeypatch.setattr(languages, 'COMPILER_LIMITS', limits)
  slow = (
      'template <int N, int M> struct F { F<2 * N, M - 1> a;'
      ' F<2 * N + 1, M - 1> b; };\n'
      'template <int N> struct F<N, 0> {};\nint main() { F<1, 20> x; }'
  )
  started = time.monotonic()
  rows = _judge_cpp(slow, ADD)
  assert time.monotonic() - started < 25  # Without them it takes 36 s.
  assert [row.verdict.value for row in rows] == ['CE', 'AC']


def test_a_flood_of_errors_is_a_short_message():
  row = _judge_cpp(''.join(f'x{i} y;\n' for i in range(10_000)))[0]
  assert row.verdict.value == 'CE'
  assert 0 < len(row.message) <= 1000


def test_the_same_wrong_program_is_told_the_same_again():
  rows = _judge_cpp(*['int main() { return nothing; }'] * 2)
  assert 'nothing' in rows[0].message
  assert rows[1].message == rows[0].message
