"""Imports go one way: the table of the packages, held against the code."""

import ast
import functools
import itertools
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / 'valley_jax'

VERBS = {'label', 'shard', 'train', 'sample', 'execute', 'score', 'report'}
ENTRY_POINTS = VERBS | {'plan', 'convert', 'curate', 'study', 'teach'}
# Those that call others: a study all verbs, a teacher's traces are samples.
CALLS = {'study': VERBS, 'teach': {'sample'}}

# What each part may import of the others. Entry points may import every part,
# but no entry point other than those in CALLS.
MAY_IMPORT = {
    'errors': set(),
    'records': {'errors'},
    'jsonl': {'errors', 'records'},
    'programs': {'errors', 'records'},
    'runtime': {'errors', 'jsonl', 'records'},
    'execution': {'errors', 'jsonl', 'records'},
    'scoring': {'errors', 'execution', 'programs', 'jsonl', 'records'},
    # A trace is filtered by the program that a completion is scored by.
    'data': {'errors', 'programs', 'jsonl', 'records', 'runtime'},
    'models': {'errors', 'runtime'},
    'training': {'errors', 'models', 'runtime'},
    'sampling': {'errors', 'models', 'jsonl', 'records', 'runtime'},
    'planning': {'errors', 'models', 'runtime', 'sampling', 'training'},
    # One path from parameters to verdicts.
    'rollouts': {
        'data',
        'errors',
        'execution',
        'models',
        'programs',
        'jsonl',
        'records',
        'runtime',
        'sampling',
        'scoring',
    },
    # It looks at a run from all sides.
    'watching': {
        'data',
        'errors',
        'execution',
        'models',
        'programs',
        'jsonl',
        'records',
        'rollouts',
        'runtime',
        'sampling',
        'scoring',
        'training',
    },
    'analysis': {'errors', 'jsonl', 'records'},
    'mini': {'errors', 'jsonl', 'records'},
}
PARTS = set(MAY_IMPORT)

JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax'}
NEVER_JAX = {'errors', 'execution', 'jsonl', 'scoring', 'mini', 'programs', 'records'}
NEVER_JAX |= {'execute', 'label', 'score', 'report'}

# PID 1 of a sandbox: it imports the files that lie beside it there.
PROGRAMS = {'valley_jax.execution.inside.lcb_inside', 'valley_jax.execution.inside.supervisor'}

# Files that may import a library which we keep at arm's length.
MAY_USE = {
    'torch': {'convert.py'},  # Inside the function that compares with it.
    'tensorflow': set(),
    'orbax': {'runtime/checkpoints.py', 'models/pretrained.py'},
}


def _files():
  return sorted(PACKAGE.rglob('*.py'))


def _part(path: pathlib.Path) -> str:
  """The first name below valley_jax: a package, a leaf or an entry point."""
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


@functools.cache
def _imports(path: pathlib.Path) -> frozenset[str]:
  """Every module that a file imports, at its top or inside a function."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}:{node.lineno}: a relative import'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return frozenset(names)


def _own(path: pathlib.Path) -> set[str]:
  """The parts of valley_jax that a file imports."""
  names = (name.split('.') for name in _imports(path))
  return {name[1] for name in names if name[0] == 'valley_jax' and name[1:]}


def _foreign(path: pathlib.Path) -> set[str]:
  return {name.split('.')[0] for name in _imports(path)} - {'valley_jax'}


def _arrows():
  for path in _files():
    for target in _own(path) - {_part(path)}:
      yield _part(path), target, path.relative_to(PACKAGE.parent)


def test_every_file_has_its_place_in_the_table():
  known = PARTS | ENTRY_POINTS | {'__init__'}
  assert {_part(path) for path in _files()} <= known


def test_packages_and_leaves_import_only_what_the_table_allows():
  wrong = [
      f'{file}: {part} -> {target}'
      for part, target, file in _arrows()
      if part in PARTS and target not in MAY_IMPORT[part]
  ]
  assert not wrong, wrong


def test_entry_points_do_not_import_one_another():
  wrong = [
      f'{file}: {part} -> {target}'
      for part, target, file in _arrows()
      if target in ENTRY_POINTS and target not in CALLS.get(part, ())
  ]
  assert not wrong, wrong


def test_the_table_has_no_cycle():
  reached = dict(MAY_IMPORT)
  for _ in PARTS:
    reached = {
        part: set(targets).union(*(reached[target] for target in targets))
        for part, targets in reached.items()
    }
  assert not [part for part in PARTS if part in reached[part]]


def test_parts_without_jax_name_it_nowhere():
  wrong = [
      f'{path.relative_to(PACKAGE)}: {sorted(_foreign(path) & JAX)}'
      for path in _files()
      if _part(path) in NEVER_JAX and _foreign(path) & JAX
  ]
  assert not wrong, wrong


def test_data_imports_no_jax_by_itself():
  assert not [path for path in (PACKAGE / 'data').rglob('*.py') if _foreign(path) & JAX]


@pytest.mark.parametrize('library', MAY_USE)
def test_libraries_at_arms_length_are_met_where_they_are_allowed(library):
  users = {path.relative_to(PACKAGE).as_posix() for path in _files() if library in _foreign(path)}
  assert users <= MAY_USE[library]


def test_nnx_transforms_are_not_used():
  banned = {'jit', 'grad', 'value_and_grad', 'scan', 'vmap', 'remat', 'pmap'}
  wrong = [
      f'{path.relative_to(PACKAGE)}:{node.lineno}: nnx.{node.attr}'
      for path in _files()
      for node in ast.walk(ast.parse(path.read_text()))
      if isinstance(node, ast.Attribute)
      and isinstance(node.value, ast.Name)
      and (node.value.id, node.attr) in itertools.product({'nnx'}, banned)
  ]
  assert not wrong, wrong


def _modules(*parts: str) -> set[str]:
  """The dotted names of all modules of these packages."""
  return {
      '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
      for part in parts
      for path in sorted((PACKAGE / part).rglob('*.py'))
      if path.name != '__init__.py'
  }


# Verbs without JAX need these of `runtime`.
LEAVES = {
    'errors',
    'jsonl',
    'programs',
    'records',
    'runtime.entry',
    'runtime.storage',
    'runtime.metrics',
}


@pytest.mark.parametrize(
    'modules',
    [
        _modules('execution', 'scoring', 'mini') - PROGRAMS,
        {f'valley_jax.{name}' for name in LEAVES},
        {f'valley_jax.{name}' for name in ('data.problem_formats.problems', *NEVER_JAX & VERBS)},
    ],
    ids=['packages', 'leaves', 'verbs'],
)
def test_executing_and_scoring_import_where_there_is_no_jax(modules):
  program = f"""
import importlib
import sys

# A module that is None raises ModuleNotFoundError when it is imported.
sys.modules.update(dict.fromkeys({sorted(JAX)}))
for name in {sorted(modules)}:
  importlib.import_module(name)
"""
  subprocess.run([sys.executable, '-c', program], check=True, timeout=60)
