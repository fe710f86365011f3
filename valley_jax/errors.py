"""The one exception that is written for the person who typed the command."""


class UserError(ValueError):
  """Bad input, a wrong setting or a missing file, told in one line with its remedy.

  Entry points print its message without a traceback and exit with status 1. Every other exception
  is a fault of this package and keeps its traceback.
  """
