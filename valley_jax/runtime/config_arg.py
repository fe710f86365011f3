"""The argument of a config file: `configs/valley.py:mini,seeds=3`."""

import importlib.util
import pathlib
from typing import Any

import ml_collections as mlc

from valley_jax import errors

_BOOLEANS = {'true': True, 'false': False, '1': True, '0': False}


def _cast(name: str, text: str, default: Any) -> Any:
  if isinstance(default, bool):
    if text.lower() not in _BOOLEANS:
      raise errors.UserError(f'Config argument {name}={text}: want true or false.')
    return _BOOLEANS[text.lower()]
  try:
    return type(default)(text)
  except ValueError as e:
    raise errors.UserError(
        f'Config argument {name}={text}: want {type(default).__name__}, like' f' {name}={default}.'
    ) from e


def parse(arg: str | None, **defaults: Any) -> mlc.ConfigDict:
  """Parses `a=1,b` against defaults, whose types say how to read values.

  Args:
    arg: Comma-separated `name=value`; a bare `name` means `name=true`.
    **defaults: Every name that exists, with its default value.

  Returns:
    A locked config dict with one entry a default.

  Raises:
    ValueError: an unknown name, or a value of another type than the default.

  Example:
    >>> parse('mini,seeds=3', mini=False, seeds=1).seeds
    3
  """
  values = dict(defaults)
  for item in filter(None, (arg or '').split(',')):
    name, equals, text = item.partition('=')
    if name not in defaults:
      raise errors.UserError(
          f'Config argument {name!r} is unknown; this file has:' f' {", ".join(sorted(defaults))}.'
      )
    values[name] = _cast(name, text if equals else 'true', defaults[name])
  return mlc.ConfigDict(values).lock()


def read_beside(file: str, name: str, arg: str) -> mlc.ConfigDict:
  """Reads another config file; configs are files, not a package.

  Args:
    file: `__file__` of the one that asks.
    name: Of the one beside it, such as valley.py.
    arg: Its argument.
  """
  path = pathlib.Path(file).with_name(name)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)
