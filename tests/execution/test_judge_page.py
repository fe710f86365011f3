"""docs/judge.md names all that there is, and its examples work."""

import pathlib
import re

import pytest

from tests import judged
from valley_jax import records
from valley_jax.data.problem_formats import problems
from valley_jax.execution import checkers
from valley_jax.execution import judge
from valley_jax.execution import languages
from valley_jax.execution import probe

PAGE = (pathlib.Path(__file__).parents[2] / 'docs' / 'judge.md').read_text()
EXAMPLES = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)


@pytest.mark.parametrize(
    'names',
    [
        probe.PROPERTIES,
        checkers.CHECKERS,
        problems._READERS,
        languages.LANGUAGES,
        records.Judgement.__struct_fields__,
        [mode.value for mode in records.Mode],
        [profile.value for profile in records.Profile],
        [protocol.value for protocol in records.Protocol],
    ],
    ids=[
        *('properties', 'checkers', 'formats', 'languages', 'fields', 'modes'),
        *('profiles', 'protocols'),
    ],
)
def test_the_page_names_all_that_there_is(names):
  assert not [name for name in names if f'`{name}`' not in PAGE]


def test_the_page_names_every_verdict():
  words = set(re.findall(r'\b[A-Z]{2,3}\b', PAGE))
  assert {verdict.value for verdict in records.Verdict} <= words


def test_the_first_example_is_accepted(capsys):
  exec(EXAMPLES[0], {})
  assert capsys.readouterr().out == 'Verdict.ACCEPTED\n'


def test_a_language_is_one_entry(monkeypatch):
  more = eval(f'{{{EXAMPLES[1]}}}', vars(languages))
  for name, language in more.items():
    monkeypatch.setitem(languages.LANGUAGES, name, language)
  script = '#!/bin/sh\nread a b; echo $((a + b))'
  program = '#include <iostream>\nint main() { int a, b; std::cin >> a >> b;'
  program += ' std::cout << a + b; }'
  p = judged.build_problem()
  assert judged.judge_verdict(p, script, language='bash') == 'AC'
  assert judged.judge_verdict(p, program, language='cpp23', cpu_seconds=5.0) == 'AC'


def test_a_problem_brings_its_checker():
  namespace = {'records': records}
  exec(EXAMPLES[2], namespace)
  problem = namespace['problem']
  programs = [
      records.Submission(problem_id='any-order', sample_index=i, source=f'print({output})')
      for i, output in enumerate(('3, 1, 2', '3, 1'))
  ]
  settings = judge.Settings(num_workers=1)
  rows = judge.judge_all([(problem, program) for program in programs], settings)
  assert [row.verdict.value for row in rows] == ['AC', 'WA']


def test_a_checker_is_a_function_and_a_line(monkeypatch):
  function, line = EXAMPLES[3].split('\n\n')
  namespace = dict(vars(checkers))
  exec(function, namespace)
  entry = eval(f'{{{line}}}', namespace)
  monkeypatch.setitem(checkers.CHECKERS, 'multiset', entry['multiset'])
  assert checkers.build_checker('multiset')(b'1 2 2', b'2 1\n2')
  assert not checkers.build_checker('multiset')(b'1 2 2', b'2 1 1')
