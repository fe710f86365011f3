"""The part of the house style that a program can check."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ('valley_jax', 'configs', 'tests', 'benchmarks', 'launch')
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob('*')
    if path.suffix in {'.py', '.sh', '.j2'}
)
SOURCES = [path for path in FILES if path.suffix == '.py']


def _name(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).as_posix()


def _lines(path: pathlib.Path) -> int:
  return len(path.read_text().splitlines())


def test_no_file_is_over_500_lines():
  assert not [f'{_name(p)}: {_lines(p)}' for p in FILES if _lines(p) > 500]


def test_the_readme_is_read_in_one_sitting():
  readme = ROOT / 'README.md'
  if not readme.exists():
    pytest.skip('no README.md')
  assert _lines(readme) <= 150


def test_packages_hold_nothing_but_modules():
  empty = (ROOT / 'valley_jax').rglob('__init__.py')
  assert not [_name(path) for path in empty if path.read_bytes()]


def test_no_file_is_named_for_having_no_subject():
  names = {'utils', 'util', 'helpers', 'misc', 'common', 'manager'}
  assert not [_name(path) for path in FILES if path.stem in names]


def test_no_handler_catches_every_exception():
  handlers = [
      f'{_name(path)}:{node.lineno}'
      for path in SOURCES
      for node in ast.walk(ast.parse(path.read_text()))
      if isinstance(node, ast.ExceptHandler)
      and (node.type is None or ast.unparse(node.type) == 'Exception')
      and not any(isinstance(below, ast.Raise) for below in ast.walk(node))
  ]
  assert not handlers, handlers
