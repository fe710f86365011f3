"""What every entry point shares: two flags, and a `--help` that teaches."""

from collections.abc import Callable
import inspect
import pathlib
import shlex
import sys

from absl import app
from absl import flags
from absl import logging
import ml_collections as mlc
from ml_collections import config_flags

from valley_jax import errors


def run(verb: Callable[..., object], needs_workdir: bool = True) -> None:
  """Parses `--config` and `--workdir` and calls `verb(config, workdir)`.

  Or without a workdir: `verb(config)`.

  `--help` prints the docstring of the verb's module, so that the text a
  reader of the code sees is the text a user of the command sees.
  """
  config = config_flags.DEFINE_config_file(
      'config',
      None,
      'What to do: configs/FILE.py or configs/FILE.py:ARG. Any field can be'
      ' overridden: --config.train.batch_size=32.',
      lock_config=True,
  )
  workdir = flags.DEFINE_string(
      'workdir', None, 'Where the run lives; made if absent, resumed if not.'
  )
  holders = (config, workdir) if needs_workdir else (config,)
  for holder in holders:
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[holder.name])
  flags.mark_flags_as_required([holder.name for holder in holders])
  module = inspect.getmodule(verb)
  sys.modules['__main__'].__doc__ = module.__doc__ if module else None
  # Libraries' chatter would bury the progress; --verbosity=0 brings it back.
  logging.set_verbosity(logging.WARNING)

  def main(_) -> None:
    try:
      verb(_with_command(config.value), *[workdir.value] * needs_workdir)
    except errors.UserError as error:
      if logging.get_verbosity() >= logging.INFO:
        raise
      sys.exit(
          f'{pathlib.Path(sys.argv[0]).stem}: {error}\n'
          '(--verbosity=0 shows where this was raised.)'
      )

  app.run(main)


def _with_command(config: mlc.ConfigDict) -> mlc.ConfigDict:
  """Records what was typed, for the report; the workdir is the reader's."""
  name = pathlib.Path(sys.argv[0]).stem
  words = [f'python -m valley_jax.{name}', '--workdir DIR']
  skip = False
  for word in sys.argv[1:]:
    if not skip and not word.startswith('--workdir'):
      words.append(shlex.quote(word))
    skip = word == '--workdir'
  with config.unlocked():
    config.command = ' '.join(words)
  return config
