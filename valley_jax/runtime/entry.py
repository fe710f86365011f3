"""What every entry point shares: the flags `--config` and `--workdir`, `--help`, user errors."""

from collections.abc import Callable
import pathlib
import shlex
import sys

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
    needs_workdir: As for `run`.
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
