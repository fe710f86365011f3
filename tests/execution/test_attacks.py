"""Programs that once made the judge answer IE, a wrong verdict or nothing."""

import os
import pathlib
import tempfile

import pytest

from tests import judged
from valley_jax import records

LAST_WORDS = {
    'stdout deleted after printing': 'import sys\nprint(3)\ndel sys.stdout',
    'both deleted after flushing': 'import sys\nprint(3)\n'
        'sys.stdout.flush()\ndel sys.stdout, sys.__stdout__',
    'a file object of its own': 'import os\nout = os.fdopen(1, "w")\n'
        'out.write("3\\n")',
    'a second text layer': 'import io, sys\n'
        'out = io.TextIOWrapper(sys.stdout.buffer)\nout.write("3\\n")',
    'a buffer of its own': 'import io\n'
        'out = io.BufferedWriter(io.FileIO(1, "w"))\nout.write(b"3\\n")',
    'stdout replaced after printing': 'import io, sys\nprint(3)\n'
        'sys.stdout = io.StringIO()',
    'stdout collected and written': 'import io, sys\no = sys.stdout\n'
        'sys.stdout = b = io.StringIO()\nprint(3)\no.write(b.getvalue())',
    '__del__ of a global': 'class A:\n'
        '  def __del__(self): print(3)\na = A()',
    'finally of a generator': 'def f():\n  try: yield\n'
        '  finally: print(3)\ng = f()\nnext(g)',
}  # fmt: skip


@pytest.fixture(scope='module')
def last_words():
  p = judged.build_problem(('', '3'))
  rows = judged.judge_pairs(*((p, s) for s in LAST_WORDS.values()))
  return dict(zip(LAST_WORDS, rows))


@pytest.mark.parametrize('name', LAST_WORDS)
def test_what_is_written_at_the_end_counts(last_words, name):
  assert last_words[name].verdict.value == 'AC', last_words[name]


def test_code_is_no_output():
  p = judged.build_problem(('', '3'), limits=records.Limits(output_kib=16))
  assert judged.judge_verdict(p, f's = {"x" * 20_000!r}\nprint(3)') == 'AC'


def test_code_that_grows_beyond_all_limits_does_not_compile():
  parts = ','.join(f'"{i:x}_"*700' for i in range(0x1000, 0x1000 + 5000))
  source = '\n'.join(f'x{n} = [{parts.replace("_", str(n))}]' for n in range(6))
  assert judged.judge_verdict(judged.build_problem(('', '3')), source + '\nprint(3)') == 'CE'


BAD_BINARIES = {
    'an interpreter that is none': (
        'asm(".section .interp,\\"a\\"\\n.ascii \\"x\\"\\n.text");', 'RE',
    ),
    'more than a sandbox holds': (
        'asm(".section .data.x,\\"aw\\",@nobits\\n'
        'q_: .zero 188743680\\n.text");',
        'CE',
    ),
}  # fmt: skip


@pytest.mark.parametrize('tier', ['T0', 'T2'])
@pytest.mark.parametrize('name', BAD_BINARIES)
def test_a_binary_that_cannot_run_is_the_programs_fault(name, tier):
  extra, expected = BAD_BINARIES[name]
  source = f'{extra}\n#include <stdio.h>\nint main() {{ puts("3"); }}\n'
  row = judged.judge_program(judged.build_problem(('', '3')), source, language='cpp17', tier=tier)
  assert row.verdict.value == expected, row


def test_a_binary_does_not_count_as_its_programs_memory():
  source = '#include <stdio.h>\nchar a[40 << 20] = {1};\n'
  source += 'int main() { puts("3"); }\n'
  p = judged.build_problem(('', '3'), limits=records.Limits(memory_mib=64))
  assert judged.judge_verdict(p, source, language='cpp17') == 'AC'


def test_floods_of_an_interactor_are_output():
  patient = 'import sys\nx = input()\nsys.exit(0 if x.strip() == "3" else 1)'
  p = judged.build_problem(
      ('', ''),
      mode=records.Mode.INTERACTIVE,
      program=records.Program(
          language='python', files={'interactor.py': patient}, protocol=records.Protocol.TESTLIB
      ),
  )
  flood = 'import os\nb = b"a" * 65536\nwhile True: os.write(1, b)'
  rows = judged.judge_pairs((p, flood), (p, 'print(3)'))
  assert [row.verdict.value for row in rows] == ['OLE', 'AC']


def test_an_emptied_binary_in_the_cache_is_compiled_anew(tmp_path):
  source = '#include <stdio.h>\nint main() { puts("3"); }\n'
  fields = {'language': 'c', 'cache_dir': str(tmp_path)}
  assert judged.judge_verdict(judged.build_problem(('', '3')), source, **fields) == 'AC'
  for binary in (tmp_path / 'binaries').iterdir():
    binary.write_bytes(b'')
  assert judged.judge_verdict(judged.build_problem(('1', '3')), source, **fields) == 'AC'


def test_a_checker_may_lie_in_folders():
  program = records.Program(
      language='cpp17',
      files={
          'c.cpp': '#include "lib/t.h"\nint main() { return ACCEPT; }\n',
          'lib/t.h': '#define ACCEPT 42\n',
      },
      protocol=records.Protocol.KATTIS,
  )
  p = judged.build_problem(('', '3'), checker='program', program=program)
  assert judged.judge_verdict(p, 'print(4)') == 'AC'


def test_an_exit_status_beyond_all_integers_is_a_failure():
  assert judged.judge_verdict(judged.build_problem(('', '')), 'exit(2**70)') == 'RE'


def test_a_function_may_close_stdout():
  p = judged.build_function_problem('3')
  source = 'import sys\ndef f():\n  sys.stdout.close()\n  return 3'
  assert judged.judge_verdict(p, source) == 'AC'


def test_a_cache_that_cannot_be_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='cannot be used as a cache'):
    judged.judge_verdict(judged.build_problem(), judged.CONTROL, cache_dir=str(tmp_path / 'file'))
  folder = pathlib.Path(tempfile.gettempdir())
  assert not list(folder.glob(f'valley_jax.{os.getpid()}.*'))  # Nothing left.


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        ('5', "its input '5' is no JSON list"),
        ('{"a": 1}', 'is no JSON list'),
        ('[' * 2500 + ']' * 2500, 'too deep|no JSON'),
    ],
)
def test_arguments_that_cannot_be_called_with_are_named(arguments, reason):
  p = judged.build_function_problem('1', given=arguments)
  with pytest.raises(ValueError, match=f'Test 0 of problem p: .*({reason})'):
    judged.judge_verdict(p, 'def f(*a): return 1')


@pytest.mark.parametrize(
    'limits',
    [
        {'cpu_seconds': -1.0},
        {'cpu_seconds': 1e300},
        {'cpu_seconds': float('nan')},
        {'memory_mib': 0},
        {'output_kib': -1},
        {'memory_mib': 1 << 60},
    ],
)
def test_a_limit_that_is_none_is_named_and_no_verdict(limits):
  p = judged.build_problem(limits=records.Limits(**limits))
  with pytest.raises(ValueError, match=f'Problem p .*{next(iter(limits))}'):
    judged.judge_verdict(p, judged.CONTROL)


@pytest.mark.parametrize('names', [(), ('/a.py',), ('a.py', '../b.py'), ('-o',)])
def test_a_problems_program_has_files_and_they_stay_in_their_folder(names):
  program = records.Program(
      language='python', files=dict.fromkeys(names, ''), protocol=records.Protocol.KATTIS
  )
  p = judged.build_problem(checker='program', program=program)
  with pytest.raises(ValueError, match='`program` of problem p has the files'):
    judged.judge_verdict(p, judged.CONTROL)
