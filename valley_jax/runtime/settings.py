"""Turns a config group into frozen settings, checked against their annotations.

Limits are in the types, with a description that the error message ends with:

    Share = Annotated[float, msgspec.Meta(ge=0, le=1, description='a number from 0 to 1')]
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from valley_jax import errors

Settings = TypeVar('Settings')


def convert_group(group: Mapping[str, Any], name: str, settings_type: type[Settings]) -> Settings:
  """Returns `config.<name>` as a frozen dataclass.

  Args:
    group: The config group.
    name: The group's name, for messages.
    settings_type: A dataclass whose fields are those of the group; those with a default may be
      left out.

  Raises:
    UserError: a field that is unknown or missing, or a value that its type does not allow.
  """
  hints = get_type_hints(settings_type, include_extras=True)
  fields = {field.name: field for field in dataclasses.fields(settings_type)}  # pyright: ignore
  required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
  for field in sorted({*group} ^ {*fields}):
    if field not in fields or field in required:
      problem = 'is missing' if field in fields else 'is unknown'
      raise errors.UserError(
          f'config.{name}.{field} {problem}; its fields are {", ".join(fields)}.'
      )
  values = {}
  for field, value in group.items():
    try:
      values[field] = msgspec.convert(value, hints[field])
    except msgspec.ValidationError as e:
      wanted = _describe_type(hints[field]) or str(e)
      raise errors.UserError(f'config.{name}.{field}={value!r}: want {wanted}.') from e
  return settings_type(**values)


def _describe_type(hint: Any) -> str:
  """Returns what values of a type are, in words; '' if that is not known."""
  for argument in get_args(hint):
    if isinstance(argument, msgspec.Meta) and argument.description:
      return argument.description
  if get_origin(hint) is Literal:
    return f'one of {", ".join(map(str, get_args(hint)))}'
  return 'True or False' if hint is bool else ''
