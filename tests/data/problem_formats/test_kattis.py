"""Packages: their bytes, tests, limits, validators, and what is refused."""

import pathlib

import pytest

from valley_jax import records
from valley_jax.data.problem_formats import problems

FILES = {
    'problem.yaml': b'name: Add\n',
    'problem_statement/problem.en.tex': b'Add one.\n',
    'data/sample/1.in': b'1\n',
    'data/sample/1.ans': b'2\n',
    'data/secret/1.in': b'2\n',
    'data/secret/1.ans': b'3\n',
}
CUSTOM = b'validation: custom\n'
CHECK = {'output_validators/check.py': b'import sys\nsys.exit(42)\n'}


def _write_package(path: pathlib.Path, files: dict[str, bytes | None]):
  """Writes FILES and these; None leaves one out."""
  for name, data in (FILES | files).items():
    if data is not None:
      (path / name).parent.mkdir(parents=True, exist_ok=True)
      (path / name).write_bytes(data)
  return path


def _read_package(tmp_path, **files) -> records.Problem:
  changed = files.pop('files', {})
  package = _write_package(tmp_path / 'add', changed)
  (problem,) = problems.read_problems(f'kattis:{package}')
  return problem


def test_samples_come_first_and_secret_tests_by_path(tmp_path):
  problem = _read_package(
      tmp_path,
      files={
          'data/secret/b/1.in': b'4\n',
          'data/secret/b/1.ans': b'5\n',
          'data/secret/a/2.in': b'3\n',
          'data/secret/a/2.ans': b'4\n',
          'data/secret/1.desc': b'of no matter',
          'data/secret/._1.in': b'of no matter',
      },
  )
  assert [(t.input, t.expected, t.is_sample) for t in problem.tests] == [
      ('1\n', '2\n', True),
      ('2\n', '3\n', False),
      ('3\n', '4\n', False),
      ('4\n', '5\n', False),
  ]
  assert problem.problem_id == 'add'
  assert problem.checker == 'kattis'
  assert problem.mode is records.Mode.STDIN


@pytest.mark.parametrize('data', [b'', b'1\r\n2\r\n', b'1', b'\n\n', b'\0\r'])
def test_the_bytes_of_tests_are_kept(tmp_path, data):
  files = {'data/secret/1.in': data, 'data/secret/1.ans': data}
  test = _read_package(tmp_path, files=files).tests[-1]
  assert test.input.encode() == test.expected.encode() == data


def test_the_statement_has_the_samples_but_no_secret(tmp_path):
  problem = _read_package(tmp_path, files={'data/secret/1.in': b'777\n'})
  assert problem.statement.startswith('Add one.')
  assert 'Sample Input 1\n\n1\n\nSample Output 1\n\n2\n' in problem.statement
  assert '777' not in problem.statement


@pytest.mark.parametrize(
    'name',
    [
        'problem_statement/problem.tex',
        'problem_statement/problem.sv.tex',
        'problem_statement/problem.en.md',
        'statement/problem.en.md',
        'statement/problem.pt-BR.tex',
    ],
)
def test_a_statement_is_found_in_any_language(tmp_path, name):
  files = {'problem_statement/problem.en.tex': None, name: b'Here.'}
  assert _read_package(tmp_path, files=files).statement.startswith('Here.')


def test_english_is_preferred(tmp_path):
  files = {'problem_statement/problem.tex': b'Hm.', 'problem_statement/problem.da.tex': b'Nej.'}
  assert _read_package(tmp_path, files=files).statement.startswith('Add one.')


def test_limits_come_from_the_package(tmp_path):
  yaml = b'limits:\n  memory: 512\n  output: 8\n  time_limit: 1.5\n'
  assert _read_package(tmp_path, files={'problem.yaml': yaml}).limits == records.Limits(
      cpu_seconds=1.5, memory_mib=512, output_kib=8192
  )


def test_limits_that_are_not_said_are_the_configs(tmp_path):
  yaml = b'limits:\n  memory:\nname:\n'
  limits = _read_package(tmp_path, files={'problem.yaml': yaml}).limits
  assert limits == records.Limits()


def test_yaml_is_read_as_texts(tmp_path):
  yaml = b'difficulty: 2.80\nsource: 2024-99-99\nvalidator_flags: 1e-6\n'
  problem = _read_package(tmp_path, files={'problem.yaml': yaml})
  assert (problem.difficulty, problem.flags) == ('2.80', ('1e-6',))


def test_a_timelimit_file_is_read(tmp_path):
  problem = _read_package(tmp_path, files={'.timelimit': b'3\n'})
  assert problem.limits.cpu_seconds == 3.0


def test_flags_of_the_package_and_of_its_tests_go_to_the_validator(tmp_path):
  problem = _read_package(
      tmp_path,
      files={
          'problem.yaml': b'validator_flags: case_sensitive\n',
          'data/testdata.yaml': b'output_validator_flags: a b\n',
          'data/secret/testdata.yaml': (b'output_validator_flags: float_tolerance 1e-6\n'),
      },
  )
  assert problem.flags == ('case_sensitive', 'float_tolerance', '1e-6')


def test_groups_with_different_flags_are_refused(tmp_path):
  files = {
      'data/secret/a/2.in': b'',
      'data/secret/a/2.ans': b'',
      'data/secret/a/testdata.yaml': b'output_validator_flags: a\n',
  }
  with pytest.raises(records.BadRowError, match='add: `testdata.yaml`: groups'):
    _read_package(tmp_path, files=files)


def test_a_python_validator_comes_with_the_problem(tmp_path):
  problem = _read_package(tmp_path, files={'problem.yaml': CUSTOM, **CHECK})
  assert problem.checker == 'program'
  assert problem.program == records.Program(
      language='python',
      files={'check.py': CHECK['output_validators/check.py'].decode()},
      protocol=records.Protocol.KATTIS,
  )


@pytest.mark.parametrize('folder', ['output_validators/v', 'output_validators', 'output_validator'])
def test_a_cpp_validator_has_its_main_file_first(tmp_path, folder):
  files = {
      'problem.yaml': CUSTOM,
      f'{folder}/a.h': b'//\n',
      f'{folder}/b.cc': b'//\n',
      f'{folder}/main.cpp': b'//\n',
  }
  program = _read_package(tmp_path, files=files).program
  assert program is not None
  assert program.language == 'cpp17'
  assert list(program.files) == ['main.cpp', 'b.cc', 'a.h']


@pytest.mark.parametrize('yaml', [b'validation: custom interactive\n', b'type: [interactive]\n'])
def test_an_interactive_problem_brings_its_interactor(tmp_path, yaml):
  problem = _read_package(tmp_path, files={'problem.yaml': yaml, **CHECK})
  assert problem.mode is records.Mode.INTERACTIVE
  assert problem.program is not None
  assert 'Sample Input' not in problem.statement


def test_a_validator_beside_default_validation_is_not_used(tmp_path):
  yaml = b'validation: default\n'
  problem = _read_package(tmp_path, files={'problem.yaml': yaml, **CHECK})
  assert (problem.checker, problem.program) == ('kattis', None)


def test_a_missing_validator_is_said(tmp_path):
  with pytest.warns(UserWarning, match='1 kept: it lacks its validator.*add'):
    problem = _read_package(tmp_path, files={'problem.yaml': CUSTOM})
  assert problem.checker == 'kattis'


@pytest.mark.parametrize(
    ('text', 'read'),
    [
        (b'../sample/1.in', '1\n'),
        (b'../sample/1.in\n', '1\n'),
        (b'1.in', '2\n'),
        (b'b/3.in', '4\n'),
        (b'../secret/b/link.in', '1\n'),  # Leads on, from its own folder.
    ],
)
def test_a_link_that_was_turned_to_text_is_followed_and_said(tmp_path, text, read):
  files = {
      'data/secret/b/3.in': b'4\n',
      'data/secret/b/3.ans': b'5\n',
      'data/secret/b/link.in': b'../../sample/1.in',
      'data/secret/b/link.ans': b'../../sample/1.ans',
      'data/secret/x.in': text,
      'data/secret/x.ans': b'3\n',
  }
  with pytest.warns(UserWarning, match='1 kept: tests that are links.*add'):
    tests = _read_package(tmp_path, files=files).tests
  assert [t.expected for t in tests] == ['2\n', '3\n', '5\n', '2\n', '3\n']
  assert tests[-1].input == read
  assert not tests[-1].is_sample


def test_a_symbolic_link_is_followed_and_what_it_says_is_meant_from_there(tmp_path):
  _write_package(tmp_path / 'add', {'data/sample/1.in': b'../secret/b/3.in'})
  (tmp_path / 'add/data/secret/b').mkdir()
  (tmp_path / 'add/data/secret/b/3.in').write_bytes(b'4\n')
  (tmp_path / 'add/data/secret/b/3.ans').symlink_to('../1.ans')
  (tmp_path / 'add/data/secret/b/link.ans').symlink_to('../1.ans')
  (tmp_path / 'add/data/secret/b/link.in').symlink_to('../../sample/1.in')
  with pytest.warns(UserWarning, match='1 kept: tests that are links'):
    (problem,) = problems.read_problems(f'kattis:{tmp_path}')
  assert [(t.input, t.expected) for t in problem.tests] == [
      ('4\n', '2\n'),
      ('2\n', '3\n'),
      ('4\n', '3\n'),
      ('4\n', '3\n'),
  ]


def test_symbolic_links_alone_are_nothing_to_warn_of(tmp_path):
  _write_package(tmp_path / 'add', {})
  for name in ('2.in', '2.ans'):
    (tmp_path / 'add/data/secret' / name).symlink_to(f'../sample/1{name[1:]}')
  (problem,) = problems.read_problems(f'kattis:{tmp_path}')
  assert problem.tests[-1].input == '1\n'


@pytest.mark.parametrize(
    'text',
    [
        b'../x',
        b'../sample/1.ans',
        b'../sample/1.in ',
        b'../sample/1.in\n\n',
        b'../sample/1.in\r\n',
        b'1\n../sample/1.in',
        b'../.in',
        b'../\0.in',
        b'3.in',
        b'/3.in',
        b'a/../../../../outside.in',
        b'x' * 300 + b'.in',
        b'../' + b'x' * 5000 + b'.in',
    ],
)
def test_what_only_resembles_a_link_is_a_test(tmp_path, text):
  (tmp_path / 'outside.in').write_bytes(b'?')
  problem = _read_package(tmp_path, files={'data/secret/1.in': text})
  assert problem.tests[-1].input.encode() == text


@pytest.mark.parametrize('depth, is_read', [(8, True), (9, False)])
def test_links_lead_to_others_to_a_depth(tmp_path, depth, is_read):
  files = {'data/secret/1.in': f'{depth}.link.in'.encode()}
  files |= {f'data/secret/{i}.link.in': f'{i - 1}.link.in'.encode() for i in range(2, depth + 1)}
  files |= {f'data/secret/{i}.link.ans': b'' for i in range(1, depth + 1)}
  files['data/secret/1.link.in'] = b'4\n'
  _write_package(tmp_path / 'add', files)
  if is_read:
    with pytest.warns(UserWarning, match='links'):
      (problem,) = problems.read_problems(f'kattis:{tmp_path}')
    assert problem.tests[1].input == '4\n'
  else:
    with pytest.raises(records.BadRowError, match='over more than 8 others'):
      problems.read_problems(f'kattis:{tmp_path}')


@pytest.mark.parametrize('text', [b'../../../outside.in', b'../../problem.in', b'../away/1.in'])
def test_a_link_to_a_file_outside_of_data_is_refused(tmp_path, text):
  (tmp_path / 'outside.in').write_bytes(b'kept to itself')
  files = {'problem.in': b'', 'data/secret/1.in': text}
  (_write_package(tmp_path / 'add', files) / 'data/away').symlink_to(tmp_path)
  (tmp_path / '1.in').write_bytes(b'kept to itself')
  with pytest.raises(records.BadRowError, match=r'data/secret/1.in. .*\.in.*no such file') as e:
    problems.read_problems(f'kattis:{tmp_path}')
  assert 'kept to itself' not in str(e.value)


@pytest.mark.parametrize(
    ('files', 'reason'),
    [
        ({'problem.yaml': b'validation: custom interactive\n'}, 'interactive, without'),
        ({'problem.yaml': b'type: multi-pass\n'}, 'multi-pass'),
        ({'problem.yaml': CUSTOM, 'output_validators/V.java': b''}, 'not C'),
        ({'include/python/grader.py': b''}, 'include/'),
        ({'data/secret/test_group.yaml': b'args: [a]'}, 'given arguments'),
        ({'data/secret/1.files/words': b'a'}, 'bring files along'),
    ],
)
def test_a_package_that_cannot_be_judged_is_left_out_loudly(tmp_path, files, reason):
  _write_package(tmp_path / 'good', {})
  _write_package(tmp_path / 'odd', files)
  with pytest.warns(UserWarning, match=f'1 left out: .*{reason}.*odd'):
    read = problems.read_problems(f'kattis:{tmp_path}')
  assert [p.problem_id for p in read] == ['good']


@pytest.mark.parametrize(
    ('files', 'reason'),
    [
        ({'data/secret/1.ans': None}, 'data/secret/1.in. has no .ans'),
        ({'data/sample/1.ans': None}, 'data/sample/1.in. has no .ans'),
        ({'data/secret/1.in': None}, 'data/secret/1.ans. has no .in'),
        ({'data/secret/1.in': None, 'data/secret/1.ans': None}, 'data/secret. has no tests'),
        ({'data/secret/1.in': b'\xff'}, '`1.in`: .*utf-8'),
        ({'data/secret/1.in': b'1.in'}, 'data/secret/1.in. .* in a ring'),
        (
            {'data/secret/1.in': b'../sample/1.in', 'data/sample/1.in': b'../secret/1.in'},
            'data/sample/1.in. .* in a ring',
        ),
        ({'data/secret/1.ans': b'../a/1.ans'}, "1.ans. .*'../a/1.ans'.*no such"),
        ({'problem_statement/problem.en.tex': None}, 'problem_statement'),
        ({'problem.yaml': b'\xff'}, '`problem.yaml`: .*utf-8'),
        ({'problem.yaml': b'a: b: c'}, '`problem.yaml`: not YAML'),
        ({'problem.yaml': b'- a'}, '`problem.yaml`: not a table'),
        ({'problem.yaml': b'? [a]\n: b'}, '`problem.yaml`: not YAML'),
        ({'problem.yaml': b'[' * 10_000}, '`problem.yaml`: .*recursion'),
        ({'problem.yaml': b'limits: {memory: x}'}, '`problem.yaml`: .*memory'),
        ({'problem.yaml': b'limits: {memory: -1}'}, '`limits`: .*-1'),
        ({'problem.yaml': b'limits: {memory: nan}'}, '`limits`: .*nan'),
        ({'.timelimit': b'soon'}, '`.timelimit`: .*soon'),
        ({'output_validators/a/a.py': b'', 'output_validators/b/b.py': b''}, '2 validators'),
    ],
)
def test_a_broken_package_is_named_with_its_file(tmp_path, files, reason):
  with pytest.raises(records.BadRowError, match=f'add: .*{reason}.*Mend'):
    _read_package(tmp_path, files=files)


def test_a_test_with_flags_of_its_own_is_refused(tmp_path):
  files = {
      'data/secret/2.in': b'1\n',
      'data/secret/2.ans': b'2\n',
      'data/secret/2.yaml': b'output_validator_args: [case_sensitive]\n',
  }
  with pytest.raises(records.BadRowError, match='or tests with different flags'):
    _read_package(tmp_path, files=files)


def test_a_folder_of_tests_that_is_a_link_is_refused(tmp_path):
  package = _write_package(tmp_path / 'add', {'data/more/2.in': b'1\n'})
  (package / 'data/secret/more').symlink_to('../more')
  with pytest.raises(records.BadRowError, match='secret/more. is a link to a'):
    problems.read_problems(f'kattis:{package}')


def test_a_bomb_of_aliases_is_refused(tmp_path):
  levels = [b'a0: &a0 {x: y}\n']
  levels += [b'a%d: &a%d {x: *a%d, y: *a%d}\n' % (i, i, i - 1, i - 1) for i in range(1, 40)]
  yaml = b''.join(levels) + b'type: [*a39]\n'
  with pytest.raises(records.BadRowError, match='problem.yaml'):
    _read_package(tmp_path, files={'problem.yaml': yaml})


def test_a_tree_is_read_by_path_and_one_name_twice_is_refused(tmp_path):
  for name in ('b/x', 'a/y', 'a/z/w'):
    _write_package(tmp_path / name, {})
  read = problems.read_problems(f'kattis:{tmp_path}')
  assert [p.problem_id for p in read] == ['y', 'w', 'x']
  _write_package(tmp_path / 'c/x', {})
  with pytest.raises(ValueError, match="'x' occurs twice"):
    problems.read_problems(f'kattis:{tmp_path}')


def test_a_folder_without_packages_is_refused(tmp_path):
  with pytest.raises(ValueError, match='no problem.yaml'):
    problems.read_problems(f'kattis:{tmp_path}')
