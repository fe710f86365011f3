"""What setup.py promises is what is installed; the launch scripts parse."""

import ast
from importlib import metadata
import pathlib
import shutil
import subprocess
import sys

from packaging import requirements
from packaging import specifiers
from packaging import utils
from packaging import version
import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted([*ROOT.glob('launch/*.sh'), ROOT / '.ci' / 'run'])
scripts = pytest.mark.parametrize(
    'script', SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def _setup() -> dict:
  """The keyword arguments of setup.py that are literals."""
  for node in ast.walk(ast.parse((ROOT / 'setup.py').read_text())):
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith('.setup'):
      return {
          keyword.arg: ast.literal_eval(keyword.value)
          for keyword in node.keywords
          if keyword.arg != 'packages'
      }
  raise AssertionError('setup.py does not call setuptools.setup')


def _required(extra: str = '') -> list[requirements.Requirement]:
  keywords = _setup()
  listed = keywords['extras_require'][extra] if extra else (keywords['install_requires'])
  return [requirements.Requirement(text) for text in listed]


def test_the_pythons_of_the_launch_scripts_are_those_of_setup():
  bounds = specifiers.SpecifierSet(_setup()['python_requires'])
  accepted = [f'3.{n}' for n in range(20) if f'3.{n}.0' in bounds]
  assert accepted == ['3.11', '3.12', '3.13']
  assert f"wanted='{' '.join(reversed(accepted))}'" in (ROOT / 'launch' / 'setup.sh').read_text()
  assert sys.version_info[:2] in [(3, 11), (3, 12), (3, 13)]


@pytest.mark.parametrize('extra', ['', 'test'])
def test_what_is_installed_is_within_the_bounds(extra):
  for required in _required(extra):
    installed = metadata.version(required.name)
    assert version.Version(installed) in required.specifier, required


def test_every_requirement_has_a_lower_bound():
  unbound = [
      required.name
      for extra in ('', 'test', 'parity', 'ray')
      for required in _required(extra)
      if not any(bound.operator in ('>=', '==') for bound in required.specifier)
  ]
  assert not unbound


def _imported(path: pathlib.Path) -> set[str]:
  """The top-level names of all packages that a file imports."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name.split('.')[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names.add((node.module or '').split('.')[0])
  # Programs that run in the sandbox import the files next to them.
  siblings = {file.stem for file in path.parent.glob('*.py')}
  return names - sys.stdlib_module_names - siblings - {'valley_jax'}


def test_every_package_that_the_code_imports_is_required():
  providers = metadata.packages_distributions()
  listed = _required() + _required('ray') + _required('parity')
  required = {utils.canonicalize_name(each.name) for each in listed}
  required.add('jaxlib')  # It comes with jax, at jax's version.
  missing = [
      f'{path.relative_to(ROOT)}: {name}'
      for path in ROOT.glob('valley_jax/**/*.py')
      for name in _imported(path)
      if required.isdisjoint(map(utils.canonicalize_name, providers.get(name, [name])))
  ]
  assert not missing, missing


def test_every_extra_can_be_named():
  extras = _setup()['extras_require']
  assert extras.keys() == {'test', 'parity', 'dev', 'gpu', 'tpu', 'ray'}
  assert 'valley_jax[test]' in extras['dev']


def test_configs_are_packaged():
  assert _setup()['package_dir'] == {'valley_jax.configs': 'configs'}
  assert "'valley_jax.configs'" in (ROOT / 'setup.py').read_text()


def test_templates_travel_with_the_package():
  suffixes = {
      path.suffix
      for path in (ROOT / 'valley_jax').rglob('*')
      if path.is_file() and '__pycache__' not in path.parts
  }
  packaged = {
      pathlib.PurePath(pattern).suffix for pattern in _setup()['package_data']['valley_jax']
  }
  assert suffixes <= packaged | {'.py'}


@scripts
def test_a_script_parses_and_stops_at_the_first_error(script):
  subprocess.run(['bash', '-n', script], check=True)
  assert 'set -euo pipefail' in script.read_text()


@scripts
def test_a_script_passes_shellcheck(script):
  if not shutil.which('shellcheck'):
    pytest.skip('shellcheck is not installed')
  subprocess.run(['shellcheck', script], check=True)


@pytest.mark.parametrize(
    ('python', 'message'),
    [
        ('python3.99', 'PYTHON=python3.99: no such Python that runs'),
        ('/bin/false', 'PYTHON=/bin/false: no such Python that runs'),
        ('{old}', 'is Python 3.10; valley_jax needs Python 3.11, 3.12 or 3.13'),
    ],
)
def test_a_python_that_will_not_do_is_refused_with_a_remedy(tmp_path, python, message):
  old = tmp_path / 'python'
  old.write_text(f'#!/bin/sh\necho 3.10 {old}\n')
  old.chmod(0o755)
  shutil.copytree(ROOT / 'launch', tmp_path / 'launch')
  (tmp_path / 'setup.py').touch()
  # With these in the path, nothing is installed on the machine.
  for name in ('bwrap', 'g++'):
    (tmp_path / name).symlink_to('/bin/true')
  run = subprocess.run(
      ['bash', 'launch/setup.sh'],
      cwd=tmp_path,
      env={'PATH': f'{tmp_path}:/usr/bin:/bin', 'PYTHON': python.format(old=old)},
      capture_output=True,
      text=True,
      timeout=30,
  )
  assert run.returncode == 1
  assert message in run.stderr
  assert 'PYTHON=/path' in run.stderr
  assert not (tmp_path / '.venv').exists()


def test_what_the_judge_needs_is_installed_at_once(tmp_path):
  shutil.copytree(ROOT / 'launch', tmp_path / 'launch')
  (tmp_path / 'setup.py').touch()
  programs = tmp_path / 'programs'  # Neither bwrap nor g++ among them.
  programs.mkdir()
  for name in ('cat', 'dirname', 'env', 'flock', 'mkdir', 'sha256sum'):
    (programs / name).symlink_to(shutil.which(name) or '')
  apt_log = tmp_path / 'apt_log'
  apt = programs / 'apt-get'
  apt.write_text(f'#!/bin/bash\necho "$@" >>{apt_log}\n')
  apt.chmod(0o755)
  run = subprocess.run(
      ['/bin/bash', 'launch/setup.sh'],
      cwd=tmp_path,
      env={'PATH': str(programs), 'PYTHON': '/bin/false'},
      capture_output=True,
      text=True,
      timeout=30,
  )
  commands = apt_log.read_text() if apt_log.exists() else run.stderr
  assert 'install -y' in commands and 'bubblewrap g++' in commands
