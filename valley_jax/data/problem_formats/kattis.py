"""Kattis / ICPC problem packages: one, or a tree of them.

A package is a folder with a problem.yaml; the folder's name is the problem's id. Samples come
first, then the secret tests by path, with their bytes unchanged. A package is accepted only if all
of its tests pass, even where the package itself would give points for some groups of them. Samples
alone would accept a program that prints them by heart, so a package without secret tests is
refused.
"""

from collections.abc import Iterator
import pathlib
import re
from typing import Any

import msgspec

from valley_jax import errors
from valley_jax import records
from valley_jax.data.problem_formats import conversion
from valley_jax.data.problem_formats import kattis_tests

Texts = str | list[str]

_LANGUAGES = {'.cpp': 'cpp17', '.cc': 'cpp17', '.cxx': 'cpp17', '.py': 'python'}
_HEADERS = ('.h', '.hh', '.hpp')
_MAINS = ('main', '__main__')

# Words of `type` and `validation`; `score` and `scoring` only concern the points.
_KINDS = {'pass-fail', 'scoring', 'interactive', 'default', 'custom', 'score'}


class _Limits(msgspec.Struct):
  time_limit: float | None = None
  memory: float | None = None  # MiB
  output: float | None = None  # MiB


class _Package(msgspec.Struct):
  """The fields of problem.yaml that we need; as texts, since YAML guesses too much."""

  validation: str = ''
  validator_flags: Texts = ''
  type: Texts = ''
  limits: _Limits | None = None
  difficulty: str = ''


class _TestGroup(msgspec.Struct):
  output_validator_flags: Texts = ''
  output_validator_args: Texts = ''  # The same, in packages of 2023.
  args: Texts = ''  # Arguments of the submission.


def read_packages(path: pathlib.Path) -> Iterator[conversion.Item]:
  """Yields the problems of a package or a tree of packages, by path.

  Raises:
    UserError: there is no package.
    records.BadRowError: a package that cannot be judged, and why.
  """
  packages = sorted(file.parent for file in path.rglob('problem.yaml'))
  if not packages:
    raise errors.UserError(
        f'{path} holds no problem.yaml; set `problems` of the config to a problem package, or to a'
        ' folder of packages.'
    )
  for package in packages:
    name = package.resolve().name
    try:
      yield from _convert_package(package, name)
    except conversion.UnjudgeableError as e:
      yield conversion.Remark(name, f'left out: {e}')
    except (OSError, *conversion.FAULTS) as e:
      raise records.BadRowError(
          f'{package}: {str(e).rstrip(".")}. Mend or remove this package.'
      ) from e


def _convert_package(package: pathlib.Path, name: str) -> Iterator[conversion.Item]:
  yaml = _read_yaml(package / 'problem.yaml', _Package)
  kinds = {*_split_words(yaml.type), *_split_words(yaml.validation)}
  if unknown := kinds - _KINDS:
    raise conversion.UnjudgeableError(f'its kind is {" ".join(sorted(unknown))}')
  if (package / 'include').is_dir():
    raise conversion.UnjudgeableError('its include/ would be part of a submission')
  # Packages of 2023 do not say `custom`: they have a validator or they do not.
  sources = _find_validator_files(package) if 'default' not in kinds else []
  program = _build_validator(sources) if sources else None
  is_interactive = 'interactive' in kinds
  if is_interactive and program is None:
    raise conversion.UnjudgeableError('interactive, without an interactor')
  if 'custom' in kinds and program is None:
    yield conversion.Remark(name, 'kept: it lacks its validator, the default serves')
  targets = kattis_tests.find_link_targets(package)
  if targets:
    yield conversion.Remark(name, 'kept: tests that are links as text are followed')
  tests = tuple(kattis_tests.list_tests(package, targets))
  yield records.Problem(
      problem_id=name,
      statement=_build_statement(package, () if is_interactive else tests),
      tests=tests,
      mode=records.Mode.INTERACTIVE if is_interactive else records.Mode.STDIN,
      checker='program' if program else 'kattis',
      flags=_collect_flags(package, yaml),
      program=program,
      limits=_build_package_limits(package, yaml),
      difficulty=yaml.difficulty,
      source='kattis',
      platform='kattis',
  )


def _split_words(texts: Texts) -> list[str]:
  return (texts if isinstance(texts, str) else ' '.join(texts)).split()


def _read_yaml(path: pathlib.Path, record_type: Any) -> Any:
  import yaml  # A library of some size, for this format only.

  text = kattis_tests.read_text_file(path)
  with conversion.naming_column(path.name):
    try:
      # BaseLoader makes texts only: no objects, dates or integers.
      value = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as e:
      raise errors.UserError(f'not YAML: {" ".join(str(e).split())}') from e
    if not isinstance(value or {}, dict):
      raise errors.UserError('not a table of keys and values')
    return msgspec.convert(_drop_empty_keys(value or {}), record_type, strict=False)


def _drop_empty_keys(table: dict, depth: int = 2) -> dict:
  """Drops keys without a value, like `memory:`; in the tables inside, too."""
  return {
      key: _drop_empty_keys(value, depth - 1)
      if isinstance(value, dict) and depth > 1  # YAML can make rings of them.
      else value
      for key, value in table.items()
      if value != ''
  }


def _find_validator_files(package: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of the one output validator, by name."""
  for folder in (package / 'output_validators', package / 'output_validator'):
    if not folder.is_dir():
      continue
    visible = [x for x in folder.iterdir() if not x.name.startswith('.')]
    programs = sorted(x for x in visible if x.is_dir())
    # Each folder in output_validators/ is a validator, and so is the whole output_validator/.
    if folder.name == 'output_validator' or not programs:
      files = visible
    elif len(programs) == 1:
      files = programs[0].iterdir()
    else:
      raise errors.UserError(f'`{folder.name}`: {len(programs)} validators; keep one')
    return sorted(file for file in files if file.is_file())
  return []


def _build_validator(files: list[pathlib.Path]) -> records.Program:
  """Returns the validator, its main file first."""
  known = [file for file in files if file.suffix in (*_LANGUAGES, *_HEADERS)]
  sources = [file for file in known if file.suffix in _LANGUAGES]
  languages = {_LANGUAGES[file.suffix] for file in sources}
  if len(languages) != 1 or any(f.name in ('build', 'run') for f in files):
    raise conversion.UnjudgeableError('its validator is not C++ or Python alone')
  # The judge takes the first file for the main one.
  known.sort(key=lambda file: (file not in sources, file.stem not in _MAINS))
  return records.Program(
      language=languages.pop(),
      files={file.name: kattis_tests.read_text_file(file) for file in known},
      protocol=records.Protocol.KATTIS,
  )


def _collect_flags(package: pathlib.Path, yaml: _Package) -> tuple[str, ...]:
  """Returns the validator's flags: the package's, then those of the secret tests.

  Raises:
    UserError: groups of tests differ, but a problem has one set of flags.
  """
  secret = package / 'data/secret'
  files = kattis_tests.find_test_files(secret, '.in')
  groups = {f: _find_group_flags(f, secret.parent) for f in {x.parent for x in files}}
  flags = {_read_own_flags(file.with_suffix('.yaml')) or groups[file.parent] for file in files}
  if len(flags) > 1:
    raise errors.UserError(
        f'`testdata.yaml`: groups or tests with different flags {sorted(flags)}; make a package of'
        ' each'
    )
  return (*_split_words(yaml.validator_flags), *flags.pop())


def _find_group_flags(folder: pathlib.Path, top: pathlib.Path) -> tuple[str, ...]:
  """Returns the group's flags, or those of the nearest group around it."""
  for name in ('testdata.yaml', 'test_group.yaml'):
    if flags := _read_own_flags(folder / name):
      return flags
  return () if folder == top else _find_group_flags(folder.parent, top)


def _read_own_flags(path: pathlib.Path) -> tuple[str, ...]:
  """Returns the flags of a group, or, in packages of 2023, of a single test."""
  if not path.is_file():
    return ()
  group = _read_yaml(path, _TestGroup)
  if group.args:
    raise conversion.UnjudgeableError('its programs are given arguments')
  return tuple(_split_words(group.output_validator_flags or group.output_validator_args))


def _build_package_limits(package: pathlib.Path, yaml: _Package) -> records.Limits:
  limits = yaml.limits or _Limits()
  seconds = limits.time_limit
  if seconds is None and (package / '.timelimit').is_file():
    with conversion.naming_column('.timelimit'):
      seconds = float(kattis_tests.read_text_file(package / '.timelimit'))
  with conversion.naming_column('limits'):
    return conversion.build_limits(seconds, limits.memory, limits.output)


def _build_statement(package: pathlib.Path, tests: tuple[records.TestCase, ...]) -> str:
  """Returns the English statement, or else the first one, followed by the samples."""
  files = [
      file
      for folder in ('problem_statement', 'statement')
      for file in sorted((package / folder).glob('problem*'))
      if re.fullmatch(r'problem(\.[\w-]+)?\.(tex|md)', file.name)
  ]
  if not files:
    raise errors.UserError('`problem_statement`: no problem.LANGUAGE.tex or .md')
  # `problem.tex` without a language is English in old packages.
  order = {'problem.en': 0, 'problem': 1}
  text = kattis_tests.read_text_file(min(files, key=lambda file: order.get(file.stem, 2)))
  parts = [text.strip()]
  for i, test in enumerate((t for t in tests if t.is_sample), start=1):
    parts += [f'Sample Input {i}', test.input.strip()]
    parts += [f'Sample Output {i}', test.expected.strip()]
  return '\n\n'.join(parts) + '\n'
