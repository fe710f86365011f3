"""Every config file reads, is locked, and knows its arguments."""

import ast
import importlib.util
import json
import pathlib
import re

import pytest

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / 'configs').glob('*.py'))


def _find_argument_names(path: pathlib.Path) -> set[str]:
  return {
      keyword.arg
      for node in ast.walk(ast.parse(path.read_text()))
      if isinstance(node, ast.Call) and ast.unparse(node.func) == 'entry.parse_config_argument'
      for keyword in node.keywords
      if keyword.arg
  }


def _get_config(path: pathlib.Path, arg: str | None):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)


def _points():
  for path in CONFIGS:
    yield pytest.param(path, None, id=path.stem)
    if 'mini' in _find_argument_names(path):
      yield pytest.param(path, 'mini', id=f'{path.stem}:mini')


points = pytest.mark.parametrize(('path', 'arg'), list(_points()))
files = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


@points
def test_a_misspelt_field_is_refused(path, arg):
  config = _get_config(path, arg)
  with pytest.raises(AttributeError):
    config.no_such_field = 1
  for name, value in config.items():
    if hasattr(value, 'is_locked'):
      assert value.is_locked, f'{name} is open'


@points
def test_a_config_survives_the_json_that_a_run_keeps_of_it(path, arg):
  config = _get_config(path, arg)
  kept = json.loads(config.to_json())
  assert kept.keys() == config.to_dict().keys()


@files
def test_a_config_reads_from_any_directory(path, tmp_path, monkeypatch):
  root = path.parents[1]
  monkeypatch.chdir(root)
  inside = _get_config(path.relative_to(root), None)
  monkeypatch.chdir(tmp_path)
  assert _get_config(path, None).to_dict() == inside.to_dict()


@pytest.mark.parametrize('arg', [None, 'mini', 'student=llama3_8b'])
def test_an_evaluation_samples_and_judges_as_the_study_does(arg):
  directory = CONFIGS[0].parent
  study = _get_config(directory / 'valley.py', arg).to_dict()
  alone = _get_config(directory / 'evaluate.py', arg).to_dict()
  own = {'name', 'command', 'num_traces'}
  assert {k: v for k, v in alone.items() if k not in own} == {
      k: study[k] for k in alone if k not in own
  }


@points
def test_two_reads_give_the_same_config(path, arg):
  assert _get_config(path, arg).to_dict() == _get_config(path, arg).to_dict()


@files
def test_an_unknown_argument_names_the_known_ones(path):
  with pytest.raises(ValueError, match='nonsense') as error:
    _get_config(path, 'nonsense=1')
  for name in _find_argument_names(path):
    assert name in str(error.value)


def test_the_valley_config_sets_what_its_study_decides_and_no_more():
  tree = ast.parse((CONFIGS[0].parent / 'valley.py').read_text())
  num_fields = 0
  for node in ast.walk(tree):
    if isinstance(node, ast.Assign):
      num_fields += isinstance(node.targets[0], ast.Attribute)
    elif isinstance(node, ast.Call) and re.fullmatch(r'dict|c\..*update', ast.unparse(node.func)):
      num_fields += len(node.keywords)
  assert 30 < num_fields <= 60


@files
def test_a_docstring_shows_the_command(path):
  docstring = ast.get_docstring(ast.parse(path.read_text())) or ''
  assert f'configs/{path.name}' in docstring
