"""Kattis / ICPC problem packages: one, or a tree of them.

A package is a folder with a problem.yaml; the folder's name is the problem's
id. Samples come first, then the secret tests by path, with their bytes as they
are. A package is accepted only if all of its tests pass, also where the
package itself would give points for some groups of them. Samples alone would
accept what prints them by heart, so a package without secret tests is refused.
"""

from collections.abc import Iterator
import pathlib
import re
from typing import Any

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.formats import links
from valley_jax.data.formats import rows

Texts = str | list[str]

_LANGUAGES = {'.cpp': 'cpp17', '.cc': 'cpp17', '.cxx': 'cpp17', '.py': 'python'}
_HEADERS = ('.h', '.hh', '.hpp')
_MAINS = ('main', '__main__')
_GROUPS = ('sample', 'secret')

# Of `type` and `validation`; `score` and `scoring` only concern the points.
_KINDS = {'pass-fail', 'scoring', 'interactive', 'default', 'custom', 'score'}


class _UnjudgeableError(Exception):
  """Why a well-formed package makes no problem."""


class _Limits(msgspec.Struct):
  time_limit: float | None = None
  memory: float | None = None  # MiB
  output: float | None = None  # MiB


class _Package(msgspec.Struct):
  """What we need of problem.yaml; texts, since YAML guesses too much."""

  validation: str = ''
  validator_flags: Texts = ''
  type: Texts = ''
  limits: _Limits | None = None
  difficulty: str = ''


def read(path: pathlib.Path) -> Iterator[rows.Item]:
  """Yields the problems of a package or a tree of packages, by path.

  Raises:
    ValueError: there is no package.
    records.BadRowError: a package that cannot be judged, and why.
  """
  found = sorted(file.parent for file in path.rglob('problem.yaml'))
  if not found:
    raise errors.UserError(
        f'{path} holds no problem.yaml; set `problems` of the config to a'
        ' problem package, or to a folder of packages.'
    )
  for package in found:
    name = package.resolve().name
    try:
      yield from _problems(package, name)
    except _UnjudgeableError as e:
      yield rows.Remark(name, f'left out: {e}')
    except (OSError, *rows.FAULTS) as e:
      raise records.BadRowError(
          f'{package}: {str(e).rstrip(".")}. Mend or remove this package.'
      ) from e


def _problems(package: pathlib.Path, name: str) -> Iterator[rows.Item]:
  yaml = _read_yaml(package / 'problem.yaml', _Package)
  kinds = {*_words(yaml.type), *_words(yaml.validation)}
  if unknown := kinds - _KINDS:
    raise _UnjudgeableError(f'its kind is {" ".join(sorted(unknown))}')
  if (package / 'include').is_dir():
    raise _UnjudgeableError('its include/ would be part of a submission')
  # Packages of 2023 do not say `custom`: they have a validator or have not.
  sources = _validator_files(package) if 'default' not in kinds else []
  program = _program(sources) if sources else None
  is_interactive = 'interactive' in kinds
  if is_interactive and program is None:
    raise _UnjudgeableError('interactive, without an interactor')
  if 'custom' in kinds and program is None:
    yield rows.Remark(name, 'kept: it lacks its validator, the default serves')
  targets = _targets(package)
  if targets:
    yield rows.Remark(name, 'kept: tests that are links as text are followed')
  tests = tuple(_tests(package, targets))
  yield records.Problem(
      problem_id=name,
      statement=_statement(package, () if is_interactive else tests),
      tests=tests,
      mode=records.Mode.INTERACTIVE if is_interactive else records.Mode.STDIN,
      checker='program' if program else 'kattis',
      flags=_flags(package, yaml),
      program=program,
      limits=_limits(package, yaml),
      difficulty=yaml.difficulty,
      source='kattis',
      platform='kattis',
  )


def _words(texts: Texts) -> list[str]:
  return (texts if isinstance(texts, str) else ' '.join(texts)).split()


def _read_text(path: pathlib.Path) -> str:
  """The file's text; not through open(), which would translate CRLF."""
  with rows.field(path.name):
    return path.read_bytes().decode('utf-8')


def _read_yaml(path: pathlib.Path, record_type: Any) -> Any:
  import yaml  # Libraries of some size, for this format only.

  text = _read_text(path)
  with rows.field(path.name):
    try:
      # BaseLoader makes texts only: no objects, dates or integers.
      value = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as e:
      raise errors.UserError(f'not YAML: {" ".join(str(e).split())}') from e
    if not isinstance(value or {}, dict):
      raise errors.UserError('not a table of keys and values')
    return msgspec.convert(_without_nulls(value or {}), record_type, strict=False)


def _without_nulls(table: dict, depth: int = 2) -> dict:
  """Drops keys without a value, like `memory:`; in the tables inside, too."""
  return {
      key: _without_nulls(value, depth - 1)
      if isinstance(value, dict) and depth > 1  # YAML can make rings of them.
      else value
      for key, value in table.items()
      if value != ''
  }


def _validator_files(package: pathlib.Path) -> list[pathlib.Path]:
  """The files of the one output validator, by name."""
  for folder in (package / 'output_validators', package / 'output_validator'):
    if not folder.is_dir():
      continue
    visible = [x for x in folder.iterdir() if not x.name.startswith('.')]
    programs = sorted(x for x in visible if x.is_dir())
    if folder.name == 'output_validator' or not programs:
      files = visible
    elif len(programs) == 1:
      files = programs[0].iterdir()
    else:
      raise errors.UserError(f'`{folder.name}`: {len(programs)} validators; keep one')
    return sorted(file for file in files if file.is_file())
  return []


def _program(files: list[pathlib.Path]) -> records.Program:
  """The validator, its main file first."""
  known = [file for file in files if file.suffix in (*_LANGUAGES, *_HEADERS)]
  sources = [file for file in known if file.suffix in _LANGUAGES]
  languages = {_LANGUAGES[file.suffix] for file in sources}
  if len(languages) != 1 or any(f.name in ('build', 'run') for f in files):
    raise _UnjudgeableError('its validator is not C++ or Python alone')
  known.sort(key=lambda file: (file not in sources, file.stem not in _MAINS))
  return records.Program(
      language=languages.pop(),
      files={file.name: _read_text(file) for file in known},
      protocol=records.Protocol.KATTIS,
  )


def _test_files(folder: pathlib.Path, suffix: str) -> list[pathlib.Path]:
  """Returns the files of tests; not `._1.in`, which macOS leaves behind."""
  found = sorted(folder.rglob(f'[!.]*{suffix}'))
  return [file for file in found if file.is_file()]


def _targets(package: pathlib.Path) -> dict[pathlib.Path, pathlib.Path]:
  """The tests that are links turned to text, and the files they lead to."""
  data = package / 'data'
  folders = [data / group for group in _GROUPS]
  tests = [
      file
      for folder in folders
      for suffix in ('.in', '.ans')
      for file in _test_files(folder, suffix)
  ]
  followed = {file: links.follow(file, data) for file in tests}
  return {file: there for file, there in followed.items() if there != file}


def _tests(
    package: pathlib.Path, targets: dict[pathlib.Path, pathlib.Path]
) -> Iterator[records.TestCase]:
  num_secret = 0
  for group in _GROUPS:
    folder = package / 'data' / group
    for other in sorted(folder.rglob('*')):
      if other.is_symlink() and other.is_dir():  # rglob does not go there.
        raise errors.UserError(f'`{_name(package, other)}` is a link to a folder')
      if other.is_dir() and other.suffix == '.files':
        raise _UnjudgeableError('its tests bring files along')
    inputs = _test_files(folder, '.in')
    for answer in _test_files(folder, '.ans'):
      if not answer.with_suffix('.in').is_file():
        raise errors.UserError(f'`{_name(package, answer)}` has no .in beside it')
    for file in inputs:
      answer = file.with_suffix('.ans')
      if not answer.is_file():
        raise errors.UserError(f'`{_name(package, file)}` has no .ans beside it')
      yield records.TestCase(
          input=_read_text(targets.get(file, file)),
          expected=_read_text(targets.get(answer, answer)),
          is_sample=group == 'sample',
      )
    num_secret = len(inputs)
  if not num_secret:
    raise errors.UserError('`data/secret` has no tests; samples alone are not enough')


def _name(package: pathlib.Path, file: pathlib.Path) -> str:
  return file.relative_to(package).as_posix()


class _Group(msgspec.Struct):
  output_validator_flags: Texts = ''
  output_validator_args: Texts = ''  # As packages of 2023 call it.
  args: Texts = ''  # Of the submission.


def _flags(package: pathlib.Path, yaml: _Package) -> tuple[str, ...]:
  """What the validator is given: the package's flags, then the secret tests'.

  Raises:
    ValueError: groups of tests differ, but a problem has one set of flags.
  """
  secret = package / 'data/secret'
  files = _test_files(secret, '.in')
  groups = {f: _group_flags(f, secret.parent) for f in {x.parent for x in files}}
  found = {_own_flags(file.with_suffix('.yaml')) or groups[file.parent] for file in files}
  if len(found) > 1:
    raise errors.UserError(
        '`testdata.yaml`: groups or tests with different flags'
        f' {sorted(found)}; make a package of each'
    )
  return (*_words(yaml.validator_flags), *found.pop())


def _group_flags(folder: pathlib.Path, top: pathlib.Path) -> tuple[str, ...]:
  """The group's flags, or those of the nearest group around it."""
  for name in ('testdata.yaml', 'test_group.yaml'):
    if flags := _own_flags(folder / name):
      return flags
  return () if folder == top else _group_flags(folder.parent, top)


def _own_flags(path: pathlib.Path) -> tuple[str, ...]:
  """What a group, or in packages of 2023 a single test, says itself."""
  if not path.is_file():
    return ()
  said = _read_yaml(path, _Group)
  if said.args:
    raise _UnjudgeableError('its programs are given arguments')
  return tuple(_words(said.output_validator_flags or said.output_validator_args))


def _limits(package: pathlib.Path, yaml: _Package) -> records.Limits:
  limits = yaml.limits or _Limits()
  seconds = limits.time_limit
  if seconds is None and (package / '.timelimit').is_file():
    with rows.field('.timelimit'):
      seconds = float(_read_text(package / '.timelimit'))
  with rows.field('limits'):
    return rows.limits(seconds, limits.memory, limits.output)


def _statement(package: pathlib.Path, tests: tuple[records.TestCase, ...]) -> str:
  """The English statement, or the first, and the samples behind it."""
  files = [
      file
      for folder in ('problem_statement', 'statement')
      for file in sorted((package / folder).glob('problem*'))
      if re.fullmatch(r'problem(\.[\w-]+)?\.(tex|md)', file.name)
  ]
  if not files:
    raise errors.UserError('`problem_statement`: no problem.LANGUAGE.tex or .md')
  order = {'problem.en': 0, 'problem': 1}
  text = _read_text(min(files, key=lambda file: order.get(file.stem, 2)))
  parts = [text.strip()]
  for i, test in enumerate((t for t in tests if t.is_sample), start=1):
    parts += [f'Sample Input {i}', test.input.strip()]
    parts += [f'Sample Output {i}', test.expected.strip()]
  return '\n\n'.join(parts) + '\n'
