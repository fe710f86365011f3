"""What every entry point shares: `--config FILE:ARG`, `--workdir`, `--help`, user errors."""

from collections.abc import Callable
import importlib.util
import pathlib
import shlex
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging
import ml_collections as mlc
from ml_collections import config_flags

from valley_jax import errors


def answer_help(needs_workdir: bool = True) -> None:
  """Prints the docstring and flags of the program and exits, if the command line asks for `--help`.

  Call it ahead of imports that take seconds. The text that a reader of the code sees first is the
  text that a user of the command sees. A subcommand, such as `shard inspect`, answers for itself.

  Args:
    needs_workdir: Whether there is a flag `--workdir`.
  """
  arguments = sys.argv[1:]
  if {'--help', '-help', '--helpshort'}.isdisjoint(arguments) or arguments[0][0] != '-':
    return
  _define_flags(needs_workdir)
  app.run(lambda unused_argv: None, [sys.argv[0], '--help'])


def run(verb: Callable[..., object], needs_workdir: bool = True) -> None:
  """Parses the command line and calls `verb(config, workdir)`.

  Args:
    verb: The entry point's function.
    needs_workdir: Whether there is a flag `--workdir`; without it this calls `verb(config)`.
  """
  config, workdir = _define_flags(needs_workdir)
  # Libraries' messages would bury the progress bars; --verbosity=0 shows them.
  logging.set_verbosity(logging.WARNING)

  def call_verb(unused_argv: list[str]) -> None:
    try:
      verb(_record_command(config.value), *[workdir.value] * needs_workdir)
    except errors.UserError as error:
      if logging.get_verbosity() >= logging.INFO:
        raise
      sys.exit(f'{_program_name()}: {error}\n(--verbosity=0 shows where this was raised.)')

  app.run(call_verb)


def _define_flags(needs_workdir: bool) -> tuple[flags.FlagHolder, flags.FlagHolder]:
  config = config_flags.DEFINE_config_file(
      'config',
      None,
      'The config, configs/FILE.py or configs/FILE.py:ARG. Any of its fields can be overridden:'
      ' --config.train.batch_size=32.',
      lock_config=True,
  )
  workdir = flags.DEFINE_string(
      'workdir', None, "The run's directory; created if absent, resumed if present."
  )
  required = (config, workdir) if needs_workdir else (config,)
  for flag in required:
    # `--help` shows the key flags of the main module alone.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[flag.name])
  flags.mark_flags_as_required([flag.name for flag in required])
  return config, workdir


def _program_name() -> str:
  return pathlib.Path(sys.argv[0]).stem


def _record_command(config: mlc.ConfigDict) -> mlc.ConfigDict:
  """Stores the command line in the config, for the report, with `DIR` for the workdir."""
  words = [f'python -m valley_jax.{_program_name()}', '--workdir DIR']
  skip = False
  for word in sys.argv[1:]:
    if not skip and not word.startswith('--workdir'):
      words.append(shlex.quote(word))
    skip = word == '--workdir'
  with config.unlocked():
    config.command = ' '.join(words)
  return config


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


def parse_config_argument(arg: str | None, **defaults: Any) -> mlc.ConfigDict:
  """Parses `a=1,b` by the types of the defaults.

  Args:
    arg: Comma-separated `name=value`; a bare `name` means `name=true`.
    **defaults: The default value of every name that there is.

  Returns:
    A locked config dict with one entry for each default.

  Raises:
    UserError: The argument has an unknown name, or a value of another type than the default's.

  Example:
    >>> parse_config_argument('mini,seeds=3', mini=False, seeds=1).seeds
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
