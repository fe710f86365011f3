"""The argument of a config file: `configs/valley.py:mini,seeds=3`."""

import importlib.util
import pathlib
from typing import Any

import ml_collections as mlc

from valley_jax import errors

_BOOLEANS = {'true': True, 'false': False, '1': True, '0': False}


def _convert_value(name: str, text: str, default: Any) -> Any:
  if isinstance(default, bool):
    if text.lower() not in _BOOLEANS:
      raise errors.UserError(f'Config argument {name}={text}: want true or false.')
    return _BOOLEANS[text.lower()]
  try:
    return type(default)(text)
  except ValueError as error:
    wanted = f'{type(default).__name__}, such as {name}={default}'
    raise errors.UserError(f'Config argument {name}={text}: want {wanted}.') from error


def parse_config_arg(arg: str | None, **defaults: Any) -> mlc.ConfigDict:
  """Parses `a=1,b` by the types of the defaults.

  Args:
    arg: Comma-separated `name=value`; a bare `name` means `name=true`.
    **defaults: The default value of every name that there is.

  Returns:
    A locked config dict with one entry for each default.

  Raises:
    UserError: The argument has an unknown name, or a value of another type than the default's.

  Example:
    >>> parse_config_arg('mini,seeds=3', mini=False, seeds=1).seeds
    3
  """
  values = dict(defaults)
  for item in filter(None, (arg or '').split(',')):
    name, equals, text = item.partition('=')
    if name not in defaults:
      known = ', '.join(sorted(defaults))
      raise errors.UserError(f'Config argument {name!r} is unknown; this file has: {known}.')
    values[name] = _convert_value(name, text if equals else 'true', defaults[name])
  return mlc.ConfigDict(values).lock()


def read_sibling_config(file: str, name: str, arg: str) -> mlc.ConfigDict:
  """Reads another config of the same folder, which need not be an importable package.

  Args:
    file: `__file__` of the config that calls this.
    name: File name of the other config, such as valley.py.
    arg: The other config's argument.
  """
  path = pathlib.Path(file).with_name(name)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)
